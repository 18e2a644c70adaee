/* Chats with tools and schemas, through a template in the manner of Hermes, and back: what a forced
 * model writes is read as the call it is, and told in pieces that add up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/mem.h"
#include "support/open_text.h"
#include "text/chat.h"
#include "text/text.h"

#define CHATML                                                                                     \
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"     \
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

#define HERMES                                                                                     \
    "{%- if tools %}<|im_start|>system\nTools:\n{%- for tool in tools %}\n{{ tool | tojson }}"     \
    "{%- endfor %}\nCall one by <tool_call>\n{\"name\": ..., \"arguments\": ...}\n</tool_call>"    \
    "<|im_end|>\n{% endif -%}"                                                                     \
    "{%- for m in messages %}"                                                                     \
    "{%- if m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n"               \
    "</tool_response><|im_end|>\n"                                                                 \
    "{%- else %}<|im_start|>{{ m.role }}\n"                                                        \
    "{%- if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"     \
    "{{- m.content if m.content else '' }}"                                                        \
    "{%- if m.tool_calls %}{%- for c in m.tool_calls %}\n<tool_call>\n{\"name\": \"{{ "            \
    "c.function.name }}\", \"arguments\": {{ c.function.arguments | tojson }}}\n</tool_call>"      \
    "{%- endfor %}{%- endif %}<|im_end|>\n"                                                        \
    "{%- endif %}{%- endfor %}"                                                                    \
    "{%- if add_generation_prompt %}<|im_start|>assistant\n"                                       \
    "{%- if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"     \
    "{% endif %}{% endif %}"

static const char weather_tool[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"description\":\"Weather "
    "now\","
    "\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\","
    "\"maxLength\""
    ":12},\"days\":{\"type\":\"integer\"}},\"required\":[\"city\",\"days\"],"
    "\"additionalProperties\":false}}}]";
static const char one_message[] = "[{\"role\":\"user\",\"content\":\"Hot in Paris?\"}]";

static struct text *with_template(const char *source)
{
    return open_tiny(&(struct tiny_vocab){.chat_template = source});
}

static struct chat_form applied(const struct text *t, const struct chat_ask *ask)
{
    struct err_text et = {{0}};
    struct chat_form f;
    enum err e = chat_apply(t, ask, &f, &et);

    if (e)
        print_error("%s\n", et.text);
    assert_int_equal(e, ERR_NONE);
    assert_non_null(f.prompt);
    assert_non_null(f.parser);
    return f;
}

static enum err refused(const struct text *t, const struct chat_ask *ask, struct err_text *et)
{
    struct chat_form f;
    enum err e;

    memset(et, 0, sizeof *et);
    e = chat_apply(t, ask, &f, et);
    print_message("    %.300s\n", et->text);
    assert_null(f.prompt);
    assert_null(f.parser);
    assert_null(strchr(et->text, '\n'));
    assert_true(strlen(et->text) > 15);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    return e;
}

/* ---- adding deltas up, as a client does ---- */

static void append(json_t *to, const char *key, const json_t *more)
{
    const char *old = json_string_value(json_object_get(to, key));
    char *both = mem_printf("%s%s", old ? old : "", json_string_value(more));

    json_object_set_new(to, key, json_string(both));
    free(both);
}

static void add_call(json_t *calls, json_t *delta)
{
    size_t i = (size_t)json_integer_value(json_object_get(delta, "index"));
    json_t *f = json_object_get(delta, "function"), *call;

    assert_true(i <= json_array_size(calls));
    if (i == json_array_size(calls)) {
        assert_non_null(json_object_get(delta, "id"));
        assert_string_equal(json_string_value(json_object_get(delta, "type")), "function");
        call =
            json_pack("{s:O,s:s,s:{s:O,s:s}}", "id", json_object_get(delta, "id"), "type",
                      "function", "function", "name", json_object_get(f, "name"), "arguments", "");
        assert_non_null(call);
        json_array_append_new(calls, call);
    } else {
        assert_null(json_object_get(f, "name"));
    }
    append(json_object_get(json_array_get(calls, i), "function"), "arguments",
           json_object_get(f, "arguments"));
}

