/* libllama builds the vocabulary from the same file. It aborts on duplicate tokens and on arrays
 * of the wrong type, reads past arrays of narrow numbers, throws in the middle of a prompt when a
 * byte has no token, and quietly replaces ids that are out of range. Each check below is there for
 * one of these; text (src/text) may hand a file to libllama only after all have passed. Two kinds
 * of tokenizer are known well enough to promise that: SentencePiece ("llama") and byte-level BPE
 * ("gpt2"), which all supported families use. */
#include "model/modelfile.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "model/modelfile_impl.h"

#define KEY(name) "tokenizer.ggml." name

enum {
    TOKENS_MAX = 1 << 20,           /* four times the largest vocabulary in use */
    MERGES_MAX = 1 << 22,           /* libllama spends some 150 bytes on each */
    TOKEN_BYTES_MAX = 4096,         /* of one token's text */
    TEMPLATE_BYTES_MAX = 256 << 10, /* of a chat template */
    TOKEN_TYPE_MAX = 6,             /* 0 undefined, normal, unknown, control, user, unused, byte */
    TOKEN_TYPE_BYTE = 6,
};

/* libllama spells out each character it cannot map to a byte as the token's whole text, so a
 * token can cost the square of its length. Real vocabularies stay below 10 million in sum. */
static const uint64_t SQUARES_MAX = 256 << 20;

enum kind { KIND_SPM, KIND_BPE };

struct token {
    uint64_t hash;
    const char *text; /* in the mapping */
    uint32_t len;
    uint32_t id;
};

struct vocab {
    const struct modelfile *mf;
    enum kind kind;
    const char *pre; /* "" when the file does not say */
    uint32_t n;
    struct token *tokens; /* sorted by hash, then text */
};

/* --- keys that libllama wants with exactly one type --- */

static enum err check_scalars(const struct modelfile *mf, struct err_text *et)
{
    static const struct {
        const char *name;
        unsigned type;
    } keys[] = {
        {"general.architecture", VALUE_STRING},
        {"general.name", VALUE_STRING},
        {"general.file_type", VALUE_U32},
        {"split.count", VALUE_U16},
        {KEY("pre"), VALUE_STRING},
        {KEY("token_type_count"), VALUE_U32},
        {KEY("add_bos_token"), VALUE_BOOL},
        {KEY("add_eos_token"), VALUE_BOOL},
        {KEY("add_sep_token"), VALUE_BOOL},
        {KEY("add_space_prefix"), VALUE_BOOL},
        {KEY("remove_extra_whitespaces"), VALUE_BOOL},
        {KEY("normalizer.lowercase"), VALUE_BOOL},
        {KEY("normalizer.strip_accents"), VALUE_BOOL},
    };

    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        const struct mf_key *k = modelfile_key(mf, keys[i].name);
        const char *s;
        bool b;
        enum err e = ERR_NONE;

        if (!k)
            continue;
        if (k->is_array || k->type != keys[i].type)
            return modelfile_key_error(
                mf, keys[i].name, et, ERR_INPUT, "%s%s where a %s is expected",
                k->is_array ? "an array of " : "", modelfile_value_name(k->type),
                modelfile_value_name(keys[i].type));
        if (k->type == VALUE_STRING)
            e = modelfile_str(mf, keys[i].name, &s, et);
        if (k->type == VALUE_BOOL)
            e = modelfile_bool(mf, keys[i].name, &b, et);
        if (e)
            return e;
    }
    return ERR_NONE;
}

static bool starts_with(const struct mf_key *k, const char *prefix)
{
    size_t n = strlen(prefix);

    return k->name_len >= n && memcmp(k->name, prefix, n) == 0;
}

static bool ends_with(const struct mf_key *k, const char *suffix)
{
    size_t n = strlen(suffix);

    return k->name_len >= n && memcmp(k->name + k->name_len - n, suffix, n) == 0;
}

/* For keys found by walking over all of them. */
static enum err found_error(const struct modelfile *mf, const struct mf_key *k, struct err_text *et,
                            const char *words)
{
    struct mf_shown shown;

    return err_set(et, ERR_INPUT, "%s: key %s: %s", mf->shown,
                   modelfile_show(&shown, k->name, k->name_len), words);
}

