#define _DEFAULT_SOURCE
#include "device/profile.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "device/condition.h"
#include "device/kept.h"
#include "model/blank.h"
#include "model/classes.h"
#include "model/measure.h"
#include "model/modelfile.h"
#include "model/segment.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

enum {
    BATCHES = 5, /* steps of 1, 2, 4, 8, 16 rows */
    BATCH_ROWS = 16,
    WINDOW_RUNS = 6,   /* a window holds so many steps, if it need not be */
    WINDOW_LONGER = 6, /* times as long for that */
    CHUNK_ROWS = 128,  /* of prefill; as the planner counts (plan/place.h) */
    DEPTH = 2 * CHUNK_ROWS,
    PREFILL = 5, /* where the figures stand in wire_profile */
    POSITION = 6,
    HIDDEN_SPARE = 61, /* rows of input beyond a chunk, so that steps can differ */
    MATRIX_MIN = 64 << 20,
    MATRIX_MAX = 256 << 20,
    THREADS_MATRIX = 64 << 20,
    OVERHEAD_MAX = 64 << 20, /* a layer larger than this takes too long for it to matter */
    DEEP_BYTES = 16 << 20,   /* of keys and values */
    BASE_NOISE = 2 << 20,
    GOVERNOR_MAX = 32,
};

static const char sysfs_root[] = "/sys";

/* ---- how much memory measuring may take ---- */

/* Bytes that do not stay in the last cache from one step to the next: three times as large. Where
 * that cache belongs to a server (260 MB on some) of which we are a small part, three of it are more
 * than measuring should take or touch; 256 MiB are 3 times what any phone, board or laptop has. */
static uint64_t uncached_bytes(void)
{
    uint64_t bytes = MATRIX_MIN;

#ifdef _SC_LEVEL3_CACHE_SIZE
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);

    if (cache > 0 && 3 * (uint64_t)cache > bytes)
        bytes = 3 * (uint64_t)cache < MATRIX_MAX ? 3 * (uint64_t)cache : MATRIX_MAX;
#endif
    return bytes;
}

/* What measuring may take now: of the process's budget nearly all that is left, of the system's
 * memory no more than half, for we are a guest there. */
static uint64_t room(uint64_t budget)
{
    uint64_t resident = sys_resident_bytes(), available = sys_available_bytes();
    uint64_t left = UINT64_MAX, margin = 1 << 20;

    if (budget)
        left = budget > resident + margin ? budget - resident - margin : 0;
    if (available && available / 2 < left)
        left = available / 2;
    return left;
}

static void give_back_heap(void)
{
#ifdef __GLIBC__
    malloc_trim(0); /* the heap keeps what it is given, and the model's part will need it */
#endif
}

/* ---- running segments ---- */

struct measuring {
    struct compute *compute;
    const struct model *m; /* without weights */
    struct model_classes classes;
    enum kv_type kv;
    const struct profile_opts *opts;
    int windows, window_ms;
    float *hidden; /* (CHUNK_ROWS + HIDDEN_SPARE, n_embd) */
    unsigned n_runs;
    double overhead_us;
    struct err_text *et;
};

/* What is timed: steps of `rows` rows at position pos, by segments that take turns. */
struct job {
    struct segment *const *segment; /* (n) */
    int n, at_once;                 /* so many of them make one run */
    int rows;
    bool apart; /* each row in a slot of its own; else all in `slot` */
    int slot, pos;
    int next;
};

static enum err run_segment(struct measuring *x, struct segment *s, const struct job *j)
{
    int32_t slot[CHUNK_ROWS], pos[CHUNK_ROWS], token[CHUNK_ROWS];
    uint8_t want[CHUNK_ROWS];
    const struct model_shape *shape = model_shape(x->m);
    struct batch b = {j->rows, slot, pos, token, want};
    struct tensors in = {.n_rows = j->rows}, out;
    struct edge edges[EDGES_MAX];
    /* Other rows each time: a mixture of experts would else find the same ones in the caches. */
    size_t skip = x->n_runs++ * (unsigned)j->rows % HIDDEN_SPARE;

