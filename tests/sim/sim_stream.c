#include <stdio.h>
#include <string.h>

#include "sim_impl.h"

static struct sim_stream *find(struct sim *s, int number)
{
    for (int i = 0; i < SIM_STREAMS; i++)
        if (s->streams[i].open && s->streams[i].number == number)
            return &s->streams[i];
    return NULL;
}

struct sim_stream *sim_stream(struct sim *s, int i)
{
    return &s->streams[i];
}

void sim_request(struct sim *s, int i, const struct sim_request *r)
{
    struct sim_stream *st = &s->streams[i], like = s->streams[r->like];
    struct message m = {.kind = MESSAGE_CORE, .event = {.kind = CORE_REQUEST}};

    st->open = true;
    st->number = ++s->n_streams;
    st->life++;
    st->flow = r->flow;
    st->n = st->n_prompt = r->n_prompt;
    st->n_more = r->n_more;
    st->hidden = r->hidden;
    st->next = r->hidden ? 0 : r->n_prompt - 1;
    st->started = false;
    st->begun_us = s->now_us;
    st->first_us = 0;
    for (int k = 0; k < r->n_prompt; k++)
        st->token[k] = k < r->n_like ? like.token[k] : (int32_t)sim_random(s, 1000);
    memcpy(m.tokens, st->token, (size_t)r->n_prompt * sizeof *m.tokens);
    m.request = (struct core_request){.stream = st->number,
                                      .flow = r->flow,
                                      .after = r->after < 0 ? -1 : s->streams[r->after].number,
                                      .n_tokens = r->n_prompt,
                                      .n_more = r->n_more,
                                      .want_from = st->next,
                                      .want = r->hidden ? CORE_WANT_HIDDEN : CORE_WANT_LOGITS,
                                      .fresh = r->fresh,
                                      .slot = -1};
    post(s, 0, &m);
}

void sim_cancel(struct sim *s, int i)
{
    struct sim_stream *st = &s->streams[i];
    struct message m = {.kind = MESSAGE_CORE, .event = {.kind = CORE_END, .client = st->number}};

    if (!st->open)
        return;
    st->open = false;
    post(s, 0, &m);
}

void stream_started(struct sim *s, const struct core_action *a)
{
    struct sim_stream *st = find(s, a->client);
    struct core_slot_view v;

    if (!st)
        return;
    core_slot_look(s->core, a->slot, &v);
    if (st->started || v.stream != a->client || v.client >= 0 || a->n >= st->n_prompt)
        sim_broken(s, "stream %d begins wrongly in slot %d", a->client, a->slot);
    st->started = true;
    st->n_cached = a->n;
}

void stream_row(struct sim *s, const struct core_action *a)
{
    struct sim_stream *st = find(s, a->client);
    int r = home_row(s, a->row);

    if (!st)
        return; /* its end is on the way to the core */
    if (!st->started || a->n != st->next || s->homing->pos[r] != a->n)
        sim_broken(s, "stream %d is told of %d where %d is due", a->client, a->n, st->next);
    if (s->homing->hash[r] != hash_of(st->token, a->n + 1))
        sim_broken(s, "stream %d: the result at %d is for another prefix", a->client, a->n);
    if (s->homing->want[r] != (st->hidden ? CORE_WANT_HIDDEN : CORE_WANT_LOGITS))
        sim_broken(s, "stream %d is told of another kind of result", a->client);
    if (a->last != (a->n == st->n - 1))
        sim_broken(s, "stream %d: %d of %d is%s the last", a->client, a->n, st->n,
                   a->last ? "" : " not");
    st->next++;
    if (!st->first_us)
        st->first_us = s->now_us;
    if (a->last)
        post(s, 20 + (int64_t)sim_random(s, s->opts.seed % 2 ? 300 : 5000),
             &(struct message){
                 .kind = MESSAGE_TOKEN, .client = st->number, .stream_life = st->life});
}

void stream_token_due(struct sim *s, const struct message *m)
{
    struct sim_stream *st = find(s, m->client);
    struct core_event ev = {.kind = CORE_TOKEN, .client = m->client, .n = 1};
    int32_t token;

    if (!st)
        return;
    if (st->hidden || st->n - st->n_prompt == st->n_more) {
        st->open = false;
        st->n_over++;
        ev.kind = CORE_END;
        core_event(s, &ev, NULL);
        return;
    }
    token = st->token[st->n++] = (int32_t)sim_random(s, 1000);
    ev.tokens = &token;
    core_event(s, &ev, NULL);
}

void stream_ended(struct sim *s, const struct core_action *a)
{
    struct sim_stream *st = find(s, a->client);

    if (!st)
        return;
    if (!a->code || !a->text || !a->text[0])
        sim_broken(s, "stream %d ends without a word", a->client);
    st->open = false;
    if (a->busy)
        st->n_refused++;
    else
        st->n_lost++;
}