static enum err check_templates(const struct modelfile *mf, struct err_text *et)
{
    for (uint32_t i = 0; i < mf->n_keys; i++) {
        const struct mf_key *k = &mf->keys[i];

        if (!starts_with(k, "tokenizer.chat_template"))
            continue;
        if (k->is_array)
            continue; /* a list of names, which nobody reads */
        if (k->type != VALUE_STRING)
            return found_error(mf, k, et, "a chat template must be a string");
        if (modelfile_load_u64(k->data) > TEMPLATE_BYTES_MAX)
            return found_error(mf, k, et, "a chat template longer than 256 KiB");
        if (!k->str)
            return found_error(mf, k, et, "a NUL byte inside the string");
    }
    return ERR_NONE;
}

static enum err check_special_ids(const struct vocab *v, struct err_text *et)
{
    const struct modelfile *mf = v->mf;

    for (uint32_t i = 0; i < mf->n_keys; i++) {
        const struct mf_key *k = &mf->keys[i];
        char words[96];

        if (!starts_with(k, KEY("")) || !ends_with(k, "_token_id"))
            continue;
        if (k->is_array || k->type != VALUE_U32)
            return found_error(mf, k, et, "must be a u32");
        if (modelfile_load_u32(k->data) >= v->n) {
            snprintf(words, sizeof words, "token %u is outside the vocabulary of %u tokens",
                     modelfile_load_u32(k->data), v->n);
            return found_error(mf, k, et, words);
        }
    }
    return ERR_NONE;
}

/* libllama asserts that there is a BOS token whenever it is to add one, likewise EOS. Without the
 * key it takes a default, and none when the vocabulary is too small for that. */
static enum err check_added_ids(const struct vocab *v, struct err_text *et)
{
    bool no_default = strcmp(v->pre, "glm4") == 0 || strcmp(v->pre, "chatglm-bpe") == 0;
    bool forced = strcmp(v->pre, "gemma4") == 0 || strcmp(v->pre, "granite-embed-multi-311m") == 0;
    uint32_t bos = v->kind == KIND_SPM ? 1 : 11, eos = v->kind == KIND_SPM ? 2 : 11;
    /* Which pre-tokenizers add BOS unasked is a long list; asking it of all costs nobody. */
    bool add_bos = !no_default, add_eos = false;
    enum err e;

    e = modelfile_bool_opt(v->mf, KEY("add_bos_token"), &add_bos, et);
    if (!e)
        e = modelfile_bool_opt(v->mf, KEY("add_eos_token"), &add_eos, et);
    if (e)
        return e;
    if ((add_bos || forced) && !modelfile_has(v->mf, KEY("bos_token_id")) &&
        (no_default || bos >= v->n))
        return modelfile_key_error(v->mf, KEY("bos_token_id"), et, ERR_INPUT,
                                   "missing, and a BOS token is to be added");
    if (add_eos && !modelfile_has(v->mf, KEY("eos_token_id")) && eos >= v->n)
        return modelfile_key_error(v->mf, KEY("eos_token_id"), et, ERR_INPUT,
                                   "missing, and an EOS token is to be added");
    return ERR_NONE;
}

/* --- arrays beside the tokens --- */

/* Absent is fine when it is optional: *out is NULL then. */
static enum err find_array(const struct modelfile *mf, const char *name, unsigned type, bool needed,
                           const struct mf_key **out, struct err_text *et)
{
    const struct mf_key *k = modelfile_key(mf, name);

    *out = k;
    if (!k)
        return needed ? modelfile_key_error(mf, name, et, ERR_INPUT, "missing") : ERR_NONE;
    /* Signed and unsigned are read through the same pointer. */
    if (k->is_array && (k->type == type || (type == VALUE_I32 && k->type == VALUE_U32)))
        return ERR_NONE;
    return modelfile_key_error(mf, name, et, ERR_INPUT, "%s%s where an array of %s is expected",
                               k->is_array ? "an array of " : "", modelfile_value_name(k->type),
                               modelfile_value_name(type));
}

static enum err check_length(const struct vocab *v, const char *name, const struct mf_key *k,
                             struct err_text *et)
{
    if (k && k->n != v->n)
        return modelfile_key_error(v->mf, name, et, ERR_INPUT, "%llu entries for %u tokens",
                                   (unsigned long long)k->n, v->n);
    return ERR_NONE;
}