    for (int r = 0; r < j->rows; r++) {
        slot[r] = j->apart ? j->slot + r : j->slot;
        pos[r] = j->apart ? j->pos : j->pos + r;
        token[r] =
            (int32_t)((x->n_runs * 7919u + (unsigned)r * 104729u) % (unsigned)shape->n_vocab);
        want[r] = 1;
    }
    if (segment_first(s) > 0) {
        in.n = model_edges(x->m, segment_first(s), edges);
        for (int i = 0; i < in.n; i++) {
            in.width[i] = edges[i].width;
            in.data[i] = x->hidden + skip * (size_t)shape->n_embd;
        }
    }
    return segment_run(s, &b, segment_first(s) > 0 ? &in : NULL, &out, x->et);
}

static enum err run_once(struct measuring *x, struct job *j)
{
    enum err e = ERR_NONE;

    for (int i = 0; i < j->at_once && !e; i++) {
        e = run_segment(x, j->segment[j->next], j);
        j->next = (j->next + 1) % j->n;
    }
    return e;
}

static enum err check_stop(struct measuring *x)
{
    if (x->opts->stop && x->opts->stop(x->opts->user))
        return err_set(x->et, ERR_CANCELLED, "measuring was stopped");
    return ERR_NONE;
}

/* Microseconds of a run, over at least window_ms; of short steps on a slow device over some of them,
 * for under a quota a step or two may fall between two pauses, or around one. */
static enum err time_window(struct measuring *x, struct job *j, int window_ms, double *us)
{
    int64_t begun = clock_us(), taken;
    enum err e = check_stop(x);
    int n = 0, least = j->rows <= BATCH_ROWS ? WINDOW_RUNS : 1;

    do {
        if (!e)
            e = run_once(x, j);
        taken = clock_us() - begun;
        n++;
    } while (!e &&
             (taken < window_ms * 1000 || (n < least && taken < WINDOW_LONGER * window_ms * 1000)));
    *us = (double)(taken > 0 ? taken : 1) / n;
    return e;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, compare);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* Every segment once, so that its graph is built and its weights have been read. */
static enum err warm_up(struct measuring *x, struct job *j)
{
    enum err e = check_stop(x);

    for (int i = 0; i < j->n && !e; i += j->at_once)
        e = run_once(x, j);
    return e;
}

/* The median of windows. A device so slow that fewer of them are as long as all should be is not
 * made to wait for the rest, nor for a chunk that took so long to be run again warm. */
static enum err time_job(struct measuring *x, struct job *j, int windows, double *us)
{
    double window_us[64], sum = 0, enough = 1000.0 * x->window_ms * windows;
    int64_t begun = clock_us();
    enum err e = warm_up(x, j);
    int n = 0;

    CHECK(windows <= (int)ARRAY_LEN(window_us));
    *us = (double)(clock_us() - begun);
    if (j->rows > BATCH_ROWS && j->n == 1 && *us >= enough)
        return e;
    while (!e && n < windows && sum < enough) {
        e = time_window(x, j, x->window_ms, &window_us[n]);
        sum += window_us[n] > 1000.0 * x->window_ms ? window_us[n] : 1000.0 * x->window_ms;
        n++;
    }
    if (!e)
        *us = median(window_us, n);
    return e;
}

/* How much longer a takes than b, by windows that take turns: what drifts meets both. */
static enum err time_difference(struct measuring *x, struct job *a, struct job *b, double *us)
{
    double difference[64], a_us, b_us;
    enum err e = warm_up(x, a);

    if (!e)
        e = warm_up(x, b);
    for (int i = 0; i < x->windows && !e; i++) {
        e = time_window(x, a, x->window_ms, &a_us);
        if (!e)
            e = time_window(x, b, x->window_ms, &b_us);
        difference[i] = a_us - b_us;
    }
    *us = e ? 0 : median(difference, x->windows);
    return e;
}

/* ---- opening them ---- */

struct set {
    struct segment **segment;
    int n;
};