static void add_deltas(json_t *sum, const char *deltas)
{
    json_t *list = json_loads(deltas, 0, NULL), *delta, *call;
    size_t i, k;

    assert_true(json_is_array(list));
    json_array_foreach(list, i, delta)
    {
        assert_true(json_object_size(delta) > 0);
        if (json_object_get(delta, "content"))
            append(sum, "content", json_object_get(delta, "content"));
        if (json_object_get(delta, "reasoning_content"))
            append(sum, "reasoning_content", json_object_get(delta, "reasoning_content"));
        if (!json_object_get(delta, "tool_calls"))
            continue;
        if (!json_object_get(sum, "tool_calls"))
            json_object_set_new(sum, "tool_calls", json_array());
        json_array_foreach(json_object_get(delta, "tool_calls"), k, call)
            add_call(json_object_get(sum, "tool_calls"), call);
    }
    json_decref(list);
}

/* Feeds the text `step` bytes at a time; the message, after seeing that the deltas amount to it. */
static json_t *read_back(const char *parser, const char *text, size_t step, int *n_calls)
{
    json_t *sum = json_pack("{s:s}", "role", "assistant"), *message;
    struct chat_parser *p;
    struct err_text et = {{0}};
    size_t n = strlen(text), at = 0;
    char *out;

    assert_int_equal(chat_parser_new(parser, &p, &et), ERR_NONE);
    do {
        size_t more = n - at < step ? n - at : step;

        while (text_utf8_whole(text + at, more) != more) /* whole characters are promised */
            more++;
        assert_int_equal(chat_parser_feed(p, text + at, more, at + more == n, &out, &et), ERR_NONE);
        at += more;
        add_deltas(sum, out);
        free(out);
    } while (at < n);
    assert_int_equal(chat_parser_message(p, &out, n_calls, &et), ERR_NONE);
    chat_parser_free(p);
    message = json_loads(out, 0, NULL);
    if (!json_object_get(sum, "content"))
        json_object_set(sum, "content", json_object_get(message, "content"));
    if (!json_equal(sum, message))
        print_error("step %zu: %s\nadds up to %s\n", step, out, json_dumps(sum, 0));
    assert_true(json_equal(sum, message));
    json_decref(sum);
    free(out);
    return message;
}

static const char *member(const json_t *message, const char *key)
{
    return json_string_value(json_object_get(message, key));
}

/* In all step sizes alike; the message. */
static json_t *read_all_ways(const char *parser, const char *text, int n_calls)
{
    static const size_t steps[] = {1, 2, 3, 7, 1 << 20};
    json_t *first = NULL;

    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        int n;
        json_t *m = read_back(parser, text, steps[i], &n), *call;
        size_t k;

        if (n != n_calls)
            fail_msg("%d calls by steps of %zu in %s", n, steps[i], text);
        json_array_foreach(json_object_get(m, "tool_calls"), k, call) /* ids are made up */
            json_object_del(call, "id");
        if (first) {
            assert_true(json_equal(first, m));
            json_decref(m);
        } else {
            first = m;
        }
    }
    return first;
}

/* ---- tests ---- */

static void test_plain(void **state)
{
    struct text *t = with_template(CHATML);
    struct chat_ask ask = {.messages = "[{\"role\":\"system\",\"content\":\"Brief.\"},"
                                       "{\"role\":\"user\",\"content\":[{\"type\":\"text\","
                                       "\"text\":\"Hi \\u00e9\"}],\"name\":null}]",
                           .add_assistant = true};
    struct chat_form f = applied(t, &ask);
    json_t *m;

    assert_string_equal(f.prompt, "<|im_start|>system\nBrief.<|im_end|>\n"
                                  "<|im_start|>user\nHi \xc3\xa9<|im_end|>\n"
                                  "<|im_start|>assistant\n");
    assert_null(f.grammar.text);
    m = read_all_ways(f.parser, "Hello {there} [1] <b>\xc3\xa9</b> \xf0\x9f\x98\x80", 0);
    assert_string_equal(member(m, "content"), "Hello {there} [1] <b>\xc3\xa9</b> \xf0\x9f\x98\x80");
    json_decref(m);
    chat_form_fini(&f);
    ask.add_assistant = false;
    f = applied(t, &ask);
    assert_null(strstr(f.prompt, "assistant"));
    chat_form_fini(&f);
    chat_form_fini(&f);
    text_close(t);
}