static enum err check_scores(const struct vocab *v, struct err_text *et)
{
    const struct mf_key *k;
    enum err e = find_array(v->mf, KEY("scores"), VALUE_F32, v->kind == KIND_SPM, &k, et);

    if (!e)
        e = check_length(v, KEY("scores"), k, et);
    if (e || !k)
        return e;
    for (uint32_t i = 0; i < v->n; i++) /* NaN has no place in a priority queue */
        if (isnan(modelfile_load_f32(k->data + 4 * (size_t)i)))
            return modelfile_key_error(v->mf, KEY("scores"), et, ERR_INPUT,
                                       "entry %u is not a number", i);
    return ERR_NONE;
}

static enum err check_suppressed(const struct modelfile *mf, struct err_text *et)
{
    const struct mf_key *k;

    return find_array(mf, KEY("suppress_tokens"), VALUE_I32, false, &k, et);
}

/* --- the tokens --- */

/* Steps over one string of an array; modelfile_open has walked there before. */
static const char *next_string(const uint8_t **at, uint64_t *n)
{
    const char *s = (const char *)*at + 8;

    *n = modelfile_load_u64(*at);
    *at += 8 + *n;
    return s;
}

static uint64_t hash_bytes(const char *s, size_t n)
{
    uint64_t h = 14695981039346656037u; /* FNV-1a */

    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)s[i]) * 1099511628211u;
    return h;
}

/* libllama gives empty tokens this name, which another token could have. */
static const char *token_text(const struct token *t, char buf[32], size_t *n)
{
    if (t->len > 0) {
        *n = t->len;
        return t->text;
    }
    *n = (size_t)snprintf(buf, 32, "[EMPTY_%u]", t->id);
    return buf;
}

static int compare_texts(const struct token *a, const struct token *b)
{
    char buf_a[32], buf_b[32];
    size_t na, nb;
    const char *x = token_text(a, buf_a, &na), *y = token_text(b, buf_b, &nb);
    int d = memcmp(x, y, na < nb ? na : nb);

    return d != 0 ? d : (na > nb) - (na < nb);
}

/* By hash first, which is quick; by text among equals, so that hashes made to collide gain
 * nothing. */
static int compare_tokens(const void *a, const void *b)
{
    const struct token *x = a, *y = b;

    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return compare_texts(x, y);
}

static bool has_token(const struct vocab *v, const char *text)
{
    struct token t = {.text = text, .len = (uint32_t)strlen(text)};

    t.hash = hash_bytes(text, t.len);
    return bsearch(&t, v->tokens, v->n, sizeof t, compare_tokens) != NULL;
}

/* "<0x0A>" */
static bool is_byte_token(const char *s, size_t n)
{
    return n == 6 && memcmp(s, "<0x", 3) == 0 && isxdigit((unsigned char)s[3]) &&
           isxdigit((unsigned char)s[4]) && s[5] == '>';
}

static enum err token_error(const struct vocab *v, const struct token *t, struct err_text *et,
                            const char *words)
{
    struct mf_shown shown;

    return modelfile_key_error(v->mf, KEY("tokens"), et, ERR_INPUT, "token %u \"%s\": %s", t->id,
                               modelfile_show(&shown, t->text, t->len), words);
}

static enum err read_tokens(struct vocab *v, const struct mf_key *tokens,
                            const struct mf_key *types, struct err_text *et)
{
    const uint8_t *at = tokens->data;
    uint64_t squares = 0, len;

    for (uint32_t i = 0; i < v->n; i++) {
        struct token *t = &v->tokens[i];
        uint32_t type = types ? modelfile_load_u32(types->data + 4 * (size_t)i) : 1;
        char buf[32];
        const char *text;
        size_t n;

        t->id = i;
        t->text = next_string(&at, &len);
        t->len = len > TOKEN_BYTES_MAX ? TOKEN_BYTES_MAX : (uint32_t)len;
        if (len > TOKEN_BYTES_MAX)
            return token_error(v, t, et, "longer than 4096 bytes");
        if (memchr(t->text, 0, t->len))
            return token_error(v, t, et, "a NUL byte inside");
        if (type > TOKEN_TYPE_MAX)
            return modelfile_key_error(v->mf, KEY("token_type"), et, ERR_INPUT,
                                       "entry %u is %d; 0 to %d are known", i, (int)type,
                                       TOKEN_TYPE_MAX);
        if (type == TOKEN_TYPE_BYTE && !is_byte_token(t->text, t->len))
            return token_error(v, t, et, "a byte token must read like <0x0A>");
        squares += len * len;
        if (squares > SQUARES_MAX)
            return token_error(v, t, et, "too many long tokens up to here");
        text = token_text(t, buf, &n);
        t->hash = hash_bytes(text, n);
    }
    return ERR_NONE;
}

