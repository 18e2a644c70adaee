/* What a device says of its speed: measured with real segments, remembered with what it depends on,
 * measured anew when that differs. How large figures are is for benches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/sys.h"
#include "cache_rig.h"
#include "device/condition.h"
#include "device/kept.h"
#include "device/profile.h"
#include "model/classes.h"
#include "model/measure.h"
#include "model/segment.h"
#include "support/tiny_model.h"

static struct err_text et;

static struct compute *compute(int n_threads)
{
    struct compute *c;

    assert_int_equal(compute_open(n_threads, &c, &et), ERR_NONE);
    return c;
}

/* Quickly and badly, which is all the same here. */
static struct profile_opts quick(const char *folder)
{
    return (struct profile_opts){.folder = folder, .windows = 1, .window_ms = 1};
}

static void measure(const char *path, int n_threads, enum kv_type kv, const char *folder,
                    struct wire_profile *out)
{
    struct compute *c = compute(n_threads);
    struct profile_opts o = quick(folder);

    if (profile_measure(c, path, kv, &o, out, &et))
        fail_msg("%s: %s", path, et.text);
    assert_int_equal(out->n_threads, n_threads);
    compute_close(c);
}

/* Every family: modules of all kinds can be run by themselves on nothing but a header. */
static void every_family_is_measured(void **state)
{
    static const enum ggml_type types[] = {GGML_TYPE_F32, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0,
                                           GGML_TYPE_Q4_K};
    static const enum kv_type kvs[] = {KV_F16, KV_F32};

    (void)state;
    for (int v = 0; v < TINY_N_VARIANTS; v++) {
        struct wire_profile p;
        struct model_classes classes;
        struct model *m;
        char path[512], name[64];

        snprintf(name, sizeof name, "profile-%s.gguf", tiny_name((enum tiny_variant)v));
        tiny_path(path, sizeof path, name);
        tiny_write(path, (enum tiny_variant)v, types[v % 4], 7);
        measure(path, v == 0 ? 2 : 1, kvs[v % 2], NULL, &p);
        assert_int_equal(model_open(path, &m, &et), ERR_NONE);
        assert_int_equal(model_classes(m, kvs[v % 2], &classes, &et), ERR_NONE);
        assert_true(p.classes == classes.id && p.n_classes == classes.n && !p.code);
        for (int c = 0; c < p.n_classes; c++) {
            bool attn = model_module(m, classes.example[c])->kind == MODULE_ATTN;

            for (int k = 0; k <= 5; k++)
                assert_in_range(p.cost_ps[c][k], 1, 10000000000000);
            assert_true((p.cost_ps[c][6] > 0) == attn);
        }
        model_classes_fini(&classes);
        model_close(m);
    }
}

/* Sixteen rows of a matrix take longer than one, whatever else the machine does: by the medians of
 * some windows, and far from how much longer it should be. */
static void more_rows_take_longer(void **state)
{
    struct compute *c = compute(1);
    struct profile_opts o = {.windows = 5, .window_ms = 4};
    struct wire_profile p;
    uint64_t one = 0, many = 0;
    char path[512];

    (void)state;
    tiny_path(path, sizeof path, "profile-rows.gguf");
    tiny_write(path, TINY_LLAMA_GQA, GGML_TYPE_F32, 7);
    assert_int_equal(profile_measure(c, path, KV_F16, &o, &p, &et), ERR_NONE);
    for (int i = 1; i < p.n_classes; i++) {
        one += p.cost_ps[i][0];
        many += p.cost_ps[i][4];
    }
    assert_true(many > one);
    compute_close(c);
}

