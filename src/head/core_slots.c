/* The picture of every slot is one step ahead of the devices: it is what they will hold when all
 * that was sent is done. A slot that we empty (after a failed step, or for its next owner) is empty
 * in the picture at once; on the devices a truncation to nothing, which no device can refuse, goes
 * in front of the next step that names it. What the client had sent before it was told is
 * remembered by number: failures among those come home later and mean nothing any more. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "head/core_impl.h"
#include "head/siphash.h"

void slots_init(struct core *c)
{
    static const uint8_t nothing[1] = {0};

    c->slots = mem_zalloc((size_t)c->opts.n_slots, sizeof *c->slots);
    for (int i = 0; i < c->opts.n_slots; i++)
        c->slots[i].client = -1;
    c->tag_empty = siphash(c->opts.tag_key, nothing, 0);
}

void slots_fini(struct core *c)
{
    for (int i = 0; i < c->opts.n_slots; i++)
        free(c->slots[i].tag);
    free(c->slots);
}

bool slots_take(struct core *c, int i, int n)
{
    struct client *cl = &c->clients[i];
    int n_free = 0;

    for (int s = 0; s < c->opts.n_slots; s++)
        n_free += c->slots[s].client < 0;
    if (n > n_free)
        return false;
    for (int s = 0; cl->n_slots < n; s++) {
        if (c->slots[s].client >= 0)
            continue;
        c->slots[s].client = i;
        c->slots[s].emptied = false;
        cl->slot[cl->n_slots++] = s;
    }
    return true;
}

static void empty(struct slot *s)
{
    if (s->len > 0) {
        s->needs_empty = true;
        s->emptied = true;
    }
    s->len = 0;
}

void slots_give(struct core *c, int i)
{
    struct client *cl = &c->clients[i];

    for (int k = 0; k < cl->n_slots; k++) {
        struct slot *s = &c->slots[cl->slot[k]];

        empty(s);
        s->client = -1;
        free(s->tag);
        s->tag = NULL;
        s->cap = 0;
    }
    cl->n_slots = 0;
}

static bool holds_something(const struct core *c, int i)
{
    const struct client *cl = &c->clients[i];

    for (int k = 0; k < cl->n_slots; k++)
        if (c->slots[cl->slot[k]].len > 0)
            return true;
    return false;
}

static void tell_stale(struct core *c, int i)
{
    core_act(c, &(struct core_action){.kind = CORE_STALE, .client = c->clients[i].number});
}

void slots_wipe(struct core *c)
{
    for (int i = 0; i < CORE_CLIENTS_MAX; i++)
        if (c->clients[i].n_flying > 0 || (c->clients[i].open && holds_something(c, i)))
            tell_stale(c, i);
    for (int k = 0; k < c->opts.n_slots; k++) {
        struct slot *s = &c->slots[k];

        empty(s);
        s->needs_empty = false;
    }
}

void slots_stale(struct core *c, int i)
{
    struct client *cl = &c->clients[i];

    for (int k = 0; k < cl->n_slots; k++) {
        empty(&c->slots[cl->slot[k]]);
        c->slots[cl->slot[k]].emptied = true; /* and what an ask not taken was to put there */
    }
    cl->told = c->next_number - 1;
    tell_stale(c, i);
}

/* ---- may it be done? ---- */

static enum err too_far(bool emptied, struct err_text *et, const char *what, int slot, int at,
                        int len)
{
    if (emptied)
        return err_set(et, ERR_CANCELLED, "stale");
    return err_set(et, ERR_INPUT, "%s %d of slot %d, which holds %d positions", what, at, slot,
                   len);
}

enum err slots_check(const struct core *c, int i, const struct ask *a, struct err_text *et)
{
    const struct client *cl = &c->clients[i];
    int len[WIRE_SLOTS_MAX];
    bool emptied[WIRE_SLOTS_MAX];

