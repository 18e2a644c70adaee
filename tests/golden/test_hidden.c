/* Hidden states are what the LM head is fed, to the bit: whoever is asked for them, however the model
 * is cut, the prompt chunked and the step shared. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "model/modelfile.h"
#include "support/rig.h"
#include "support/tiny_model.h"

enum { LEN = 60, CTX = 96, SLOTS = 3 };

struct rows {
    float *data; /* (n, width) */
    int n, width;
};

static const struct segment_opts opts = {
    .n_slots = SLOTS, .n_ctx = CTX, .n_rows_max = LEN, .kv = KV_F16};

/* One step through all segments; fails the test when it is refused. */
static struct rows run(struct rig *r, const struct batch *b)
{
    struct tensors in, out = {0};
    struct err_text et = {{0}};
    struct rows rows;

    for (int i = 0; i < r->n_segments; i++) {
        in = out;
        if (segment_run(r->segments[i], b, i ? &in : NULL, &out, &et))
            fail_msg("segment %d: %s", i, et.text);
    }
    rows = (struct rows){.n = out.n_rows, .width = out.width[0]};
    rows.data = mem_alloc((size_t)rows.n * (size_t)rows.width * sizeof(float) + 1);
    if (rows.n > 0)
        memcpy(rows.data, out.data[0], (size_t)rows.n * (size_t)rows.width * sizeof(float));
    return rows;
}

/* Rows [pos, pos + n) of one slot; those from `first` on want `kind`. */
static struct rows feed(struct rig *r, int slot, const int32_t *tokens, int pos, int n, int first,
                        enum row_want kind)
{
    int32_t slots[LEN], positions[LEN];
    uint8_t want[LEN];

    for (int i = 0; i < n; i++) {
        slots[i] = slot;
        positions[i] = pos + i;
        want[i] = pos + i >= first ? (uint8_t)kind : ROW_NOTHING;
    }
    return run(r, &(struct batch){n, slots, positions, tokens + pos, want});
}

static void tokens_make(int32_t *tokens, int n_vocab)
{
    struct tiny_rng rng = {11};

    for (int i = 0; i < LEN; i++)
        tokens[i] = (int32_t)(tiny_rng_next(&rng) % (uint64_t)n_vocab);
}

static void same(const struct rows *base, int from, const struct rows *rows, const char *what)
{
    assert_int_equal(rows->width, base->width);
    if (memcmp(rows->data, base->data + (size_t)from * (size_t)base->width,
               (size_t)rows->n * (size_t)rows->width * sizeof(float)) != 0)
        fail_msg("hidden states differ: %s", what);
}

/* The logits of the same rows are the LM head's product with them. */
static void logits_follow(struct rig *r, const int32_t *tokens, const struct rows *hidden)
{
    const struct modelfile *mf = model_file(r->model);
    const struct mf_tensor *t = modelfile_find(mf, "output.weight");
    const float *w = modelfile_data(mf, t);
    struct rows logits = feed(r, 1, tokens, 0, LEN, 0, ROW_LOGITS);

    assert_int_equal(t->type, GGML_TYPE_F32);
    assert_int_equal(logits.width, r->n_vocab);
    assert_int_equal(hidden->width, (int)t->ne[0]);
    for (int i = 0; i < LEN; i += 7)
        for (int k = 0; k < r->n_vocab; k += 13) {
            const float *h = hidden->data + (size_t)i * (size_t)hidden->width;
            double sum = 0, size = 0;

            for (int j = 0; j < hidden->width; j++) {
                double product = (double)h[j] * (double)w[(size_t)k * (size_t)hidden->width + j];

                sum += product;
                size += fabs(product);
            }
            assert_true(fabs(sum - (double)logits.data[(size_t)i * (size_t)logits.width + k]) <=
                        1e-5 * size);
        }
    free(logits.data);
}

