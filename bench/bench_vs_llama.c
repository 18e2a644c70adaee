/* lingua and llama.cpp side by side: one process, one run, the same file, threads and rows.
 *
 * Every figure is a ratio of two measurements taken one right after the other, and what is reported
 * is the median of such ratios: a machine that slows down for a while slows both. llama.cpp runs as
 * its own llama-bench would run it: a thread pool with its defaults, flash attention on its own
 * choice, micro-batches of 512. Memory and load time are measured in a fresh process per engine
 * (this program again, with --child). */
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/sys.h"
#include "bench_model.h"
#include "support/ref_llama.h"
#include "support/rig.h"

enum { SLOTS = 8, CTX = 1024, ROWS_MAX = 512, REPS_MAX = 32, RESULTS_MAX = 128 };

struct options {
    const char *dir;
    bool types[GGML_TYPE_COUNT];
    bool threads[65];
    bool quick, json, memory, speed;
};

/* ---- one engine behind the few calls the cases need ---- */

struct side {
    struct ref *ref; /* or, when NULL, the rig */
    struct rig rig;
    int len[SLOTS];
};

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench: %s: %s\n", what, why);
    exit(1);
}

static void side_open(struct side *s, bool ours, const char *path, int n_threads, int n_slots,
                      const int *cuts, int n_cuts)
{
    memset(s, 0, sizeof(*s));
    if (ours) {
        struct segment_opts opts = {
            .n_slots = n_slots, .n_ctx = CTX, .n_rows_max = SEGMENT_ROWS_DEFAULT, .kv = KV_F16};

        rig_open(&s->rig, path, n_threads, &opts, cuts, n_cuts);
    } else {
        struct ref_opts opts = {.n_threads = n_threads,
                                .n_ctx = CTX,
                                .n_seqs = n_slots,
                                .kv = GGML_TYPE_F16,
                                .flash = true};

        s->ref = ref_open(path, &opts);
    }
}

static void side_close(struct side *s)
{
    if (s->ref)
        ref_close(s->ref);
    else
        rig_close(&s->rig);
}

static void side_rewind(struct side *s, int slot, int len)
{
    if (s->len[slot] <= len)
        return;
    if (s->ref)
        ref_truncate(s->ref, slot, len);
    for (int i = 0; !s->ref && i < s->rig.n_segments; i++)
        if (segment_slot_truncate(s->rig.segments[i], slot, len, NULL) != ERR_NONE)
            die("truncate", "refused");
    s->len[slot] = len;
}

/* n_rows rows to each of slots [0, n_slots), logits of each slot's last one wanted. */
static void side_step(struct side *s, int n_slots, int n_rows)
{
    int32_t slot[ROWS_MAX], pos[ROWS_MAX], token[ROWS_MAX];
    uint8_t want[ROWS_MAX];
    int n = 0;

    for (int i = 0; i < n_slots; i++) {
        for (int row = 0; row < n_rows; row++, n++) {
            slot[n] = i;
            pos[n] = s->len[i]++;
            token[n] = (int32_t)((uint32_t)(pos[n] * 7919 + i * 104729 + 1) % BENCH_VOCAB);
            want[n] = row == n_rows - 1;
        }
    }
    if (s->ref) {
        ref_step(s->ref, n, slot, pos, token, want);
        return;
    }
    for (int at = 0; at < n; at += SEGMENT_ROWS_DEFAULT) {
        struct batch b = {
            .n_rows = n - at < SEGMENT_ROWS_DEFAULT ? n - at : SEGMENT_ROWS_DEFAULT,
            .slot = slot + at,
            .pos = pos + at,
            .token = token + at,
            .want = want + at,
        };

        rig_run(&s->rig, &b, NULL);
    }
}

/* ---- cases ---- */

struct bench_case {
    const char *name;
    int depth, n_slots, n_rows, n_steps, reps, reps_quick;
    double target;
};

static const struct bench_case cases[] = {
    {"decode, depth 0", 0, 1, 1, 16, 7, 3, 0.98}, {"decode, depth 512", 512, 1, 1, 16, 7, 3, 0.98},
    {"prefill 128", 0, 1, 128, 1, 5, 3, 0.95},    {"prefill 512", 0, 1, 512, 1, 3, 1, 0.95},
    {"8 slots decode", 0, 8, 1, 8, 5, 3, 1.0},
};
static const struct bench_case cut_case = {"3 segments / uncut", 0, 1, 1, 16, 7, 3, 0.97};

struct result {
    char name[48];
    const char *type, *unit;
    int n_threads;
    double ours, theirs, ratio, target; /* ratio: ours over theirs, better when larger */
};

struct report {
    struct result results[RESULTS_MAX];
    int n;
};

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof(*v), compare_doubles);
    return n % 2 ? v[n / 2] : 0.5 * (v[n / 2 - 1] + v[n / 2]);
}