    for (int k = 0; k < cl->n_slots; k++) {
        len[k] = c->slots[cl->slot[k]].len;
        emptied[k] = c->slots[cl->slot[k]].emptied;
    }
    for (int k = 0; k < a->n_ops; k++) {
        const struct slot_op *op = &a->ops[k];
        int to = op->kind == SLOT_OP_COPY ? op->to : op->slot;

        if (op->len > len[op->slot])
            return too_far(emptied[op->slot], et,
                           op->kind == SLOT_OP_COPY ? "copy to" : "truncation to", op->slot,
                           op->len, len[op->slot]);
        len[to] = op->len;
        emptied[to] = emptied[op->slot];
    }
    for (int r = 0; r < a->n_rows; r++) {
        int k = a->slot[r];

        if (a->pos[r] > len[k])
            return too_far(emptied[k], et, "row at position", k, a->pos[r], len[k]);
        len[k] = a->pos[r] + 1;
    }
    return ERR_NONE;
}

/* ---- doing it ---- */

static void put32(uint8_t *p, uint32_t x)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(x >> 8 * i);
}

static uint64_t tag_next(const struct core *c, uint64_t before, int32_t token)
{
    uint8_t bytes[12];

    put32(bytes, (uint32_t)before);
    put32(bytes + 4, (uint32_t)(before >> 32));
    put32(bytes + 8, (uint32_t)token);
    return siphash(c->opts.tag_key, bytes, sizeof bytes);
}

static uint64_t tag_before(const struct core *c, const struct slot *s, int pos)
{
    return pos == 0 ? c->tag_empty : s->tag[pos - 1];
}

static void reserve(struct slot *s, int n)
{
    if (n <= s->cap)
        return;
    while (s->cap < n)
        s->cap = s->cap ? 2 * s->cap : 64;
    s->tag = mem_realloc(s->tag, (size_t)s->cap, sizeof *s->tag);
}

/* A slot that is about to be named is first emptied, where the devices do not know yet. */
static void empty_first(struct core *c, int slot, struct step *s)
{
    if (!c->slots[slot].needs_empty)
        return;
    c->slots[slot].needs_empty = false;
    CHECK(s->n_ops < WIRE_OPS_MAX);
    c->ops[s->n_ops++] = (struct slot_op){SLOT_OP_TRUNCATE, slot, 0, 0};
}

static void apply_op(struct core *c, const struct slot_op *op)
{
    struct slot *from = &c->slots[op->slot], *to = &c->slots[op->to];

    if (op->kind == SLOT_OP_TRUNCATE) {
        from->len = op->len;
        return;
    }
    reserve(to, op->len);
    if (op->len > 0)
        memcpy(to->tag, from->tag, (size_t)op->len * sizeof *to->tag);
    to->len = op->len;
    to->emptied = from->emptied;
}

static void apply_rows(struct core *c, const struct client *cl, const struct ask *a, struct step *s)
{
    for (int r = 0; r < a->n_rows; r++) {
        int k = cl->slot[a->slot[r]], pos = a->pos[r];
        struct slot *slot = &c->slots[k];

        reserve(slot, pos + 1);
        if (r == 0 || a->slot[r] != a->slot[r - 1])
            c->row_tag[s->n_tags++] = tag_before(c, slot, pos);
        slot->tag[pos] = tag_next(c, tag_before(c, slot, pos), a->token[r]);
        c->row_tag[s->n_tags++] = slot->tag[pos];
        slot->len = pos + 1;
        slot->emptied = false;
        c->row_slot[r] = k;
    }
}

void slots_apply(struct core *c, int i, const struct ask *a, struct step *s)
{
    const struct client *cl = &c->clients[i];

    for (int k = 0; k < a->n_ops; k++) {
        empty_first(c, cl->slot[a->ops[k].slot], s);
        if (a->ops[k].kind == SLOT_OP_COPY)
            empty_first(c, cl->slot[a->ops[k].to], s);
    }
    for (int r = 0; r < a->n_rows; r++)
        empty_first(c, cl->slot[a->slot[r]], s);
    for (int k = 0; k < a->n_ops; k++) {
        struct slot_op op = a->ops[k];

        op.slot = cl->slot[op.slot];
        op.to = op.kind == SLOT_OP_COPY ? cl->slot[op.to] : 0;
        apply_op(c, &op);
        CHECK(s->n_ops < WIRE_OPS_MAX);
        c->ops[s->n_ops++] = op;
    }
    apply_rows(c, cl, a, s);
    s->ops = c->ops;
    s->n_rows = a->n_rows;
    s->slot = c->row_slot;
    s->pos = a->pos;
    s->token = a->token;
    s->want = a->want;
    s->n_want = a->n_want;
    s->tag = c->row_tag;
}
