/* The routes that tell of the head, and those that look at rows, over a made-up model: their
 * answers' shapes, their numbers, and what they refuse. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/fake_work.h"
#include "api/page.h"
#include "api/vector.h"
#include "base/mem.h"
#include "head/likelihood.h"
#include "support/tiny_vocab.h"
#include "text/text.h"

#define CHATML                                                                                     \
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"     \
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

static struct fake fake;

static int set(void **state)
{
    fake_init(&fake, CHATML);
    return 0;
}

static int clear(void **state)
{
    fake_fini(&fake);
    return 0;
}

static const json_t *post(route_handler *handler, const char *path, const char *body)
{
    return fake_ask(&fake, handler, path, body, NULL);
}

static const json_t *get(route_handler *handler, const char *path)
{
    return fake_ask(&fake, handler, path, NULL, NULL);
}

/* "data.0.embedding": a value deep in an answer. */
static const json_t *at(const json_t *o, const char *path)
{
    char part[64];

    while (o && *path) {
        size_t n = strcspn(path, ".");

        snprintf(part, sizeof part, "%.*s", (int)n, path);
        o = json_is_array(o) ? json_array_get(o, (size_t)atoi(part)) : json_object_get(o, part);
        path += n + (path[n] == '.');
    }
    if (!o)
        fail_msg("the answer has no %s", path);
    return o;
}

static void expect_text(const char *path, const char *wanted)
{
    assert_string_equal(json_string_value(at(fake.json, path)), wanted);
}

static void expect_int(const char *path, json_int_t wanted)
{
    assert_true(json_is_integer(at(fake.json, path)));
    assert_int_equal(json_integer_value(at(fake.json, path)), wanted);
}

static void expect_fault(int status, const char *param, const char *words)
{
    const char *message = json_string_value(at(fake.json, "error.message"));
    const char *is = json_string_value(at(fake.json, "error.param"));

    if (fake.status != status || !strstr(message, words) || strcmp(is ? is : "", param) != 0)
        fail_msg("status %d, param %s, \"%s\"; wanted %d, %s, \"%s\"", fake.status, is ? is : "",
                 message, status, param, words);
}

/* A post that is refused with 400. */
static void refused(route_handler *handler, const char *body, const char *param, const char *words)
{
    post(handler, "/v1/x", body);
    expect_fault(400, param, words);
}

/* ---- status ---- */

static void test_models(void **state)
{
    get(handle_models, "/v1/models");
    assert_int_equal(fake.status, 200);
    expect_text("object", "list");
    expect_text("data.0.id", "tiny");
    expect_text("data.0.object", "model");
    expect_int("data.0.created", 1700000000);
    expect_int("data.0.meta.n_ctx_train", 512);
    fake.api.alias = mem_strdup("own/name");
    get(handle_models, "/v1/models/own/name");
    assert_int_equal(fake.status, 200);
    expect_text("id", "own/name");
    get(handle_models, "/v1/models/tiny");
    expect_fault(404, "model", "no such model");
    expect_text("error.code", "model_not_found");
    free(fake.api.alias);
}

static void test_health(void **state)
{
    get(handle_health, "/health");
    assert_int_equal(fake.status, 200);
    expect_text("status", "ok");
    fake.stats.running = false;
    get(handle_health, "/health");
    expect_fault(503, "", "Loading model");
    expect_text("error.type", "unavailable_error");
    expect_int("error.code", 503);
    assert_string_equal(fake.retry_after, "2");
    get(handle_health, "/v1/health");
    expect_text("error.code", "model_not_ready");
}

static void test_slots(void **state)
{
    fake.slot[1] =
        (struct cluster_slot){.busy = true, .n_held = 9, .n_prompt = 5, .n_generated = 4};
    fake.slot[2] = (struct cluster_slot){.busy = true, .local = true};
    get(handle_slots, "/slots");
    assert_int_equal(json_array_size(fake.json), FAKE_SLOTS);
    expect_int("1.id", 1);
    expect_int("1.n_ctx", 256);
    expect_int("1.n_prompt", 5);
    expect_int("1.n_decoded", 4);
    expect_int("1.n_held", 9);
    assert_true(json_is_true(at(fake.json, "1.is_processing")));
    assert_true(json_is_false(at(fake.json, "0.is_processing")));
    assert_true(json_is_true(at(fake.json, "2.is_local")));
    fake_ask(&fake, handle_slots, "/slots", NULL, "fail_on_no_slot");
    assert_int_equal(fake.status, 200);
    fake.slot[0].busy = true;
    fake_ask(&fake, handle_slots, "/slots", NULL, "fail_on_no_slot");
    expect_fault(503, "", "no slot");
    get(handle_slots, "/slots");
    assert_int_equal(fake.status, 200);
}

