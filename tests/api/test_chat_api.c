/* Chats and completions as clients see them, over a fake cluster. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "api/api_rig.h"
#include "base/mem.h"
#include "support/tiny_vocab.h"

#define CHAT     "/v1/chat/completions"
#define COMPLETE "/v1/completions"
#define HELLO    "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define TOOLS                                                                                      \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"weather\",\"parameters\":"         \
    "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"}},\"required\":"           \
    "[\"city\"]}}},{\"type\":\"function\",\"function\":{\"name\":\"time\",\"parameters\":"         \
    "{\"type\":\"object\",\"properties\":{}}}}]"

static int setup(void **state)
{
    struct api_rig *r = mem_zalloc(1, sizeof *r);

    api_rig_open(r, NULL);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    api_rig_close(*state);
    free(*state);
    return 0;
}

/* Concatenation of a field of all events' first choices. */
static char *joined(const json_t *events, const char *path)
{
    char *all = mem_strdup("");

    for (size_t i = 0; i < json_array_size(events); i++) {
        char *more = mem_printf("%s%s", all, at_text(json_array_get(events, i), path));

        free(all);
        all = more;
    }
    return all;
}

static char *prompt_text(struct api_rig *r)
{
    const struct fake_seen *seen = fake_seen(r->cluster);
    char *all = mem_zalloc((size_t)seen->n_prompt * 16 + 1, 1);
    size_t n = 0;

    for (int i = 0; i < seen->n_prompt; i++) {
        int got = text_piece(cluster_text(r->cluster), seen->prompt[i], true, all + n, 16);

        n += got > 0 ? (size_t)got : 0;
    }
    return all;
}

/* ---- chats ---- */

static void test_chat(void **state)
{
    struct api_rig *r = *state;
    json_t *a = api_json(r, CHAT, "{\"model\":\"gpt-4o\"," HELLO "}", 200);
    char *prompt = prompt_text(r);

    assert_string_equal(at_text(a, "object"), "chat.completion");
    assert_string_equal(at_text(a, "model"), "tiny");
    assert_string_equal(at_text(a, "choices.0.message.role"), "assistant");
    assert_string_equal(at_text(a, "choices.0.message.content"), "Hello.");
    assert_string_equal(at_text(a, "choices.0.finish_reason"), "stop");
    assert_true(json_is_null(at(a, "choices.0.logprobs")));
    assert_true(strncmp(at_text(a, "id"), "chatcmpl-", 9) == 0);
    assert_true(*at_text(a, "system_fingerprint"));
    assert_true(at_number(a, "created") > 1600000000);
    assert_int_equal(at_number(a, "usage.completion_tokens"), 6);
    assert_int_equal(at_number(a, "usage.prompt_tokens"), fake_seen(r->cluster)->n_prompt);
    assert_int_equal(at_number(a, "usage.total_tokens"), fake_seen(r->cluster)->n_prompt + 6);
    assert_int_equal(at_number(a, "usage.prompt_tokens_details.cached_tokens"),
                     fake_seen(r->cluster)->n_prompt / 2);
    if (!strstr(prompt, "<|im_start|> user\nhi<|im_end|>"))
        fail_msg("%s", prompt);
    assert_int_equal(fake_seen(r->cluster)->prompt[0], TINY_BOS);
    free(prompt);
    json_decref(a);
}

static void test_chat_settings_arrive(void **state)
{
    struct api_rig *r = *state;
    const struct fake_seen *seen = fake_seen(r->cluster);

    json_decref(api_json(r, CHAT,
                         "{" HELLO ",\"max_completion_tokens\":3,\"stop\":[\"x\",\"yy\"],"
                         "\"logprobs\":true,\"top_logprobs\":2,\"cache_prompt\":false,"
                         "\"id_slot\":1,\"t_max_predict_ms\":77}",
                         200));
    assert_int_equal(seen->last.n_max, 3);
    assert_int_equal(seen->last.n_top, 2);
    assert_int_equal(seen->last.slot, 1);
    assert_int_equal(seen->last.ms_max, 77);
    assert_true(seen->last.fresh);
    assert_true(seen->n_stops >= 2);
    assert_string_equal(seen->stop[0], "x");
    assert_string_equal(seen->stop[1], "yy");
}

