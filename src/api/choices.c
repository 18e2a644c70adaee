#include "api/choices.h"

static bool sampler_make(struct work *w, const struct params *p, const struct prompt *prompt,
                         struct sampler **out, struct fault *f)
{
    struct sampling s = p->sampling;
    struct err_text et;
    enum err e;

    if (prompt->grammar)
        s.grammar = *prompt->grammar;
    else
        s.grammar = (struct grammar){.text = p->grammar};
    e = sampler_open(work_text(w), &s, out, &et);
    if (e)
        return work_fault(f, e, &et);
    sampler_prompt(*out, prompt->tokens, prompt->n_tokens);
    return true;
}

bool choices_plan(struct work *w, const struct params *p, const struct prompt *prompt,
                  struct fault *f)
{
    struct gen_opts o = {.kind = GEN_ANSWER,
                         .tokens = prompt->tokens,
                         .n_tokens = prompt->n_tokens,
                         .n_max = p->n_max,
                         .n_top = p->n_top,
                         .stops = prompt->stops,
                         .n_stops = prompt->n_stops,
                         .fresh = !p->cache_prompt,
                         .slot = p->slot,
                         .ms_max = p->ms_max};
    struct sampler *first;
    int after;

    if (!sampler_make(w, p, prompt, &first, f))
        return false;
    o.sampler = first;
    after = work_gen(w, &o, -1, f);
    o.slot = -1;
    /* The first is not used before prepare is over. */
    for (int i = 1; after >= 0 && i < p->n; i++) {
        o.sampler = sampler_clone(first, p->sampling.seed + (uint32_t)i);
        if (work_gen(w, &o, after, f) < 0)
            return false;
    }
    return after >= 0;
}