static void test_tool_in_prompt(void **state)
{
    struct text *t = with_template(HERMES);
    struct chat_ask ask = {.messages = one_message, .tools = weather_tool, .add_assistant = true};
    struct chat_form f = applied(t, &ask);
    struct sampling s = SAMPLING_DEFAULT;
    struct sampler *p;
    json_t *m;

    assert_non_null(strstr(f.prompt, "get_weather"));
    assert_non_null(strstr(f.prompt, "Weather now"));
    assert_non_null(f.grammar.text);
    assert_true(f.grammar.lazy);
    assert_true(f.grammar.n_triggers > 0);
    assert_non_null(strstr(f.grammar.triggers[0].text, "<tool_call>"));
    s.grammar = f.grammar;
    p = open_sampler(t, &s);
    sampler_free(p);

    m = read_all_ways(f.parser,
                      "I look.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": "
                      "\"Paris\", \"days\": 2}}\n</tool_call>",
                      1);
    assert_non_null(strstr(member(m, "content"), "I look."));
    json_decref(m);
    m = read_all_ways(f.parser, "It is hot. I need no tool_call for that.", 0);
    assert_string_equal(member(m, "content"), "It is hot. I need no tool_call for that.");
    json_decref(m);
    chat_form_fini(&f);

    ask.tool_choice = "none";
    f = applied(t, &ask);
    assert_null(f.grammar.text);
    chat_form_fini(&f);
    text_close(t);
}

/* Generates under the form's grammar from noise; the text. */
static char *forced(const struct text *t, const struct chat_form *f, uint32_t seed)
{
    struct sampling s = {.temp = 1, .top_p = 1, .seed = seed, .grammar = f->grammar};
    struct sampler *p = open_sampler(t, &s);
    char *out = mem_zalloc(64 * 1000, 1);

    for (uint32_t i = 0;; i++) {
        float *l = logits_random(t, seed * 1000 + i);
        int32_t id;

        if (i == 1000)
            fail_msg("no end: %.2000s", out);
        for (int k = 0; k < text_n_vocab(t); k++)
            l[k] += text_is_end(t, k) ? 20 : 0;
        for (int k = '\t'; k <= '\r'; k++) /* no long spaces */
            l[TINY_BYTE0 + k] -= 4;
        l[token_of(t, " ")] -= 4;
        id = picked(p, l);
        free(l);
        if (text_is_end(t, id))
            break;
        text_piece(t, id, true, out + strlen(out), 64);
    }
    sampler_free(p);
    return out;
}

static void test_forced_call(void **state)
{
    struct text *t = with_template(HERMES);
    struct chat_ask ask = {.messages = one_message,
                           .tools = weather_tool,
                           .tool_choice = "required",
                           .add_assistant = true,
                           .no_thinking = true};
    struct chat_form f = applied(t, &ask);

    assert_false(f.grammar.lazy);
    for (uint32_t seed = 1; seed < 6; seed++) {
        char *text = forced(t, &f, seed);
        json_t *m = read_all_ways(f.parser, text, 1), *args;
        const char *name, *arguments;

        assert_int_equal(json_unpack(m, "{s:[{s:{s:s,s:s}}]}", "tool_calls", "function", "name",
                                     &name, "arguments", &arguments),
                         0);
        assert_string_equal(name, "get_weather");
        args = json_loads(arguments, 0, NULL);
        if (json_unpack_ex(args, NULL, JSON_STRICT | JSON_VALIDATE_ONLY, "{s:s,s:i}", "city",
                           "days"))
            fail_msg("%s", arguments);
        json_decref(args);
        json_decref(m);
        free(text);
    }
    chat_form_fini(&f);
    text_close(t);
}