static void test_props(void **state)
{
    get(handle_props, "/props");
    assert_int_equal(fake.status, 200);
    expect_int("total_slots", FAKE_SLOTS);
    expect_int("n_ctx", 256);
    expect_text("model_path", "/models/tiny.gguf");
    expect_text("chat_template", CHATML);
    expect_text("bos_token", "<s>");
    expect_text("eos_token", "</s>");
    assert_true(json_is_object(at(fake.json, "chat_template_caps")));
    expect_int("default_generation_settings.params.top_k", 40);
    assert_true(
        json_number_value(at(fake.json, "default_generation_settings.params.temperature")) == 0.8);
    fake_fini(&fake);
    fake_init(&fake, NULL);
    get(handle_props, "/props");
    expect_text("chat_template", "");
    assert_int_equal(json_object_size(at(fake.json, "chat_template_caps")), 0);
}

static void test_metrics_route(void **state)
{
    struct page *page = mem_zalloc(1, sizeof *page);

    fake.stats.n_waiting = 2;
    get(handle_metrics, "/metrics");
    assert_int_equal(fake.status, 200);
    assert_non_null(strstr(fake.type, "version=0.0.4"));
    if (!page_read(fake.bytes, page))
        fail_msg("%s", page->why);
    assert_true(page_sample(page, "lingua_queue_waiting", "")->value == 2);
    assert_true(page_sample(page, "process_open_fds", "")->value >= 3);
    assert_true(page_sample(page, "process_resident_memory_bytes", "")->value > 1e6);
    assert_true(page_sample(page, "process_cpu_seconds_total", "")->value > 0);
    free(page);
}

/* docs/api.md tells of every route in the table of api.c, and of no other. */
static char *file_text(const char *name)
{
    char *path = mem_printf("%s/%s", SOURCES, name), *text = mem_zalloc(1 << 20, 1);
    FILE *f = fopen(path, "rb");

    assert_non_null(f);
    assert_true(fread(text, 1, (1 << 20) - 1, f) > 100);
    fclose(f);
    free(path);
    return text;
}

static void test_documented(void **state)
{
    char *table = file_text("src/api/api.c"), *docs = file_text("docs/api.md");
    char quoted[128];
    int n = 0;

    for (const char *s = table; (s = strstr(s, "    {\"/")); n++) {
        size_t len = strcspn(s += 6, "\"");

        /* "/v1/models/" stands for all below it: `/v1/models/ID`. */
        snprintf(quoted, sizeof quoted, s[len - 1] == '/' ? "`%.*sID`" : "`%.*s`", (int)len, s);
        if (!strstr(docs, quoted))
            fail_msg("docs/api.md says nothing of %s", quoted);
    }
    assert_true(n > 15);
    *strstr(docs, "## The server") = '\0'; /* the table of routes alone */
    for (const char *s = docs; (s = strstr(s, "`/")); n--) {
        size_t len = strcspn(s += 1, "`");

        len -= len > 2 && memcmp(s + len - 3, "/ID", 3) == 0 ? 2 : 0;
        snprintf(quoted, sizeof quoted, "{\"%.*s\"", (int)len, s);
        if (!strstr(table, quoted))
            fail_msg("docs/api.md tells of %s, which is no route", quoted);
    }
    assert_int_equal(n, 0);
    free(table);
    free(docs);
}

/* ---- tokens ---- */

static void test_tokenize(void **state)
{
    json_t *body;
    char *text;

    post(handle_tokenize, "/tokenize", "{\"content\": \"hello<|im_end|>\", \"add_special\": true}");
    assert_int_equal(fake.status, 200);
    expect_int("tokens.0", TINY_BOS);
    assert_int_equal(json_integer_value(json_array_get(
                         at(fake.json, "tokens"), json_array_size(at(fake.json, "tokens")) - 1)),
                     TINY_IM_END);
    /* And back. */
    body = json_pack("{s:O}", "tokens", json_object_get(fake.json, "tokens"));
    text = json_dumps(body, 0);
    post(handle_detokenize, "/detokenize", text);
    assert_non_null(strstr(json_string_value(at(fake.json, "content")), "hello<|im_end|>"));
    free(text);
    json_decref(body);

    post(handle_tokenize, "/tokenize",
         "{\"content\": \"<|im_end|>\", \"parse_special\": false, \"with_pieces\": true}");
    assert_true(json_array_size(at(fake.json, "tokens")) > 3);
    post(handle_tokenize, "/tokenize", "{\"content\": \"\"}");
    assert_int_equal(json_array_size(at(fake.json, "tokens")), 0);
    /* Half a character is bytes. */
    post(handle_tokenize, "/tokenize", "{\"content\": \"\\u00e9\", \"with_pieces\": true}");
    assert_true(json_is_array(
        at(json_array_get(at(fake.json, "tokens"), json_array_size(at(fake.json, "tokens")) - 1),
           "piece")));
}

