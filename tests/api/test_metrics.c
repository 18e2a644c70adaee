/* /metrics: what is written can be read by a strict reader of the format, whatever devices are
 * called; it says what was counted; and the documents name what is served, no more and no less. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/exposition.h"
#include "api/http.h"
#include "api/metrics.h"
#include "api/page.h"
#include "base/mem.h"
#include "head/gen.h"

#define HOSTILE "a\"b\\c\nd\xff{}=,"

struct rig {
    struct metrics *m;
    struct cluster_facts facts;
    struct cluster_stats cluster;
    struct http_stats http;
    struct metrics_now now;
    struct page page;
    char *text;
};

static int rig_set(void **state)
{
    struct rig *r = mem_zalloc(1, sizeof *r);

    r->m = metrics_new();
    r->facts = (struct cluster_facts){.model_name = "tiny", .n_slots = 4, .n_ctx = 512};
    r->http = (struct http_stats){.connections = 7, .requests = 9, .n_connections = 2};
    r->now = (struct metrics_now){.facts = &r->facts,
                                  .cluster = &r->cluster,
                                  .http = &r->http,
                                  .resident_bytes = 123456789,
                                  .n_fds = 17,
                                  .cpu_s = 1.5,
                                  .started_s = 1.7e9};
    *state = r;
    return 0;
}

static int rig_clear(void **state)
{
    struct rig *r = *state;

    metrics_free(r->m);
    free(r->text);
    free(r);
    return 0;
}

static void rig_read(struct rig *r)
{
    size_t n;

    free(r->text);
    r->text = metrics_text(r->m, &r->now, &n);
    assert_int_equal(n, strlen(r->text));
    if (!page_read(r->text, &r->page))
        fail_msg("%s", r->page.why);
}

static double value(struct rig *r, const char *name, const char *labels)
{
    const struct page_sample *s = page_sample(&r->page, name, labels);

    if (!s)
        fail_msg("no %s{%s} in:\n%s", name, labels, r->text);
    return s->value;
}

static void expect(struct rig *r, const char *name, const char *labels, double wanted)
{
    double is = value(r, name, labels);

    if (fabs(is - wanted) > 1e-9 * (1 + fabs(wanted)))
        fail_msg("%s{%s} is %g, not %g", name, labels, is, wanted);
}

static void devices_set(struct cluster_stats *c)
{
    c->running = true;
    c->n_devices = 3;
    c->device[0] = (struct cluster_device_stats){.name = "head",
                                                 .up = true,
                                                 .busy_s = 1.25,
                                                 .steps = 10,
                                                 .rows = 12,
                                                 .memory_bytes = 1000,
                                                 .budget_bytes = 2000};
    c->device[1] = (struct cluster_device_stats){.name = HOSTILE, .busy_s = 3};
    c->device[2] = (struct cluster_device_stats){.name = "head"}; /* must not be told twice */
    c->n_hops = 3;
    c->hop[0] = (struct cluster_hop_stats){"head", HOSTILE, 100, 2, 0.004};
    c->hop[1] = (struct cluster_hop_stats){HOSTILE, "head", 50, 1, 0};
    c->hop[2] = (struct cluster_hop_stats){"head", HOSTILE, 11, 3, 0.004};
}

/* ---- the tests ---- */

static void test_empty(void **state)
{
    struct rig *r = *state;

    rig_read(r);
    expect(r, "lingua_ready", "", 0);
    expect(r, "lingua_slots", "", 4);
    expect(r, "lingua_generated_tokens_total", "", 0);
    expect(r, "lingua_time_to_first_token_seconds_count", "", 0);
    expect(r, "process_resident_memory_bytes", "", 123456789);
    expect(r, "process_start_time_seconds", "", 1.7e9);
    expect(r, "lingua_http_connections_total", "", 7);
    /* What is not known is not said. */
    assert_true(page_family(&r->page, "lingua_predicted_token_seconds") >= 0);
    assert_null(page_sample(&r->page, "lingua_predicted_token_seconds", ""));
    assert_null(page_sample(&r->page, "lingua_prediction_error_ratio", ""));
}

static void test_requests(void **state)
{
    struct rig *r = *state;

    metrics_answered(r->m, "/v1/models", 200, 0.001);
    metrics_answered(r->m, "/v1/models", 200, 0.2);
    metrics_answered(r->m, "/v1/models", 404, 1000);
    metrics_answered(r->m, "", 404, 0.01);
    rig_read(r);
    expect(r, "lingua_requests_total", "route=/v1/models,status=200", 2);
    expect(r, "lingua_requests_total", "route=/v1/models,status=404", 1);
    expect(r, "lingua_requests_total", "route=other,status=404", 1);
    expect(r, "lingua_request_seconds_bucket", "route=/v1/models,le=0.005", 1);
    expect(r, "lingua_request_seconds_bucket", "route=/v1/models,le=0.25", 2);
    expect(r, "lingua_request_seconds_bucket", "route=/v1/models,le=300", 2);
    expect(r, "lingua_request_seconds_bucket", "route=/v1/models,le=+Inf", 3);
    expect(r, "lingua_request_seconds_count", "route=/v1/models", 3);
    expect(r, "lingua_request_seconds_sum", "route=/v1/models", 1000.201);
    /* Its own upper bound belongs to a bucket. */
    expect(r, "lingua_request_seconds_bucket", "route=other,le=0.01", 1);
}