static void set_close(struct measuring *x, struct set *set)
{
    for (int i = 0; i < set->n; i++)
        segment_close(set->segment[i]);
    free(set->segment);
    modelfile_give_back(model_file(x->m), NULL);
    *set = (struct set){.segment = NULL};
}

static enum err set_add(struct measuring *x, struct set *set, int first, int end,
                        const struct segment_opts *opts)
{
    enum err e;

    set->segment = mem_realloc(set->segment, (size_t)set->n + 1, sizeof(struct segment *));
    e = segment_open(x->m, x->compute, first, end, opts, &set->segment[set->n], x->et);
    set->n += !e;
    return e;
}

/* What one module takes. Of the embedding only the rows that are looked up are read. */
static uint64_t module_bytes(const struct measuring *x, int module, const struct segment_opts *opts,
                             uint64_t *weights)
{
    struct segment_needs needs;

    segment_needs(x->m, module, module + 1, opts, compute_n_threads(x->compute), &needs);
    *weights = needs.weight_bytes;
    if (model_module(x->m, module)->kind == MODULE_EMBED)
        *weights -= needs.embed_bytes;
    return *weights + needs.scratch_bytes +
           (uint64_t)opts->n_slots * (uint64_t)opts->n_ctx * model_kv_bytes(x->m, module, opts->kv);
}

static enum err no_room(struct measuring *x, int module, uint64_t needed, uint64_t there)
{
    char text[CLASS_TEXT_MAX];

    model_class_text(x->m, module, text);
    return err_set(x->et, ERR_MEMORY,
                   "not even one module of this model (%s) fits: %.1f MiB are needed and %.1f MiB "
                   "are left to this device; give it more with --memory, or leave it out",
                   text, (double)needed / (1 << 20), (double)there / (1 << 20));
}

/* Rows of a step that is measured deep in a context. */
static int deep_rows(const struct measuring *x, int module)
{
    uint64_t slot_bytes = DEPTH * model_kv_bytes(x->m, module, x->kv);
    uint64_t n = slot_bytes ? DEEP_BYTES / slot_bytes : 1;

    return n < 1 ? 1 : n > BATCH_ROWS ? BATCH_ROWS : (int)n;
}

/* Positions a slot needs for what is measured. */
static int context(const struct measuring *x)
{
    const struct model_shape *shape = model_shape(x->m);

    return shape->ctx_is_hard && shape->n_ctx_train < DEPTH + 1 ? shape->n_ctx_train : DEPTH + 1;
}

/* As many modules of a class as do not fit the caches, or there are, or the memory allows. */
static enum err open_class(struct measuring *x, int class, struct set *set)
{
    const struct segment_opts opts = {
        .n_slots = BATCH_ROWS, .n_ctx = 1, .n_rows_max = BATCH_ROWS, .kv = x->kv};
    uint64_t weights, target = uncached_bytes(), taken = 0, touched = 0;
    int example = x->classes.example[class];
    uint64_t bytes = module_bytes(x, example, &opts, &weights);
    uint64_t there = room(x->opts->memory_bytes);
    enum err e = ERR_NONE;

    if (bytes > there)
        return no_room(x, example, bytes, there);
    for (int i = example; i < model_n_modules(x->m) && touched < target && !e; i++) {
        if (x->classes.of[i] != class)
            continue;
        /* While a module is loaded, its tensors may be there twice. */
        if (set->n > 0 && taken + bytes + weights > there)
            break;
        e = set_add(x, set, i, i + 1, &opts);
        taken += bytes;
        touched += model_module(x->m, i)->decode_bytes;
    }
    return e;
}

/* ---- what a class costs ---- */

static uint64_t picoseconds(double us)
{
    return us > 1e-6 ? (uint64_t)(us * 1e6) : 1;
}

/* A class's own: without what each run of a segment takes, which must leave something. */
static double own_us(const struct measuring *x, int module, double us)
{
    if (model_module(x->m, module)->kind == MODULE_EMBED)
        return us;
    return us - x->overhead_us > us / 10 ? us - x->overhead_us : us / 10;
}

