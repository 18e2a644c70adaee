#include "api/tokens.h"

#include <stdlib.h>
#include <string.h>

#include "api/api_impl.h"
#include "api/ask.h"
#include "api/json.h"
#include "base/check.h"
#include "base/mem.h"
#include "text/chat.h"
#include "text/text.h"

enum { PIECE_USUAL = 64 };

char *token_bytes(const struct text *t, int32_t token, size_t *n)
{
    char *bytes = mem_alloc(PIECE_USUAL);
    int got = text_piece(t, token, true, bytes, PIECE_USUAL);

    if (got < 0) {
        bytes = mem_realloc(bytes, (size_t)-got, 1);
        got = text_piece(t, token, true, bytes, -got);
    }
    CHECK(got >= 0);
    *n = (size_t)got;
    return bytes;
}

bool tokens_read(const json_t *array, const struct text *t, const char *param, int32_t **tokens,
                 int *n, struct fault *f)
{
    int n_vocab = text_n_vocab(t);
    size_t n_given = json_array_size(array);
    int32_t *list;

    *tokens = NULL;
    if (!json_is_array(array))
        return fault_field(f, param, "%s must be an array of token ids", param);
    list = mem_alloc(n_given * sizeof *list);
    for (size_t i = 0; i < n_given; i++) {
        const json_t *one = json_array_get(array, i);
        json_int_t id = json_integer_value(one);

        if (!json_is_integer(one) || id < 0 || id >= n_vocab) {
            free(list);
            return fault_field(f, param, "%s[%zu] is no token: ids are whole numbers from 0 to %d",
                               param, i, n_vocab - 1);
        }
        list[i] = (int32_t)id;
    }
    *tokens = list;
    *n = (int)n_given; /* API_JSON_VALUES_MAX */
    return true;
}

/* ---- POST /tokenize ---- */

/* {"id": 12, "piece": " word"}; a piece that is no text by itself is an array of its bytes. */
static json_t *with_piece(const struct text *t, int32_t token)
{
    size_t n;
    char *bytes = token_bytes(t, token, &n);
    json_t *piece = json_stringn(bytes, n);

    if (!piece) {
        piece = json_array();
        for (size_t i = 0; i < n; i++)
            json_array_append_new(piece, json_integer((unsigned char)bytes[i]));
    }
    free(bytes);
    return json_pack("{s:i, s:o}", "id", (int)token, "piece", piece);
}

static bool tokenize(struct work *w, void *own, struct fault *f)
{
    const json_t *body = work_body(w), *content = json_object_get(body, "content");
    const struct text *t = work_text(w);
    bool add_special = false, parse_special = true, with_pieces = false;
    struct err_text et;
    int32_t *tokens;
    json_t *list;
    enum err e;
    int n;

    if (!json_get_bool(body, "add_special", &add_special, f) ||
        !json_get_bool(body, "parse_special", &parse_special, f) ||
        !json_get_bool(body, "with_pieces", &with_pieces, f))
        return false;
    if (!json_is_string(content))
        return fault_field(f, "content", "content must be the text to tokenize, a string");
    e = text_tokenize(t, json_string_value(content), json_string_length(content), add_special,
                      parse_special, &tokens, &n, &et);
    if (e)
        return work_fault(f, e, &et);
    list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list,
                              with_pieces ? with_piece(t, tokens[i]) : json_integer(tokens[i]));
    free(tokens);
    work_answer(w, json_pack("{s:o}", "tokens", list));
    return true;
}

void handle_tokenize(void *user, struct call *call)
{
    static const struct work_kind kind = {.body = true, .prepare = tokenize};

    work_start(user, call, &kind);
}

/* ---- POST /detokenize ---- */

static bool detokenize(struct work *w, void *own, struct fault *f)
{
    const struct text *t = work_text(w);
    size_t n_all = 0, cap = 0, n_piece;
    char *all = NULL;
    int32_t *tokens;
    int n;

    if (!tokens_read(json_object_get(work_body(w), "tokens"), t, "tokens", &tokens, &n, f))
        return false;
    for (int i = 0; i < n; i++) {
        char *piece = token_bytes(t, tokens[i], &n_piece);

        if (n_all + n_piece > cap) {
            cap = 2 * (n_all + n_piece);
            all = mem_realloc(all, cap, 1);
        }
        if (n_piece)
            memcpy(all + n_all, piece, n_piece);
        n_all += n_piece;
        free(piece);
    }
    work_answer(w, json_pack("{s:o}", "content", json_text(all ? all : "", n_all)));
    free(tokens);
    free(all);
    return true;
}

void handle_detokenize(void *user, struct call *call)
{
    static const struct work_kind kind = {.body = true, .prepare = detokenize};

    work_start(user, call, &kind);
}

/* ---- POST /apply-template ---- */

static bool apply_template(struct work *w, void *own, struct fault *f)
{
    struct chat_form form;
    struct err_text et;
    struct ask ask;
    enum err e = ERR_NONE;
    bool fine = ask_read(work_body(w), &ask, f);

    if (fine)
        e = chat_apply(work_text(w), &ask.chat, &form, &et);
    ask_fini(&ask);
    if (!fine)
        return false;
    if (e)
        return work_fault(f, e, &et);
    work_answer(w, json_pack("{s:o}", "prompt", json_text(form.prompt, strlen(form.prompt))));
    chat_form_fini(&form);
    return true;
}

void handle_apply_template(void *user, struct call *call)
{
    static const struct work_kind kind = {.body = true, .prepare = apply_template};

    work_start(user, call, &kind);
}