static void test_chat_ends(void **state)
{
    struct api_rig *r = *state;
    json_t *a = api_json(r, CHAT, "{" HELLO ",\"max_tokens\":2}", 200);

    assert_string_equal(at_text(a, "choices.0.message.content"), "He");
    assert_string_equal(at_text(a, "choices.0.finish_reason"), "length");
    json_decref(a);
    a = api_json(r, CHAT, "{" HELLO ",\"stop\":\"lo\"}", 200);
    assert_string_equal(at_text(a, "choices.0.message.content"), "Hel");
    assert_string_equal(at_text(a, "choices.0.finish_reason"), "stop");
    json_decref(a);
}

static void test_chat_logprobs(void **state)
{
    struct api_rig *r = *state;
    json_t *a;

    fake_wish(r->cluster)->answer = "a\xc3\xa9";
    a = api_json(r, CHAT, "{" HELLO ",\"logprobs\":true,\"top_logprobs\":2}", 200);
    assert_int_equal(json_array_size(at(a, "choices.0.logprobs.content")), 3);
    assert_string_equal(at_text(a, "choices.0.logprobs.content.0.token"), "a");
    assert_true(json_real_value(at(a, "choices.0.logprobs.content.0.logprob")) == -0.25);
    assert_int_equal(at_number(a, "choices.0.logprobs.content.1.bytes.0"), 0xc3);
    /* Half a character is no text; its bytes tell. */
    assert_string_equal(at_text(a, "choices.0.logprobs.content.1.token"), "\xef\xbf\xbd");
    assert_int_equal(json_array_size(at(a, "choices.0.logprobs.content.0.top_logprobs")), 2);
    assert_string_equal(at_text(a, "choices.0.logprobs.content.0.top_logprobs.0.token"), "x");
    json_decref(a);
    a = api_json(r, CHAT, "{" HELLO ",\"logprobs\":true}", 200);
    assert_int_equal(json_array_size(at(a, "choices.0.logprobs.content.0.top_logprobs")), 0);
    json_decref(a);
}