static enum err measure_decode(struct measuring *x, int class, uint64_t cost[WIRE_COSTS])
{
    int example = x->classes.example[class];
    /* Looking rows up takes next to nothing, and there is nothing to find out about it. */
    int windows = model_module(x->m, example)->kind == MODULE_EMBED ? 1 : x->windows;
    struct set set = {NULL, 0};
    enum err e = open_class(x, class, &set);

    for (int i = 0; i < BATCHES && !e; i++) {
        struct job j = {
            .segment = set.segment, .n = set.n, .at_once = 1, .rows = 1 << i, .apart = true};
        double us;

        e = time_job(x, &j, windows, &us);
        cost[i] = picoseconds(own_us(x, example, us));
    }
    set_close(x, &set);
    return e;
}

/* A step of rows behind `depth` positions against one of as many at the start of other slots: many,
 * because one row's attention is little beside its matrices, and so that the keys and values do not
 * all lie in the nearest cache. */
static enum err measure_position(struct measuring *x, struct segment *s, int n_deep, int chunk,
                                 uint64_t cost[WIRE_COSTS])
{
    int depth = (context(x) - 1) / chunk * chunk;
    struct job deep = {
        .segment = &s, .n = 1, .at_once = 1, .rows = n_deep, .apart = true, .pos = depth};
    struct job near = {
        .segment = &s, .n = 1, .at_once = 1, .rows = n_deep, .apart = true, .slot = n_deep};
    enum err e = ERR_NONE;
    double us = 0;

    for (int pos = 0; pos < depth && !e; pos += chunk) {
        struct job fill = {.segment = &s, .n = 1, .at_once = 1, .rows = chunk, .pos = pos};

        e = run_once(x, &fill);
    }
    for (int i = 1; i < n_deep && depth > 0 && !e; i++)
        e = segment_slot_copy(s, 0, i, depth, x->et);
    if (!e && depth > 0)
        e = time_difference(x, &deep, &near, &us);
    cost[POSITION] = picoseconds(depth > 0 ? us / depth / n_deep : 0);
    return e;
}

static enum err measure_prefill(struct measuring *x, int class, uint64_t cost[WIRE_COSTS])
{
    int example = x->classes.example[class], n_ctx = context(x);
    enum module_kind kind = model_module(x->m, example)->kind;
    int n_deep = deep_rows(x, example);
    struct segment_opts opts = {
        .n_slots = 2 * n_deep, .n_ctx = n_ctx, .n_rows_max = CHUNK_ROWS, .kv = x->kv};
    uint64_t weights, there = room(x->opts->memory_bytes), bytes;
    struct set set = {NULL, 0};
    struct job j = {.n = 1, .at_once = 1}, touch = {.n = 1, .at_once = 1, .rows = 1};
    double us = 0;
    enum err e;

    if (kind == MODULE_OUTPUT) { /* a prompt wants the logits of its last row */
        cost[PREFILL] = cost[BATCHES - 1] / BATCH_ROWS > 0 ? cost[BATCHES - 1] / BATCH_ROWS : 1;
        return ERR_NONE;
    }
    if (opts.n_rows_max > n_ctx)
        opts.n_rows_max = n_ctx;
    /* A small budget gets coarser figures: fewer rows deep in a context first, then shorter chunks. */
    while ((bytes = module_bytes(x, example, &opts, &weights)) > there &&
           (n_deep > 1 || opts.n_rows_max > 8)) {
        if (n_deep > 1)
            opts.n_slots = 2 * (n_deep /= 2);
        else
            opts.n_rows_max /= 2;
    }
    if (bytes > there)
        return no_room(x, example, bytes, there);
    e = set_add(x, &set, example, example + 1, &opts);
    j.segment = touch.segment = set.segment;
    j.rows = opts.n_rows_max;
    /* A slow device runs its chunk once (time_job): weights must have been read by then. */
    if (!e)
        e = run_once(x, &touch);
    if (!e)
        e = time_job(x, &j, kind == MODULE_EMBED ? 1 : x->windows, &us);
    cost[PREFILL] = picoseconds(own_us(x, example, us) / j.rows);
    if (!e && kind == MODULE_ATTN)
        e = measure_position(x, set.segment[0], n_deep < j.rows ? n_deep : j.rows, j.rows, cost);
    set_close(x, &set);
    return e;
}

