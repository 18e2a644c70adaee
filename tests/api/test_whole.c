/* Classes and embeddings over HTTP, from clusters of one device and of three: to the last digit what
 * one device says by the library, and what /metrics makes of it. */
#include <arpa/inet.h>
#include <math.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "api/api.h"
#include "api/http.h"
#include "api/page.h"
#include "base/mem.h"
#include "head/likelihood.h"
#include "support/town.h"

enum { CTX = 128, SLOTS = 2, N_LABELS = 5 };

static const char input[] = "Lily lost her toy and cried.";
static const char *const labels[N_LABELS] = {"sad", "happy", "very sad", "very hungry", "a bird"};

static char model_path[512];

/* ---- a cluster with an API ---- */

struct stand {
    struct town town;
    struct api *api;
    int port;
};

static void open_api(struct town *t, void *arg)
{
    const struct api_opts opts = {.alias = "story"};
    struct stand *s = arg;
    struct err_text et;

    if (api_open(t->base, t->cluster, &opts, &s->api, &et))
        fail_msg("%s", et.text);
    s->port = api_port(s->api);
}

static void close_api(struct town *t, void *arg)
{
    (void)t;
    api_close(((struct stand *)arg)->api);
}

static void stand_open(struct stand *s, int n_devices)
{
    char split[8];
    struct town_opts opts = {.model_path = model_path,
                             .n_devices = n_devices,
                             .n_ctx = CTX,
                             .n_slots = SLOTS,
                             .split = split,
                             .api = true};

    snprintf(split, sizeof split, "%d", n_devices);
    town_open(&s->town, &opts, true);
    town_call(&s->town, open_api, s);
}

static void stand_close(struct stand *s)
{
    town_call(&s->town, close_api, s);
    town_close(&s->town);
}

/* All of an answer: the server closes behind it. */
static char *ask(const struct stand *s, const char *path, const char *body)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)s->port)};
    char *request =
        mem_printf("%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                   "Content-Length: %zu\r\n\r\n%s",
                   body ? "POST" : "GET", path, body ? strlen(body) : 0, body ? body : "");
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    size_t n = 0, cap = 1 << 22;
    char *all = mem_alloc(cap);
    ssize_t got;

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
    while ((got = recv(fd, all + n, cap - 1 - n, 0)) > 0)
        n += (size_t)got;
    assert_int_equal(got, 0);
    all[n] = '\0';
    close(fd);
    free(request);
    return all;
}

/* Its body, which has to come with status 200. */
static char *body_of(const struct stand *s, const char *path, const char *body)
{
    char *all = ask(s, path, body), *from, *copy;

    if (strncmp(all, "HTTP/1.1 200 ", 13) != 0)
        fail_msg("%s: %s", path, all);
    from = strstr(all, "\r\n\r\n");
    assert_non_null(from);
    copy = mem_strdup(from + 4);
    free(all);
    return copy;
}

static json_t *json_of(const struct stand *s, const char *path, const char *body)
{
    char *text = body_of(s, path, body);
    json_t *o = json_loads(text, 0, NULL);

    if (!o)
        fail_msg("%s: no JSON: %s", path, text);
    free(text);
    return o;
}

/* ---- what one device says by the library ---- */

static enum err tokenize(void *user, const char *s, size_t n, int32_t **tokens, int *n_tokens,
                         struct err_text *et)
{
    (void)et;
    assert_int_equal(ll_tokenize(user, s, (long)n, LL_BOS, tokens, n_tokens, NULL), LL_OK);
    return ERR_NONE;
}

static void truth_make(struct likelihood *l)
{
    struct likelihood_ask how = {.input = input,
                                 .n_input = sizeof input - 1,
                                 .labels = labels,
                                 .n_labels = N_LABELS,
                                 .n_ctx = CTX,
                                 .tokenize = tokenize};
    struct ll_engine_opts opts = ll_engine_defaults();
    struct ll_engine_info info;
    struct ll_session *session;
    struct err_text et;

    opts.model_path = model_path;
    opts.n_ctx = CTX;
    opts.n_threads = 1;
    assert_int_equal(ll_engine_open(&opts, (struct ll_engine **)&how.user, NULL), LL_OK);
    ll_engine_info(how.user, &info);
    if (likelihood_init(l, &how, &et))
        fail_msg("%s", et.text);
    assert_int_equal(ll_session_open(how.user, NULL, &session, NULL), LL_OK);
    for (int r = 0; r < l->n_runs; r++) {
        int n, from = l->n_shared - 1;
        const int32_t *tokens = likelihood_run(l, r, &n);
        const float *rows;

        assert_int_equal(ll_session_truncate(session, 0, NULL), LL_OK);
        assert_int_equal(ll_session_add_tokens(session, tokens, n, NULL), LL_OK);
        assert_int_equal(ll_session_read(session, n - from, &rows, NULL), LL_OK);
        likelihood_rows(l, r, rows, from, n - from, info.n_vocab);
    }
    likelihood_settle(l);
    ll_session_close(session);
    ll_engine_close(how.user);
}

