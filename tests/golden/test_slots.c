/* Slots: what truncating, copying, exporting and importing leave behind is what a fresh slot fed
 * the same tokens holds, bit for bit; and a step that is refused leaves everything as it was. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "exact.h"
#include "golden_opts.h"

enum { LEN = 200, N_BASE = 2, LOGIT_ROWS = EXACT_LEN_MAX };

struct fixture {
    struct exact x;
    struct rig rig;
    float *logits;
    struct err_text et;
};

static struct segment *whole(struct fixture *f)
{
    return f->rig.segments[0];
}

static void fixture_open(struct fixture *f, enum kv_type kv)
{
    struct segment_opts opts;

    memset(f, 0, sizeof(*f));
    exact_open(&f->x, TINY_LLAMA_GQA, GGML_TYPE_Q4_0, kv, LEN, N_BASE);
    opts = exact_opts(&f->x);
    rig_open(&f->rig, f->x.path, 1, &opts, NULL, 0);
    f->logits = mem_alloc(sizeof(float) * LOGIT_ROWS * (size_t)f->x.n_vocab);
}

static void fixture_close(struct fixture *f)
{
    rig_close(&f->rig);
    exact_close(&f->x);
    free(f->logits);
}

/* Feeds rows [pos, end) of sequence seq into slot and compares them with the base. */
static void feed_same(struct fixture *f, int slot, int seq, int pos, int end, const char *what)
{
    rig_feed(&f->rig, slot, pos, f->x.tokens[seq], end - pos, 32, f->logits);
    exact_same(&f->x, seq, pos, end - pos, f->logits, what);
    assert_int_equal(segment_slot_len(whole(f), slot), end);
}

static void truncated_slot_is_as_fresh(void **state)
{
    enum kv_type kv = (enum kv_type)(intptr_t)*state;
    struct fixture f;

    fixture_open(&f, kv);
    for (int len = 0; len <= 130; len += 65) {
        /* The first rows of sequence 0, then those of sequence 1, then sequence 0 again. */
        feed_same(&f, 3, 0, 0, len > 0 ? len : 1, "before");
        if (len > 0)
            rig_feed(&f.rig, 3, len, f.x.tokens[1], 50, 50, f.logits);
        assert_int_equal(segment_slot_truncate(whole(&f), 3, len, &f.et), ERR_NONE);
        assert_int_equal(segment_slot_len(whole(&f), 3), len);
        feed_same(&f, 3, 0, len, LEN, "after a truncation");
        assert_int_equal(segment_slot_truncate(whole(&f), 3, 0, &f.et), ERR_NONE);
    }
    feed_same(&f, 3, 0, 0, 100, "before");
    /* Rows that begin before the slot's end overwrite. */
    feed_same(&f, 3, 0, 40, 90, "overwritten");
    feed_same(&f, 3, 0, 90, 150, "after an overwrite");
    assert_int_not_equal(segment_slot_truncate(whole(&f), 3, 151, &f.et), ERR_NONE);
    assert_int_not_equal(segment_slot_truncate(whole(&f), 3, -1, &f.et), ERR_NONE);
    assert_int_not_equal(segment_slot_truncate(whole(&f), -1, 0, &f.et), ERR_NONE);
    assert_int_not_equal(segment_slot_truncate(whole(&f), EXACT_SLOTS, 0, &f.et), ERR_NONE);
    assert_int_equal(segment_slot_len(whole(&f), 3), 150);
    fixture_close(&f);
}

