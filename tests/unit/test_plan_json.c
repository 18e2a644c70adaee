/* Devices files: what is written comes back the same, and everything that could be wrong with one
 * is refused with a sentence that names the place. The document and the drawing of a plan, with
 * names that would like to be markup. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "head/plan_json.h"
#include "support/tiny_model.h"

enum { PATH_CAP = 512 };

/* A model, and a problem that lacks devices alone. */
struct desk {
    char path[PATH_CAP];
    struct model *m;
    struct model_classes classes;
    struct place_module *modules;
    struct place_problem p;
    struct plan_devices devices;
    struct err_text et;
};

static struct desk desk;

static int desk_set(void **state)
{
    static const struct segment_opts opts = {.n_slots = 2, .n_ctx = 64, .n_rows_max = 16};
    char model[PATH_CAP];
    (void)state;

    tiny_path(model, sizeof model, "plan-json.gguf");
    tiny_write(model, TINY_LLAMA, GGML_TYPE_Q8_0, 7);
    tiny_path(desk.path, sizeof desk.path, "devices.json");
    if (model_open(model, &desk.m, &desk.et) ||
        model_classes(desk.m, KV_F16, &desk.classes, &desk.et))
        fail_msg("%s", desk.et.text);
    desk.modules = mem_zalloc((size_t)model_n_modules(desk.m), sizeof *desk.modules);
    place_describe(desk.m, &desk.classes, &opts, &desk.p, desk.modules);
    desk.p.concurrency = 2;
    desk.p.group_max = 1;
    desk.p.prompt = 16;
    return 0;
}

static int desk_clear(void **state)
{
    (void)state;
    free(desk.modules);
    model_classes_fini(&desk.classes);
    model_close(desk.m);
    return 0;
}

