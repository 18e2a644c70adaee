#include "text/text.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "text/text_shim.h"

/* llama.cpp loads special ids that lie outside the vocabulary without a word and trips over them
 * later. */
static enum err special_check(const char *path, const struct llama_vocab *vocab,
                              struct err_text *et)
{
    const struct {
        const char *name;
        int32_t id;
    } special[] = {
        {"bos", llama_vocab_bos(vocab)}, {"eos", llama_vocab_eos(vocab)},
        {"eot", llama_vocab_eot(vocab)}, {"sep", llama_vocab_sep(vocab)},
        {"pad", llama_vocab_pad(vocab)},
    };
    int n = llama_vocab_n_tokens(vocab);

    for (size_t i = 0; i < ARRAY_LEN(special); i++) {
        if (special[i].id != LLAMA_TOKEN_NULL && (special[i].id < 0 || special[i].id >= n))
            return err_set(et, ERR_INPUT, "%s: token id %d of %s is outside the %d tokens", path,
                           special[i].id, special[i].name, n);
    }
    return ERR_NONE;
}

enum err text_open(const char *path, struct text **out, struct err_text *et)
{
    struct text *t;
    struct llama_model *model;
    enum err e;
    int fd;

    *out = NULL;
    /* Only to hear the system's own reason, which llama.cpp does not pass on. */
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_system(et, "%s", path);
    close(fd);

    e = shim_load(path, &model, et);
    if (e)
        return e;
    t = mem_zalloc(1, sizeof *t);
    t->model = model;
    t->vocab = llama_model_get_vocab(model);
    t->n_vocab = llama_vocab_n_tokens(t->vocab);
    t->chat_template = llama_model_chat_template(model, NULL);
    if (t->chat_template && !t->chat_template[0])
        t->chat_template = NULL;
    if (llama_vocab_type(t->vocab) == LLAMA_VOCAB_TYPE_NONE || t->n_vocab == 0)
        e = err_set(et, ERR_INPUT, "%s: the file has no vocabulary (tokenizer.ggml.*)", path);
    else
        e = special_check(path, t->vocab, et);
    if (e) {
        text_close(t);
        return e;
    }
    *out = t;
    return ERR_NONE;
}

void text_close(struct text *t)
{
    if (!t)
        return;
    llama_model_free(t->model);
    free(t);
}

int text_n_vocab(const struct text *t)
{
    return t->n_vocab;
}

int32_t text_bos(const struct text *t)
{
    return llama_vocab_bos(t->vocab); /* LLAMA_TOKEN_NULL is -1 */
}

int32_t text_eos(const struct text *t)
{
    return llama_vocab_eos(t->vocab);
}

bool text_adds_bos(const struct text *t)
{
    return llama_vocab_get_add_bos(t->vocab);
}

bool text_is_end(const struct text *t, int32_t token)
{
    return token >= 0 && token < t->n_vocab && llama_vocab_is_eog(t->vocab, token);
}

bool text_has_template(const struct text *t)
{
    return t->chat_template != NULL;
}

const char *text_template(const struct text *t)
{
    return t->chat_template;
}

int text_piece(const struct text *t, int32_t token, bool show_special, char *buf, int cap)
{
    if (token < 0 || token >= t->n_vocab)
        return 0;
    return shim_piece(t->vocab, token, show_special, buf, cap);
}

/* How many bytes the character that starts with s[0] has, when the n bytes present may be the
 * beginning of one that is not complete; 0 when they are complete or can never become a character.
 * The table is RFC 3629, section 4. */
static size_t utf8_needs(const unsigned char *s, size_t n)
{
    unsigned char low = 0x80, high = 0xbf;
    size_t need;

    if (s[0] >= 0xc2 && s[0] <= 0xdf)
        need = 2;
    else if (s[0] >= 0xe0 && s[0] <= 0xef)
        need = 3;
    else if (s[0] >= 0xf0 && s[0] <= 0xf4)
        need = 4;
    else
        return 0;
    if (n >= need)
        return 0;
    if (s[0] == 0xe0)
        low = 0xa0; /* shorter forms exist for what lies below */
    else if (s[0] == 0xed)
        high = 0x9f; /* surrogates */
    else if (s[0] == 0xf0)
        low = 0x90;
    else if (s[0] == 0xf4)
        high = 0x8f; /* past U+10FFFF */
    for (size_t i = 1; i < n; i++) {
        if (s[i] < low || s[i] > high)
            return 0;
        low = 0x80;
        high = 0xbf;
    }
    return need;
}

size_t text_utf8_whole(const char *s, size_t n)
{
    /* Only the last three bytes can belong to a character that is still on its way. */
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        const unsigned char *p = (const unsigned char *)s + n - back;

        if ((p[0] & 0xc0) != 0x80)
            return utf8_needs(p, back) ? n - back : n;
    }
    return n;
}
