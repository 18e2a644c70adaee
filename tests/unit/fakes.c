#include "fakes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "head/chain.h"
#include "model/model.h"
#include "model/modelfile.h"
#include "text/text.h"

struct fake fake;

static int something; /* opened things are pointers to it */
static struct model_shape shape;
static float logits[4096 * FAKE_VOCAB];

void fake_reset(void)
{
    memset(&fake, 0, sizeof fake);
    fake.n_ctx_train = 1000;
    fake.n_tokens = FAKE_VOCAB;
    fake.run_err_at = -1;
}

int32_t fake_next(const int32_t *tokens, int n)
{
    uint32_t h = 2166136261u;

    if (n < fake.n_script)
        return fake.script[n];
    for (int i = 0; i < n; i++)
        h = (h ^ (uint32_t)tokens[i]) * 16777619u;
    return (int32_t)(1 + h % 127);
}

static enum err fail(enum err e, struct err_text *et, const char *what)
{
    return e ? err_set(et, e, "fake %s", what) : ERR_NONE;
}

/* The model. */

const char *model_cpu_unsuited(void)
{
    return fake.cpu_unsuited;
}

enum err modelfile_open(const char *path, struct modelfile **out, struct err_text *et)
{
    if (fake.file_err)
        return fail(fake.file_err, et, "file");
    fake.n_open++;
    *out = (struct modelfile *)&something;
    return ERR_NONE;
}

void modelfile_close(struct modelfile *mf)
{
    fake.n_open--;
}

enum err modelfile_check_tokenizer(const struct modelfile *mf, uint32_t *n_tokens,
                                   struct err_text *et)
{
    *n_tokens = fake.n_tokens;
    return fail(fake.tokenizer_err, et, "tokenizer");
}

enum err model_open_file(struct modelfile *mf, struct model **out, struct err_text *et)
{
    if (fake.model_err) {
        modelfile_close(mf);
        return fail(fake.model_err, et, "model");
    }
    *out = (struct model *)&something;
    shape = (struct model_shape){.arch = "fake",
                                 .name = "a fake",
                                 .n_vocab = FAKE_VOCAB,
                                 .n_ctx_train = fake.n_ctx_train,
                                 .ctx_is_hard = fake.ctx_is_hard,
                                 .type_name = "f32"};
    return ERR_NONE;
}

void model_close(struct model *m)
{
    fake.n_open--;
}

const struct model_shape *model_shape(const struct model *m)
{
    return &shape;
}

int model_n_modules(const struct model *m)
{
    return 6;
}

uint64_t model_kv_bytes(const struct model *m, int i, enum kv_type type)
{
    return i == 1 || i == 3 ? (type == KV_F32 ? 400 : 200) : 0;
}

enum err model_check_kv(const struct model *m, enum kv_type type, struct err_text *et)
{
    fake.kv = type;
    return fail(fake.kv_err, et, "kv");
}

/* The vocabulary. */

enum err text_open(const char *path, struct text **out, struct err_text *et)
{
    if (fake.text_err)
        return fail(fake.text_err, et, "text");
    fake.n_open++;
    *out = (struct text *)&something;
    return ERR_NONE;
}

void text_close(struct text *t)
{
    fake.n_open--;
}

bool text_is_end(const struct text *t, int32_t token)
{
    return token == FAKE_END;
}

enum err text_tokenize(const struct text *t, const char *s, size_t n, bool add_special,
                       bool parse_special, int32_t **tokens, int *n_tokens, struct err_text *et)
{
    int32_t *out = mem_alloc((n + 1) * sizeof *out);
    int k = 0;

    if (add_special)
        out[k++] = FAKE_BOS;
    for (size_t i = 0; i < n; i++)
        out[k++] = parse_special && s[i] == '#' ? FAKE_SPECIAL : (unsigned char)s[i];
    *tokens = out;
    *n_tokens = k;
    return ERR_NONE;
}

int text_piece(const struct text *t, int32_t token, bool show_special, char *buf, int cap)
{
    char piece[200];
    int n = 1;

    piece[0] = (char)token;
    if (token == FAKE_EURO) {
        memcpy(piece, "\xe2\x82\xac", 3);
        n = 3;
    } else if (token == FAKE_LONG) {
        memset(piece, 'y', sizeof piece);
        n = sizeof piece;
    } else if (token > 255) {
        n = 0;
    }
    if (n > cap)
        return -n;
    if (n)
        memcpy(buf, piece, (size_t)n);
    return n;
}