static void test_tokens_refused(void **state)
{
    refused(handle_tokenize, "{}", "content", "must be the text");
    refused(handle_tokenize, "{\"content\": 5}", "content", "must be the text");
    refused(handle_tokenize, "{\"content\": \"\", \"add_special\": 1}", "add_special", "true or");
    refused(handle_tokenize, "[]", "", "object");
    refused(handle_detokenize, "{}", "tokens", "array of token ids");
    refused(handle_detokenize, "{\"tokens\": [1, -1]}", "tokens", "tokens[1] is no token");
    refused(handle_detokenize, "{\"tokens\": [1.5]}", "tokens", "tokens[0] is no token");
    refused(handle_detokenize, "{\"tokens\": [99999999999]}", "tokens", "from 0 to");
    post(handle_detokenize, "/detokenize", "{\"tokens\": []}");
    expect_text("content", "");
}

static void test_template(void **state)
{
    post(handle_apply_template, "/apply-template",
         "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}");
    assert_int_equal(fake.status, 200);
    expect_text("prompt", "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    refused(handle_apply_template, "{\"messages\": []}", "messages", "at least one");
    fake_fini(&fake);
    fake_init(&fake, NULL);
    post(handle_apply_template, "/apply-template",
         "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}");
    assert_int_equal(fake.status, 400);
}

/* ---- embeddings ---- */

/* The vector of tokens, the long way. */
static void vector_of(const int32_t *tokens, int n, enum pooling pooling, double out[FAKE_EMBD])
{
    float row[FAKE_EMBD];
    double square = 0;

    memset(out, 0, FAKE_EMBD * sizeof *out);
    for (int i = 0; i < n; i++) {
        fake_row(&fake, tokens, i + 1, FAKE_EMBD, row);
        for (int k = 0; k < FAKE_EMBD; k++)
            if (pooling == POOLING_MEAN || i == (pooling == POOLING_CLS ? 0 : n - 1))
                out[k] += (double)row[k];
    }
    for (int k = 0; k < FAKE_EMBD; k++)
        square += out[k] * out[k];
    for (int k = 0; k < FAKE_EMBD; k++)
        out[k] /= sqrt(square);
}

static void expect_vector(const json_t *numbers, const int32_t *tokens, int n, enum pooling pooling)
{
    double wanted[FAKE_EMBD];

    vector_of(tokens, n, pooling, wanted);
    assert_int_equal(json_array_size(numbers), FAKE_EMBD);
    for (size_t k = 0; k < FAKE_EMBD; k++)
        assert_true(fabs(json_number_value(json_array_get(numbers, k)) - wanted[k]) < 1e-6);
}

static void test_embeddings(void **state)
{
    static const int32_t tokens[] = {5, 6, 7, 8, 9};
    int32_t *hello;
    int n;

    post(handle_embeddings, "/v1/embeddings", "{\"input\": [5, 6, 7, 8, 9], \"model\": \"x\"}");
    assert_int_equal(fake.status, 200);
    expect_text("object", "list");
    expect_text("model", "tiny");
    expect_text("data.0.object", "embedding");
    expect_int("usage.prompt_tokens", 5);
    expect_int("usage.total_tokens", 5);
    assert_int_equal(fake.n_rows, 5);
    expect_vector(at(fake.json, "data.0.embedding"), tokens, 5, POOLING_MEAN);

    assert_false(text_tokenize(fake.text, "hello", 5, true, false, &hello, &n, NULL));
    post(handle_embeddings, "/v1/embeddings", "{\"input\": [\"hello\", \"x\", \"hello\"]}");
    assert_int_equal(json_array_size(at(fake.json, "data")), 3);
    expect_int("data.2.index", 2);
    expect_vector(at(fake.json, "data.0.embedding"), hello, n, POOLING_MEAN);
    assert_true(json_equal(json_object_get(at(fake.json, "data.0"), "embedding"),
                           json_object_get(at(fake.json, "data.2"), "embedding")));
    free(hello);

    post(handle_embeddings, "/v1/embeddings", "{\"input\": [[1], [5, 6, 7, 8, 9]]}");
    expect_vector(at(fake.json, "data.1.embedding"), tokens, 5, POOLING_MEAN);
}

/* What is asked for comes before what the file says; that before the mean. */
static void test_pooling(void **state)
{
    static const int32_t tokens[] = {5, 6, 7};

    fake.facts.pooling = POOLING_CLS;
    post(handle_embeddings, "/v1/embeddings", "{\"input\": [5, 6, 7]}");
    expect_vector(at(fake.json, "data.0.embedding"), tokens, 3, POOLING_CLS);
    fake.api.pooling = POOLING_LAST;
    post(handle_embeddings, "/v1/embeddings", "{\"input\": [5, 6, 7]}");
    expect_vector(at(fake.json, "data.0.embedding"), tokens, 3, POOLING_LAST);
    assert_int_equal(fake.n_rows, 1);
}

static void test_embeddings_base64(void **state)
{
    post(handle_embeddings, "/v1/embeddings",
         "{\"input\": \"hi\", \"encoding_format\": \"base64\", \"dimensions\": 4}");
    assert_int_equal(fake.status, 200);
    assert_int_equal(json_string_length(at(fake.json, "data.0.embedding")), 24);
}

static void test_embedding_native(void **state)
{
    float row[FAKE_EMBD];

    post(handle_embedding, "/embedding", "{\"content\": [7], \"embd_normalize\": -1}");
    assert_int_equal(fake.status, 200);
    expect_int("0.index", 0);
    fake_row(&fake, (int32_t[]){7}, 1, FAKE_EMBD, row);
    for (size_t k = 0; k < FAKE_EMBD; k++)
        assert_true((float)json_number_value(json_array_get(at(fake.json, "0.embedding.0"), k)) ==
                    row[k]);
    post(handle_embedding, "/embedding", "{\"input\": [\"a\", \"b\"]}");
    assert_int_equal(json_array_size(fake.json), 2);
    post(handle_embedding, "/embedding", "{}");
    expect_fault(400, "input", "missing");
    expect_int("error.code", 400);
}

static void test_embeddings_refused(void **state)
{
    char *much = mem_alloc(400 + 64), *many;
    size_t n = 0;

    refused(handle_embeddings, "{}", "input", "missing");
    refused(handle_embeddings, "{\"input\": []}", "input", "empty");
    refused(handle_embeddings, "{\"input\": \"\"}", "input", "empty");
    refused(handle_embeddings, "{\"input\": [\"a\", \"\"]}", "input[1]", "empty");
    refused(handle_embeddings, "{\"input\": [[1], []]}", "input[1]", "empty");
    refused(handle_embeddings, "{\"input\": [\"a\", 5]}", "input[1]", "must be a text");
    refused(handle_embeddings, "{\"input\": [5, \"a\"]}", "input", "input[1] is no token");
    refused(handle_embeddings, "{\"input\": {}}", "input", "must be a text");
    refused(handle_embeddings, "{\"input\": \"a\", \"encoding_format\": \"f16\"}",
            "encoding_format", "base64");
    refused(handle_embeddings, "{\"input\": \"a\", \"dimensions\": 3}", "dimensions",
            "have 4 dimensions");
    refused(handle_embeddings, "{\"input\": \"a\", \"embd_normalize\": 0}", "embd_normalize", "-1");
    /* Longer than the context, and which one. */
    snprintf(much, 464, "{\"input\": [\"a\", \"%0300d\"]}", 0);
    refused(handle_embeddings, much, "input[1]", "room for 256");
    expect_text("error.code", "context_length_exceeded");
    free(much);
    many = mem_alloc(5 * API_INPUTS_MAX + 64);
    n = (size_t)sprintf(many, "{\"input\": [\"a\"");
    for (int i = 0; i < API_INPUTS_MAX; i++)
        n += (size_t)sprintf(many + n, ",\"a\"");
    sprintf(many + n, "]}");
    refused(handle_embeddings, many, "input", "one request takes 2048");
    free(many);
    fake.facts.n_embd = 1 << 22; /* one vector is more numbers than an answer takes */
    refused(handle_embeddings, "{\"input\": \"a\"}", "input", "base64");
    fake.facts.n_embd = FAKE_EMBD;
    fake.broken = true;
    post(handle_embeddings, "/v1/embeddings", "{\"input\": \"a\"}");
    expect_fault(500, "", "not finite");
}

/* ---- classify ---- */

static enum err tokenize(void *user, const char *s, size_t n, int32_t **tokens, int *n_tokens,
                         struct err_text *et)
{
    return text_tokenize(fake.text, s, n, true, false, tokens, n_tokens, et);
}

static double score(const int32_t *tokens, int from, int n)
{
    float *row = mem_alloc((size_t)fake.facts.n_vocab * sizeof *row);
    double sum = 0;

    for (int i = from; i < n; i++) {
        fake_row(&fake, tokens, i, fake.facts.n_vocab, row);
        sum += text_logprob(row, fake.facts.n_vocab, tokens[i]);
    }
    free(row);
    return sum;
}

static void test_classify(void **state)
{
    static const char *const labels[] = {"good", "bad", "good or bad"};
    struct likelihood_ask ask = {.input = "a day",
                                 .n_input = 5,
                                 .labels = labels,
                                 .n_labels = 3,
                                 .n_ctx = 256,
                                 .tokenize = tokenize};
    struct likelihood l;
    int n_tokens;

    assert_false(likelihood_init(&l, &ask, NULL));
    n_tokens = l.n_shared + likelihood_n_scored(&l);
    post(handle_classify, "/v1/classify",
         "{\"input\": \"a day\", \"labels\": [\"good\", \"bad\", \"good or bad\"]}");
    assert_int_equal(fake.status, 200);
    assert_int_equal(fake.n_gens, l.n_runs);
    assert_int_equal(fake.after[0], -1);
    assert_int_equal(fake.after[1], 0);
    expect_text("object", "classification");
    expect_text("model", "tiny");
    expect_int("usage.total_tokens", n_tokens);
    for (size_t i = 0; i < 3; i++) {
        const json_t *one = json_array_get(at(fake.json, "labels"), i);

        assert_string_equal(json_string_value(at(one, "label")), labels[i]);
        assert_true(fabs(json_number_value(at(one, "logprob")) -
                         score(l.label[i].tokens, l.n_shared, l.label[i].n_tokens)) < 1e-4);
    }
    likelihood_fini(&l);
}

static void test_classify_refused(void **state)
{
    char much[512];

    refused(handle_classify, "{\"labels\": [\"a\"]}", "input", "a string");
    refused(handle_classify, "{\"input\": \"x\"}", "labels", "array of 1 to 256");
    refused(handle_classify, "{\"input\": \"x\", \"labels\": []}", "labels", "array of 1 to 256");
    refused(handle_classify, "{\"input\": \"x\", \"labels\": [\"a\", 1]}", "labels",
            "labels[1] is no text");
    refused(handle_classify, "{\"input\": \"x\", \"labels\": [\"a\", \"a\"]}", "",
            "label 1 is the same");
    refused(handle_classify, "{\"input\": \"x\", \"labels\": [\"a\"], \"template\": 1}", "template",
            "string");
    refused(handle_classify, "{\"input\": \"x\", \"labels\": [\"a\"], \"template\": \"{input}\"}",
            "", "{label} 0 times");
    snprintf(much, sizeof much, "{\"input\": \"%0300d\", \"labels\": [\"a\"]}", 0);
    refused(handle_classify, much, "", "the context holds 256");
    expect_text("error.code", "context_length_exceeded");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_models, set, clear),
        cmocka_unit_test_setup_teardown(test_health, set, clear),
        cmocka_unit_test_setup_teardown(test_slots, set, clear),
        cmocka_unit_test_setup_teardown(test_props, set, clear),
        cmocka_unit_test_setup_teardown(test_metrics_route, set, clear),
        cmocka_unit_test(test_documented),
        cmocka_unit_test_setup_teardown(test_tokenize, set, clear),
        cmocka_unit_test_setup_teardown(test_tokens_refused, set, clear),
        cmocka_unit_test_setup_teardown(test_template, set, clear),
        cmocka_unit_test_setup_teardown(test_embeddings, set, clear),
        cmocka_unit_test_setup_teardown(test_pooling, set, clear),
        cmocka_unit_test_setup_teardown(test_embeddings_base64, set, clear),
        cmocka_unit_test_setup_teardown(test_embedding_native, set, clear),
        cmocka_unit_test_setup_teardown(test_embeddings_refused, set, clear),
        cmocka_unit_test_setup_teardown(test_classify, set, clear),
        cmocka_unit_test_setup_teardown(test_classify_refused, set, clear),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