/* However many routes and statuses there are, the page stays readable, and bounded. */
static void test_many_routes(void **state)
{
    struct rig *r = *state;
    char route[32];

    for (int i = 0; i < 200; i++) {
        snprintf(route, sizeof route, "/route/%d", i);
        metrics_answered(r->m, route, 200 + i, 0.1);
        metrics_answered(r->m, "/one", 200 + i, 0.1);
    }
    rig_read(r);
    expect(r, "lingua_requests_total", "route=/route/0,status=200", 1);
    expect(r, "lingua_request_seconds_count", "route=/one", 200);
    assert_true(value(r, "lingua_request_seconds_count", "route=other") > 100);
}

static void test_generations(void **state)
{
    struct rig *r = *state;
    struct gen_end end = {.why = GEN_STOP,
                          .n_prompt = 30,
                          .n_cached = 10,
                          .n_generated = 5,
                          .ttft_ms = 300,
                          .prompt_ms = 250,
                          .generate_ms = 500};

    metrics_gen(r->m, &end);
    end = (struct gen_end){.why = GEN_DONE, .n_prompt = 8, .prompt_ms = 150};
    metrics_gen(r->m, &end); /* no token: nothing for the time to the first */
    metrics_token(r->m, 0.004);
    metrics_token(r->m, 100);
    rig_read(r);
    expect(r, "lingua_generations_total", "", 2);
    expect(r, "lingua_prompt_tokens_total", "", 38);
    expect(r, "lingua_cached_tokens_total", "", 10);
    expect(r, "lingua_generated_tokens_total", "", 5);
    expect(r, "lingua_time_to_first_token_seconds_count", "", 1);
    expect(r, "lingua_time_to_first_token_seconds_bucket", "le=0.25", 0);
    expect(r, "lingua_time_to_first_token_seconds_bucket", "le=0.5", 1);
    expect(r, "lingua_inter_token_seconds_bucket", "le=0.005", 1);
    expect(r, "lingua_inter_token_seconds_bucket", "le=2.5", 1);
    expect(r, "lingua_inter_token_seconds_bucket", "le=+Inf", 2);
    expect(r, "llamacpp:prompt_tokens_total", "", 28);
    expect(r, "llamacpp:prompt_tokens_seconds", "", 28 / 0.4);
    expect(r, "llamacpp:predicted_tokens_seconds", "", 10);
}

static void test_cluster(void **state)
{
    struct rig *r = *state;
    struct cluster_stats *c = &r->cluster;

    devices_set(c);
    c->predicted_token_s = 0.010;
    c->measured_token_s = 0.011;
    c->n_waiting = 3;
    c->steps = UINT64_MAX; /* a double would not hold it */
    rig_read(r);
    expect(r, "lingua_ready", "", 1);
    expect(r, "lingua_queue_waiting", "", 3);
    expect(r, "lingua_prediction_error_ratio", "", 0.1);
    expect(r, "lingua_device_busy_seconds_total", "device=head", 1.25);
    expect(r, "lingua_device_memory_budget_bytes", "device=head", 2000);
    expect(r, "lingua_device_up", "device=a\"b\\c\nd?{}=,", 0);
    expect(r, "lingua_hop_bytes_total", "from=head,to=a\"b\\c\nd?{}=,", 111);
    expect(r, "lingua_hop_frames_total", "from=head,to=a\"b\\c\nd?{}=,", 5);
    expect(r, "lingua_hop_latency_seconds", "from=head,to=a\"b\\c\nd?{}=,", 0.004);
    assert_null(
        page_sample(&r->page, "lingua_hop_latency_seconds", "from=a\"b\\c\nd?{}=,,to=head"));
    assert_non_null(strstr(r->text, "\nlingua_steps_total 18446744073709551615\n"));
}

