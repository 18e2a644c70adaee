/* Embeddings: the model's last hidden states, pooled over a text. OpenAI's /v1/embeddings and
 * llama-server's /embedding. */
#include <stdlib.h>
#include <string.h>

#include "api/api_impl.h"
#include "api/json.h"
#include "api/tokens.h"
#include "api/vector.h"
#include "base/mem.h"
#include "text/text.h"

/* Numbers in one answer written out as JSON: each takes some forty bytes until it is sent. */
enum { EMBED_VALUES_MAX = 2 << 20 };

struct input {
    int32_t *tokens;
    int n_tokens;
    struct vector vector;
};

struct embed {
    bool native; /* llama-server's answer */
    bool base64, raw;
    enum pooling pooling;
    int n_inputs;
    struct input *input;
};

/* "input", or "input[3]" of several. */
static void param_name(const char *field, const json_t *inputs, size_t i, char name[64])
{
    if (json_is_array(inputs))
        snprintf(name, 64, "%s[%zu]", field, i);
    else
        snprintf(name, 64, "%s", field);
}

static bool input_read(struct work *w, const json_t *given, const char *param, struct input *to,
                       struct fault *f)
{
    struct err_text et;
    enum err e;

    if (json_is_array(given)) {
        if (!json_array_size(given))
            return fault_field(f, param, "%s is empty", param);
        return tokens_read(given, work_text(w), param, &to->tokens, &to->n_tokens, f);
    }
    if (!json_is_string(given))
        return fault_field(f, param, "%s must be a text or an array of token ids", param);
    if (!json_string_length(given))
        return fault_field(f, param, "%s is empty", param);
    e = text_tokenize(work_text(w), json_string_value(given), json_string_length(given), true,
                      false, &to->tokens, &to->n_tokens, &et);
    return e ? work_fault(f, e, &et) : true;
}

static bool input_plan(struct work *w, struct embed *b, int i, const char *param, struct fault *f)
{
    struct input *in = &b->input[i];
    struct gen_opts opts = {.kind = GEN_HIDDEN, .slot = -1};

    vector_init(&in->vector, b->pooling, in->n_tokens);
    opts.tokens = in->tokens;
    opts.n_tokens = in->n_tokens;
    opts.want_from = vector_want_from(&in->vector);
    if (work_gen(w, &opts, -1, f) >= 0)
        return true;
    if (!*f->param)
        snprintf(f->param, sizeof f->param, "%s", param);
    return false;
}

/* One text, one array of tokens, or an array of either. */
static bool inputs_read(struct work *w, struct embed *b, const char *field, const json_t *given,
                        struct fault *f)
{
    bool several = json_is_array(given) && !json_is_integer(json_array_get(given, 0));
    size_t n = several ? json_array_size(given) : 1;
    char param[64];

    if (!given || json_is_null(given))
        return fault_field(f, field, "%s is missing: a text, or an array of texts or tokens",
                           field);
    if (!n)
        return fault_field(f, field, "%s is empty", field);
    if (n > API_INPUTS_MAX)
        return fault_field(f, field, "%s has %zu entries; one request takes %d", field, n,
                           API_INPUTS_MAX);
    if (!b->base64 && n * (size_t)work_facts(w)->n_embd > EMBED_VALUES_MAX)
        return fault_field(f, field,
                           "%s has %zu entries; one request takes %d of this model's vectors as "
                           "numbers, or %d with \"encoding_format\": \"base64\"",
                           field, n, EMBED_VALUES_MAX / work_facts(w)->n_embd, API_INPUTS_MAX);
    b->input = mem_zalloc(n, sizeof *b->input);
    b->n_inputs = (int)n;
    for (size_t i = 0; i < n; i++) {
        param_name(field, several ? given : NULL, i, param);
        if (!input_read(w, several ? json_array_get(given, i) : given, param, &b->input[i], f) ||
            !input_plan(w, b, (int)i, param, f))
            return false;
    }
    return true;
}