static void test_chat_stream(void **state)
{
    struct api_rig *r = *state;
    json_t *events, *last;
    char *text;
    size_t n;

    fake_wish(r->cluster)->answer = "Gr\xc3\xbc\xc3\x9f dich";
    events = api_events(r, CHAT,
                        "{" HELLO ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    n = json_array_size(events);
    text = joined(events, "choices.0.delta.content");
    assert_string_equal(text, "Gr\xc3\xbc\xc3\x9f dich");
    free(text);
    assert_string_equal(at_text(events, "0.choices.0.delta.role"), "assistant");
    assert_string_equal(at_text(events, "0.object"), "chat.completion.chunk");
    assert_true(json_is_null(at(events, "0.usage")));
    assert_true(json_is_null(at(events, "1.choices.0.finish_reason")));
    assert_string_equal(json_string_value(json_array_get(events, n - 1)), "[DONE]");
    last = json_array_get(events, n - 2);
    assert_int_equal(json_array_size(at(last, "choices")), 0);
    assert_int_equal(at_number(last, "usage.completion_tokens"), 11);
    assert_string_equal(at_text(json_array_get(events, n - 3), "choices.0.finish_reason"), "stop");
    for (size_t i = 1; i + 1 < n; i++)
        assert_string_equal(at_text(json_array_get(events, i), "id"), at_text(events, "0.id"));
    json_decref(events);
    /* And without: no usage anywhere. */
    events = api_events(r, CHAT, "{" HELLO ",\"stream\":true,\"logprobs\":true}");
    assert_null(at(events, "0.usage"));
    text = joined(events, "choices.0.logprobs.content.0.token");
    assert_true(strncmp(text, "Gr", 2) == 0);
    free(text);
    json_decref(events);
}

static void test_chat_choices(void **state)
{
    struct api_rig *r = *state;
    json_t *a = api_json(r, CHAT, "{" HELLO ",\"n\":3}", 200), *events;
    int seen[2] = {0};

    assert_int_equal(json_array_size(at(a, "choices")), 3);
    assert_int_equal(at_number(a, "choices.2.index"), 2);
    assert_string_equal(at_text(a, "choices.2.message.content"), "Hello.");
    assert_int_equal(fake_seen(r->cluster)->n_after, 2);
    /* The prompt was read once. */
    assert_int_equal(at_number(a, "usage.prompt_tokens"), fake_seen(r->cluster)->n_prompt);
    assert_int_equal(at_number(a, "usage.completion_tokens"), 18);
    json_decref(a);
    events = api_events(r, CHAT, "{" HELLO ",\"n\":2,\"stream\":true}");
    for (size_t i = 0; i + 1 < json_array_size(events); i++)
        if (*at_text(json_array_get(events, i), "choices.0.finish_reason"))
            seen[at_number(json_array_get(events, i), "choices.0.index")]++;
    assert_int_equal(seen[0], 1);
    assert_int_equal(seen[1], 1);
    json_decref(events);
}

static void test_developer_and_parts(void **state)
{
    struct api_rig *r = *state;
    char *prompt;

    json_decref(api_json(r, CHAT,
                         "{\"messages\":[{\"role\":\"developer\",\"content\":\"short\"},"
                         "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"one\"}]}]}",
                         200));
    prompt = prompt_text(r);
    assert_non_null(strstr(prompt, "<|im_start|> system\nshort<|im_end|>"));
    assert_non_null(strstr(prompt, "<|im_start|> user\none<|im_end|>"));
    free(prompt);
}

/* ---- tools ---- */

static const char call_text[] =
    "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Bonn\"}}\n</tool_call>";

static void test_tools(void **state)
{
    struct api_rig *r = *state;
    json_t *a, *events, *arguments;
    char *prompt, *text;
    size_t n;

    fake_wish(r->cluster)->answer = call_text;
    a = api_json(r, CHAT, "{" HELLO "," TOOLS "}", 200);
    prompt = prompt_text(r);
    assert_non_null(strstr(prompt, "\"weather\""));
    free(prompt);
    assert_string_equal(at_text(a, "choices.0.finish_reason"), "tool_calls");
    assert_string_equal(at_text(a, "choices.0.message.tool_calls.0.type"), "function");
    assert_string_equal(at_text(a, "choices.0.message.tool_calls.0.function.name"), "weather");
    arguments =
        json_loads(at_text(a, "choices.0.message.tool_calls.0.function.arguments"), 0, NULL);
    assert_string_equal(at_text(arguments, "city"), "Bonn");
    json_decref(arguments);
    json_decref(a);

    events = api_events(r, CHAT, "{" HELLO "," TOOLS ",\"stream\":true}");
    n = json_array_size(events);
    text = joined(events, "choices.0.delta.tool_calls.0.function.arguments");
    arguments = json_loads(text, 0, NULL);
    assert_string_equal(at_text(arguments, "city"), "Bonn");
    json_decref(arguments);
    free(text);
    text = joined(events, "choices.0.delta.tool_calls.0.function.name");
    assert_string_equal(text, "weather");
    free(text);
    assert_string_equal(at_text(json_array_get(events, n - 2), "choices.0.finish_reason"),
                        "tool_calls");
    json_decref(events);
}

static void test_tool_choice(void **state)
{
    struct api_rig *r = *state;
    json_t *a;
    char *prompt;

    fake_wish(r->cluster)->answer = call_text;
    a = api_json(r, CHAT,
                 "{" HELLO "," TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":"
                 "{\"name\":\"weather\"}}}",
                 200);
    prompt = prompt_text(r);
    assert_non_null(strstr(prompt, "\"weather\""));
    assert_null(strstr(prompt, "\"time\""));
    free(prompt);
    json_decref(a);
    a = api_json(r, CHAT,
                 "{" HELLO "," TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":"
                 "{\"name\":\"fly\"}}}",
                 400);
    assert_string_equal(at_text(a, "error.param"), "tool_choice");
    json_decref(a);
    a = api_json(r, CHAT, "{" HELLO ",\"tool_choice\":\"required\"}", 400);
    json_decref(a);
    fake_wish(r->cluster)->answer = "No call.";
    a = api_json(r, CHAT, "{" HELLO "," TOOLS ",\"tool_choice\":\"none\"}", 200);
    assert_string_equal(at_text(a, "choices.0.message.content"), "No call.");
    assert_string_equal(at_text(a, "choices.0.finish_reason"), "stop");
    json_decref(a);
}

/* ---- faults ---- */

static void test_bad_chats(void **state)
{
    static const struct {
        const char *body, *param;
    } bad[] = {
        {"{}", "messages"},
        {"{\"messages\":[]}", "messages"},
        {"{\"messages\":[{\"role\":\"pope\",\"content\":\"x\"}]}", "messages[0].role"},
        {"{\"messages\":[{\"role\":\"user\"}]}", "messages[0].content"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
         "messages[0].content[0]"},
        {"{" HELLO ",\"temperature\":-1}", "temperature"},
        {"{" HELLO ",\"temperature\":\"hot\"}", "temperature"},
        {"{" HELLO ",\"n\":17}", "n"},
        {"{" HELLO ",\"stop\":5}", "stop"},
        {"{" HELLO ",\"logit_bias\":{\"99999999\":1}}", "logit_bias"},
        {"{" HELLO ",\"top_logprobs\":2}", "top_logprobs"},
        {"{" HELLO ",\"response_format\":{\"type\":\"xml\"}}", "response_format.type"},
        {"{" HELLO ",\"tools\":[{\"type\":\"magic\"}]}", "tools[0].type"},
        {"{" HELLO ",\"tool_choice\":\"perhaps\"}", "tool_choice"},
        {"{" HELLO ",\"grammar\":\"root ::= [\"}", NULL},
        {"[1]", NULL},
        {"{\"messages\":", NULL},
    };
    struct api_rig *r = *state;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        json_t *a = api_json(r, CHAT, bad[i].body, 400);

        assert_string_equal(at_text(a, "error.type"), "invalid_request_error");
        assert_true(strlen(at_text(a, "error.message")) > 10);
        if (bad[i].param)
            assert_string_equal(at_text(a, "error.param"), bad[i].param);
        json_decref(a);
    }
    assert_int_equal(fake_seen(r->cluster)->n_begun, 0);
}