static void test_parallel_calls(void **state)
{
    struct text *t = with_template(HERMES);
    struct chat_ask ask = {.messages = one_message,
                           .tools = weather_tool,
                           .parallel_calls = true,
                           .add_assistant = true};
    struct chat_form f = applied(t, &ask);
    json_t *m = read_all_ways(f.parser,
                              "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": "
                              "\"A\", \"days\": 1}}\n</tool_call>\n<tool_call>\n{\"name\": "
                              "\"get_weather\", \"arguments\": {\"city\": \"B\", \"days\": 2}}\n"
                              "</tool_call>",
                              2);

    json_decref(m);
    chat_form_fini(&f);
    text_close(t);
}

/* What a client sends back: the call and its result. */
static void test_results(void **state)
{
    struct text *t = with_template(HERMES);
    struct chat_ask ask = {
        .messages = "[{\"role\":\"user\",\"content\":\"Hot?\"},{\"role\":\"assistant\",\"content\":"
                    "null,\"tool_calls\":[{\"id\":\"call_1\",\"type\":\"function\",\"function\":"
                    "{\"name\":\"get_weather\",\"arguments\":\"{\\\"city\\\": \\\"Paris\\\"}\"}}]},"
                    "{\"role\":\"tool\",\"tool_call_id\":\"call_1\",\"content\":\"31 C\"}]",
        .tools = weather_tool,
        .add_assistant = true};
    struct chat_form f = applied(t, &ask);

    assert_non_null(strstr(f.prompt, "{\"name\": \"get_weather\", \"arguments\": {\"city\": "
                                     "\"Paris\"}}\n</tool_call><|im_end|>"));
    assert_non_null(strstr(f.prompt, "<tool_response>\n31 C\n</tool_response>"));
    chat_form_fini(&f);
    text_close(t);
}

static void test_reasoning(void **state)
{
    struct text *t = with_template(HERMES);
    struct chat_ask ask = {.messages = one_message, .add_assistant = true};
    struct chat_form f = applied(t, &ask);
    json_t *m = read_all_ways(f.parser, "<think>\nParis is warm.\n</think>\n\nYes.", 0);

    assert_non_null(strstr(member(m, "reasoning_content"), "Paris is warm."));
    assert_string_equal(member(m, "content"), "Yes.");
    json_decref(m);
    m = read_all_ways(f.parser, "Yes.", 0);
    assert_null(member(m, "reasoning_content"));
    assert_string_equal(member(m, "content"), "Yes.");
    json_decref(m);
    chat_form_fini(&f);

    ask.no_thinking = true;
    f = applied(t, &ask);
    assert_non_null(strstr(f.prompt, "</think>"));
    m = read_all_ways(f.parser, "Yes.", 0);
    assert_string_equal(member(m, "content"), "Yes.");
    json_decref(m);
    chat_form_fini(&f);
    ask.no_thinking = false;
    ask.template_kwargs = "{\"enable_thinking\": false}";
    f = applied(t, &ask);
    assert_non_null(strstr(f.prompt, "</think>"));
    chat_form_fini(&f);
    text_close(t);
}