static void figures_are_remembered(void **state)
{
    struct folder f = {""}, other = {""};
    struct wire_profile p, q;
    struct stat st;
    char path[512], kept[128], there[128];
    uint8_t *bytes;
    size_t len;

    (void)state;
    folder_make(&f);
    folder_make(&other);
    tiny_path(path, sizeof path, "profile-kept.gguf");
    tiny_write(path, TINY_LLAMA, GGML_TYPE_Q8_0, 7);
    measure(path, 1, KV_F16, f.path, &p);
    assert_true(profile_recall(f.path, p.classes, p.n_classes, 1, &q));
    assert_memory_equal(p.cost_ps, q.cost_ps, sizeof p.cost_ps);
    assert_true(q.classes == p.classes && q.n_classes == p.n_classes && q.n_threads == 1);
    /* Of other causes nothing is known. */
    assert_false(profile_recall(f.path, p.classes, p.n_classes, 2, &q));
    assert_false(profile_recall(f.path, p.classes + 1, p.n_classes, 1, &q));
    assert_false(profile_recall(f.path, p.classes, p.n_classes + 1, 1, &q));
    assert_false(profile_recall(other.path, p.classes, p.n_classes, 1, &q));
    assert_false(profile_recall(NULL, p.classes, p.n_classes, 1, &q));
    snprintf(kept, sizeof kept, "%s/profile", f.path);
    assert_int_equal(stat(kept, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    /* The file alone makes another device know it. */
    snprintf(there, sizeof there, "%s/profile", other.path);
    bytes = file_read(kept, &len);
    file_write(there, bytes, len);
    assert_true(profile_recall(other.path, p.classes, p.n_classes, 1, &q));
    assert_memory_equal(p.cost_ps, q.cost_ps, sizeof p.cost_ps);
    /* Another KV type is another cost; both are kept. */
    measure(path, 1, KV_F32, f.path, &q);
    assert_true(q.classes != p.classes);
    assert_true(profile_recall(f.path, p.classes, p.n_classes, 1, &q));
    free(bytes);
    folder_remove(&other);
    folder_remove(&f);
}

static void put(const char *folder, const char *key, uint64_t value)
{
    if (kept_put(folder, key, 1, &value, &et))
        fail_msg("%s", et.text);
}

static bool is_kept(const char *folder, const char *key, uint64_t value)
{
    uint64_t got;

    return kept_get(folder, key, 1, &got) && got == value;
}

static void only_the_newest_are_kept(void **state)
{
    struct folder f = {""};
    uint64_t many[100], got[100];
    char key[32];

    (void)state;
    folder_make(&f);
    put(f.path, "base", 7);
    for (int i = 0; i < KEPT_PER_WORD + 3; i++) {
        snprintf(key, sizeof key, "costs %d", i);
        put(f.path, key, (uint64_t)i);
        put(f.path, "costs 0", 1000); /* over and over: it stays the newest */
    }
    assert_true(is_kept(f.path, "base", 7)); /* which is of another kind */
    assert_true(is_kept(f.path, "costs 0", 1000));
    for (int i = 1; i < KEPT_PER_WORD + 3; i++) {
        snprintf(key, sizeof key, "costs %d", i);
        assert_int_equal(is_kept(f.path, key, (uint64_t)i), i >= 4);
    }
    for (int i = 0; i < 100; i++)
        many[i] = UINT64_MAX - (uint64_t)i;
    assert_int_equal(kept_put(f.path, "many of them", 100, many, &et), ERR_NONE);
    assert_true(kept_get(f.path, "many of them", 100, got));
    assert_memory_equal(many, got, sizeof many);
    assert_false(kept_get(f.path, "many of them", 99, got));
    folder_remove(&f);
}

static void damage_is_as_good_as_nothing(void **state)
{
    static const char *const bad[] = {
        "",
        "lingua profile 1: x86-64, 1 threads\nspeed 5\n",
        "lingua profile 3\n= 1 base\n5\n",
        "lingua profile 2\n= 1 base\n",
        "lingua profile 2\n= 2 base\n5\n",
        "lingua profile 2\n= 1 base\nfive\n",
        "lingua profile 2\n= 0 base\n5\n",
        "lingua profile 2\n= 99999999 base\n5\n",
        "lingua profile 2\n= 1 \n5\n",
        "lingua profile 2\n= 1 base\n5\nmore\n",
        "lingua profile 2\nbase 5\n",
        "lingua profile 2\n= 1 base\n5",
    };
    struct folder f = {""};
    char path[128];
    uint64_t got;

    (void)state;
    folder_make(&f);
    snprintf(path, sizeof path, "%s/profile", f.path);
    file_write(path, "lingua profile 2\n= 1 base\n5\n", 28);
    assert_true(is_kept(f.path, "base", 5));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        file_write(path, bad[i], strlen(bad[i]));
        if (kept_get(f.path, "base", 1, &got))
            fail_msg("case %zu was believed", i);
        put(f.path, "base", 6);
        assert_true(is_kept(f.path, "base", 6));
    }
    folder_remove(&f);
}

static void speed_is_remembered(void **state)
{
    struct folder f = {""};
    struct compute *c = compute(1), *two = compute(2);
    uint64_t speed = 0;
    char key[KEPT_KEY_MAX];

    (void)state;
    folder_make(&f);
    assert_int_equal(profile_speed(c, f.path, 1, &speed, &et), ERR_NONE);
    assert_true(speed > 1000000);
    /* A number no device has shows that it was read. */
    snprintf(key, sizeof key, "speed 1 threads, %.100s", model_kernels());
    assert_true(is_kept(f.path, key, speed));
    put(f.path, key, 4321);
    assert_int_equal(profile_speed(c, f.path, 1, &speed, &et), ERR_NONE);
    assert_int_equal(speed, 4321);
    assert_int_equal(profile_speed(c, NULL, 1, &speed, &et), ERR_NONE);
    assert_int_not_equal(speed, 4321);
    assert_int_equal(profile_speed(two, f.path, 1, &speed, &et), ERR_NONE);
    assert_int_not_equal(speed, 4321);
    compute_close(c);
    compute_close(two);
    folder_remove(&f);
}

/* A plan depends on it, so it does not change by some pages at every start; but it does when it is
 * far from what it was. */
static void base_is_remembered(void **state)
{
    struct folder f = {""};
    uint64_t base;

    (void)state;
    folder_make(&f);
    base = profile_base_bytes(f.path);
    assert_true(base > 100000);
    put(f.path, "base", base + 4096);
    assert_int_equal(profile_base_bytes(f.path), base + 4096);
    put(f.path, "base", base + (64 << 20));
    base = profile_base_bytes(f.path);
    assert_true(is_kept(f.path, "base", base)); /* and that is remembered */
    assert_int_equal(profile_base_bytes(f.path), base);
    folder_remove(&f);
}

/* In a process of its own, so that its memory is not ours. */
static void write_apart(const char *path, int n_layers)
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        tiny_write_layers(path, TINY_LLAMA_GQA, GGML_TYPE_F32, 7, n_layers);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* A device with too little for a single module says so; one that has a little more measures with
 * what it has, and gives it back. */
static void budget_is_kept_to(void **state)
{
    struct compute *c = compute(1);
    struct profile_opts o = quick(NULL);
    struct wire_profile p;
    uint64_t before;
    char path[512];
#ifndef __SANITIZE_ADDRESS__ /* which has memory of its own */
    struct rusage most;
#endif

    (void)state;
    tiny_path(path, sizeof path, "profile-budget.gguf");
    write_apart(path, 5); /* some 55 MB */
    before = sys_resident_bytes();
    o.memory_bytes = before + (3 << 20);
    assert_int_equal(profile_measure(c, path, KV_F16, &o, &p, &et), ERR_MEMORY);
    assert_non_null(strstr(et.text, "not even one module"));
    assert_non_null(strstr(et.text, "--memory"));
    o.memory_bytes = before + (32 << 20);
    if (profile_measure(c, path, KV_F16, &o, &p, &et))
        fail_msg("%s", et.text);
#ifndef __SANITIZE_ADDRESS__
    getrusage(RUSAGE_SELF, &most);
    assert_true((uint64_t)most.ru_maxrss * 1024 <= o.memory_bytes);
    assert_true(sys_resident_bytes() < before + (8 << 20));
#endif
    compute_close(c);
}

static bool stop_at_once(void *user)
{
    return ++*(int *)user > 3;
}

static void it_stops_when_told(void **state)
{
    struct folder f = {""};
    struct compute *c = compute(1);
    struct profile_opts o = {.stop = stop_at_once};
    struct wire_profile p;
    char path[512];
    int n = 0;

    (void)state;
    folder_make(&f);
    tiny_path(path, sizeof path, "profile-stop.gguf");
    tiny_write(path, TINY_LLAMA, GGML_TYPE_F32, 7);
    o.user = &n;
    o.folder = f.path;
    assert_int_equal(profile_measure(c, path, KV_F16, &o, &p, &et), ERR_CANCELLED);
    assert_int_equal(n, 4);
    assert_false(profile_recall(f.path, p.classes, 4, 1, &p));
    compute_close(c);
    folder_remove(&f);
}

static void what_cannot_be_measured_says_why(void **state)
{
    struct compute *c = compute(1);
    struct profile_opts o = quick(NULL);
    struct wire_profile p;
    char path[512];

    (void)state;
    assert_int_equal(profile_measure(c, "no-such-file.gguf", KV_F16, &o, &p, &et), ERR_FILE);
    tiny_path(path, sizeof path, "profile-why.gguf");
    tiny_write(path, TINY_LLAMA_BIAS, GGML_TYPE_F32, 7); /* heads of 48 */
    assert_int_equal(profile_measure(c, path, KV_Q8_0, &o, &p, &et), ERR_UNSUPPORTED);
    o.folder = "no-such-folder";
    assert_int_equal(profile_measure(c, path, KV_F16, &o, &p, &et), ERR_FILE);
    assert_non_null(strstr(et.text, "no-such-folder"));
    compute_close(c);
}

static void threads_are_tried_once(void **state)
{
    struct folder f = {""};
    char key[KEPT_KEY_MAX];
    int cores = sys_cores();

    (void)state;
    folder_make(&f);
    assert_in_range(profile_threads(f.path, 0, "no-such-sysfs"), 1, cores);
    snprintf(key, sizeof key, "threads of %d cores, 0 fast, governor -, %.100s", cores,
             model_kernels());
    for (int i = 1; i <= cores; i++) {
        put(f.path, key, (uint64_t)i);
        assert_int_equal(profile_threads(f.path, 0, "no-such-sysfs"), i);
    }
    put(f.path, key, 100000); /* no longer true, whoever wrote it */
    assert_in_range(profile_threads(f.path, 0, "no-such-sysfs"), 1, cores);
    folder_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(budget_is_kept_to), /* first: it looks at the most memory ever taken */
        cmocka_unit_test(every_family_is_measured),
        cmocka_unit_test(more_rows_take_longer),
        cmocka_unit_test(figures_are_remembered),
        cmocka_unit_test(only_the_newest_are_kept),
        cmocka_unit_test(damage_is_as_good_as_nothing),
        cmocka_unit_test(speed_is_remembered),
        cmocka_unit_test(base_is_remembered),
        cmocka_unit_test(it_stops_when_told),
        cmocka_unit_test(what_cannot_be_measured_says_why),
        cmocka_unit_test(threads_are_tried_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