static void file_write(const char *text, size_t n)
{
    FILE *f = fopen(desk.path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static enum err take(const char *text)
{
    file_write(text, strlen(text));
    return plan_devices_read(desk.path, desk.m, &desk.p, &desk.devices, &desk.et);
}

static void must_take(const char *text)
{
    if (take(text))
        fail_msg("%s", desk.et.text);
}

static bool near(double a, double b)
{
    return a == b || fabs(a - b) <= 1e-12 * fmax(fabs(a), fabs(b));
}

/* ---- what a file says ---- */

static void test_fields(void **state)
{
    const struct place_device *d;
    const struct place_link *l;
    struct place_cost guess[CLASSES_MAX];
    (void)state;

    must_take("{\"about\":\"x\",\"head_ms\":0.5,\"devices\":["
              "{\"name\":\"a\",\"memory\":\"2G\",\"base\":1000,\"speed\":\"1G\",\"threads\":2},"
              "{\"name\":\"b\",\"memory\":5000000,\"speed\":2e9,\"cap\":0.5,\"spare\":true,"
              "\"mine\":true,\"use\":\"must\",\"step_ms\":2,\"costs\":{\"ffn\":{\"decode_ms\":"
              "[1,2,3,4,5],\"prefill_ms\":0.25,\"position_us\":3},\"attn of another model\":"
              "{\"decode_ms\":[1,1,1,1,1]}}},"
              "{\"name\":\"c\",\"speed\":1000000,\"worth\":0.2,\"use\":\"not\"}],"
              "\"links\":{\"default\":{\"latency_ms\":2,\"rate_mbit\":80,\"air\":2},\"pairs\":["
              "{\"from\":\"a\",\"to\":\"b\",\"latency_ms\":1},"
              "{\"from\":\"b\",\"to\":\"c\",\"both\":false,\"rate_mbit\":\"unlimited\",\"air\":0},"
              "{\"from\":\"c\",\"to\":\"b\",\"both\":false,\"there\":false}]}}");
    assert_int_equal(desk.p.n_devices, 3);
    assert_true(near(desk.p.head_s, 5e-4));
    d = desk.p.device;
    assert_string_equal(d[0].name, "a");
    assert_true(d[0].memory_bytes == 2ull << 30 && d[0].base_bytes == 1000 && d[0].mine);
    assert_true(d[0].cap == 1 && d[0].worth == PLACE_WORTH_DEFAULT && d[0].wish == PLACE_MAY);
    assert_true(d[1].memory_bytes == 5000000 && d[1].cap == 0.5 && d[1].mine);
    assert_true(d[1].worth == PLACE_WORTH_SPARE && d[1].wish == PLACE_MUST);
    assert_true(near(d[1].step_s, 2e-3));
    assert_true(d[2].memory_bytes == 0 && !d[2].mine && d[2].worth == 0.2);
    assert_int_equal(d[2].wish, PLACE_NOT);
    place_guess_cost(&desk.p, 2e9, guess);
    for (int m = 0; m < desk.p.n_modules; m++) {
        const struct place_cost *c = &d[1].cost[desk.modules[m].class];

        if (model_module(desk.m, m)->kind == MODULE_FFN) {
            for (int b = 0; b < PLACE_BATCHES; b++)
                assert_true(near(c->decode[b], (b + 1) / 1e3));
            assert_true(near(c->prefill, 0.25e-3) && near(c->position, 3e-6));
        } else {
            assert_memory_equal(c, &guess[desk.modules[m].class], sizeof *c);
        }
    }
    assert_true(desk.devices.guessed[0] && desk.devices.guessed[1]);
    l = desk.p.link;
    assert_true(l[1].there && near(l[1].latency_s, 1e-3) && near(l[1].bytes_per_s, 1e7));
    assert_true(memcmp(&l[1], &l[3], sizeof *l) == 0 && l[1].air == 2);
    assert_true(l[2].there && near(l[2].latency_s, 2e-3));
    assert_true(isinf(l[5].bytes_per_s) && l[5].air == 0 && near(l[5].latency_s, 2e-3));
    assert_false(l[7].there);
    plan_devices_fini(&desk.devices);
}

/* One device needs no links; what is not said has values that make sense. */
static void test_smallest(void **state)
{
    (void)state;
    must_take("{\"devices\":[{\"name\":\"alone\",\"speed\":\"10G\"}]}");
    assert_int_equal(desk.p.n_devices, 1);
    assert_true(desk.p.head_s > 0 && desk.p.device[0].step_s > 0);
    assert_true(desk.p.device[0].mine && desk.p.device[0].base_bytes > 0);
    if (place_check(&desk.p, &desk.et))
        fail_msg("%s", desk.et.text);
    plan_devices_fini(&desk.devices);
    plan_devices_fini(&desk.devices); /* a second time is nothing */
}

static void random_problem(struct tiny_rng *r, struct place_device *d, struct place_cost *cost,
                           struct place_link *link, int n)
{
    static const char *const names[] = {"laptop", "it's \"mine\"", "<b>",
                                        "\xe9\x9b\xbb\xe8\x85\xa6"};
    int classes = desk.p.n_classes;

    for (int i = 0; i < n; i++) {
        d[i] =
            (struct place_device){.name = names[i],
                                  .memory_bytes = i == 1 ? 0 : 1 << 28 | tiny_rng_next(r) >> 30,
                                  .base_bytes = tiny_rng_next(r) >> 40,
                                  .mine = i == 0 || tiny_rng_next(r) % 2,
                                  .wish = i ? (enum place_wish)(tiny_rng_next(r) % 3) : PLACE_MAY,
                                  .cap = 0.01 + (double)(tiny_rng_next(r) % 99) / 100,
                                  .worth = (double)(tiny_rng_next(r) % 1000) / 7001,
                                  .step_s = (double)(tiny_rng_next(r) % 1000) / 3e6,
                                  .cost = cost + i * classes};
        for (int c = 0; c < classes; c++) {
            struct place_cost *to = &cost[i * classes + c];

            for (int b = 0; b < PLACE_BATCHES; b++)
                to->decode[b] = (double)(tiny_rng_next(r) >> 12) * 1e-18;
            to->position = (double)(tiny_rng_next(r) >> 12) * 1e-24;
            to->prefill = (double)(tiny_rng_next(r) >> 12) * 1e-19;
        }
        for (int k = 0; k < n; k++)
            link[i * n + k] = (struct place_link){
                .there = k != i && tiny_rng_next(r) % 4 > 0,
                .latency_s = (double)(tiny_rng_next(r) % 100000) / 7e6,
                .bytes_per_s =
                    tiny_rng_next(r) % 5 ? 1e3 + (double)(tiny_rng_next(r) >> 30) : INFINITY,
                .air = (int)(tiny_rng_next(r) % (PLACE_AIRS_MAX + 1))};
    }
}

static void same_problem(const struct place_problem *a, const struct place_problem *b)
{
    assert_int_equal(a->n_devices, b->n_devices);
    assert_true(near(a->head_s, b->head_s));
    for (int i = 0; i < a->n_devices; i++) {
        const struct place_device *x = &a->device[i], *y = &b->device[i];

        assert_string_equal(x->name, y->name);
        assert_true(x->memory_bytes == y->memory_bytes && x->base_bytes == y->base_bytes);
        assert_true(x->mine == y->mine && x->wish == y->wish);
        assert_true(x->cap == y->cap && x->worth == y->worth && near(x->step_s, y->step_s));
        for (int c = 0; c < a->n_classes; c++) {
            for (int k = 0; k < PLACE_BATCHES; k++)
                assert_true(near(x->cost[c].decode[k], y->cost[c].decode[k]));
            assert_true(near(x->cost[c].position, y->cost[c].position));
            assert_true(near(x->cost[c].prefill, y->cost[c].prefill));
        }
        for (int k = 0; k < a->n_devices; k++) {
            const struct place_link *l = &a->link[i * a->n_devices + k],
                                    *j = &b->link[i * a->n_devices + k];

            assert_int_equal(l->there, j->there);
            if (!l->there)
                continue;
            assert_true(near(l->latency_s, j->latency_s) && near(l->bytes_per_s, j->bytes_per_s));
            assert_int_equal(l->air, j->air);
        }
    }
}

static void test_round_trip(void **state)
{
    enum { N = 4 };
    struct place_device device[N];
    struct place_cost cost[N * CLASSES_MAX];
    struct place_link link[N * N];
    struct tiny_rng r = {11};
    (void)state;

    for (int i = 0; i < 50; i++) {
        struct place_problem p = desk.p;
        json_t *file;
        char *text;

        random_problem(&r, device, cost, link, N);
        p.n_devices = N;
        p.device = device;
        p.link = link;
        p.head_s = (double)i / 7e3;
        file = plan_devices_json(&p, desk.m);
        text = json_dumps(file, JSON_INDENT(1));
        must_take(text);
        same_problem(&p, &desk.p);
        for (int d = 0; d < N; d++)
            assert_false(desk.devices.guessed[d]);
        free(text);
        json_decref(file);
        plan_devices_fini(&desk.devices);
    }
}

/* ---- what is wrong with a file ---- */

#define A  "{\"name\":\"a\",\"speed\":\"1G\"}"
#define B  "{\"name\":\"b\",\"speed\":\"1G\"}"
#define AB "\"devices\":[" A "," B "]"
/* device 2 with one more field; a pair with one more field; costs of device 2 */
#define DEVICE(field)  "{\"devices\":[" A ",{\"name\":\"b\",\"speed\":\"1G\"," field "}]}"
#define PAIR(field)    "{" AB ",\"links\":{\"pairs\":[{\"from\":\"a\",\"to\":\"b\"," field "}]}}"
#define DEFAULT(field) "{" AB ",\"links\":{\"default\":{" field "}}}"
#define COSTS(costs)   "{\"devices\":[" A ",{\"name\":\"b\",\"costs\":{" costs "}}]}"

static const struct {
    const char *text, *says[3];
} bad[] = {
    {"", {"line 1", "no JSON"}},
    {"{", {"line 1", "no JSON"}},
    {"[1]", {"the file must be an object", "[1]"}},
    {"3", {"line 1", "no JSON"}},
    {"{}", {"\"devices\" is missing", "list"}},
    {"{\"devices\":{}}", {"\"devices\" must be a list", "{}"}},
    {"{\"devices\":[]}", {"\"devices\" must be a list", "at least one"}},
    {"{\"devices\":[" A "],\"devices\":[]}", {"duplicate", "devices"}},
    {"{\"devises\":[" A "]}", {"\"devises\" is no field", "did you mean \"devices\"?"}},
    {"{\"devices\":[" A "],\"about\":7}", {"\"about\" must be a text", "not 7"}},
    {"{\"devices\":[" A "],\"head_ms\":-1}", {"\"head_ms\" must be", "not -1"}},
    {"{\"devices\":[" A "],\"head_ms\":NaN}", {"line 1", "no JSON", "NaN"}},
    {"{\"devices\":[" A "],\"head_ms\":1e999}", {"line 1", "no JSON", "overflow"}},
    {"{\"devices\":[7]}", {"device 1 must be an object", "not 7"}},
    {"{\"devices\":[{\"speed\":\"1G\"}]}", {"device 1", "\"name\" is missing"}},
    {"{\"devices\":[{\"name\":\"\"}]}", {"device 1", "\"name\" must be"}},
    {"{\"devices\":[{\"name\":5}]}", {"device 1", "\"name\" must be a text", "not 5"}},
    {"{\"devices\":[{\"name\":\"a\\u0007b\"}]}", {"device 1", "\"name\"", "control characters"}},
    {"{\"devices\":[{\"name\":\"a\\u0000b\"}]}", {"line 1", "no JSON"}},
    {"{\"devices\":[{\"name\":"
     "\"0123456789012345678901234567890123456789012345678901234567890123\"}]}",
     {"device 1", "1 to 63 bytes"}},
    {"{\"devices\":[" A "," B "," A "]}", {"devices 1 and 3", "both called \"a\""}},
    {"{\"devices\":[{\"name\":\"a\"}]}", {"device 1 (a)", "nothing says what", "\"speed\""}},
    {DEVICE("\"sped\":1"), {"device 2 (b)", "\"sped\" is no field", "did you mean \"speed\"?"}},
    {DEVICE("\"colour\":1"), {"device 2 (b)", "\"colour\" is no field of it"}},
    {DEVICE("\"memory\":\"lots\""), {"device 2 (b)", "\"memory\" must be", "\"lots\""}},
    {DEVICE("\"memory\":-5"), {"device 2 (b)", "\"memory\" must be", "not -5"}},
    {DEVICE("\"memory\":1e30"), {"device 2 (b)", "\"memory\" must be"}},
    {DEVICE("\"memory\":true"), {"device 2 (b)", "\"memory\" must be", "not true"}},
    {DEVICE("\"base\":\"\""), {"device 2 (b)", "\"base\" must be"}},
    {DEVICE("\"threads\":0"), {"device 2 (b)", "\"threads\" must be a whole number", "not 0"}},
    {DEVICE("\"threads\":1.5"), {"device 2 (b)", "\"threads\" must be a whole number"}},
    {DEVICE("\"cap\":0"), {"device 2 (b)", "\"cap\" must be", "not 0"}},
    {DEVICE("\"cap\":1.01"), {"device 2 (b)", "\"cap\" must be", "0.001 to 1"}},
    {DEVICE("\"cap\":\"half\""), {"device 2 (b)", "\"cap\" must be", "\"half\""}},
    {DEVICE("\"spare\":1"), {"device 2 (b)", "\"spare\" must be true or false", "not 1"}},
    {DEVICE("\"spare\":true,\"worth\":0.3"), {"device 2 (b)", "\"spare\" and \"worth\""}},
    {DEVICE("\"worth\":2"), {"device 2 (b)", "\"worth\" must be", "not 2"}},
    {DEVICE("\"mine\":\"yes\""), {"device 2 (b)", "\"mine\" must be true or false"}},
    {DEVICE("\"use\":\"maybe\""), {"device 2 (b)", "\"use\" must be \"may\", \"must\" or \"not\""}},
    {DEVICE("\"use\":3"), {"device 2 (b)", "\"use\" must be"}},
    {DEVICE("\"step_ms\":1e9"), {"device 2 (b)", "\"step_ms\" must be"}},
    {"{\"devices\":[{\"name\":\"a\",\"speed\":0}]}",
     {"device 1 (a)", "\"speed\" must be", "not 0"}},
    {"{\"devices\":[{\"name\":\"a\",\"speed\":\"-1G\"}]}", {"device 1 (a)", "\"speed\" must be"}},
    {"{\"devices\":[{\"name\":\"a\",\"speed\":1e20}]}", {"device 1 (a)", "\"speed\" must be"}},
    {"{\"devices\":[{\"name\":\"a\",\"speed\":[1]}]}",
     {"device 1 (a)", "\"speed\" must be", "[1]"}},
    {DEVICE("\"costs\":3"), {"device 2 (b)", "\"costs\" must be an object", "not 3"}},
    {COSTS("\"fnn\":{\"decode_ms\":[1,1,1,1,1]}"),
     {"device 2 (b)", "\"fnn\" is no kind of module", "did you mean \"ffn\"?"}},
    {COSTS("\"ffn\":3"), {"device 2 (b)", "\"ffn\" must be an object", "not 3"}},
    {COSTS("\"ffn\":{}"), {"device 2 (b)", "\"ffn\"", "\"decode_ms\" is missing"}},
    {COSTS("\"ffn\":{\"decode_ms\":[1,2]}"),
     {"\"ffn\"", "\"decode_ms\" must be 5 numbers", "[1,2]"}},
    {COSTS("\"ffn\":{\"decode_ms\":[1,2,3,-4,5]}"), {"\"ffn\"", "\"decode_ms\" must be 5 numbers"}},
    {COSTS("\"ffn\":{\"decode_ms\":[1,2,3,\"4\",5]}"), {"\"ffn\"", "\"decode_ms\" must be 5"}},
    {COSTS("\"ffn\":{\"decode_ms\":[1,2,3,4,1e12]}"), {"\"ffn\"", "\"decode_ms\" must be 5"}},
    {COSTS("\"ffn\":{\"decode_ms\":[1,1,1,1,1],\"prefill_ms\":-1}"), {"\"ffn\"", "\"prefill_ms\""}},
    {COSTS("\"ffn\":{\"decode_ms\":[1,1,1,1,1],\"position_us\":[]}"),
     {"\"ffn\"", "\"position_us\""}},
    {COSTS("\"ffn\":{\"decode_ms\":[1,1,1,1,1],\"prefil_ms\":1}"),
     {"\"prefil_ms\" is no field", "did you mean \"prefill_ms\"?"}},
    {COSTS("\"ffn\":{\"decode_ms\":[1,1,1,1,1]}"),
     {"device 2 (b)", "nothing says what \"embed", "\"embed\" in \"costs\""}},
    {"{" AB "}", {"\"links\" is missing", "\"default\""}},
    {"{" AB ",\"links\":[]}", {"links must be an object", "not []"}},
    {"{" AB ",\"links\":{\"defualt\":{}}}",
     {"\"defualt\" is no field", "did you mean \"default\"?"}},
    {"{" AB ",\"links\":{\"default\":1}}", {"links: default must be an object", "not 1"}},
    {DEFAULT("\"rate_mbit\":100"), {"links: default", "\"latency_ms\" is missing"}},
    {DEFAULT("\"latency_ms\":1"), {"links: default", "\"rate_mbit\" is missing"}},
    {DEFAULT("\"latency_ms\":-1,\"rate_mbit\":1"), {"links: default", "\"latency_ms\"", "not -1"}},
    {DEFAULT("\"latency_ms\":1,\"rate_mbit\":0"), {"links: default", "\"rate_mbit\"", "not 0"}},
    {DEFAULT("\"latency_ms\":1,\"rate_mbit\":\"fast\""),
     {"links: default", "\"rate_mbit\"", "fast"}},
    {DEFAULT("\"latency_ms\":1,\"rate_mbit\":1,\"air\":9"), {"links: default", "\"air\"", "not 9"}},
    {DEFAULT("\"latency_ms\":1,\"rate_mbit\":1,\"air\":1.5"), {"links: default", "\"air\""}},
    {DEFAULT("\"latency\":1"), {"\"latency\" is no field", "did you mean \"latency_ms\"?"}},
    {"{" AB ",\"links\":{\"pairs\":{}}}", {"links", "\"pairs\" must be a list"}},
    {"{" AB ",\"links\":{\"pairs\":[0]}}", {"links: pair 1 must be an object", "not 0"}},
    {"{" AB ",\"links\":{\"pairs\":[{\"to\":\"b\"}]}}", {"links: pair 1", "\"from\" is missing"}},
    {"{" AB ",\"links\":{\"pairs\":[{\"from\":\"a\",\"to\":\"bb\"}]}}",
     {"links: pair 1", "\"to\" names \"bb\"", "no device here"}},
    {"{" AB ",\"links\":{\"pairs\":[{\"from\":\"a\",\"to\":\"a\"}]}}",
     {"links: pair 1", "another device than \"from\""}},
    {PAIR("\"latency_ms\":1"), {"links: pair 1", "\"rate_mbit\" is missing"}},
    {PAIR("\"both\":\"yes\""), {"links: pair 1", "\"both\" must be true or false"}},
    {PAIR("\"there\":0"), {"links: pair 1", "\"there\" must be true or false"}},
    {PAIR("\"colour\":0"), {"links: pair 1", "\"colour\" is no field"}},
    {"{" AB ",\"links\":{\"pairs\":[{\"from\":\"a\",\"to\":\"b\",\"there\":false},"
     "{\"from\":\"b\",\"to\":\"a\",\"there\":false}]}}",
     {"links: pair 2", "from \"b\" to \"a\" is given twice"}},
};

static void refused(enum err e, const char *what)
{
    if (e != ERR_INPUT)
        fail_msg("taken (%d): %s", e, what);
    if (!strstr(desk.et.text, "devices.json"))
        fail_msg("the file is not named: %s", desk.et.text);
    assert_null(desk.devices.device);
    assert_null(desk.devices.name);
    assert_int_equal(desk.devices.n, 0);
}

static void test_bad_files(void **state)
{
    (void)state;
    assert_true(ARRAY_LEN(bad) >= 40);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        refused(take(bad[i].text), bad[i].text);
        for (int k = 0; k < 3 && bad[i].says[k]; k++)
            if (!strstr(desk.et.text, bad[i].says[k]))
                fail_msg("%s\nsays: %s\nnot: %s", bad[i].text, desk.et.text, bad[i].says[k]);
    }
}

/* What grows without end. */
static void test_too_much(void **state)
{
    enum { MANY = 1000, DEEP = 100000 };
    size_t n = 0, cap = (1 << 20) + 16;
    char *text = malloc(cap);
    (void)state;

    assert_non_null(text);
    n = (size_t)sprintf(text, "{\"devices\":[");
    for (int i = 0; i < MANY; i++)
        n += (size_t)sprintf(text + n, "%s{\"name\":\"d%d\",\"speed\":\"1G\"}", i ? "," : "", i);
    n += (size_t)sprintf(text + n, "]}");
    file_write(text, n);
    refused(plan_devices_read(desk.path, desk.m, &desk.p, &desk.devices, &desk.et), "1000 devices");
    assert_non_null(strstr(desk.et.text, "1000 devices are more than the 64"));

    memset(text, '[', DEEP);
    file_write(text, DEEP);
    refused(plan_devices_read(desk.path, desk.m, &desk.p, &desk.devices, &desk.et), "deep");
    assert_non_null(strstr(desk.et.text, "depth"));

    memset(text, ' ', cap);
    file_write(text, (1 << 20) + 1);
    refused(plan_devices_read(desk.path, desk.m, &desk.p, &desk.devices, &desk.et), "long");
    assert_non_null(strstr(desk.et.text, "1 MiB"));
    free(text);
}

/* Each beginning of a good file is refused, or taken whole. */
static void test_truncated(void **state)
{
    static const char good[] =
        "{" AB ",\"links\":{\"default\":{\"latency_ms\":1,\"rate_mbit\":9}}}";
    (void)state;

    for (size_t n = 0; n < sizeof good - 1; n++) {
        file_write(good, n);
        refused(plan_devices_read(desk.path, desk.m, &desk.p, &desk.devices, &desk.et), good);
    }
    must_take(good);
    plan_devices_fini(&desk.devices);
}

static void test_no_file(void **state)
{
    struct plan_devices d;
    (void)state;

    assert_int_equal(plan_devices_read("/nowhere/x.json", desk.m, &desk.p, &d, &desk.et), ERR_FILE);
    assert_non_null(strstr(desk.et.text, "/nowhere/x.json"));
    assert_int_equal(plan_devices_read("/", desk.m, &desk.p, &d, &desk.et), ERR_FILE);
}

/* ---- the document and the drawing ---- */

static const char three[] =
    "{\"devices\":[{\"name\":\"<script>alert('1')</script>\",\"speed\":\"1M\",\"memory\":\"2G\"},"
    "{\"name\":\"a & \\\"b\\\" ]]>\",\"speed\":\"200M\"},"
    "{\"name\":\"\\u96fb\\u8166\",\"speed\":\"1M\",\"spare\":true},"
    "{\"name\":\"far\",\"speed\":\"1G\"}],"
    "\"links\":{\"pairs\":["
    "{\"from\":\"<script>alert('1')</script>\",\"to\":\"a & \\\"b\\\" ]]>\",\"latency_ms\":0.01,"
    "\"rate_mbit\":1000},"
    "{\"from\":\"<script>alert('1')</script>\",\"to\":\"\\u96fb\\u8166\",\"latency_ms\":900,"
    "\"rate_mbit\":1}]}}";

static json_t *document(void)
{
    static const struct plan_json_opts opts = {.note = "a test", .solve_ms = 1.5};
    struct placement *found = mem_zalloc(1, sizeof *found);
    struct report *report = mem_zalloc(1, sizeof *report);
    json_t *doc;

    must_take(three);
    if (place_solve(&desk.p, &PLACE_OPTS_DEFAULT, found, &desk.et))
        fail_msg("%s", desk.et.text);
    report_make(&desk.p, found, report);
    doc = plan_json(&desk.p, desk.m, report, &opts);
    free(found);
    free(report);
    plan_devices_fini(&desk.devices);
    return doc;
}

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    if (!json_is_number(v))
        fail_msg("%s is no number", key);
    return json_number_value(v);
}