static void test_schema(void **state)
{
    static const char *const schemas[] = {
        "{\"type\":\"object\",\"properties\":{\"x\":{\"type\":\"boolean\"}},\"required\":[\"x\"],"
        "\"additionalProperties\":false}",
        "{\"enum\":[1,\"two\",[3]]}",
    };
    struct text *t = with_template(CHATML);
    struct chat_ask ask = {.messages = one_message, .add_assistant = true};
    struct chat_form f;

    for (size_t i = 0; i < ARRAY_LEN(schemas); i++) {
        ask.json_schema = schemas[i];
        f = applied(t, &ask);
        assert_false(f.grammar.lazy);
        for (uint32_t seed = 1; seed < 4; seed++) {
            char *text = forced(t, &f, seed);
            json_t *m = read_all_ways(f.parser, text, 0);
            json_t *value = json_loads(member(m, "content"), JSON_DECODE_ANY, NULL);

            assert_non_null(value);
            assert_true(i > 0 || json_is_boolean(json_object_get(value, "x")));
            json_decref(value);
            json_decref(m);
            free(text);
        }
        chat_form_fini(&f);
    }
    ask.json_schema = "{}"; /* any object */
    f = applied(t, &ask);
    assert_non_null(f.grammar.text);
    assert_non_null(strstr(f.grammar.text, "{"));
    chat_form_fini(&f);
    text_close(t);
}

static void test_own_grammar(void **state)
{
    struct text *t = with_template(HERMES);
    struct chat_ask ask = {
        .messages = one_message, .grammar = "root ::= \"yes\" | \"no\"", .add_assistant = true};
    struct chat_form f = applied(t, &ask);
    char *text = forced(t, &f, 1);

    assert_true(strcmp(text, "yes") == 0 || strcmp(text, "no") == 0);
    free(text);
    chat_form_fini(&f);
    text_close(t);
}

/* A text that is no call after all, one that breaks off, one that is not UTF-8. */
static void test_broken_answers(void **state)
{
    struct text *t = with_template(HERMES);
    struct chat_ask ask = {.messages = one_message, .tools = weather_tool, .add_assistant = true};
    struct chat_form f = applied(t, &ask);
    json_t *m;
    int n;

    m = read_back(f.parser, "<tool_call>\nthis is none\n</tool_call>", 1 << 20, &n);
    assert_int_equal(n, 0);
    assert_string_equal(member(m, "content"), "<tool_call>\nthis is none\n</tool_call>");
    json_decref(m);
    m = read_back(f.parser, "<tool_call>\n{\"name\": \"no_such\", \"arguments\": {}}\n</tool_call>",
                  3, &n);
    assert_int_equal(n, 0);
    json_decref(m);
    m = read_back(f.parser,
                  "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Pa", 4, &n);
    assert_true(n <= 1);
    json_decref(m);
    m = read_back(f.parser,
                  "a\xff"
                  "b\xc3(",
                  1 << 20, &n);
    assert_string_equal(member(m, "content"), "a\xef\xbf\xbd"
                                              "b\xef\xbf\xbd(");
    json_decref(m);
    m = read_back(f.parser, "", 1, &n);
    assert_string_equal(member(m, "content"), "");
    json_decref(m);
    chat_form_fini(&f);
    text_close(t);
}

/* A model that opens brackets without end does not exhaust anybody's stack. */
static void test_deep_answers(void **state)
{
    static const int depths[] = {100, 5000, 32000, 200000};
    struct text *t = with_template(HERMES);
    struct chat_ask ask = {.messages = one_message, .tools = weather_tool, .add_assistant = true};
    struct chat_form f = applied(t, &ask);

    for (size_t i = 0; i < ARRAY_LEN(depths); i++) {
        const char *front = "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": ";
        char *text = mem_zalloc(strlen(front) + (size_t)depths[i] + 1, 1);
        json_t *m;
        int n;

        strcpy(text, front);
        memset(text + strlen(front), '[', (size_t)depths[i]);
        m = read_back(f.parser, text, 1 << 20, &n);
        json_decref(m);
        free(text);
    }
    chat_form_fini(&f);
    text_close(t);
}