/* The reader of these tests is strict itself. */
static void test_reader(void **state)
{
    static const char *const bad[] = {
        "a 1\n",
        "# HELP a b\na 1\n",
        "# TYPE a gauge\na 1\n",
        "# HELP a b\n# TYPE b gauge\n",
        "# HELP a b\n# TYPE a strange\n",
        "# HELP a b\n# TYPE a counter\na 1\n",
        "# HELP a b\n# TYPE a gauge\nb 1\n",
        "# HELP a b\n# TYPE a gauge\na 1\na 2\n",
        "# HELP a b\n# TYPE a gauge\na{x=\"1} 1\n",
        "# HELP a b\n# TYPE a gauge\na{x=\"\\t\"} 1\n",
        "# HELP a b\n# TYPE a gauge\na{x:y=\"\"} 1\n",
        "# HELP a b\n# TYPE a gauge\na one\n",
        "# HELP a b\n# TYPE a gauge\na 1",
        "# HELP a b\n# TYPE a histogram\na_bucket{le=\"1\"} 1\na_sum 1\na_count 1\n",
        "# HELP a b\n# TYPE a histogram\na_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 1\n",
        "# HELP a b\n# TYPE a histogram\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 2\n",
    };
    struct rig *r = *state;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (page_read(bad[i], &r->page))
            fail_msg("this was taken:\n%s", bad[i]);
    assert_true(
        page_read("# HELP a b\n# TYPE a gauge\na{x=\"\\\\\\\"\\n\",y=\"\"} -1e3\n", &r->page));
    assert_non_null(page_sample(&r->page, "a", "x=\\\"\n,y="));
}

/* ---- the documents ---- */

static char *document(const char *name)
{
    char path[512], *text;
    FILE *f;
    long n;

    snprintf(path, sizeof path, "%s/%s", DOCS, name);
    f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    n = ftell(f);
    assert_true(n > 0);
    rewind(f);
    text = mem_alloc((size_t)n + 1);
    assert_int_equal(fread(text, 1, (size_t)n, f), (size_t)n);
    text[n] = '\0';
    fclose(f);
    return text;
}

/* The next word in the text that is the name of a metric; NULL: none is left. */
static const char *metric_next(const char **text, char name[PAGE_NAME_MAX])
{
    static const char *const begins[] = {"lingua_", "process_", "llamacpp:"};
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789_:";

    for (const char *s = *text; *s; s += s[0] != '\0') {
        size_t n = strspn(s, letters);

        for (size_t i = 0; n && n < PAGE_NAME_MAX && i < ARRAY_LEN(begins); i++)
            if (strncmp(s, begins[i], strlen(begins[i])) == 0) {
                memcpy(name, s, n);
                name[n] = '\0';
                *text = s + n;
                return name;
            }
        s += n ? n - 1 : 0;
    }
    return NULL;
}

/* Whether the page has it; in queries a histogram stands with the endings of its parts. */
static bool served(const struct page *p, const char *name, bool parts)
{
    static const char *const ends[] = {"_bucket", "_sum", "_count"};
    int f = page_family(p, name);

    if (f >= 0)
        return !parts || strcmp(p->family[f].type, "histogram") != 0;
    for (size_t i = 0; parts && i < ARRAY_LEN(ends); i++) {
        size_t n = strlen(name), n_end = strlen(ends[i]);
        char base[PAGE_NAME_MAX];

        if (n <= n_end || strcmp(name + n - n_end, ends[i]) != 0)
            continue;
        snprintf(base, sizeof base, "%.*s", (int)(n - n_end), name);
        f = page_family(p, base);
        return f >= 0 && strcmp(p->family[f].type, "histogram") == 0;
    }
    return false;
}

static void test_documents(void **state)
{
    struct rig *r = *state;
    char *text = document("metrics.md"), *board = document("grafana.json");
    char name[PAGE_NAME_MAX], cell[PAGE_NAME_MAX + 8];
    const char *s = text;
    int n = 0;

    devices_set(&r->cluster);
    rig_read(r);
    for (; metric_next(&s, name); n++)
        if (!served(&r->page, name, false))
            fail_msg("docs/metrics.md tells of %s, which is not served", name);
    assert_int_equal(n, r->page.n_families);
    for (int i = 0; i < r->page.n_families; i++) {
        const struct page_family *f = &r->page.family[i];

        snprintf(cell, sizeof cell, "| `%s` | %s |", f->name, f->type);
        if (!strstr(text, cell))
            fail_msg("docs/metrics.md has no row \"%s\"", cell);
    }
    s = board;
    for (n = 0; metric_next(&s, name); n++)
        if (!served(&r->page, name, true))
            fail_msg("docs/grafana.json asks for %s, which is not served", name);
    assert_true(n > 20);
    free(text);
    free(board);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_empty, rig_set, rig_clear),
        cmocka_unit_test_setup_teardown(test_requests, rig_set, rig_clear),
        cmocka_unit_test_setup_teardown(test_many_routes, rig_set, rig_clear),
        cmocka_unit_test_setup_teardown(test_generations, rig_set, rig_clear),
        cmocka_unit_test_setup_teardown(test_cluster, rig_set, rig_clear),
        cmocka_unit_test_setup_teardown(test_reader, rig_set, rig_clear),
        cmocka_unit_test_setup_teardown(test_documents, rig_set, rig_clear),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