/* Other chunks, and decoded one by one while the slot's neighbour decodes, too. */
static void chunks_change_nothing(struct rig *r, const int32_t *tokens, const struct rows *base)
{
    struct rows a = feed(r, 2, tokens, 0, 37, 30, ROW_HIDDEN), b;
    static const uint8_t want[2] = {ROW_HIDDEN, ROW_HIDDEN};

    assert_int_equal(a.n, 7);
    same(base, 30, &a, "some rows of a chunk");
    free(a.data);
    free(feed(r, 0, tokens, 0, 37, LEN, ROW_NOTHING).data);
    for (int pos = 37; pos < LEN; pos++) {
        const int32_t slot[2] = {0, 2}, at[2] = {pos, pos}, token[2] = {tokens[pos], tokens[pos]};

        b = run(r, &(struct batch){2, slot, at, token, want});
        assert_int_equal(b.n, 2);
        b.n = 1;
        same(base, pos, &b, "one of two decoded together");
        memcpy(b.data, b.data + b.width, (size_t)b.width * sizeof(float));
        same(base, pos, &b, "the other one");
        free(b.data);
    }
}

static void hidden_states_are_what_the_head_is_fed(enum tiny_variant v, enum ggml_type type,
                                                   const char *name)
{
    static const int cuts[][3] = {{0}, {3}, {5}};
    int32_t tokens[LEN];
    struct rows base = {0};
    char path[256];

    tiny_path(path, (int)sizeof path, name);
    tiny_write(path, v, type, 91);
    for (int n = 0; n < 4; n++) { /* whole, cut once, and with `output` by itself */
        struct rows all;
        struct rig r;
        int cut = n < 3 ? cuts[n][0] : 0;

        if (n == 3) {
            struct model *m;
            struct err_text et;

            assert_int_equal(model_open(path, &m, &et), ERR_NONE);
            cut = model_n_modules(m) - 1;
            model_close(m);
        }
        rig_open(&r, path, 1, &opts, &cut, n > 0);
        tokens_make(tokens, r.n_vocab);
        all = feed(&r, 0, tokens, 0, LEN, 0, ROW_HIDDEN);
        assert_int_equal(all.width, model_shape(r.model)->n_embd);
        assert_int_equal(all.n, LEN);
        if (!base.data)
            base = all;
        same(&base, 0, &all, "by another cut");
        if (type == GGML_TYPE_F32)
            logits_follow(&r, tokens, &base);
        chunks_change_nothing(&r, tokens, &base);
        if (base.data != all.data)
            free(all.data);
        rig_close(&r);
    }
    free(base.data);
}

static void plain_weights(void **state)
{
    (void)state;
    hidden_states_are_what_the_head_is_fed(TINY_LLAMA, GGML_TYPE_F32, "hidden-f32.gguf");
}

static void other_families(void **state)
{
    (void)state;
    hidden_states_are_what_the_head_is_fed(TINY_LLAMA_GQA, GGML_TYPE_Q8_0, "hidden-q8.gguf");
    hidden_states_are_what_the_head_is_fed(TINY_GEMMA2, GGML_TYPE_F16, "hidden-f16.gguf");
    hidden_states_are_what_the_head_is_fed(TINY_GPTNEOX, GGML_TYPE_Q4_0, "hidden-q4.gguf");
}

static void wishes_are_checked(void **state)
{
    const int32_t slot[2] = {0, 0}, pos[2] = {0, 1}, token[2] = {1, 2};
    uint8_t want[2] = {ROW_LOGITS, ROW_HIDDEN};
    struct batch b = {2, slot, pos, token, want};
    struct tensors out;
    struct err_text et;
    char path[256];
    struct rig r;

    (void)state;
    tiny_path(path, (int)sizeof path, "hidden-check.gguf");
    tiny_write(path, TINY_LLAMA, GGML_TYPE_Q8_0, 92);
    rig_open(&r, path, 1, &opts, NULL, 0);
    assert_int_equal(segment_check(r.segments[0], &b, &et), ERR_INPUT);
    assert_int_equal(segment_run(r.segments[0], &b, NULL, &out, &et), ERR_INPUT);
    want[0] = 3;
    assert_int_equal(segment_run(r.segments[0], &b, NULL, &out, &et), ERR_INPUT);
    assert_int_equal(segment_slot_len(r.segments[0], 0), 0);
    want[0] = ROW_NOTHING;
    assert_int_equal(segment_run(r.segments[0], &b, NULL, &out, &et), ERR_NONE);
    assert_int_equal(out.n_rows, 1);
    want[1] = ROW_NOTHING; /* no result at all is as good */
    assert_int_equal(segment_run(r.segments[0], &b, NULL, &out, &et), ERR_NONE);
    assert_int_equal(out.n_rows, 0);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_weights),
        cmocka_unit_test(other_families),
        cmocka_unit_test(wishes_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