/* A long answer, a byte at a time, and all of it arrives. */
static void test_long_answer(void **state)
{
    struct text *t = with_template(HERMES);
    struct chat_ask ask = {.messages = one_message, .tools = weather_tool, .add_assistant = true};
    struct chat_form f = applied(t, &ask);
    char *text = mem_zalloc(20001, 1);
    json_t *m;
    int n;

    for (int i = 0; i < 20000; i++)
        text[i] = "a line of {code}; [1, 2]\n"[i % 25];
    m = read_back(f.parser, text, 1, &n);
    assert_string_equal(member(m, "content"), text);
    json_decref(m);
    free(text);
    chat_form_fini(&f);
    text_close(t);
}

static void test_parser_errors(void **state)
{
    static const char *const bad[] = {"",
                                      "{}",
                                      "[1",
                                      "{\"format\":99,\"prefix\":\"\",\"parser\":\"\"}",
                                      "{\"format\":0,\"prefix\":3,\"parser\":\"\"}",
                                      "{\"format\":0,\"prefix\":\"\",\"parser\":\"{\"}"};

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct chat_parser *p = (struct chat_parser *)1;
        struct err_text et = {{0}};

        assert_int_equal(chat_parser_new(bad[i], &p, &et), ERR_INPUT);
        assert_null(p);
        assert_true(et.text[0]);
    }
    chat_parser_free(NULL);
}

static void test_refusals(void **state)
{
    static const struct {
        struct chat_ask ask;
        const char *names;
        enum err e;
    } rows[] = {
        {{.messages = NULL}, "messages are missing", ERR_INPUT},
        {{.messages = "[1"}, "messages is no JSON", ERR_INPUT},
        {{.messages = "{}"}, "messages must be an array", ERR_INPUT},
        {{.messages = "[7]"}, "each of messages", ERR_INPUT},
        {{.messages = "[{\"content\":\"x\"}]"}, "\"role\"", ERR_INPUT},
        {{.messages =
              "[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}]"},
         "\"image_url\"; this model reads text",
         ERR_INPUT},
        {{.messages = "[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]"},
         "content part",
         ERR_INPUT},
        {{.messages = "[{\"role\":\"user\",\"content\":5}]"}, "content", ERR_INPUT},
        {{.messages = "[{\"role\":\"user\",\"content\":\"a\\u0000b\"}]"}, "zero byte", ERR_INPUT},
        {{.messages = one_message, .tools = "{}"}, "tools", ERR_INPUT},
        {{.messages = one_message, .tools = "[{\"type\":\"magic\"}]"}, "tool type", ERR_INPUT},
        {{.messages = one_message, .tools = weather_tool, .tool_choice = "maybe"},
         "tool_choice",
         ERR_INPUT},
        {{.messages = one_message, .tools = weather_tool, .grammar = "root ::= \"a\""},
         "cannot go together",
         ERR_INPUT},
        {{.messages = one_message, .json_schema = "{\"type\":\"nonsense\"}"},
         "nonsense",
         ERR_INPUT},
        {{.messages = one_message, .json_schema = "[]"}, "must be an object", ERR_INPUT},
        {{.messages = one_message, .template_kwargs = "[]"}, "chat_template_kwargs", ERR_INPUT},
    };
    struct text *t = with_template(HERMES);
    struct chat_ask required = {
        .messages = one_message, .tools = weather_tool, .tool_choice = "required"};
    struct err_text et;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        enum err e = refused(t, &rows[i].ask, &et);

        if (e != rows[i].e || !strstr(et.text, rows[i].names))
            print_error("row %zu\n", i);
        assert_int_equal(e, rows[i].e);
        assert_non_null(strstr(et.text, rows[i].names));
    }
    text_close(t);
    t = open_tiny(&(struct tiny_vocab){0});
    assert_int_equal(refused(t, &required, &et), ERR_UNSUPPORTED);
    assert_non_null(strstr(et.text, "no chat template"));
    text_close(t);
    t = with_template(CHATML);
    assert_int_equal(refused(t, &required, &et), ERR_UNSUPPORTED);
    assert_non_null(strstr(et.text, "does not say how"));
    text_close(t);
}

