#include <string.h>

#include "sim_impl.h"

static struct sim_client *find(struct sim *s, int number)
{
    for (int i = 0; i < SIM_CLIENTS; i++)
        if (s->clients[i].open && s->clients[i].number == number)
            return &s->clients[i];
    return NULL;
}

void sim_open(struct sim *s, int client, int n_slots)
{
    struct sim_client *cl = &s->clients[client];
    struct message m = {.kind = MESSAGE_CORE, .event = {.kind = CORE_OPEN, .n = n_slots}};
    int number = cl->number + SIM_CLIENTS;

    if (cl->number == 0)
        number = client + 1;
    *cl = (struct sim_client){.open = true, .number = number, .n_slots = n_slots, .next = 1};
    m.event.client = number;
    post(s, s->opts.client_us, &m);
}

void sim_close(struct sim *s, int client)
{
    struct sim_client *cl = &s->clients[client];
    struct message m = {.kind = MESSAGE_CORE, .event = {.kind = CORE_CLOSE, .client = cl->number}};

    cl->open = false;
    cl->n_asks = 0;
    post(s, s->opts.client_us, &m);
}

uint64_t hash_of(const int32_t *token, int n)
{
    uint64_t hash = 1;

    for (int i = 0; i < n; i++)
        hash = hash_next(hash, token[i]);
    return hash;
}

void sim_ask_rows(struct sim *s, int client, const struct slot_op *ops, int n_ops, int slot,
                  int pos, int n, bool want, bool bad)
{
    struct sim_client *cl = &s->clients[client];
    struct message m = {.kind = MESSAGE_CORE,
                        .event = {.kind = CORE_ASK, .client = cl->number},
                        .ask = {.number = cl->next++, .n_ops = n_ops, .n_rows = n}};
    struct sim_ask *ask = &cl->asks[(cl->first + cl->n_asks++) % SIM_OUTSTANDING];

    for (int i = 0; i < n_ops; i++) {
        m.ops[i] = ops[i];
        if (bad)
            continue;
        if (ops[i].kind == SLOT_OP_COPY) {
            memcpy(cl->token[ops[i].to], cl->token[ops[i].slot], sizeof cl->token[0]);
            cl->len[ops[i].to] = ops[i].len;
        } else {
            cl->len[ops[i].slot] = ops[i].len;
        }
    }
    for (int r = 0; r < n; r++) {
        m.rows[0][r] = slot;
        m.rows[1][r] = pos + r;
        m.rows[2][r] = (int32_t)sim_random(s, 1000);
        m.want[r] = want && r == n - 1;
        if (!bad)
            cl->token[slot][pos + r] = m.rows[2][r];
    }
    if (n > 0 && !bad)
        cl->len[slot] = pos + n;
    *ask = (struct sim_ask){
        .number = m.ask.number, .want = want && n > 0, .bad = bad, .n_stale = cl->n_stale};
    if (ask->want && !bad)
        ask->expect = hash_of(cl->token[slot], pos + n);
    post(s, s->opts.client_us, &m);
}

void sim_feed(struct sim *s, int client, int slot, int n, bool want)
{
    sim_ask_rows(s, client, NULL, 0, slot, s->clients[client].len[slot], n, want, false);
}

void client_opened(struct sim *s, const struct message *m)
{
    struct sim_client *cl = find(s, m->client);

    if (!cl)
        return;
    if (cl->opened)
        sim_broken(s, "client %d is opened twice", m->client);
    cl->opened = !m->code;
    cl->open = !m->code;
}

void client_stale(struct sim *s, const struct message *m)
{
    struct sim_client *cl = find(s, m->client);

    if (!cl)
        return;
    cl->n_stale++;
    memset(cl->len, 0, sizeof cl->len);
}

void client_answer(struct sim *s, const struct message *m)
{
    struct sim_client *cl = find(s, m->client);
    struct sim_ask ask;

    if (!cl)
        return;
    if (cl->n_asks == 0 || cl->asks[cl->first].number != m->number)
        sim_broken(s, "client %d is answered %llu where %llu is due", m->client,
                   (unsigned long long)m->number,
                   (unsigned long long)(cl->n_asks ? cl->asks[cl->first].number : 0));
    ask = cl->asks[cl->first];
    cl->first = (cl->first + 1) % SIM_OUTSTANDING;
    cl->n_asks--;
    cl->n_answers++;
    if (!m->code) {
        cl->n_good++;
        if (ask.bad)
            sim_broken(s, "client %d: a bad ask was carried out", m->client);
        if (ask.want && m->hash != ask.expect)
            sim_broken(s, "client %d: the answer to %llu is for another prefix", m->client,
                       (unsigned long long)m->number);
        if (ask.want)
            cl->last_hash = m->hash;
        return;
    }
    if (!m->text[0])
        sim_broken(s, "client %d: error %d without a word", m->client, (int)m->code);
    if (!ask.bad && ask.n_stale == cl->n_stale)
        sim_broken(s, "client %d: %llu failed (%s), and its slots are not said to be empty",
                   m->client, (unsigned long long)m->number, m->text);
    if (!ask.bad && (m->code == ERR_INPUT || m->code == ERR_LIMIT))
        sim_broken(s, "client %d: a good ask is called bad: %s", m->client, m->text);
    if (ask.bad && m->code != ERR_INPUT && m->code != ERR_LIMIT && m->code != ERR_CANCELLED &&
        m->code != ERR_GONE && m->code != ERR_MEMORY)
        sim_broken(s, "client %d: a bad ask is answered %d", m->client, (int)m->code);
}
