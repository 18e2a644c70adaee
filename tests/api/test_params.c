/* What requests say of sampling: src/api/params.h, and of templates: src/api/ask.h. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "api/ask.h"
#include "api/params.h"
#include "base/mem.h"
#include "support/tiny_vocab.h"

static struct text *text;
static json_t *body; /* of the last; params borrow from it */

static bool got(const char *json, struct params *p, struct fault *f)
{
    json_decref(body);
    body = json_loads(json, 0, NULL);
    assert_non_null(body);
    return params_read(body, text, p, f);
}

static const struct params *read_good(const char *json, struct params *p)
{
    struct fault f = {0};

    if (!got(json, p, &f))
        fail_msg("%s: %s", json, f.message);
    return p;
}

static void bad(const char *json, const char *param)
{
    struct params p;
    struct fault f = {0};

    if (got(json, &p, &f))
        fail_msg("%s was taken", json);
    assert_int_equal(f.status, 400);
    assert_string_equal(f.param, param);
}

static void test_defaults(void **state)
{
    struct params p;

    read_good("{}", &p);
    assert_true(p.sampling.temp == 0.8f && p.sampling.top_k == 40 && p.sampling.top_p == 0.95f);
    assert_int_equal(p.n_max, -1);
    assert_int_equal(p.n, 1);
    assert_int_equal(p.n_top, -1);
    assert_int_equal(p.slot, -1);
    assert_true(p.cache_prompt);
    assert_false(p.has_seed || p.stream || p.echo);
    /* null is "not given", and what nobody knows is passed over. */
    read_good("{\"temperature\":null,\"stop\":null,\"n\":null,\"logit_bias\":null,\"mirostat\":{}}",
              &p);
    assert_true(p.sampling.temp == 0.8f);
}

static void test_numbers(void **state)
{
    struct params p;

    read_good("{\"temperature\":0,\"top_p\":0.5,\"min_p\":0,\"top_k\":-1,\"repeat_penalty\":1.1,"
              "\"repeat_last_n\":-1,\"frequency_penalty\":-2,\"presence_penalty\":2,\"seed\":7,"
              "\"ignore_eos\":true}",
              &p);
    assert_true(p.sampling.temp == 0 && p.sampling.top_p == 0.5f && p.sampling.repeat == 1.1f);
    assert_int_equal(p.sampling.top_k, 0);
    assert_int_equal(p.sampling.last_n, -1);
    assert_int_equal(p.sampling.seed, 7);
    assert_true(p.has_seed && p.sampling.ignore_end);
    bad("{\"top_p\":1.5}", "top_p");
    bad("{\"frequency_penalty\":-2.5}", "frequency_penalty");
    bad("{\"presence_penalty\":true}", "presence_penalty");
    bad("{\"seed\":1.5}", "seed");
    bad("{\"top_k\":9999999999}", "top_k");
    bad("{\"n\":0}", "n");
    bad("{\"stream\":\"yes\"}", "stream");
    bad("{\"stream_options\":[]}", "stream_options");
}

static void test_seeds(void **state)
{
    struct params a, b;

    read_good("{\"seed\":-1}", &a);
    read_good("{}", &b);
    assert_false(a.has_seed || b.has_seed);
    read_good("{\"seed\":-9223372036854775808}", &a);
    read_good("{\"seed\":4294967296}", &b);
    assert_int_not_equal(a.sampling.seed, b.sampling.seed);
    assert_true(a.has_seed && b.has_seed);
}

static void test_lengths(void **state)
{
    struct params p;

    assert_int_equal(read_good("{\"max_tokens\":5}", &p)->n_max, 5);
    assert_int_equal(read_good("{\"n_predict\":5}", &p)->n_max, 5);
    assert_int_equal(read_good("{\"max_tokens\":5,\"max_completion_tokens\":6}", &p)->n_max, 6);
    assert_int_equal(read_good("{\"n_predict\":-2}", &p)->n_max, -1);
    assert_int_equal(read_good("{\"max_tokens\":0}", &p)->n_max, 0);
    bad("{\"max_tokens\":-7}", "max_tokens");
}

static void test_probs(void **state)
{
    struct params p;

    assert_int_equal(read_good("{\"logprobs\":true}", &p)->n_top, 0);
    assert_int_equal(read_good("{\"logprobs\":true,\"top_logprobs\":4}", &p)->n_top, 4);
    assert_int_equal(read_good("{\"logprobs\":false}", &p)->n_top, -1);
    assert_int_equal(read_good("{\"logprobs\":0}", &p)->n_top, 0);
    assert_int_equal(read_good("{\"logprobs\":3}", &p)->n_top, 3);
    assert_int_equal(read_good("{\"n_probs\":3}", &p)->n_top, 3);
    assert_int_equal(read_good("{\"n_probs\":0}", &p)->n_top, -1);
    bad("{\"logprobs\":true,\"top_logprobs\":65}", "top_logprobs");
    bad("{\"top_logprobs\":1}", "top_logprobs");
    bad("{\"logprobs\":\"all\"}", "logprobs");
}

static void test_stops(void **state)
{
    char *many = mem_strdup("{\"stop\":[\"0\""), *more;
    struct params p;

    read_good("{\"stop\":\"a\"}", &p);
    assert_int_equal(p.n_stops, 1);
    assert_string_equal(p.stops[0], "a");
    read_good("{\"stop\":[\"a\",\"\",\"bc\"]}", &p);
    assert_int_equal(p.n_stops, 2);
    assert_string_equal(p.stops[1], "bc");
    bad("{\"stop\":[1]}", "stop");
    bad("{\"stop\":{}}", "stop");
    for (int i = 0; i < GEN_STOPS_MAX; i++) {
        more = mem_printf("%s,\"%d\"", many, i);
        free(many);
        many = more;
    }
    more = mem_printf("%s]}", many);
    bad(more, "stop");
    free(more);
    free(many);
}