static void test_too_long(void **state)
{
    struct api_rig *r = *state;
    json_t *a;

    fake_wish(r->cluster)->n_ctx = 5;
    a = api_json(r, CHAT, "{" HELLO "}", 400);
    assert_string_equal(at_text(a, "error.code"), "context_length_exceeded");
    assert_non_null(strstr(at_text(a, "error.message"), " 5 "));
    json_decref(a);
    a = api_json(r, "/completion", "{\"prompt\":\"a long prompt\"}", 400);
    assert_int_equal(at_number(a, "error.code"), 400);
    json_decref(a);
}

static void test_queue_full(void **state)
{
    struct api_rig *r = *state;
    struct client c;
    json_t *a;

    fake_wish(r->cluster)->busy = true;
    a = api_json(r, CHAT, "{" HELLO ",\"stream\":true}", 503);
    assert_string_equal(at_text(a, "error.code"), "server_busy");
    json_decref(a);
    api_begin(r, &c, CHAT, "{" HELLO ",\"n\":4}");
    assert_true(client_wait_end(&c));
    assert_non_null(strstr(c.in, "Retry-After: 3\r\n"));
    client_close(&c);
    assert_int_equal(fake_seen(r->cluster)->n_running, 0);
}

static void test_failure_in_mid_stream(void **state)
{
    struct api_rig *r = *state;
    json_t *events, *last, *a;

    fake_wish(r->cluster)->fail_after = 3;
    events = api_events(r, CHAT, "{" HELLO ",\"stream\":true,\"n\":2}");
    assert_int_equal(r->status, 200);
    last = json_array_get(events, json_array_size(events) - 1);
    assert_string_equal(at_text(last, "error.code"), "model_not_ready");
    assert_non_null(strstr(at_text(last, "error.message"), "pi has left"));
    json_decref(events);
    a = api_json(r, CHAT, "{" HELLO "}", 503);
    json_decref(a);
    assert_int_equal(fake_seen(r->cluster)->n_running, 0);
}