static double sum(const json_t *list)
{
    double s = 0;

    for (size_t i = 0; i < json_array_size(list); i++)
        s += json_number_value(json_array_get(list, i));
    return s;
}

static void test_document(void **state)
{
    json_t *doc = document();
    const json_t *devices = json_object_get(doc, "devices"), *far = json_array_get(devices, 3),
                 *slow = json_array_get(devices, 2), *quick = json_array_get(devices, 1);
    const json_t *t = json_object_get(doc, "prediction"), *stages = json_object_get(doc, "stages");
    double of_devices = 0, modules = 0;
    (void)state;

    assert_int_equal(json_array_size(devices), 4);
    assert_true(json_is_true(json_object_get(quick, "used")));
    assert_true(number(quick, "loses_percent") > 0);
    assert_false(json_is_true(json_object_get(slow, "used")));
    assert_true(number(slow, "costs_percent") > 0);
    assert_non_null(strstr(json_string_value(json_object_get(slow, "why")), "instead of"));
    assert_true(json_is_true(json_object_get(slow, "spare")));
    assert_null(json_object_get(far, "costs_percent"));
    assert_non_null(strstr(json_string_value(json_object_get(far, "why")), "could not take part"));
    /* Parts add up. */
    assert_int_equal(json_array_size(json_object_get(doc, "hops")), json_array_size(stages) + 1);
    assert_true(fabs(sum(json_object_get(t, "compute_ms")) + sum(json_object_get(t, "hop_ms")) +
                     number(t, "head_ms") - number(t, "ms_per_token")) <
                1e-9 * number(t, "ms_per_token"));
    for (size_t i = 0; i < 4; i++) {
        of_devices += number(json_array_get(devices, i), "compute_ms");
        modules += number(json_array_get(devices, i), "n_modules");
    }
    assert_true(fabs(of_devices - sum(json_object_get(t, "compute_ms"))) < 1e-9 * of_devices);
    assert_true(modules == desk.p.n_modules);
    assert_true(number(json_object_get(doc, "program"), "solve_ms") == 1.5);
    assert_true(*json_string_value(json_object_get(doc, "limit")));
    json_decref(doc);
}