/* ---- the tests ---- */

/* With as many digits as answers have; takes o. */
static json_t *as_answered(json_t *o)
{
    char *text = json_dumps(o, JSON_REAL_PRECISION(HTTP_DIGITS));
    json_t *read = json_loads(text, 0, NULL);

    assert_non_null(read);
    free(text);
    json_decref(o);
    return read;
}

static void classify(const struct stand *s, const struct likelihood *truth)
{
    json_t *body = json_pack("{s:s, s:[s, s, s, s, s]}", "input", input, "labels", labels[0],
                             labels[1], labels[2], labels[3], labels[4]);
    char *text = json_dumps(body, 0);
    json_t *o = json_of(s, "/v1/classify", text), *wanted;

    wanted = as_answered(likelihood_json(truth));
    assert_true(json_equal(json_object_get(o, "labels"), json_object_get(wanted, "labels")));
    assert_true(json_equal(json_object_get(o, "label"), json_object_get(wanted, "label")));
    json_decref(wanted);
    json_decref(body);
    json_decref(o);
    free(text);
}

/* More texts than slots, one twice. Returns the vectors; the caller's. */
static json_t *embed(const struct stand *s)
{
    json_t *o = json_of(s, "/v1/embeddings",
                        "{\"input\": [\"a cat\", \"a small cat sat\", \"rain\", \"a cat\", \"the "
                        "sun is warm today\", \"x\"]}");
    json_t *data = json_incref(json_object_get(o, "data"));

    assert_int_equal(json_array_size(data), 6);
    for (size_t i = 0; i < 6; i++) {
        const json_t *v = json_object_get(json_array_get(data, i), "embedding");
        double square = 0;

        assert_int_equal(json_array_size(v), 288);
        for (size_t k = 0; k < 288; k++)
            square += pow(json_number_value(json_array_get(v, k)), 2);
        assert_true(fabs(square - 1) < 1e-5);
    }
    assert_true(json_equal(json_object_get(json_array_get(data, 0), "embedding"),
                           json_object_get(json_array_get(data, 3), "embedding")));
    assert_false(json_equal(json_object_get(json_array_get(data, 0), "embedding"),
                            json_object_get(json_array_get(data, 1), "embedding")));
    json_decref(o);
    return data;
}

static double sample(const struct page *p, const char *name, const char *its_labels)
{
    const struct page_sample *s = page_sample(p, name, its_labels);

    if (!s)
        fail_msg("no %s{%s}", name, its_labels);
    return s->value;
}

static void figures(const struct stand *s, int n_devices)
{
    struct page *p = mem_zalloc(1, sizeof *p);
    char *text = body_of(s, "/metrics", NULL);
    double hops = 0;

    if (!page_read(text, p))
        fail_msg("%s in:\n%s", p->why, text);
    assert_true(sample(p, "lingua_requests_total", "route=/v1/classify,status=200") == 1);
    assert_true(sample(p, "lingua_requests_total", "route=/v1/embeddings,status=200") == 1);
    assert_true(sample(p, "lingua_ready", "") == 1);
    assert_true(sample(p, "lingua_slots", "") == SLOTS);
    assert_true(sample(p, "lingua_slots_busy", "") == 0);
    assert_true(sample(p, "lingua_queue_waiting", "") == 0);
    assert_true(sample(p, "lingua_steps_total", "") > 0);
    assert_true(sample(p, "lingua_prompt_tokens_total", "") > 20);
    /* A cut prompt, and one that stands in a slot, are not read twice. */
    assert_true(sample(p, "lingua_cached_tokens_total", "") > 0);
    assert_true(sample(p, "lingua_device_up", "device=head") == 1);
    for (int i = 0; i < p->n_samples; i++)
        hops += strcmp(p->sample[i].name, "lingua_hop_bytes_total") == 0;
    assert_int_equal((int)hops, n_devices > 1 ? n_devices : 0);
    free(text);
    free(p);
}

static void test_whole(void **state)
{
    static const int counts[] = {1, 3};
    json_t *vectors = NULL;
    struct likelihood truth;

    (void)state;
    truth_make(&truth);
    for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
        struct stand s;
        json_t *now;

        stand_open(&s, counts[i]);
        classify(&s, &truth);
        now = embed(&s);
        if (vectors)
            assert_true(json_equal(vectors, now)); /* cuts change no bit */
        json_decref(vectors);
        vectors = now;
        figures(&s, counts[i]);
        stand_close(&s);
    }
    json_decref(vectors);
    likelihood_fini(&truth);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_whole)};
    const char *folder = getenv("LINGUA_MODELS");

    snprintf(model_path, sizeof model_path, "%s/stories15M-q8_0.gguf", folder ? folder : ".");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
