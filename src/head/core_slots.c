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
    size_t n = (size_t)c->opts.n_rows_max;

    c->slots = mem_zalloc((size_t)c->opts.n_slots, sizeof *c->slots);
    for (int i = 0; i < c->opts.n_slots; i++)
        c->slots[i].client = c->slots[i].stream = -1;
    c->tag_empty = siphash(c->opts.tag_key, nothing, 0);
    c->row_slot = mem_zalloc(n, sizeof *c->row_slot);
    c->row_pos = mem_zalloc(n, sizeof *c->row_pos);
    c->row_token = mem_zalloc(n, sizeof *c->row_token);
    c->row_want = mem_zalloc(n, sizeof *c->row_want);
    c->row_tag = mem_zalloc(2 * n, sizeof *c->row_tag);
}

void slots_fini(struct core *c)
{
    for (int i = 0; i < c->opts.n_slots; i++)
        free(c->slots[i].tag);
    free(c->slots);
    free(c->row_slot);
    free(c->row_pos);
    free(c->row_token);
    free(c->row_want);
    free(c->row_tag);
}

bool slots_is_free(const struct core *c, int slot)
{
    return c->slots[slot].client < 0 && c->slots[slot].stream < 0;
}

int slots_idle(const struct core *c)
{
    int best = -1;

    for (int i = 0; i < c->opts.n_slots; i++) {
        const struct slot *s = &c->slots[i], *b = best < 0 ? NULL : &c->slots[best];

        if (!slots_is_free(c, i))
            continue;
        if (!b || (s->len > 0) < (b->len > 0) || (s->len > 0 && b->len > 0 && s->used < b->used))
            best = i;
    }
    return best;
}

static void empty(struct slot *s)
{
    if (s->len > 0) {
        s->needs_empty = true;
        s->emptied = true;
    }
    s->len = 0;
}

void slots_empty(struct core *c, int slot)
{
    empty(&c->slots[slot]);
}

bool slots_take(struct core *c, int i, int n)
{
    struct client *cl = &c->clients[i];
    int n_free = 0;

    for (int s = 0; s < c->opts.n_slots; s++)
        n_free += slots_is_free(c, s);
    if (n > n_free)
        return false;
    while (cl->n_slots < n) {
        int s = slots_idle(c);

        empty(&c->slots[s]);
        c->slots[s].client = i;
        c->slots[s].emptied = false;
        cl->slot[cl->n_slots++] = s;
    }
    return true;
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
    stream_wipe(c);
    slots_step_clear(c);
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

static void put_op(struct core *c, struct slot_op op)
{
    CHECK(c->n_ops < WIRE_OPS_MAX);
    c->ops[c->n_ops++] = op;
}

/* A slot that is about to be named is first emptied, where the devices do not know yet. */
static void empty_first(struct core *c, int slot)
{
    if (!c->slots[slot].needs_empty)
        return;
    c->slots[slot].needs_empty = false;
    put_op(c, (struct slot_op){SLOT_OP_TRUNCATE, slot, 0, 0});
}

static void apply_op(struct core *c, const struct slot_op *op)
{
    struct slot *from = &c->slots[op->slot], *to = &c->slots[op->to];

    put_op(c, *op);
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

static bool has_room(const struct core *c, int n_ops, int n_rows)
{
    return c->n_ops + n_ops <= WIRE_OPS_MAX && c->n_rows + n_rows <= c->opts.n_rows_max;
}

bool slots_has_room(const struct core *c, const struct ask *a)
{
    /* Each change may name two slots, each row one, that must be emptied first; never more than
     * there are. */
    return has_room(c, a->n_ops + WIRE_SLOTS_MAX, a->n_rows);
}

bool slots_copy(struct core *c, int from, int to, int len)
{
    if (!has_room(c, 3, 0))
        return false;
    empty_first(c, from);
    empty_first(c, to);
    apply_op(c, &(struct slot_op){SLOT_OP_COPY, from, to, len});
    return true;
}

/* ---- prefixes ---- */

void slots_tags(const struct core *c, const int32_t *tokens, int n, uint64_t *tag)
{
    uint64_t t = c->tag_empty;

    for (int i = 0; i < n; i++)
        tag[i] = t = tag_next(c, t, tokens[i]);
}

int slots_match(const struct core *c, int slot, const uint64_t *tag, int n)
{
    const struct slot *s = &c->slots[slot];
    int lo = 0, hi = n < s->len ? n : s->len;

    /* A tag is of all tokens up to it, so equal ones come first. */
    while (lo < hi) {
        int mid = lo + (hi - lo + 1) / 2;

        if (s->tag[mid - 1] == tag[mid - 1])
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo;
}

/* ---- the step ---- */

static void add_row(struct core *c, int slot, int pos, int32_t token, uint8_t want)
{
    struct slot *s = &c->slots[slot];
    int r = c->n_rows++;

    CHECK(r < c->opts.n_rows_max && pos <= s->len);
    reserve(s, pos + 1);
    if (r == 0 || c->row_slot[r - 1] != slot)
        c->row_tag[c->n_tags++] = tag_before(c, s, pos);
    s->tag[pos] = tag_next(c, tag_before(c, s, pos), token);
    c->row_tag[c->n_tags++] = s->tag[pos];
    s->len = pos + 1;
    s->emptied = false;
    c->row_slot[r] = slot;
    c->row_pos[r] = pos;
    c->row_token[r] = token;
    c->row_want[r] = want;
    c->n_want += want != CORE_WANT_NOTHING;
}

void slots_add_ask(struct core *c, int i, const struct ask *a)
{
    const struct client *cl = &c->clients[i];

    for (int k = 0; k < a->n_ops; k++) {
        empty_first(c, cl->slot[a->ops[k].slot]);
        if (a->ops[k].kind == SLOT_OP_COPY)
            empty_first(c, cl->slot[a->ops[k].to]);
    }
    for (int r = 0; r < a->n_rows; r++)
        empty_first(c, cl->slot[a->slot[r]]);
    for (int k = 0; k < a->n_ops; k++) {
        struct slot_op op = a->ops[k];

        op.slot = cl->slot[op.slot];
        op.to = op.kind == SLOT_OP_COPY ? cl->slot[op.to] : 0;
        apply_op(c, &op);
    }
    for (int r = 0; r < a->n_rows; r++)
        add_row(c, cl->slot[a->slot[r]], a->pos[r], a->token[r],
                a->want[r] ? CORE_WANT_LOGITS : CORE_WANT_NOTHING);
}

int slots_add_rows(struct core *c, const struct stream *st, int n, int want_from)
{
    int before = c->n_want;

    empty_first(c, st->slot);
    for (int pos = st->sent; pos < st->sent + n; pos++)
        add_row(c, st->slot, pos, st->tokens[pos], pos >= want_from ? st->want : CORE_WANT_NOTHING);
    return c->n_want - before;
}

void slots_add_piece(struct core *c, struct piece piece)
{
    CHECK(c->n_pieces < PIECES_MAX);
    c->pieces[c->n_pieces++] = piece;
}

void slots_step(const struct core *c, struct step *out)
{
    *out = (struct step){.n_ops = c->n_ops,
                         .ops = c->ops,
                         .n_rows = c->n_rows,
                         .slot = c->row_slot,
                         .pos = c->row_pos,
                         .token = c->row_token,
                         .want = c->row_want,
                         .n_want = c->n_want,
                         .tag = c->row_tag,
                         .n_tags = c->n_tags};
}

void slots_step_clear(struct core *c)
{
    c->n_ops = c->n_pieces = c->n_rows = c->n_want = c->n_tags = 0;
}