static void draw(const json_t *doc, const char *name)
{
    char path[PATH_CAP], *svg = plan_svg(doc);
    FILE *f;

    assert_non_null(strstr(svg, "</svg>"));
    assert_null(strstr(svg, "<script"));
    assert_null(strstr(svg, "nan"));
    assert_null(strstr(svg, "inf"));
    for (const char *p = svg; *p; p++) /* no control characters */
        assert_true((unsigned char)*p >= 0x20 || *p == '\n');
    tiny_path(path, sizeof path, name); /* tests/live/plan.sh parses these */
    f = fopen(path, "wb");
    assert_non_null(f);
    fputs(svg, f);
    fclose(f);
    free(svg);
}

static void test_drawing(void **state)
{
    json_t *doc = document(), *measured = json_deep_copy(json_object_get(doc, "prediction"));
    char *svg = plan_svg(doc);
    (void)state;

    assert_non_null(strstr(svg, "&lt;script&gt;"));
    assert_non_null(strstr(svg, "a &amp; &quot;b&quot;"));
    assert_non_null(strstr(svg, "\xe9\x9b\xbb\xe8\x85\xa6"));
    assert_non_null(strstr(svg, "could not take part"));
    assert_null(strstr(svg, "measured:"));
    free(svg);
    json_object_set_new(measured, "error_percent", json_real(-7.25));
    json_object_set_new(doc, "measured", measured);
    svg = plan_svg(doc);
    assert_non_null(strstr(svg, "measured:"));
    free(svg);
    draw(doc, "plan.svg");
    json_decref(doc);
}