static void copied_slot_is_as_the_original(void **state)
{
    enum kv_type kv = (enum kv_type)(intptr_t)*state;
    struct fixture f;

    fixture_open(&f, kv);
    feed_same(&f, 0, 0, 0, 140, "original");
    feed_same(&f, 5, 1, 0, 100, "what the copy covers");
    assert_int_equal(segment_slot_copy(whole(&f), 0, 5, 131, &f.et), ERR_NONE);
    assert_int_equal(segment_slot_len(whole(&f), 5), 131);
    assert_int_equal(segment_slot_copy(whole(&f), 0, 6, 64, &f.et), ERR_NONE);
    /* The copies go their own way and neither the original nor the other sees it. */
    rig_feed(&f.rig, 6, 64, f.x.tokens[1], 60, 60, f.logits);
    feed_same(&f, 5, 0, 131, LEN, "a copy");
    feed_same(&f, 0, 0, 140, LEN, "the original after copies");
    assert_int_equal(segment_slot_truncate(whole(&f), 6, 64, &f.et), ERR_NONE);
    feed_same(&f, 6, 0, 64, LEN, "the other copy");
    assert_int_equal(segment_slot_copy(whole(&f), 0, 1, 0, &f.et), ERR_NONE);
    assert_int_equal(segment_slot_len(whole(&f), 1), 0);
    assert_int_not_equal(segment_slot_copy(whole(&f), 0, 1, LEN + 1, &f.et), ERR_NONE);
    assert_int_not_equal(segment_slot_copy(whole(&f), 0, EXACT_SLOTS, 1, &f.et), ERR_NONE);
    assert_int_not_equal(segment_slot_copy(whole(&f), -1, 0, 1, &f.et), ERR_NONE);
    fixture_close(&f);
}

/* Moves [pos, end) of every attn module of slot `from` of a to slot `to` of b. */
static void migrate(struct rig *a, int from, struct rig *b, int to, int pos, int end)
{
    struct err_text et = {{0}};

    for (int m = 0; m < model_n_modules(a->model); m++) {
        size_t size = segment_kv_export_size(a->segments[0], m, pos, end);
        uint8_t *buf;

        if (model_module(a->model, m)->kind != MODULE_ATTN)
            continue;
        buf = mem_alloc(size);
        if (segment_kv_export(a->segments[0], m, from, pos, end, buf, size, &et) != ERR_NONE)
            fail_msg("export module %d: %s", m, et.text);
        for (int i = 0; i < b->n_segments; i++)
            if (m >= segment_first(b->segments[i]) && m < segment_end(b->segments[i]) &&
                segment_kv_import(b->segments[i], m, to, buf, size, &et) != ERR_NONE)
                fail_msg("import module %d: %s", m, et.text);
        free(buf);
    }
}

static void migrated_slot_is_as_the_original(void **state)
{
    enum kv_type kv = (enum kv_type)(intptr_t)*state;
    static const int cuts[] = {2, 5};
    struct segment_opts opts;
    struct fixture f;
    struct rig other;

    fixture_open(&f, kv);
    opts = exact_opts(&f.x);
    /* The other device cuts the model differently and has the slot under another number. */
    rig_open(&other, f.x.path, 2, &opts, cuts, 2);
    feed_same(&f, 2, 0, 0, 150, "original");
    migrate(&f.rig, 2, &other, 4, 0, 37);
    migrate(&f.rig, 2, &other, 4, 37, 130);
    /* Decoding went on meanwhile: the delta overlaps what was sent. */
    migrate(&f.rig, 2, &other, 4, 128, 150);
    for (int i = 0; i < other.n_segments; i++)
        assert_int_equal(segment_slot_len(other.segments[i], 4), 150);
    rig_feed(&other, 4, 150, f.x.tokens[0], LEN - 150, 7, f.logits);
    exact_same(&f.x, 0, 150, LEN - 150, f.logits, "a migrated slot");
    feed_same(&f, 2, 0, 150, LEN, "the original after a migration");
    rig_close(&other);
    fixture_close(&f);
}

static void refuse_import(struct fixture *f, const uint8_t *buf, size_t len, const char *what)
{
    if (segment_kv_import(whole(f), 1, 0, buf, len, &f->et) == ERR_NONE)
        fail_msg("import took %s", what);
}