/* The first layer as two segments against the same as one. */
static enum err measure_overhead(struct measuring *x)
{
    const struct segment_opts opts = {.n_slots = 1, .n_ctx = 1, .n_rows_max = 1, .kv = x->kv};
    uint64_t attn_weights, ffn_weights,
        bytes = module_bytes(x, 1, &opts, &attn_weights) + module_bytes(x, 2, &opts, &ffn_weights);
    struct set apart = {NULL, 0}, whole = {NULL, 0};
    enum err e;

    if (attn_weights + ffn_weights > OVERHEAD_MAX ||
        2 * bytes + attn_weights + ffn_weights > room(x->opts->memory_bytes))
        return ERR_NONE;
    e = set_add(x, &apart, 1, 2, &opts);
    if (!e)
        e = set_add(x, &apart, 2, 3, &opts);
    if (!e)
        e = set_add(x, &whole, 1, 3, &opts);
    if (!e) {
        struct job a = {.segment = apart.segment, .n = 2, .at_once = 2, .rows = 1};
        struct job b = {.segment = whole.segment, .n = 1, .at_once = 1, .rows = 1};

        e = time_difference(x, &a, &b, &x->overhead_us);
        if (x->overhead_us < 0)
            x->overhead_us = 0;
    }
    set_close(x, &apart);
    set_close(x, &whole);
    return e;
}

static enum err measure_class(struct measuring *x, int class, uint64_t cost[WIRE_COSTS])
{
    enum err e = measure_decode(x, class, cost);

    return e ? e : measure_prefill(x, class, cost);
}

static uint64_t class_bytes(const struct measuring *x, int class)
{
    return model_module(x->m, x->classes.example[class])->decode_bytes;
}

/* A class that does not fit by itself will hardly be this device's to run: what it would take is
 * guessed from the measured class that is nearest in size. */
static void guess_class(const struct measuring *x, int class, const bool *known,
                        struct wire_profile *out)
{
    double bytes = (double)class_bytes(x, class), nearest = INFINITY, ratio;
    int from = -1;

    for (int c = 0; c < x->classes.n; c++) {
        double apart = fabs(log(bytes / fmax(1, (double)class_bytes(x, c))));

        if (known[c] && apart < nearest) {
            nearest = apart;
            from = c;
        }
    }
    CHECK(from >= 0);
    ratio = bytes / fmax(1, (double)class_bytes(x, from));
    for (int k = 0; k < WIRE_COSTS - 1; k++) /* a position's cost has nothing to do with weights */
        out->cost_ps[class][k] = (uint64_t)(ratio * (double)out->cost_ps[from][k]) + 1;
}

static enum err measure_all(struct measuring *x, struct wire_profile *out)
{
    bool known[CLASSES_MAX] = {false};
    struct err_text why = {{0}};
    enum err e = measure_overhead(x);
    int n_layers = 0;

    for (int c = 0; c < x->classes.n && !e; c++) {
        e = measure_class(x, c, out->cost_ps[c]);
        if (e == ERR_MEMORY) {
            why = *x->et;
            e = ERR_NONE;
            continue;
        }
        known[c] = model_module(x->m, x->classes.example[c])->kind != MODULE_EMBED;
        n_layers += known[c];
    }
    if (!e && n_layers == 0)
        return err_set(x->et, ERR_MEMORY, "%s", why.text);
    for (int c = 0; c < x->classes.n && !e; c++)
        if (out->cost_ps[c][0] == 0)
            guess_class(x, c, known, out);
    return e;
}

/* ---- the whole ---- */