/* Tokens per second. */
static double measure(struct side *s, const struct bench_case *c)
{
    /* A pool with ggml's defaults spins for a while after its last step, on a core that the other
     * engine is about to use: 150 ms later it still did, and cost that engine four percent. */
    struct timespec pause = {.tv_nsec = 500 * 1000 * 1000};
    int64_t t0;

    for (int i = 0; i < c->n_slots; i++)
        side_rewind(s, i, c->depth);
    while (s->len[0] < c->depth)
        side_step(s, 1, c->depth - s->len[0] < 256 ? c->depth - s->len[0] : 256);
    nanosleep(&pause, NULL);
    t0 = clock_us();
    for (int i = 0; i < c->n_steps; i++)
        side_step(s, c->n_slots, c->n_rows);
    return 1e6 * c->n_slots * c->n_rows * c->n_steps / (double)(clock_us() - t0);
}

static void run_case(struct report *r, struct side *a, struct side *b, const struct bench_case *c,
                     const struct options *o, enum ggml_type type, int n_threads)
{
    double ours[REPS_MAX], theirs[REPS_MAX], ratios[REPS_MAX];
    int reps = o->quick ? c->reps_quick : c->reps;
    struct result *out = &r->results[r->n++];
    struct bench_case warm = *c;

    warm.n_steps = 1;
    measure(a, &warm);
    measure(b, &warm);
    for (int i = 0; i < reps; i++) {
        /* In turns who goes first, so that a machine growing slower or faster favours neither. */
        if (i & 1)
            theirs[i] = measure(b, c);
        ours[i] = measure(a, c);
        if (!(i & 1))
            theirs[i] = measure(b, c);
        ratios[i] = ours[i] / theirs[i];
    }
    *out = (struct result){.type = ggml_type_name(type),
                           .unit = "t/s",
                           .n_threads = n_threads,
                           .ours = median(ours, reps),
                           .theirs = median(theirs, reps),
                           .ratio = median(ratios, reps),
                           .target = c->target};
    snprintf(out->name, sizeof(out->name), "%s", c->name);
    fprintf(stderr, "  %-20s %-5s %d threads: %8.2f / %8.2f t/s = %.3f\n", out->name, out->type,
            n_threads, out->ours, out->theirs, out->ratio);
}

static void run_speed(struct report *r, const char *path, enum ggml_type type, int n_threads,
                      const struct options *o)
{
    struct side ours, theirs, cut;
    struct model *m;
    int cuts[2], n;

    side_open(&ours, true, path, n_threads, SLOTS, NULL, 0);
    side_open(&theirs, false, path, n_threads, SLOTS, NULL, 0);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        run_case(r, &ours, &theirs, &cases[i], o, type, n_threads);
    side_close(&theirs);
    m = ours.rig.model;
    n = model_n_modules(m);
    cuts[0] = n / 3;
    cuts[1] = 2 * n / 3;
    side_open(&cut, true, path, n_threads, 1, cuts, 2);
    run_case(r, &cut, &ours, &cut_case, o, type, n_threads);
    side_close(&cut);
    side_close(&ours);
}

/* ---- memory and load time, a fresh process each ---- */

struct footprint {
    double load_ms, first_ms; /* until the model is loaded; until one token has been computed */
    double loaded_mib, busy_mib;
    double weight_kv_mib;
};

static double resident_mib(void)
{
    return (double)sys_resident_bytes() / (1 << 20);
}

static int child(bool ours, const char *path, int n_threads)
{
    struct footprint f = {0};
    struct side s;
    int64_t t0 = clock_us();

    side_open(&s, ours, path, n_threads, 1, NULL, 0);
    f.load_ms = (double)(clock_us() - t0) / 1e3;
    f.loaded_mib = resident_mib();
    side_step(&s, 1, 1);
    f.first_ms = (double)(clock_us() - t0) / 1e3;
    side_step(&s, 1, 256);
    side_step(&s, 1, 256);
    for (int i = 0; i < 4; i++)
        side_step(&s, 1, 1);
    f.busy_mib = resident_mib();
    if (ours) {
        uint64_t bytes = model_shape(s.rig.model)->weight_bytes;

        for (int i = 0; i < model_n_modules(s.rig.model); i++)
            bytes += CTX * model_kv_bytes(s.rig.model, i, KV_F16);
        f.weight_kv_mib = (double)bytes / (1 << 20);
    }
    printf("%.1f %.1f %.1f %.1f %.1f\n", f.load_ms, f.first_ms, f.loaded_mib, f.busy_mib,
           f.weight_kv_mib);
    side_close(&s);
    return 0;
}