static void malformed_imports_are_refused(void **state)
{
    enum kv_type kv = (enum kv_type)(intptr_t)*state;
    struct fixture f;
    size_t size;
    uint8_t *good, *bad;

    fixture_open(&f, kv);
    feed_same(&f, 0, 0, 0, 100, "original");
    size = segment_kv_export_size(whole(&f), 1, 10, 60);
    good = mem_alloc(size);
    bad = mem_alloc(size + 1);
    assert_int_equal(segment_kv_export(whole(&f), 1, 0, 10, 60, good, size, &f.et), ERR_NONE);
    assert_int_not_equal(segment_kv_export(whole(&f), 1, 0, 10, 60, good, size - 1, &f.et),
                         ERR_NONE);
    assert_int_not_equal(segment_kv_export(whole(&f), 1, 0, 60, 101, good, size, &f.et), ERR_NONE);
    assert_int_not_equal(segment_kv_export(whole(&f), 2, 0, 10, 60, good, size, &f.et), ERR_NONE);
    assert_int_not_equal(segment_kv_export(whole(&f), 1, EXACT_SLOTS, 10, 60, good, size, &f.et),
                         ERR_NONE);
    assert_int_equal(segment_kv_export(whole(&f), 1, 0, 10, 60, good, size, &f.et), ERR_NONE);
    /* Any length but the right one, and every byte of the header changed in turn. */
    for (size_t n = 0; n < size; n += n < 40 ? 1 : 997)
        refuse_import(&f, good, n, "a truncated export");
    memcpy(bad, good, size);
    refuse_import(&f, bad, size + 1, "trailing bytes");
    for (size_t i = 0; i < 32; i++) {
        memcpy(bad, good, size);
        bad[i] ^= 0x81;
        refuse_import(&f, bad, size, "a changed header");
    }
    /* A gap: positions [10, 60) cannot follow on 5. */
    assert_int_equal(segment_slot_truncate(whole(&f), 0, 5, &f.et), ERR_NONE);
    refuse_import(&f, good, size, "a gap");
    assert_int_equal(segment_slot_len(whole(&f), 0), 5);
    feed_same(&f, 0, 0, 5, 100, "after refused imports");
    free(good);
    free(bad);
    fixture_close(&f);
}

struct bad_batch {
    const char *what;
    int n_rows;
    int32_t slot[4], pos[4], token[4];
};

/* Slot 0 holds [0, 10), slot 1 holds nothing. */
static const struct bad_batch bad_batches[] = {
    {"no rows", 0, {0}, {10}, {1}},
    {"a negative number of rows", -1, {0}, {10}, {1}},
    {"more rows than the segment was opened for", EXACT_LEN_MAX + 1, {0}, {10}, {1}},
    {"a row past the slot's end", 1, {0}, {11}, {1}},
    {"a row past an empty slot's end", 1, {1}, {1}, {1}},
    {"a gap between rows", 2, {0, 0}, {10, 12}, {1, 1}},
    {"the same row twice", 2, {0, 0}, {10, 10}, {1, 1}},
    {"rows backwards", 2, {0, 0}, {11, 10}, {1, 1}},
    {"a slot's rows apart", 3, {0, 1, 0}, {10, 0, 11}, {1, 1, 1}},
    {"a slot's rows apart and backwards", 3, {0, 1, 0}, {10, 0, 9}, {1, 1, 1}},
    {"a negative slot", 1, {-1}, {0}, {1}},
    {"a slot too many", 1, {EXACT_SLOTS}, {0}, {1}},
    {"a slot far out", 1, {INT_MAX}, {0}, {1}},
    {"a negative position", 1, {0}, {-1}, {1}},
    {"a position past the context", 1, {0}, {EXACT_CTX}, {1}},
    {"a position far out", 1, {0}, {INT_MAX}, {1}},
    {"a negative token", 1, {0}, {10}, {-1}},
    {"a token past the vocabulary", 1, {0}, {10}, {320}},
    {"a bad row after a good one", 2, {0, 0}, {10, 11}, {1, INT_MAX}},
};