/* ---- clients that go, servers that end ---- */

static bool all_left(struct api_rig *r)
{
    for (int i = 0; i < 5000 && fake_seen(r->cluster)->n_running; i++)
        event_base_loop(r->base, EVLOOP_ONCE);
    return fake_seen(r->cluster)->n_running == 0;
}

static void test_client_goes(void **state)
{
    struct api_rig *r = *state;
    struct client c;

    fake_wish(r->cluster)->hold = true;
    api_begin(r, &c, CHAT, "{" HELLO ",\"n\":3}");
    while (fake_seen(r->cluster)->n_running < 3)
        event_base_loop(r->base, EVLOOP_ONCE);
    client_close(&c);
    assert_true(all_left(r));
    assert_int_equal(fake_seen(r->cluster)->n_cancelled, 3);
}

static void test_client_goes_in_a_stream(void **state)
{
    struct api_rig *r = *state;
    char *answer = mem_zalloc(400001, 1);
    struct client c;

    memset(answer, 'a', 400000);
    fake_wish(r->cluster)->answer = answer;
    api_begin(r, &c, COMPLETE, "{\"prompt\":\"hi\",\"max_tokens\":-1,\"stream\":true}");
    assert_true(client_wait(&c, "\"text\":\"a\""));
    client_close(&c);
    assert_true(all_left(r));
    assert_int_equal(fake_seen(r->cluster)->n_cancelled, 1);
    free(answer);
}

static void test_server_ends(void **state)
{
    struct api_rig *r = *state;
    struct client c[3];

    fake_wish(r->cluster)->hold = true;
    api_begin(r, &c[0], CHAT, "{" HELLO ",\"stream\":true}");
    while (fake_seen(r->cluster)->n_running < 1)
        event_base_loop(r->base, EVLOOP_ONCE);
    api_begin(r, &c[1], CHAT, "{" HELLO "}"); /* wherever it may be by then */
    api_begin(r, &c[2], CHAT, "{");
    api_close(r->api);
    r->api = NULL;
    for (int i = 0; i < 3; i++) {
        assert_true(client_wait_end(&c[i]));
        client_close(&c[i]);
    }
}

/* ---- completions ---- */

static void test_completion(void **state)
{
    struct api_rig *r = *state;
    json_t *a = api_json(r, COMPLETE, "{\"prompt\":\"hi\",\"echo\":true}", 200);

    assert_string_equal(at_text(a, "object"), "text_completion");
    assert_string_equal(at_text(a, "choices.0.text"), "hiHello.");
    assert_string_equal(at_text(a, "choices.0.finish_reason"), "stop");
    assert_int_equal(fake_seen(r->cluster)->last.n_max, 16);
    json_decref(a);
    a = api_json(r, COMPLETE, "{\"prompt\":[\"a\",\"b\"],\"n\":2,\"max_tokens\":1}", 200);
    assert_int_equal(json_array_size(at(a, "choices")), 4);
    assert_int_equal(at_number(a, "choices.3.index"), 3);
    assert_string_equal(at_text(a, "choices.3.text"), "H");
    assert_string_equal(at_text(a, "choices.3.finish_reason"), "length");
    json_decref(a);
    a = api_json(r, COMPLETE, "{\"prompt\":[100,101,102]}", 200);
    assert_int_equal(fake_seen(r->cluster)->n_prompt, 3);
    assert_int_equal(fake_seen(r->cluster)->prompt[2], 102);
    json_decref(a);
    a = api_json(r, COMPLETE, "{\"prompt\":[[100],[101,102]]}", 200);
    assert_int_equal(json_array_size(at(a, "choices")), 2);
    assert_int_equal(at_number(a, "usage.prompt_tokens"), 3);
    json_decref(a);
    a = api_json(r, COMPLETE, "{\"prompt\":\"hi\",\"suffix\":\"end\"}", 400);
    assert_string_equal(at_text(a, "error.param"), "suffix");
    json_decref(a);
    json_decref(api_json(r, COMPLETE, "{}", 400));
    json_decref(api_json(r, COMPLETE, "{\"prompt\":[1e9]}", 400));
    json_decref(api_json(r, COMPLETE, "{\"prompt\":[-1]}", 400));
    json_decref(api_json(r, COMPLETE, "{\"prompt\":[]}", 400));
}