static bool settings_read(struct work *w, struct embed *b, struct fault *f)
{
    const json_t *body = work_body(w);
    const char *format = "float";
    int64_t normalize = 2, dimensions = work_facts(w)->n_embd;

    if (!json_get_string(body, "encoding_format", &format, f) ||
        !json_get_int(body, "embd_normalize", -1, 2, &normalize, f) ||
        !json_get_int(body, "dimensions", 1, 1 << 24, &dimensions, f))
        return false;
    if (strcmp(format, "float") != 0 && strcmp(format, "base64") != 0)
        return fault_field(f, "encoding_format", "encoding_format must be \"float\" or \"base64\"");
    if (normalize != -1 && normalize != 2)
        return fault_field(f, "embd_normalize",
                           "embd_normalize must be 2 (length 1) or -1 (as it is)");
    if (dimensions != work_facts(w)->n_embd)
        return fault_field(
            f, "dimensions",
            "dimensions: this model's vectors have %d dimensions and cannot be shortened",
            work_facts(w)->n_embd);
    b->base64 = strcmp(format, "base64") == 0;
    b->raw = normalize < 0;
    b->pooling = (enum pooling)work_api(w)->pooling;
    if (!b->pooling)
        b->pooling = (enum pooling)work_facts(w)->pooling;
    if (!b->pooling)
        b->pooling = POOLING_MEAN;
    return true;
}

static bool prepare(struct work *w, void *own, struct fault *f)
{
    const json_t *body = work_body(w);
    struct embed *b = own;
    const char *field = "input";

    if (b->native && json_object_get(body, "content"))
        field = "content"; /* llama-server's older word */
    return settings_read(w, b, f) && inputs_read(w, b, field, json_object_get(body, field), f);
}

static bool prepare_native(struct work *w, void *own, struct fault *f)
{
    ((struct embed *)own)->native = true;
    return prepare(w, own, f);
}

static void on_rows(struct work *w, void *own, const struct work_rows *rows)
{
    struct embed *b = own;

    vector_rows(&b->input[rows->i].vector, rows->rows, rows->pos, rows->n, rows->width);
}

/* {"object": "embedding", "index": 0, "embedding": [...]}; llama-server has the vector in one more
 * array, for models that give one per token. */
static json_t *one_json(const struct embed *b, int i)
{
    const struct vector *v = &b->input[i].vector;
    json_t *numbers = b->base64 ? vector_base64(v) : vector_json(v);

    if (b->native)
        return json_pack("{s:i, s:[o]}", "index", i, "embedding", numbers);
    return json_pack("{s:s, s:i, s:o}", "object", "embedding", "index", i, "embedding", numbers);
}

static bool finish(struct work *w, void *own, struct fault *f)
{
    struct embed *b = own;
    json_t *list = json_array(), *usage;
    struct work_usage sum;

    for (int i = 0; i < b->n_inputs; i++) {
        if (!vector_settle(&b->input[i].vector, !b->raw)) {
            json_decref(list);
            *f = (struct fault){.status = 500, .type = "server_error"};
            snprintf(f->message, sizeof f->message,
                     "the model gives numbers that are not finite: its file may be damaged");
            return false;
        }
        json_array_append_new(list, one_json(b, i));
        vector_fini(&b->input[i].vector);
    }
    if (b->native) {
        work_answer(w, list);
        return true;
    }
    work_usage(w, &sum);
    usage = json_pack("{s:I, s:I}", "prompt_tokens", (json_int_t)sum.n_prompt, "total_tokens",
                      (json_int_t)sum.n_prompt);
    work_answer(w, json_pack("{s:s, s:o, s:o, s:o}", "object", "list", "data", list, "model",
                             json_text(work_model(w), strlen(work_model(w))), "usage", usage));
    return true;
}

static void fini(void *own)
{
    struct embed *b = own;

    for (int i = 0; i < b->n_inputs; i++) {
        free(b->input[i].tokens);
        vector_fini(&b->input[i].vector);
    }
    free(b->input);
}

void handle_embeddings(void *user, struct call *call)
{
    static const struct work_kind kind = {.own_size = sizeof(struct embed),
                                          .body = true,
                                          .prepare = prepare,
                                          .rows = on_rows,
                                          .finish = finish,
                                          .fini = fini};

    work_start(user, call, &kind);
}

void handle_embedding(void *user, struct call *call)
{
    static const struct work_kind kind = {.own_size = sizeof(struct embed),
                                          .body = true,
                                          .prepare = prepare_native,
                                          .rows = on_rows,
                                          .finish = finish,
                                          .fini = fini};

    work_start(user, call, &kind);
}