static void refused_steps_change_nothing(void **state)
{
    enum kv_type kv = (enum kv_type)(intptr_t)*state;
    int32_t *slot = mem_zalloc(EXACT_LEN_MAX + 1, sizeof(*slot));
    int32_t *pos = mem_zalloc(EXACT_LEN_MAX + 1, sizeof(*pos));
    int32_t *token = mem_zalloc(EXACT_LEN_MAX + 1, sizeof(*token));
    uint8_t *want = mem_zalloc(EXACT_LEN_MAX + 1, 1);
    struct fixture f;

    fixture_open(&f, kv);
    assert_int_equal(f.x.n_vocab, 320);
    feed_same(&f, 0, 0, 0, 10, "before");
    for (size_t i = 0; i < ARRAY_LEN(bad_batches); i++) {
        const struct bad_batch *bad = &bad_batches[i];
        struct batch b = {
            .n_rows = bad->n_rows, .slot = slot, .pos = pos, .token = token, .want = want};
        enum err checked, run;

        for (int row = 0; row <= EXACT_LEN_MAX; row++) {
            slot[row] = row < 4 ? bad->slot[row] : 0;
            pos[row] = row < 4 && bad->n_rows <= 4 ? bad->pos[row] : row;
            token[row] = row < 4 ? bad->token[row] : 1;
        }
        f.et.text[0] = 0;
        checked = segment_check(whole(&f), &b, &f.et);
        run = rig_try(&f.rig, &b, NULL, &f.et);
        if ((checked != ERR_INPUT && checked != ERR_LIMIT) || run != checked || !f.et.text[0])
            fail_msg("%s: check said %d, run said %d: %s", bad->what, checked, run, f.et.text);
        assert_int_equal(segment_slot_len(whole(&f), 0), 10);
        assert_int_equal(segment_slot_len(whole(&f), 1), 0);
    }
    feed_same(&f, 0, 0, 10, LEN, "after refused steps");
    free(slot);
    free(pos);
    free(token);
    free(want);
    fixture_close(&f);
}

/* Steps of many shapes share memory, and some shapes need more of it than the largest does: those
 * with rows to pick out. Cut in front of the LM head, where no logits make the reserve ample. */
static void shapes_do_not_disturb_each_other(void **state)
{
    static const struct {
        int n_rows, n_wanted; /* the last of them */
    } shapes[] = {{24, 0}, {24, 1}, {24, 23}, {24, 0}, {24, 24}, {3, 2}, {24, 1}, {1, 1}, {7, 3}};
    struct exact x;
    struct rig rig;
    struct segment_opts opts;
    int32_t slot[24] = {0}, pos[24];
    uint8_t want[24];
    int at = 0, cut;

    (void)state;
    exact_open(&x, TINY_LLAMA_GQA, GGML_TYPE_Q4_0, KV_F16, LEN, 1);
    opts = exact_opts(&x);
    opts.n_rows_max = 24;
    cut = x.n_modules - 1;
    rig_open(&rig, x.path, 1, &opts, &cut, 1);
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        int n = shapes[i].n_rows, wanted = shapes[i].n_wanted;
        struct batch b = {
            .n_rows = n, .slot = slot, .pos = pos, .token = x.tokens[0] + at, .want = want};
        float *logits = mem_alloc(sizeof(float) * 24 * (size_t)x.n_vocab);

        for (int row = 0; row < n; row++) {
            pos[row] = at + row;
            want[row] = row >= n - wanted;
        }
        rig_run(&rig, &b, logits);
        at += n;
        if (wanted > 0)
            exact_same(&x, 0, at - wanted, wanted, logits, "among other shapes");
        free(logits);
    }
    rig_close(&rig);
    exact_close(&x);
}