static void test_completion_logprobs(void **state)
{
    struct api_rig *r = *state;
    json_t *a = api_json(r, COMPLETE, "{\"prompt\":\"hi\",\"logprobs\":2}", 200);

    assert_int_equal(json_array_size(at(a, "choices.0.logprobs.tokens")), 6);
    assert_string_equal(at_text(a, "choices.0.logprobs.tokens.1"), "e");
    assert_true(json_real_value(at(a, "choices.0.logprobs.token_logprobs.1")) == -0.25);
    assert_int_equal(at_number(a, "choices.0.logprobs.text_offset.5"), 5);
    assert_true(json_real_value(at(a, "choices.0.logprobs.top_logprobs.0.x")) == -0.5);
    json_decref(a);

    /* The prompt's own, by which benches score texts: "bc" follows "b", "c" is what follows "b". */
    a = api_json(r, COMPLETE,
                 "{\"prompt\":[101,102,102],\"logprobs\":1,\"echo\":true,\"max_tokens\":0}", 200);
    assert_int_equal(json_array_size(at(a, "choices.0.logprobs.tokens")), 3);
    assert_true(json_is_null(at(a, "choices.0.logprobs.token_logprobs.0")));
    assert_true(json_real_value(at(a, "choices.0.logprobs.token_logprobs.1")) >
                json_real_value(at(a, "choices.0.logprobs.token_logprobs.2")) + 4.9);
    assert_int_equal(json_object_size(at(a, "choices.0.logprobs.top_logprobs.1")), 1);
    assert_int_equal(at_number(a, "usage.prompt_tokens"), 3);
    assert_int_equal(at_number(a, "usage.completion_tokens"), 0);
    assert_string_equal(at_text(a, "choices.0.finish_reason"), "length");
    json_decref(a);
}

static void test_completion_stream(void **state)
{
    struct api_rig *r = *state;
    json_t *events = api_events(r, COMPLETE, "{\"prompt\":\"hi\",\"echo\":true,\"stream\":true}");
    char *text = joined(events, "choices.0.text");
    size_t n = json_array_size(events);

    assert_string_equal(text, "hiHello.");
    assert_string_equal(json_string_value(json_array_get(events, n - 1)), "[DONE]");
    assert_string_equal(at_text(json_array_get(events, n - 2), "choices.0.finish_reason"), "stop");
    free(text);
    json_decref(events);
}

static void test_native(void **state)
{
    struct api_rig *r = *state;
    json_t *a = api_json(r, "/completion",
                         "{\"prompt\":[1,\"hi\",102],\"n_predict\":4,\"return_tokens\":true,"
                         "\"n_probs\":1,\"stop\":[\"l\"],\"temperature\":0.5}",
                         200);

    assert_string_equal(at_text(a, "content"), "He");
    assert_string_equal(at_text(a, "stop_type"), "word");
    assert_string_equal(at_text(a, "stopping_word"), "l");
    assert_true(json_is_true(at(a, "stop")));
    assert_int_equal(at_number(a, "tokens_predicted"), 2);
    assert_int_equal(at_number(a, "tokens.0"), TINY_BYTE0 + 'H');
    assert_int_equal(at_number(a, "tokens_evaluated"), fake_seen(r->cluster)->n_prompt);
    assert_int_equal(at_number(a, "generation_settings.n_predict"), 4);
    assert_true(json_real_value(at(a, "generation_settings.temperature")) == 0.5);
    assert_int_equal(json_array_size(at(a, "completion_probabilities")), 2);
    assert_int_equal(at_number(a, "completion_probabilities.0.id"), TINY_BYTE0 + 'H');
    assert_int_equal(at_number(a, "timings.predicted_n"), 2);
    assert_true(at_number(a, "timings.prompt_ms") == 10);
    assert_int_equal(fake_seen(r->cluster)->prompt[0], TINY_BOS);
    json_decref(a);
    a = api_json(r, "/completions", "{\"prompt\":[\"a\",\"b\"]}", 200);
    assert_int_equal(json_array_size(a), 2);
    assert_string_equal(at_text(a, "1.content"), "Hello.");
    assert_int_equal(at_number(a, "1.index"), 1);
    json_decref(a);
    a = api_json(r, "/completion", "{\"prompt\":\"x\",\"json_schema\":{\"type\":\"integer\"}}",
                 200);
    json_decref(a);
    a = api_json(r, "/completion", "{\"prompt\":\"x\",\"grammar\":\"root ::= [\"}", 400);
    json_decref(a);
}