/* Enough for the tests: sequences of two and three bytes. */
size_t text_utf8_whole(const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *)s;
    size_t i = 0;

    while (i < n) {
        size_t need = u[i] >= 0xe0 ? 3 : u[i] >= 0xc0 ? 2 : 1;

        if (i + need > n)
            break;
        i += need;
    }
    return i;
}

bool text_has_template(const struct text *t)
{
    return fake.has_template;
}

enum err text_render_chat(const struct text *t, const struct text_message *messages, int n_messages,
                          bool add_assistant, char **out, struct err_text *et)
{
    *out = mem_printf("#%s:%s(%d)%s", messages[n_messages - 1].role,
                      messages[n_messages - 1].content, n_messages, add_assistant ? "#" : "");
    return ERR_NONE;
}

enum err sampling_check(const struct sampling *s, struct err_text *et)
{
    return s->temp < 0 ? err_set(et, ERR_INPUT, "temp") : ERR_NONE;
}

enum err sampler_open(const struct text *t, const struct sampling *s, struct sampler **out,
                      struct err_text *et)
{
    enum err e = sampling_check(s, et);

    *out = NULL;
    if (e)
        return e;
    fake.n_open++;
    *out = (struct sampler *)&something;
    return ERR_NONE;
}

void sampler_free(struct sampler *s)
{
    fake.n_open--;
}

enum err sampler_pick(struct sampler *s, const float *row, int32_t *token, struct token_prob *own,
                      int n_top, struct token_prob *top, struct err_text *et)
{
    int32_t best = 0;

    for (int32_t i = 1; i < FAKE_VOCAB; i++)
        if (row[i] > row[best])
            best = i;
    *token = best;
    return ERR_NONE;
}

/* The chain. */

enum err chain_open(const struct model *m, const struct chain_opts *opts, struct chain **out,
                    struct err_text *et)
{
    if (fake.chain_err)
        return fail(fake.chain_err, et, "chain");
    fake.n_open++;
    fake.n_threads = opts->n_threads;
    fake.n_slots = opts->segment.n_slots;
    fake.n_ctx = opts->segment.n_ctx;
    fake.n_rows_max = opts->segment.n_rows_max;
    *out = (struct chain *)&something;
    return ERR_NONE;
}

void chain_close(struct chain *c)
{
    fake.n_open--;
}

enum err chain_run(struct chain *c, const struct batch *b, struct tensors *out, struct err_text *et)
{
    int n_out = 0, run = fake.n_runs++;

    CHECK(b->n_rows >= 1 && b->n_rows <= fake.n_rows_max && run < 64);
    if (fake.on_run)
        fake.on_run(fake.user);
    if (fake.run_err && run >= fake.run_err_at)
        return fail(fake.run_err, et, "run");
    for (int i = 0; i < b->n_rows; i++) {
        int slot = b->slot[i], pos = b->pos[i];

        CHECK(slot >= 0 && slot < fake.n_slots && pos < fake.n_ctx);
        CHECK(pos <= fake.slot_len[slot]);
        fake.slot_tokens[slot][pos] = b->token[i];
        fake.slot_len[slot] = pos + 1;
        if (!b->want[i])
            continue;
        memset(logits + n_out * FAKE_VOCAB, 0, FAKE_VOCAB * sizeof *logits);
        logits[n_out * FAKE_VOCAB + fake_next(fake.slot_tokens[slot], pos + 1)] = 1;
        n_out++;
    }
    fake.rows[run] = b->n_rows;
    fake.wanted[run] = n_out;
    *out = (struct tensors){.n = 1, .n_rows = n_out, .width = {FAKE_VOCAB}, .data = {logits}};
    return ERR_NONE;
}

enum err chain_slot_truncate(struct chain *c, int slot, int len, struct err_text *et)
{
    CHECK(len <= fake.slot_len[slot]);
    fake.n_truncates++;
    fake.truncate_len = len;
    fake.slot_len[slot] = len;
    return ERR_NONE;
}

int chain_slot_len(const struct chain *c, int slot)
{
    return fake.slot_len[slot];
}

int chain_n_devices(const struct chain *c)
{
    return 2;
}

enum err chain_report(struct chain *c, int device, struct device_report *out, struct err_text *et)
{
    *out = (struct device_report){.pid = 7,
                                  .n_threads = 1,
                                  .compute_us = 9000,
                                  .decode_steps = 4,
                                  .decode_us = 8000,
                                  .decode_sent_bytes = 400};
    snprintf(out->name, sizeof out->name, "device %d", device + 1);
    snprintf(out->modules, sizeof out->modules, "embed..ffn.1");
    return fail(fake.report_err, et, "report");
}