static void key_of(char key[KEPT_KEY_MAX], uint64_t classes, int n_threads)
{
    char governor[GOVERNOR_MAX];

    condition_governor(sysfs_root, governor, sizeof governor);
    snprintf(key, KEPT_KEY_MAX, "costs %016" PRIx64 ", %d threads, governor %s, %.100s", classes,
             n_threads, governor, model_kernels());
}

bool profile_recall(const char *folder, uint64_t classes, int n_classes, int n_threads,
                    struct wire_profile *out)
{
    char key[KEPT_KEY_MAX];

    CHECK(n_classes >= 1 && n_classes <= WIRE_CLASSES_MAX);
    memset(out, 0, sizeof *out);
    out->classes = classes;
    out->n_classes = n_classes;
    out->n_threads = n_threads;
    key_of(key, classes, n_threads);
    return kept_get(folder, key, n_classes * WIRE_COSTS, out->cost_ps[0]);
}

/* Small numbers, none of them so small that the CPU takes a detour. */
static void fill_hidden(struct measuring *x)
{
    size_t n = (size_t)(CHUNK_ROWS + HIDDEN_SPARE) * (size_t)model_shape(x->m)->n_embd;
    uint32_t random = 99;

    x->hidden = mem_alloc(n * sizeof *x->hidden);
    for (size_t i = 0; i < n; i++) {
        random = random * 1664525 + 1013904223;
        x->hidden[i] = (float)(int)(random >> 24) / 128 - 0.996f;
    }
}

/* The modules that open_class may come to, and the first layer. */
static uint8_t *modules_to_run(const struct model *m, const struct model_classes *classes)
{
    uint8_t *run = mem_zalloc((size_t)model_n_modules(m), 1);
    uint64_t touched[CLASSES_MAX] = {0}, target = uncached_bytes();

    for (int i = 0; i < model_n_modules(m); i++) {
        run[i] = i < 3 || touched[classes->of[i]] < target;
        touched[classes->of[i]] += model_module(m, i)->decode_bytes;
    }
    return run;
}

static enum err measure_model(struct compute *c, const struct model *m,
                              const struct model_classes *classes, struct measuring *x,
                              struct wire_profile *out)
{
    uint8_t *run = modules_to_run(m, classes);
    struct model *blank;
    enum err e =
        model_open_blank(m, run, x->opts->folder ? x->opts->folder : "/tmp", &blank, x->et);
    free(run);
    if (e)
        return e;
    x->compute = c;
    x->m = blank;
    x->classes = *classes; /* borrowed */
    fill_hidden(x);
    e = measure_all(x, out);
    free(x->hidden);
    model_close(blank);
    give_back_heap();
    return e;
}

enum err profile_measure(struct compute *c, const char *header_path, enum kv_type kv,
                         const struct profile_opts *opts, struct wire_profile *out,
                         struct err_text *et)
{
    struct measuring x = {
        .kv = kv,
        .opts = opts,
        .windows = opts->windows ? opts->windows : PROFILE_WINDOWS,
        .window_ms = opts->window_ms ? opts->window_ms : PROFILE_WINDOW_MS,
        .et = et,
    };
    struct model_classes classes = {.of = NULL};
    char key[KEPT_KEY_MAX];
    struct model *m;
    enum err e = model_open(header_path, &m, et);

    memset(out, 0, sizeof *out);
    if (e)
        return e;
    e = model_check_kv(m, kv, et);
    if (!e)
        e = model_classes(m, kv, &classes, et);
    if (!e) {
        out->classes = classes.id;
        out->n_classes = classes.n;
        out->n_threads = compute_n_threads(c);
        e = measure_model(c, m, &classes, &x, out);
    }
    if (!e) {
        key_of(key, classes.id, out->n_threads);
        e = kept_put(opts->folder, key, classes.n * WIRE_COSTS, out->cost_ps[0], et);
    }
    model_classes_fini(&classes);
    model_close(m);
    return e;
}

/* ---- what is known of a device before any model is ---- */