static void test_native_stream(void **state)
{
    struct api_rig *r = *state;
    json_t *events = api_events(r, "/completion", "{\"prompt\":\"hi\",\"stream\":true}");
    size_t n = json_array_size(events);
    char *text = mem_strdup("");

    for (size_t i = 0; i < n; i++) {
        char *more = mem_printf("%s%s", text, at_text(json_array_get(events, i), "content"));

        free(text);
        text = more;
        assert_int_equal(json_is_true(at(json_array_get(events, i), "stop")), i == n - 1);
    }
    assert_string_equal(text, "Hello.");
    assert_string_equal(at_text(json_array_get(events, n - 1), "stop_type"), "eos");
    free(text);
    json_decref(events);
}

static void test_alias(void **state)
{
    const struct api_opts opts = {.alias = "my\xff model"};
    struct api_rig r;
    json_t *a;

    api_rig_open(&r, &opts);
    a = api_json(&r, CHAT, "{" HELLO "}", 200);
    assert_string_equal(at_text(a, "model"), "my\xef\xbf\xbd model");
    json_decref(a);
    api_rig_close(&r);
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

/* The cluster's texts come later; whoever goes away before is forgotten. */
static void test_timeline(void **state)
{
    struct api_rig *r = *state;
    struct client first, second;
    json_t *o = api_json(r, "/cluster/timeline", NULL, 200);

    assert_non_null(at(o, "spans"));
    json_decref(o);
    o = api_json(r, "/cluster/trace", NULL, 200);
    assert_non_null(at(o, "traceEvents"));
    json_decref(o);
    api_begin(r, &first, "/cluster/trace", NULL);
    api_begin(r, &second, "/cluster/timeline", NULL); /* one at a time is what the fake takes */
    assert_true(client_wait(&second, "too many look"));
    assert_non_null(strstr(second.in, "503"));
    client_close(&second);
    assert_true(client_wait(&first, "traceEvents"));
    assert_non_null(strstr(first.in, "attachment; filename=\"lingua-trace.json\""));
    client_close(&first);
    api_begin(r, &first, "/cluster/timeline", NULL);
    api_begin(r, &second, "/cluster/timeline", NULL);
    assert_true(client_wait(&second, "503")); /* so the first is there, and waits */
    client_close(&second);
    client_close(&first);
    json_decref(api_json(r, "/health", NULL, 200));
    json_decref(api_json(r, "/cluster/timeline", NULL, 200));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(test_chat),
        EACH(test_chat_settings_arrive),
        EACH(test_chat_ends),
        EACH(test_chat_logprobs),
        EACH(test_chat_stream),
        EACH(test_chat_choices),
        EACH(test_developer_and_parts),
        EACH(test_tools),
        EACH(test_tool_choice),
        EACH(test_bad_chats),
        EACH(test_too_long),
        EACH(test_queue_full),
        EACH(test_failure_in_mid_stream),
        EACH(test_client_goes),
        EACH(test_client_goes_in_a_stream),
        EACH(test_server_ends),
        EACH(test_completion),
        EACH(test_completion_logprobs),
        EACH(test_completion_stream),
        EACH(test_native),
        EACH(test_native_stream),
        EACH(test_timeline),
        cmocka_unit_test(test_alias),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
