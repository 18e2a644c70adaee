#include "support/tiny_vocab.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "gguf.h"

/* GGUF's token types. */
enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, UNUSED = 5, BYTE = 6 };

/* U+2581 stands for a space in SentencePiece. */
#define SP "\xe2\x96\x81"

/* Every merge needs both halves earlier in the list. Earlier ones win. */
static const char *const merges[] = {
    SP "t",
    "he",
    SP "the",
    "in",
    "er",
    "an",
    "on",
    "re",
    "ll",
    "lo",
    "hell",
    "hello",
    SP "hello",
    SP "w",
    "or",
    "ld",
    "orld",
    SP "world",
    "on"
    "ce",
    "ce",
    "up",
    "us",
    "user",
    "sy",
    "st",
    "em",
    "sys",
    "is",
    "ti",
    "me",
    SP "a",
    SP "s",
    SP "o",
    "nce",
};

struct list {
    char **text;
    float *score;
    int32_t *type;
    int n, cap;
};

static void add(struct list *l, const char *text, int type)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 512;
        l->text = mem_realloc(l->text, (size_t)l->cap, sizeof *l->text);
        l->score = mem_realloc(l->score, (size_t)l->cap, sizeof *l->score);
        l->type = mem_realloc(l->type, (size_t)l->cap, sizeof *l->type);
    }
    l->text[l->n] = mem_strdup(text);
    l->score[l->n] = type == NORMAL ? -(float)l->n : 0;
    l->type[l->n] = type;
    l->n++;
}

static void fill_spm(struct list *l)
{
    char name[32];

    add(l, "<unk>", UNKNOWN);
    add(l, "<s>", CONTROL);
    add(l, "</s>", CONTROL);
    for (int b = 0; b < 256; b++) {
        snprintf(name, sizeof name, "<0x%02X>", b);
        add(l, name, BYTE);
    }
    add(l, "<|im_start|>", CONTROL);
    add(l, "<|im_end|>", CONTROL);
    CHECK(l->n == TINY_PIECE_FIRST);
    for (size_t i = 0; i < ARRAY_LEN(merges); i++)
        add(l, merges[i], NORMAL);
    add(l, SP, NORMAL);
    for (int c = '!'; c <= '~'; c++) {
        snprintf(name, sizeof name, "%c", c);
        add(l, name, NORMAL);
    }
}

/* GPT-2 writes every byte as a printable character: itself where it is one, else 256 and up in the
 * order of the bytes that are not. */
static int byte_char(int byte)
{
    int other = 256;

    for (int b = 0; b <= byte; b++) {
        bool prints = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;

        if (b == byte)
            return prints ? b : other;
        other += !prints;
    }
    return 0;
}

static const char *const bpe_merges[] = {"t h", "th e", "h e", "l l", "he ll", "hell o"};

static void fill_bpe(struct list *l)
{
    char name[32];

    add(l, "<unk>", CONTROL);
    add(l, "<s>", CONTROL);
    add(l, "</s>", CONTROL);
    for (int b = 0; b < 256; b++) {
        int c = byte_char(b);

        if (c < 128)
            snprintf(name, sizeof name, "%c", c);
        else
            snprintf(name, sizeof name, "%c%c", 0xc0 | c >> 6, 0x80 | (c & 63));
        add(l, name, NORMAL);
    }
    add(l, "<|im_start|>", CONTROL);
    add(l, "<|im_end|>", CONTROL);
    CHECK(l->n == TINY_PIECE_FIRST);
    for (size_t i = 0; i < ARRAY_LEN(bpe_merges); i++) {
        int half = (int)strcspn(bpe_merges[i], " ");

        snprintf(name, sizeof name, "%.*s%s", half, bpe_merges[i], bpe_merges[i] + half + 1);
        add(l, name, NORMAL);
    }
}

static void fill(struct list *l, const struct tiny_vocab *v)
{
    char name[32];

    if (v->bpe)
        fill_bpe(l);
    else
        fill_spm(l);
    while (l->n < v->n_vocab) {
        snprintf(name, sizeof name, "<unused%d>", l->n);
        add(l, name, UNUSED);
    }
}

int tiny_vocab_put(struct gguf_context *g, const struct tiny_vocab *v)
{
    struct list l = {0};
    int n;

    fill(&l, v);
    gguf_set_val_str(g, "tokenizer.ggml.model", v->bpe ? "gpt2" : "llama");
    if (v->bpe) {
        gguf_set_val_str(g, "tokenizer.ggml.pre", v->bpe);
        gguf_set_arr_str(g, "tokenizer.ggml.merges", (const char **)bpe_merges,
                         ARRAY_LEN(bpe_merges));
    }
    gguf_set_arr_str(g, "tokenizer.ggml.tokens", (const char **)l.text, (size_t)l.n);
    gguf_set_arr_data(g, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, l.score, (size_t)l.n);
    gguf_set_arr_data(g, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, l.type, (size_t)l.n);
    gguf_set_val_u32(g, "tokenizer.ggml.bos_token_id", TINY_BOS);
    gguf_set_val_u32(g, "tokenizer.ggml.eos_token_id", TINY_EOS);
    gguf_set_val_u32(g, "tokenizer.ggml.unknown_token_id", TINY_UNK);
    gguf_set_val_bool(g, "tokenizer.ggml.add_bos_token", !v->no_bos);
    gguf_set_val_bool(g, "tokenizer.ggml.add_eos_token", false);
    if (v->chat_template)
        gguf_set_val_str(g, "tokenizer.chat_template", v->chat_template);
    n = l.n;
    for (int i = 0; i < l.n; i++)
        free(l.text[i]);
    free(l.text);
    free(l.score);
    free(l.type);
    return n;
}

bool tiny_vocab_write(const char *path, const struct tiny_vocab *v)
{
    struct gguf_context *g = gguf_init_empty();
    bool ok;

    gguf_set_val_str(g, "general.architecture", "llama");
    tiny_vocab_put(g, v);
    ok = gguf_write_to_file(g, path, true);
    gguf_free(g);
    return ok;
}
