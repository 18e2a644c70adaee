/* What generations need beside the core: the vocabulary, the pool's threads, and a look at slots. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "head/cluster_impl.h"
#include "model/modelfile.h"

/* Threads beside those that compute: a token is picked in well under a millisecond. */
enum { QUICK_MAX = 4, SLOW_MAX = 2 };

/* The tokenizer is checked first, because text_open trusts the file (text.h). */
static enum err open_text(struct cluster *c, struct err_text *et)
{
    int n_vocab = model_shape(c->model)->n_vocab;
    uint32_t n_tokens;
    enum err e = modelfile_check_tokenizer(model_file(c->model), &n_tokens, et);

    if (!e && n_tokens > (uint32_t)n_vocab)
        e = err_set(et, ERR_INPUT,
                    "%s: the vocabulary has %u tokens, but the embedding only %d rows",
                    c->model_path, (unsigned)n_tokens, n_vocab);
    return e ? e : text_open(c->model_path, &c->text, et);
}

static int between(int n, int least, int most)
{
    return n < least ? least : n > most ? most : n;
}

enum err cluster_gen_open(struct cluster *c, struct err_text *et)
{
    int n_threads[POOL_LANES] = {[POOL_QUICK] = between(sys_cores() / 2, 1, QUICK_MAX),
                                 [POOL_SLOW] = between(sys_cores() / 2, 1, SLOW_MAX)};
    enum err e;

    if (!c->opts.api)
        return ERR_NONE;
    e = open_text(c, et);
    if (e)
        return e;
    c->pool = pool_new(c->base, n_threads);
    c->gen_event = event_new(c->base, -1, 0, cluster_gen_tell, c);
    CHECK(c->gen_event);
    return ERR_NONE;
}

void cluster_gen_close(struct cluster *c)
{
    c->closing = true;
    pool_close(c->pool);
    cluster_gen_end_all(c);
    cluster_timeline_close(c);
    c->pool = NULL;
    if (c->gen_event)
        event_free(c->gen_event);
    text_close(c->text);
}

const struct text *cluster_text(const struct cluster *c)
{
    return c->text;
}

struct pool *cluster_pool(const struct cluster *c)
{
    return c->pool;
}

/* Of embeddings, as the file has it; 0 when it says nothing that we know. */
static int pooling_of(const struct cluster *c)
{
    char *key = mem_printf("%s.pooling_type", model_shape(c->model)->arch);
    uint32_t type = 0;

    if (modelfile_u32_opt(model_file(c->model), key, &type, NULL) || type > 3)
        type = 0;
    free(key);
    return (int)type;
}

void cluster_facts(const struct cluster *c, struct cluster_facts *out)
{
    const struct model_shape *shape = model_shape(c->model);

    *out = (struct cluster_facts){.model_name = shape->name,
                                  .model_path = c->model_path,
                                  .arch = shape->arch,
                                  .quantisation = shape->type_name,
                                  .n_ctx = c->segment.n_ctx,
                                  .n_slots = c->segment.n_slots,
                                  .n_vocab = shape->n_vocab,
                                  .n_embd = shape->n_embd,
                                  .n_ctx_train = shape->n_ctx_train,
                                  .n_params = shape->n_params,
                                  .weight_bytes = shape->weight_bytes,
                                  .pooling = pooling_of(c)};
}

void cluster_slot(const struct cluster *c, int slot, struct cluster_slot *out)
{
    struct core_slot_view v;

    CHECK(slot >= 0 && slot < c->segment.n_slots);
    core_slot_look(c->core, slot, &v);
    *out = (struct cluster_slot){
        .busy = v.stream >= 0 || v.client >= 0, .local = v.client >= 0, .n_held = v.len};
    if (v.stream < 0)
        return;
    out->n_prompt = v.n_prompt;
    out->gen = cluster_gen_of(c, v.stream, &out->n_generated);
}