/* A later segment's input must be there, and of the width and rows its edges name. */
static void wrong_edges_are_refused(void **state)
{
    static const int cut = 2;
    int32_t zero = 0;
    uint8_t want = 1;
    struct batch b = {.n_rows = 1, .slot = &zero, .pos = &zero, .token = &zero, .want = &want};
    struct exact x;
    struct segment_opts opts;
    struct rig rig;
    struct tensors good, bad, out;
    struct err_text et = {{0}};

    (void)state;
    exact_open(&x, TINY_GPTNEOX, GGML_TYPE_F32, KV_F16, 20, 1);
    opts = exact_opts(&x);
    rig_open(&rig, x.path, 1, &opts, &cut, 1);
    assert_int_equal(segment_run(rig.segments[0], &b, NULL, &good, &et), ERR_NONE);
    assert_int_equal(good.n, 2); /* between attn.0 and ffn.0 of a parallel layer */
    assert_int_not_equal(segment_run(rig.segments[1], &b, NULL, &out, &et), ERR_NONE);
    bad = good, bad.n = 1;
    assert_int_not_equal(segment_run(rig.segments[1], &b, &bad, &out, &et), ERR_NONE);
    bad = good, bad.n_rows = 2;
    assert_int_not_equal(segment_run(rig.segments[1], &b, &bad, &out, &et), ERR_NONE);
    bad = good, bad.width[1]--;
    assert_int_not_equal(segment_run(rig.segments[1], &b, &bad, &out, &et), ERR_NONE);
    assert_int_equal(segment_slot_len(rig.segments[1], 0), 0);
    assert_int_equal(segment_run(rig.segments[1], &b, &good, &out, &et), ERR_NONE);
    assert_int_equal(out.width[0], x.n_vocab);
    rig_close(&rig);
    exact_close(&x);
}

/* Heads of 48 are no whole number of q8_0's groups of 32. */
static void unsuited_kv_is_refused(void **state)
{
    struct segment_opts opts = {.n_slots = 1, .n_ctx = 64, .n_rows_max = 8, .kv = KV_Q8_0};
    struct err_text et = {{0}};
    struct compute *c;
    struct segment *s;
    struct model *m;
    char path[256];

    (void)state;
    tiny_path(path, sizeof(path), "unsuited-kv.gguf");
    tiny_write(path, TINY_LLAMA_BIAS, GGML_TYPE_F32, 1);
    assert_int_equal(model_open(path, &m, &et), ERR_NONE);
    assert_int_equal(compute_open(1, &c, &et), ERR_NONE);
    assert_int_equal(model_check_kv(m, KV_Q8_0, &et), ERR_UNSUPPORTED);
    assert_int_equal(segment_open(m, c, 0, 2, &opts, &s, &et), ERR_UNSUPPORTED);
    opts.kv = KV_F16;
    assert_int_equal(segment_open(m, c, 2, 2, &opts, &s, &et), ERR_INPUT);
    assert_int_equal(segment_open(m, c, -1, 2, &opts, &s, &et), ERR_INPUT);
    assert_int_equal(segment_open(m, c, 0, model_n_modules(m) + 1, &opts, &s, &et), ERR_INPUT);
    compute_close(c);
    model_close(m);
    remove(path);
}

int main(void)
{
#define WITH_KV(f)                                                                                 \
    {#f " (f16)", f, NULL, NULL, (void *)(intptr_t)KV_F16},                                        \
        {#f " (q8_0)", f, NULL, NULL, (void *)(intptr_t)KV_Q8_0},                                  \
    {                                                                                              \
#f " (f32)", f, NULL, NULL, (void *)(intptr_t)KV_F32                                       \
    }
    static const struct CMUnitTest tests[] = {
        WITH_KV(truncated_slot_is_as_fresh),
        WITH_KV(copied_slot_is_as_the_original),
        WITH_KV(migrated_slot_is_as_the_original),
        WITH_KV(malformed_imports_are_refused),
        WITH_KV(refused_steps_change_nothing),
        cmocka_unit_test(wrong_edges_are_refused),
        cmocka_unit_test(unsuited_kv_is_refused),
        cmocka_unit_test(shapes_do_not_disturb_each_other),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
