/* POST /v1/classify: which of some labels fits a text (head/likelihood.h).
 *
 *     {"input": "...", "labels": ["good", "bad"], "template": "{input}\nThis is {label}."}
 *     {"object": "classification", "label": "good", "labels": [{"label": "good", "logprob": -1.2,
 *      "probability": 0.8, "mean_logprob": ..., "mean_probability": ..., "tokens": 1}, ...],
 *      "model": ..., "usage": {...}} */
#include <stdlib.h>
#include <string.h>

#include "api/api_impl.h"
#include "api/json.h"
#include "base/mem.h"
#include "head/likelihood.h"
#include "text/text.h"

_Static_assert((int)API_LABELS_MAX == (int)LIKELIHOOD_LABELS_MAX, "both limit the same");

static enum err tokenize(void *user, const char *s, size_t n, int32_t **tokens, int *n_tokens,
                         struct err_text *et)
{
    return text_tokenize(user, s, n, true, false, tokens, n_tokens, et);
}

/* gives the labels, borrowed from the body, in an array of their own: free(). */
static const char **labels_read(const json_t *labels, struct fault *f)
{
    size_t n = json_array_size(labels);
    const char **list;

    if (!json_is_array(labels) || !n || n > API_LABELS_MAX) {
        fault_field(f, "labels", "labels must be an array of 1 to %d texts to choose from",
                    API_LABELS_MAX);
        return NULL;
    }
    list = mem_zalloc(n, sizeof *list);
    for (size_t i = 0; i < n; i++) {
        list[i] = json_string_value(json_array_get(labels, i));
        if (!list[i]) {
            fault_field(f, "labels", "labels[%zu] is no text", i);
            free(list);
            return NULL;
        }
    }
    return list;
}

/* What the likelihood says of its ask names the field by itself. */
static bool ask_fault(struct fault *f, enum err e, const struct err_text *et)
{
    work_fault(f, e, et);
    if (e == ERR_LIMIT && strstr(et->text, "the context holds"))
        f->code = "context_length_exceeded";
    return false;
}

static bool prepare(struct work *w, void *own, struct fault *f)
{
    const json_t *body = work_body(w), *input = json_object_get(body, "input");
    struct likelihood *l = own;
    struct likelihood_ask ask = {.n_ctx = work_facts(w)->n_ctx, .tokenize = tokenize};
    struct err_text et;
    const char **labels;
    enum err e;

    if (!json_is_string(input))
        return fault_field(f, "input", "input must be the text to classify, a string");
    if (!json_get_string(body, "template", &ask.template, f))
        return false;
    labels = labels_read(json_object_get(body, "labels"), f);
    if (!labels)
        return false;
    ask.input = json_string_value(input);
    ask.n_input = json_string_length(input);
    ask.labels = labels;
    ask.n_labels = (int)json_array_size(json_object_get(body, "labels"));
    ask.user = (void *)work_text(w);
    e = likelihood_init(l, &ask, &et);
    free(labels);
    if (e)
        return ask_fault(f, e, &et);
    for (int i = 0; i < l->n_runs; i++) {
        struct gen_opts opts = {.kind = GEN_LOGITS, .slot = -1, .want_from = l->n_shared - 1};

        opts.tokens = likelihood_run(l, i, &opts.n_tokens);
        if (work_gen(w, &opts, i ? 0 : -1, f) < 0)
            return false;
    }
    return true;
}

static void on_rows(struct work *w, void *own, const struct work_rows *rows)
{
    likelihood_rows(own, rows->i, rows->rows, rows->pos, rows->n, rows->width);
}

static bool finish(struct work *w, void *own, struct fault *f)
{
    struct likelihood *l = own;
    int n_tokens = l->n_shared + likelihood_n_scored(l);
    json_t *o;

    likelihood_settle(l);
    o = likelihood_json(l);
    json_object_set_new(o, "object", json_string("classification"));
    json_object_set_new(o, "model", json_text(work_model(w), strlen(work_model(w))));
    json_object_set_new(
        o, "usage", json_pack("{s:i, s:i}", "prompt_tokens", n_tokens, "total_tokens", n_tokens));
    work_answer(w, o);
    return true;
}

static void fini(void *own)
{
    likelihood_fini(own);
}

void handle_classify(void *user, struct call *call)
{
    static const struct work_kind kind = {.own_size = sizeof(struct likelihood),
                                          .body = true,
                                          .prepare = prepare,
                                          .rows = on_rows,
                                          .finish = finish,
                                          .fini = fini};

    work_start(user, call, &kind);
}