/* Larger than the last cache, but a guest in this device's memory. */
static size_t matrix_bytes(uint64_t most, uint64_t budget)
{
    uint64_t bytes = uncached_bytes(), there = room(budget) / 4 * 3;

    if (bytes > most)
        bytes = most;
    if (bytes > there)
        bytes = there;
    return bytes > MEASURE_BYTES_MIN ? (size_t)bytes : MEASURE_BYTES_MIN;
}

enum err profile_speed(struct compute *c, const char *folder, uint64_t memory_bytes,
                       uint64_t *bytes_per_s, struct err_text *et)
{
    char key[KEPT_KEY_MAX];
    double speed = 0;
    enum err e;

    snprintf(key, sizeof key, "speed %d threads, %.100s", compute_n_threads(c), model_kernels());
    if (kept_get(folder, key, 1, bytes_per_s) && *bytes_per_s > 0)
        return ERR_NONE;
    e = model_measure_speed(c, matrix_bytes(MATRIX_MAX, memory_bytes), &speed, et);
    if (e)
        return e;
    *bytes_per_s = speed > 1 ? (uint64_t)speed : 1;
    return kept_put(folder, key, 1, bytes_per_s, et);
}

/* What a process takes at its start differs by some pages from one start to the next. Such noise
 * must not change who holds what, or a restart would ship weights: near what it was, it is what it
 * was. */
uint64_t profile_base_bytes(const char *folder)
{
    uint64_t now = sys_resident_bytes(), was;
    enum err e;

    if (kept_get(folder, "base", 1, &was) && was + BASE_NOISE > now && now + BASE_NOISE > was)
        return was;
    e = kept_put(folder, "base", 1, &now, NULL);
    (void)e; /* a folder that cannot be written to is for others to complain of */
    return now;
}

/* ---- threads ---- */

static bool already(const int *tried, int n, int threads)
{
    for (int i = 0; i < n; i++)
        if (tried[i] == threads)
            return true;
    return false;
}

static double speed_with(int threads, size_t bytes)
{
    struct compute *c;
    double speed = 0;

    if (compute_open(threads, &c, NULL))
        return 0;
    if (model_measure_speed(c, bytes, &speed, NULL))
        speed = 0;
    compute_close(c);
    return speed;
}

static int try_threads(int cores, int fast, uint64_t memory_bytes)
{
    size_t bytes = matrix_bytes(THREADS_MATRIX, memory_bytes);
    int tried[32], n = 0, best = 0;
    double speed[32] = {0}, most = 0;

    for (int i = 1; i < cores && n < 24; i *= 2)
        tried[n++] = i;
    for (int i = 0; i < 3; i++) {
        int more[] = {cores, cores - 1, fast};

        if (more[i] >= 1 && more[i] <= cores && !already(tried, n, more[i]))
            tried[n++] = more[i];
    }
    /* Twice, so that what else ran for a moment is not remembered for good. */
    for (int i = 0; i < 2 * n && n > 1; i++) {
        double s = speed_with(tried[i % n], bytes);

        speed[i % n] = s > speed[i % n] ? s : speed[i % n];
        most = s > most ? s : most;
    }
    for (int i = 0; i < n; i++) /* a core that adds less than noise is left to others */
        if (speed[i] >= 0.97 * most && (!best || tried[i] < best))
            best = tried[i];
    give_back_heap();
    return best;
}

int profile_threads(const char *folder, uint64_t memory_bytes, const char *sysfs)
{
    int cores = sys_cores(), fast = condition_fast_cores(sysfs);
    char key[KEPT_KEY_MAX], governor[GOVERNOR_MAX];
    uint64_t threads;
    enum err e;

    condition_governor(sysfs, governor, sizeof governor);
    snprintf(key, sizeof key, "threads of %d cores, %d fast, governor %s, %.100s", cores, fast,
             governor, model_kernels());
    if (kept_get(folder, key, 1, &threads) && threads >= 1 && threads <= (uint64_t)cores)
        return (int)threads;
    threads = (uint64_t)try_threads(cores, fast, memory_bytes);
    e = kept_put(folder, key, 1, &threads, NULL);
    (void)e; /* then it will be tried again next time */
    return (int)threads;
}