static void test_bias(void **state)
{
    struct params p;

    read_good("{\"logit_bias\":{\"5\":-100,\"6\":1.5}}", &p);
    assert_int_equal(p.sampling.n_bias, 2);
    assert_ptr_equal(p.sampling.bias, p.bias);
    read_good("{\"logit_bias\":[[5,false],[\"ab\",2]]}", &p);
    assert_int_equal(p.bias[0].token, 5);
    assert_true(isinf(p.bias[0].bias) && p.bias[0].bias < 0);
    assert_true(p.sampling.n_bias >= 2 && p.bias[1].bias == 2);
    bad("{\"logit_bias\":[[5]]}", "logit_bias");
    bad("{\"logit_bias\":[[5,true]]}", "logit_bias");
    bad("{\"logit_bias\":{\"-1\":1}}", "logit_bias");
    bad("{\"logit_bias\":{\"1\":101}}", "logit_bias");
    bad("{\"logit_bias\":3}", "logit_bias");
}

static void test_shapes(void **state)
{
    struct params p;

    read_good("{\"response_format\":{\"type\":\"json_object\"}}", &p);
    assert_true(p.any_object && !p.json_schema);
    read_good("{\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\","
              "\"schema\":{\"type\":\"object\"}}}}",
              &p);
    assert_true(!p.any_object && p.json_schema);
    read_good("{\"json_schema\":{}}", &p);
    assert_non_null(p.json_schema);
    read_good("{\"response_format\":{\"type\":\"text\"},\"grammar\":\"\"}", &p);
    assert_true(!p.grammar && !p.json_schema && !p.any_object);
    bad("{\"response_format\":{\"type\":\"json_schema\"}}", "response_format.json_schema");
    bad("{\"response_format\":{}}", "response_format.type");
    bad("{\"response_format\":7}", "response_format");
    bad("{\"grammar\":\"root ::= \\\"a\\\"\",\"json_schema\":{}}", "grammar");
}

static void test_params_json(void **state)
{
    struct params p;
    json_t *v;

    read_good("{\"temperature\":0.5,\"stop\":\"x\",\"logit_bias\":[[5,false]]}", &p);
    v = params_json(&p);
    assert_non_null(v);
    assert_true(json_real_value(json_object_get(v, "temperature")) == 0.5);
    assert_int_equal(json_array_size(json_object_get(v, "stop")), 1);
    assert_int_equal(json_array_size(json_object_get(v, "logit_bias")), 1);
    json_decref(v);
}

/* ---- ask.h ---- */

static void ask_bad(const char *json, const char *param)
{
    struct ask a;
    struct fault f = {0};

    json_decref(body);
    body = json_loads(json, 0, NULL);
    assert_non_null(body);
    if (ask_read(body, &a, &f))
        fail_msg("%s was taken", json);
    assert_string_equal(f.param, param);
    ask_fini(&a);
}

static void test_ask(void **state)
{
    struct ask a;
    struct fault f = {0};

    json_decref(body);
    body = json_loads(
        "{\"messages\":[{\"role\":\"developer\",\"content\":\"x\"},{\"role\":\"assistant\","
        "\"content\":null,\"tool_calls\":[]}],\"response_format\":{\"type\":\"json_object\"},"
        "\"chat_template_kwargs\":{\"enable_thinking\":false}}",
        0, NULL);
    assert_true(ask_read(body, &a, &f));
    assert_non_null(strstr(a.chat.messages, "\"role\":\"system\""));
    assert_string_equal(a.chat.json_schema, "{}");
    assert_true(a.chat.no_thinking && a.chat.add_assistant && !a.has_tools);
    /* The request itself is as it was. */
    assert_string_equal(json_string_value(json_object_get(
                            json_array_get(json_object_get(body, "messages"), 0), "role")),
                        "developer");
    ask_fini(&a);
}

static void test_deep_schema(void **state)
{
    char *schema = mem_strdup("1"), *deeper;

    for (int i = 0; i < 40; i++) {
        deeper = mem_printf("{\"a\":%s}", schema);
        free(schema);
        schema = deeper;
    }
    deeper = mem_printf("{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"json_schema\":%s}",
                        schema);
    ask_bad(deeper, "response_format.json_schema.schema");
    free(deeper);
    deeper =
        mem_printf("{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":[{\"type\":"
                   "\"function\",\"function\":{\"name\":\"f\",\"parameters\":%s}}]}",
                   schema);
    ask_bad(deeper, "tools[0].function.parameters");
    free(deeper);
    free(schema);
}

static int open_text(void **state)
{
    const struct tiny_vocab vocab = {0};
    char path[] = "/tmp/test_params.XXXXXX";
    int fd = mkstemp(path), failed;
    struct err_text et;

    close(fd);
    failed = !tiny_vocab_write(path, &vocab) || text_open(path, &text, &et);
    unlink(path);
    return failed;
}

static int close_text(void **state)
{
    json_decref(body);
    text_close(text);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),    cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_seeds),       cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_probs),       cmocka_unit_test(test_stops),
        cmocka_unit_test(test_bias),        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_params_json), cmocka_unit_test(test_ask),
        cmocka_unit_test(test_deep_schema),
    };

    return cmocka_run_group_tests(tests, open_text, close_text);
}