static struct footprint run_child(bool ours, const char *path, int n_threads)
{
    char self[4096], *command;
    ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
    struct footprint f = {0};
    FILE *pipe;

    if (len < 0)
        die("/proc/self/exe", "cannot be read");
    self[len] = 0;
    command = mem_printf("'%s' --child %s --file '%s' --threads %d", self,
                         ours ? "lingua" : "llama", path, n_threads);
    pipe = popen(command, "r");
    if (!pipe || fscanf(pipe, "%lf %lf %lf %lf %lf", &f.load_ms, &f.first_ms, &f.loaded_mib,
                        &f.busy_mib, &f.weight_kv_mib) != 5)
        die(command, "gave no figures");
    pclose(pipe);
    free(command);
    return f;
}

static void add_result(struct report *r, const char *name, enum ggml_type type, int n_threads,
                       const char *unit, const double value[2], double ratio, double target)
{
    struct result *out = &r->results[r->n++];

    *out = (struct result){.type = ggml_type_name(type),
                           .unit = unit,
                           .n_threads = n_threads,
                           .ours = value[0],
                           .theirs = value[1],
                           .ratio = ratio,
                           .target = target};
    snprintf(out->name, sizeof(out->name), "%s", name);
    fprintf(stderr, "  %-20s %-5s %d threads: %8.1f / %8.1f %s\n", name, out->type, n_threads,
            value[0], value[1], unit);
}

static void run_memory(struct report *r, const char *path, enum ggml_type type, int n_threads,
                       const struct options *o)
{
    int reps = o->quick ? 1 : 3;
    double load[2][REPS_MAX], first[2][REPS_MAX], busy[2][REPS_MAX], allowed = 0.0;
    double m[2];

    for (int i = 0; i < reps; i++) {
        for (int k = 0; k < 2; k++) {
            struct footprint f = run_child(k == 0, path, n_threads);

            load[k][i] = f.load_ms;
            first[k][i] = f.first_ms;
            busy[k][i] = f.busy_mib;
            if (k == 0)
                allowed = 1.05 * f.weight_kv_mib + 40.0;
        }
    }
    m[0] = median(busy[0], reps), m[1] = median(busy[1], reps);
    /* The target here is a bound, not the other engine: the ratio is bound over measured. */
    add_result(r, "resident (bound / it)", type, n_threads, "MiB", m, allowed / m[0], 1.0);
    m[0] = median(load[0], reps), m[1] = median(load[1], reps);
    add_result(r, "load", type, n_threads, "ms", m, m[1] / m[0], 0.0);
    m[0] = median(first[0], reps), m[1] = median(first[1], reps);
    add_result(r, "load + 1 token", type, n_threads, "ms", m, m[1] / m[0], 0.0);
}

/* ---- output ---- */

static int compare_results(const void *a, const void *b)
{
    const struct result *x = a, *y = b;
    double rx = x->target > 0.0 ? x->ratio / x->target : 1e3 + x->ratio;
    double ry = y->target > 0.0 ? y->ratio / y->target : 1e3 + y->ratio;

    return (rx > ry) - (rx < ry);
}

static void print_table(const struct report *r)
{
    int missed = 0;

    printf("| case | type | threads | lingua | llama.cpp | ratio | target |\n");
    printf("|---|---|---:|---:|---:|---:|---:|\n");
    for (int i = 0; i < r->n; i++) {
        const struct result *x = &r->results[i];
        bool miss = x->target > 0.0 && x->ratio < x->target;
        char target[32] = "";

        if (x->target > 0.0)
            snprintf(target, sizeof(target), "%.2f%s", x->target, miss ? " **missed**" : "");
        printf("| %s | %s | %d | %.2f %s | %.2f %s | %.3f | %s |\n", x->name, x->type, x->n_threads,
               x->ours, x->unit, x->theirs, x->unit, x->ratio, target);
        missed += miss;
    }
    printf("\n%d of %d rows miss their target. \"3 segments / uncut\" compares lingua with itself; "
           "\"resident\" is held against 1.05 x (weights + KV) + 40 MiB, and llama.cpp's figure is "
           "for comparison. Ratios above 1 favour lingua.\n",
           missed, r->n);
}

static void print_json(const struct report *r)
{
    printf("[");
    for (int i = 0; i < r->n; i++) {
        const struct result *x = &r->results[i];

        printf("%s\n  {\"case\": \"%s\", \"type\": \"%s\", \"threads\": %d, \"unit\": \"%s\", "
               "\"lingua\": %.3f, \"llama\": %.3f, \"ratio\": %.4f, \"target\": %.2f}",
               i ? "," : "", x->name, x->type, x->n_threads, x->unit, x->ours, x->theirs, x->ratio,
               x->target);
    }
    printf("\n]\n");
}

/* ---- options ---- */