/* A drawing is made of what another program answered: nothing in it may be taken on trust. */
static void test_drawing_of_anything(void **state)
{
    static const char *const docs[] = {
        "{}",
        "{\"devices\":7,\"stages\":{},\"hops\":[1],\"prediction\":[]}",
        "{\"devices\":[1,\"x\",{\"name\":3}],\"stages\":[{\"device\":-3,\"first\":5,\"end\":1e300},"
        "{\"device\":99}],\"hops\":[{\"from\":0,\"to\":5},3,{\"from\":1,\"to\":0}]}",
        "{\"model\":{\"name\":\"\\u0001\\u001b[31m\\u202e\\ufffe\\u0085\",\"n_modules\":-1},"
        "\"devices\":[{\"name\":\"\\u0007\",\"used\":true},{\"name\":\"<&>\",\"why\":\"\\u0002\"}],"
        "\"stages\":[{\"device\":0,\"modules\":\"\\u0003\",\"compute_ms\":-5}],"
        "\"hops\":[{\"from\":1,\"to\":0,\"rate_mbit\":-1},{\"from\":0,\"to\":1}],"
        "\"measured\":{\"compute_ms\":[1e308,1e308],\"hop_ms\":{}}}",
    };
    char name[32];
    (void)state;

    for (size_t i = 0; i < ARRAY_LEN(docs); i++) {
        json_t *doc = json_loads(docs[i], 0, NULL);

        assert_non_null(doc);
        snprintf(name, sizeof name, "plan-%zu.svg", i);
        draw(doc, name);
        json_decref(doc);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),     cmocka_unit_test(test_smallest),
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_too_much),   cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_no_file),    cmocka_unit_test(test_document),
        cmocka_unit_test(test_drawing),    cmocka_unit_test(test_drawing_of_anything),
    };

    return cmocka_run_group_tests(tests, desk_set, desk_clear);
}