static enum err check_duplicates(const struct vocab *v, struct err_text *et)
{
    char words[64];

    for (uint32_t i = 1; i < v->n; i++) {
        const struct token *a = &v->tokens[i - 1], *b = &v->tokens[i];

        if (compare_tokens(a, b) != 0)
            continue;
        snprintf(words, sizeof words, "the same text as token %u", a->id < b->id ? a->id : b->id);
        return token_error(v, a->id < b->id ? b : a, et, words);
    }
    return ERR_NONE;
}

static enum err load_tokens(struct vocab *v, struct err_text *et)
{
    const struct mf_key *tokens, *types;
    enum err e;

    e = find_array(v->mf, KEY("tokens"), VALUE_STRING, true, &tokens, et);
    if (e)
        return e;
    if (tokens->n < 1 || tokens->n > TOKENS_MAX)
        return modelfile_key_error(v->mf, KEY("tokens"), et, ERR_INPUT,
                                   "%llu tokens; 1 to %d are possible",
                                   (unsigned long long)tokens->n, TOKENS_MAX);
    v->n = (uint32_t)tokens->n;
    e = find_array(v->mf, KEY("token_type"), VALUE_I32, v->kind == KIND_SPM, &types, et);
    if (!e)
        e = check_length(v, KEY("token_type"), types, et);
    if (e)
        return e;
    v->tokens = mem_try(v->n, sizeof *v->tokens);
    if (!v->tokens)
        return modelfile_key_error(v->mf, KEY("tokens"), et, ERR_MEMORY,
                                   "no memory to check %u tokens", v->n);
    e = read_tokens(v, tokens, types, et);
    if (e)
        return e;
    qsort(v->tokens, v->n, sizeof *v->tokens, compare_tokens);
    return check_duplicates(v, et);
}

/* --- what one kind or family needs --- */

/* SentencePiece falls back to bytes for what it does not know, and throws when one is missing. */
static enum err check_bytes(const struct vocab *v, struct err_text *et)
{
    for (unsigned b = 0; b < 256; b++) {
        char hex[8], raw[2] = {(char)b, '\0'};

        snprintf(hex, sizeof hex, "<0x%02X>", b);
        if (!has_token(v, hex) && (b == 0 || !has_token(v, raw)))
            return modelfile_key_error(v->mf, KEY("tokens"), et, ERR_INPUT,
                                       "no token %s, which text with unknown characters needs",
                                       hex);
    }
    return ERR_NONE;
}

static enum err check_merges(const struct vocab *v, struct err_text *et)
{
    bool needed = strcmp(v->pre, "kimi-k2") != 0; /* that one has none */
    const struct mf_key *k;
    const uint8_t *at;
    enum err e = find_array(v->mf, KEY("merges"), VALUE_STRING, needed, &k, et);

    if (e || !k)
        return e;
    if (k->n > MERGES_MAX)
        return modelfile_key_error(v->mf, KEY("merges"), et, ERR_INPUT,
                                   "%llu merges; at most %d are read", (unsigned long long)k->n,
                                   MERGES_MAX);
    at = k->data;
    for (uint64_t i = 0; i < k->n; i++) {
        uint64_t n;
        const char *s = next_string(&at, &n), *space = memchr(s, ' ', n);
        struct mf_shown shown;

        if (n > 2 * TOKEN_BYTES_MAX + 1 || memchr(s, 0, n) || !space || space == s ||
            space == s + n - 1 || memchr(space + 1, ' ', (size_t)(s + n - space - 1)))
            return modelfile_key_error(
                v->mf, KEY("merges"), et, ERR_INPUT,
                "entry %llu \"%s\" is not two pieces with one space between them",
                (unsigned long long)i, modelfile_show(&shown, s, n));
    }
    return ERR_NONE;
}