static char *nested(const char *open, const char *close, int n, const char *core)
{
    size_t a = strlen(open), b = strlen(close), c = strlen(core);
    char *s = mem_zalloc((a + b) * (size_t)n + c + 1, 1), *at = s;

    for (int i = 0; i < n; i++, at += a)
        memcpy(at, open, a);
    memcpy(at, core, c);
    at += c;
    for (int i = 0; i < n; i++, at += b)
        memcpy(at, close, b);
    return s;
}

static void test_hostile(void **state)
{
    static const char *const templates[] = {
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{% for i in range(1000000000) %}x{% endfor %}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    };
    struct chat_ask ask = {.messages = one_message};
    char *deep = nested("{\"type\":\"array\",\"items\":", "}", 20000, "{\"type\":\"null\"}");
    char *parens = nested("(", ")", 50000, "a"), *pattern, *out = (char *)1, *messages;
    struct err_text et;
    struct text *t;
    enum err e;

    for (size_t i = 0; i < ARRAY_LEN(templates); i++) {
        t = with_template(templates[i]);
        e = refused(t, &ask, &et);
        assert_true(e == ERR_LIMIT || e == ERR_INPUT);
        e = chat_caps(t, &out, &et);
        assert_true(e == ERR_LIMIT || e == ERR_INPUT || e == ERR_NONE);
        free(out);
        text_close(t);
    }
    t = with_template(CHATML);
    ask.json_schema = deep;
    assert_int_equal(refused(t, &ask, &et), ERR_LIMIT);
    out = (char *)1;
    e = chat_schema_grammar(deep, &out, &et);
    assert_int_equal(e, ERR_LIMIT);
    assert_null(out);
    pattern = mem_printf("{\"type\":\"string\",\"pattern\":\"^%s$\"}", parens);
    assert_int_equal(chat_schema_grammar(pattern, &out, &et), ERR_LIMIT);
    print_message("    %s\n", et.text);
    assert_null(out);
    ask.json_schema = NULL;
    messages = nested("[", "]", 100000, "");
    ask.messages = messages;
    e = refused(t, &ask, &et);
    assert_true(e == ERR_INPUT || e == ERR_LIMIT);
    free(messages);
    free(pattern);
    free(parens);
    free(deep);
    text_close(t);
}

static void test_caps(void **state)
{
    struct text *t = with_template(HERMES);
    struct err_text et;
    json_t *caps;
    char *out;

    assert_int_equal(chat_caps(t, &out, &et), ERR_NONE);
    caps = json_loads(out, 0, NULL);
    assert_true(json_is_true(json_object_get(caps, "tools")));
    assert_true(json_is_true(json_object_get(caps, "tool_calls")));
    assert_true(json_is_true(json_object_get(caps, "thinking")));
    json_decref(caps);
    free(out);
    text_close(t);
    t = with_template(CHATML);
    assert_int_equal(chat_caps(t, &out, &et), ERR_NONE);
    caps = json_loads(out, 0, NULL);
    assert_true(json_is_false(json_object_get(caps, "tools")));
    assert_true(json_is_false(json_object_get(caps, "thinking")));
    json_decref(caps);
    free(out);
    text_close(t);
    t = open_tiny(&(struct tiny_vocab){0});
    assert_int_equal(chat_caps(t, &out, &et), ERR_UNSUPPORTED);
    assert_null(out);
    text_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),          cmocka_unit_test(test_tool_in_prompt),
        cmocka_unit_test(test_forced_call),    cmocka_unit_test(test_parallel_calls),
        cmocka_unit_test(test_results),        cmocka_unit_test(test_reasoning),
        cmocka_unit_test(test_schema),         cmocka_unit_test(test_own_grammar),
        cmocka_unit_test(test_broken_answers), cmocka_unit_test(test_deep_answers),
        cmocka_unit_test(test_long_answer),    cmocka_unit_test(test_parser_errors),
        cmocka_unit_test(test_refusals),       cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_caps),
    };

    return cmocka_run_group_tests_name("chat", tests, NULL, NULL);
}