static const enum ggml_type all_types[] = {GGML_TYPE_Q4_0, GGML_TYPE_Q4_K, GGML_TYPE_Q8_0};

static void usage(void)
{
    printf("usage: lingua-bench-vs-llama [--dir FOLDER] [--type q4_0|q4_K|q8_0]... "
           "[--threads N]...\n"
           "                             [--quick] [--json] [--no-memory] [--no-speed]\n"
           "FOLDER (default build/bench) keeps the random models, 0.6 to 1.2 GB each.\n");
}

static void add_type(struct options *o, const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(all_types); i++) {
        if (!strcasecmp(name, ggml_type_name(all_types[i]))) {
            o->types[all_types[i]] = true;
            return;
        }
    }
    die(name, "is not one of q4_0, q4_K, q8_0");
}

static void add_threads(struct options *o, const char *text)
{
    int n = atoi(text);

    if (n < 1 || n >= (int)ARRAY_LEN(o->threads))
        die(text, "is no number of threads");
    o->threads[n] = true;
}

static void options_default(struct options *o)
{
    bool any = false;

    for (size_t i = 0; i < ARRAY_LEN(all_types); i++)
        any |= o->types[all_types[i]];
    for (size_t i = 0; i < ARRAY_LEN(all_types) && !any; i++)
        o->types[all_types[i]] = true;
    any = false;
    for (size_t i = 0; i < ARRAY_LEN(o->threads); i++)
        any |= o->threads[i];
    for (int i = 1; i <= 2 && !any; i++)
        o->threads[i] |= i <= sys_cores();
}

static int run(const struct options *o)
{
    struct report *r = mem_zalloc(1, sizeof(*r));

    mkdir(o->dir, 0777);
    for (size_t i = 0; i < ARRAY_LEN(all_types); i++) {
        enum ggml_type type = all_types[i];
        struct err_text et = {{0}};
        char *path;

        if (!o->types[type])
            continue;
        path = mem_printf("%s/llama-1b-%s.gguf", o->dir, ggml_type_name(type));
        if (bench_model_write(path, type, &et) != ERR_NONE)
            die("cannot make the model", et.text);
        for (int n = 1; n < (int)ARRAY_LEN(o->threads); n++) {
            if (o->threads[n] && o->memory)
                run_memory(r, path, type, n, o);
            if (o->threads[n] && o->speed)
                run_speed(r, path, type, n, o);
        }
        free(path);
    }
    qsort(r->results, (size_t)r->n, sizeof(r->results[0]), compare_results);
    (o->json ? print_json : print_table)(r);
    free(r);
    return 0;
}

int main(int argc, char **argv)
{
    enum {
        OPT_DIR = 256,
        OPT_TYPE,
        OPT_THREADS,
        OPT_QUICK,
        OPT_JSON,
        OPT_NO_MEMORY,
        OPT_NO_SPEED,
        OPT_CHILD,
        OPT_FILE,
        OPT_HELP
    };
    static const struct option longs[] = {
        {"dir", required_argument, NULL, OPT_DIR},
        {"type", required_argument, NULL, OPT_TYPE},
        {"threads", required_argument, NULL, OPT_THREADS},
        {"quick", no_argument, NULL, OPT_QUICK},
        {"json", no_argument, NULL, OPT_JSON},
        {"no-memory", no_argument, NULL, OPT_NO_MEMORY},
        {"no-speed", no_argument, NULL, OPT_NO_SPEED},
        {"child", required_argument, NULL, OPT_CHILD},
        {"file", required_argument, NULL, OPT_FILE},
        {"help", no_argument, NULL, OPT_HELP},
        {NULL, 0, NULL, 0},
    };
    struct options o = {.dir = "build/bench", .memory = true, .speed = true};
    const char *engine = NULL, *file = NULL;
    int threads = 1;

    for (int c; (c = getopt_long(argc, argv, "h", longs, NULL)) != -1;) {
        switch (c) {
        case OPT_DIR:
            o.dir = optarg;
            break;
        case OPT_TYPE:
            add_type(&o, optarg);
            break;
        case OPT_THREADS:
            add_threads(&o, optarg);
            threads = atoi(optarg);
            break;
        case OPT_QUICK:
            o.quick = true;
            break;
        case OPT_JSON:
            o.json = true;
            break;
        case OPT_NO_MEMORY:
            o.memory = false;
            break;
        case OPT_NO_SPEED:
            o.speed = false;
            break;
        case OPT_CHILD:
            engine = optarg;
            break;
        case OPT_FILE:
            file = optarg;
            break;
        default:
            usage();
            return c == OPT_HELP || c == 'h' ? 0 : 1;
        }
    }
    if (engine)
        return child(!strcmp(engine, "lingua"), file, threads);
    options_default(&o);
    return run(&o);
}