/* libllama knows Phi-3 by the model's name and then looks four tokens up without asking. */
static enum err check_phi3(const struct vocab *v, struct err_text *et)
{
    static const char *const wanted[] = {"</s>", "<unk>", "<s>", "<|endoftext|>"};
    const char *name = "";
    struct mf_shown shown;
    enum err e = modelfile_str_opt(v->mf, "general.name", &name, et);

    if (e)
        return e;
    while (*name && strncasecmp(name, "phi-3", 5) != 0 && strncasecmp(name, "phi3", 4) != 0)
        name++;
    for (size_t i = 0; *name && i < ARRAY_LEN(wanted); i++)
        if (!has_token(v, wanted[i]))
            return modelfile_key_error(v->mf, KEY("tokens"), et, ERR_INPUT,
                                       "no token %s, which general.name \"%s\" calls for",
                                       wanted[i], modelfile_show(&shown, name, strlen(name)));
    return ERR_NONE;
}

/* gguf.cpp reads only files whose tensors follow one another in the order of their records. */
static enum err check_layout(const struct modelfile *mf, struct err_text *et)
{
    uint64_t want = mf->data_start;

    for (uint32_t i = 0; i < mf->n_tensors; i++) {
        const struct mf_tensor *t = &mf->tensors[i].t;
        struct mf_shown shown;

        if (t->offset != want)
            return err_set(et, ERR_UNSUPPORTED,
                           "%s: tensor %s: its data lies at %llu where %llu is expected; write the "
                           "file again with tensors packed in the order of their records",
                           mf->shown, modelfile_show(&shown, t->name, strlen(t->name)),
                           (unsigned long long)t->offset, (unsigned long long)want);
        want = (t->offset + t->size + mf->alignment - 1) / mf->alignment * mf->alignment;
    }
    return ERR_NONE;
}

static enum err find_kind(struct vocab *v, struct err_text *et)
{
    const char *model;
    struct mf_shown shown;
    enum err e = modelfile_str(v->mf, KEY("model"), &model, et);

    if (!e)
        e = modelfile_str_opt(v->mf, KEY("pre"), &v->pre, et);
    if (e)
        return e;
    if (strcmp(model, "llama") == 0) {
        v->kind = KIND_SPM;
        return ERR_NONE;
    }
    /* With "whitespace" a blank in the user's text runs into an assertion. */
    if (strcmp(model, "gpt2") == 0 && strcmp(v->pre, "whitespace") != 0) {
        v->kind = KIND_BPE;
        return ERR_NONE;
    }
    if (strcmp(model, "gpt2") == 0)
        return modelfile_key_error(v->mf, KEY("pre"), et, ERR_UNSUPPORTED,
                                   "the pre-tokenizer \"whitespace\" is not supported");
    return modelfile_key_error(v->mf, KEY("model"), et, ERR_UNSUPPORTED,
                               "tokenizer \"%s\" is not supported; \"llama\" and \"gpt2\" are",
                               modelfile_show(&shown, model, strlen(model)));
}

enum err modelfile_check_tokenizer(const struct modelfile *mf, uint32_t *n_tokens,
                                   struct err_text *et)
{
    struct vocab v = {.mf = mf, .pre = ""};
    enum err e;

    e = check_scalars(mf, et);
    if (!e)
        e = find_kind(&v, et);
    if (!e)
        e = load_tokens(&v, et);
    if (!e)
        e = check_scores(&v, et);
    if (!e)
        e = check_suppressed(mf, et);
    if (!e)
        e = check_special_ids(&v, et);
    if (!e)
        e = check_added_ids(&v, et);
    if (!e)
        e = v.kind == KIND_SPM ? check_bytes(&v, et) : check_merges(&v, et);
    if (!e)
        e = check_phi3(&v, et);
    if (!e)
        e = check_templates(mf, et);
    if (!e)
        e = check_layout(mf, et);
    if (!e)
        *n_tokens = v.n;
    free(v.tokens);
    return e;
}
