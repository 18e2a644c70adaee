#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "device/node_impl.h"

void stages_pong(struct link *l, const struct frame *f)
{
    struct wire_ping ping;
    struct wire_pong pong;
    struct wire_buf buf;
    struct frame_out out;

    if (wire_ping_decode(f, &ping, NULL) || !link_is_open(l))
        return;
    pong = (struct wire_pong){ping.sent_us, (uint64_t)clock_us()};
    wire_pong_encode(&pong, &buf, &out);
    link_send(l, &out);
}

/* ---- neighbours ---- */

static void send_report(struct neighbour *nb, struct wire_link_report *m)
{
    struct wire_buf buf;
    struct frame_out f;

    m->epoch = nb->epoch->number;
    m->device = nb->device;
    wire_link_encode(m, &buf, &f);
    head_send(nb->epoch->node, &f);
}

static void tell_head(struct neighbour *nb, enum wire_link_state state)
{
    struct wire_link_report m = {.state = state};

    send_report(nb, &m);
}

static const char *name_of(const struct neighbour *nb)
{
    return nb->peer && nb->peer->name[0] ? nb->peer->name : "a neighbour";
}

static void stop_timer(struct neighbour *nb)
{
    if (nb->timer)
        event_free(nb->timer);
    nb->timer = NULL;
}

static void drop_probe(struct neighbour *nb)
{
    probe_free(nb->probe);
    nb->probe = NULL;
}

static void drop_link(struct neighbour *nb)
{
    stop_timer(nb);
    drop_probe(nb);
    if (nb->link)
        link_close(nb->link);
    nb->link = NULL;
    nb->state = NEIGHBOUR_IDLE;
}

void stages_close(struct epoch *e)
{
    for (int i = 0; i < e->n_neighbours; i++)
        drop_link(&e->neighbour[i]);
}

static void cut_off(struct neighbour *nb, const char *why)
{
    log_say(&nb->epoch->node->log, "node", "link with %s: %s", name_of(nb), why);
    drop_link(nb);
    tell_head(nb, WIRE_LINK_LOST);
}

/* ---- the heartbeat: a wire that is cut says nothing ---- */

static void on_beat(evutil_socket_t fd, short what, void *user)
{
    struct neighbour *nb = user;
    struct wire_ping ping = {(uint64_t)clock_us()};
    struct wire_buf buf;
    struct frame_out f;

    (void)fd;
    (void)what;
    /* Beats are counted, not time: a pause of this device must not be taken for one of others. */
    nb->silent = link_moved(nb->link) ? 0 : nb->silent + 1;
    if (nb->silent > NEIGHBOUR_SILENT_MAX) {
        cut_off(nb, "it stopped answering");
        return;
    }
    wire_ping_encode(&ping, &buf, &f);
    link_send(nb->link, &f);
}

static void begin_beat(struct neighbour *nb)
{
    nb->silent = 0;
    (void)link_moved(nb->link);
    nb->timer = event_new(nb->epoch->node->base, -1, EV_PERSIST, on_beat, nb);
    CHECK(nb->timer);
    event_add(nb->timer, &(struct timeval){.tv_usec = NEIGHBOUR_PING_MS * 1000});
}

/* ---- the link stands ---- */

/* The place of what is known of l's far end; else the place to put it: a free one, or the oldest.
 */
static struct known_speed *speed_of(struct node *n, const struct link *l)
{
    struct known_speed *oldest = &n->link_speed[0];

    for (int i = 0; i < SPEEDS_MAX; i++) {
        if (n->link_speed[i].at_us && key_id_equal(&n->link_speed[i].key, link_peer(l)) &&
            strcmp(n->link_speed[i].address, link_peer_address(l)) == 0)
            return &n->link_speed[i];
        if (n->link_speed[i].at_us < oldest->at_us)
            oldest = &n->link_speed[i];
    }
    *oldest = (struct known_speed){.key = *link_peer(l)};
    snprintf(oldest->address, sizeof oldest->address, "%s", link_peer_address(l));
    return oldest;
}

static void tell_direct(struct neighbour *nb, const struct probe_result *r)
{
    struct wire_link_report m = {.state = WIRE_LINK_DIRECT,
                                 .rtt_us = r->rtt_us,
                                 .out_bytes_per_s = r->out_bytes_per_s,
                                 .in_bytes_per_s = r->in_bytes_per_s};

    nb->state = NEIGHBOUR_DIRECT;
    send_report(nb, &m);
    epoch_ready(nb->epoch);
}

static void on_probed(void *user, bool ok, const struct probe_result *r)
{
    struct neighbour *nb = user;
    struct node *n = nb->epoch->node;
    struct known_speed *known = speed_of(n, nb->link);

    known->speed = *r;
    known->at_us = clock_us();
    if (ok)
        log_say(&n->log, "node",
                "link with %s: %.2f ms there and back, %.1f MB/s to it, %.1f from it", name_of(nb),
                (double)r->rtt_us / 1e3, (double)r->out_bytes_per_s / 1e6,
                (double)r->in_bytes_per_s / 1e6);
    else
        log_say(&n->log, "node", "link with %s: how quick it is could not be measured",
                name_of(nb));
    tell_direct(nb, r);
}

static void stands(struct neighbour *nb, struct link *l)
{
    struct node *n = nb->epoch->node;

    stop_timer(nb);
    nb->link = l;
    nb->probe = probe_new(n->base, l, on_probed, nb);
    begin_beat(nb);
    log_say(&n->log, "node", "linked with %s at %s (%s)", name_of(nb), link_peer_address(l),
            link_security(l));
}

/* One side is enough to measure both ways: the one that dialled. */
static void measure(struct neighbour *nb)
{
    struct known_speed *known = speed_of(nb->epoch->node, nb->link);

    if (known->at_us && clock_us() - known->at_us < (int64_t)SPEED_KEPT_S * 1000000) {
        tell_direct(nb, &known->speed);
        return;
    }
    nb->state = NEIGHBOUR_PROBING;
    probe_begin(nb->probe);
}

static void try_next(struct neighbour *nb);

static void on_opened(void *user, struct link *l, const struct wire_welcome *welcome)
{
    (void)welcome;
    stands(user, l);
    measure(user);
}

static void on_frame(void *user, struct link *l, const struct frame *f)
{
    struct neighbour *nb = user;
    struct node *n = nb->epoch->node;
    struct err_text et;

    switch (f->type) {
    case FRAME_STEP:
        if (nb->epoch == n->now && epoch_step(n, f, &et))
            cut_off(nb, et.text);
        return;
    case FRAME_PROBE:
        if (probe_frame(nb->probe, f, &et))
            cut_off(nb, et.text);
        return;
    case FRAME_PING:
        stages_pong(l, f);
        return;
    default: /* what else a stages' link carries asks for nothing */
        return;
    }
}

static void on_closed(void *user, struct link *l, enum err e, const char *why)
{
    struct neighbour *nb = user;

    (void)l;
    (void)e;
    log_say(&nb->epoch->node->log, "node", "link with %s: %s", name_of(nb), why);
    drop_probe(nb);
    nb->link = NULL;
    if (nb->state == NEIGHBOUR_DIALLING) {
        try_next(nb);
    } else {
        stop_timer(nb);
        nb->state = NEIGHBOUR_IDLE;
        tell_head(nb, WIRE_LINK_LOST);
    }
}

static const struct link_calls neighbour_calls = {
    .opened = on_opened,
    .frame = on_frame,
    .closed = on_closed,
};

static void on_enough(evutil_socket_t fd, short what, void *user)
{
    struct neighbour *nb = user;

    (void)fd;
    (void)what;
    if (nb->link)
        link_close(nb->link);
    nb->link = NULL;
    try_next(nb);
}

/* Dials the next of the neighbour's addresses, or gives up. */
static void try_next(struct neighbour *nb)
{
    struct node *n = nb->epoch->node;
    char address[ADDRESS_MAX];
    struct wire_greet greet = {.purpose = WIRE_FOR_STAGES, .epoch = nb->epoch->number};
    struct key_id key;
    struct dial_opts opts = {
        .address = address,
        .port_default = PORT_DEFAULT,
        .want_key = &key,
        .greet = &greet,
        .trust = WIRE_STAGES,
        .calls = &neighbour_calls,
        .user = nb,
    };
    size_t len = 0;

    while (!len || len >= sizeof address) {
        nb->address += strspn(nb->address, " ");
        len = strcspn(nb->address, " ");
        if (!len) {
            drop_link(nb);
            log_say(&n->log, "node", "%s cannot be reached from here", name_of(nb));
            tell_head(nb, WIRE_LINK_FAILED);
            return;
        }
        memcpy(address, nb->address, len < sizeof address ? len : 0);
        nb->address += len;
    }
    address[len] = '\0';
    memcpy(greet.name, n->known.name[0] ? n->known.name : n->own_name, sizeof greet.name);
    memcpy(key.bytes, nb->peer->key, sizeof key.bytes);
    nb->link = hub_dial(n->hub, &opts);
    event_add(nb->timer,
              &(struct timeval){NEIGHBOUR_TRY_MS / 1000, NEIGHBOUR_TRY_MS % 1000 * 1000});
}

static void dial_out(struct neighbour *nb)
{
    struct node *n = nb->epoch->node;
    struct key_id key;

    drop_link(nb);
    if (nb->peer)
        memcpy(key.bytes, nb->peer->key, sizeof key.bytes);
    if (!nb->peer || !roster_find(n->roster, &key)) {
        log_say(&n->log, "node", "device %d of epoch %u is nobody this device knows", nb->device,
                nb->epoch->number);
        tell_head(nb, WIRE_LINK_FAILED);
        return;
    }
    nb->state = NEIGHBOUR_DIALLING;
    nb->address = nb->peer->addresses;
    nb->timer = evtimer_new(n->base, on_enough, nb);
    CHECK(nb->timer);
    try_next(nb);
}

void stages_dial(struct node *n, const struct wire_dial *m)
{
    struct epoch *e = n->now && !n->now->over && n->now->number == m->epoch ? n->now : n->next;
    struct neighbour *nb = e && e->number == m->epoch ? epoch_neighbour(e, m->device) : NULL;

    if (!nb) {
        log_say(&n->log, "node", "device %d of epoch %u is no neighbour", m->device, m->epoch);
        return;
    }
    switch (m->how) {
    case WIRE_DIAL_OUT:
        dial_out(nb);
        return;
    case WIRE_DIAL_AWAIT:
        if (nb->state != NEIGHBOUR_DIRECT) /* it may have been quicker than the head */
            drop_link(nb);
        return;
    case WIRE_DIAL_RELAY:
        drop_link(nb);
        nb->state = NEIGHBOUR_RELAYED;
        log_say(&n->log, "node", "%s is reached through the head", name_of(nb));
        epoch_ready(e);
        return;
    }
}

/* ---- what the worker gives ---- */

void stages_out(struct node *n, const struct worker_out *out)
{
    struct neighbour *nb;

    if (out->to_device == 0) {
        head_send_bytes(n, out->bytes, out->len);
        return;
    }
    nb = epoch_neighbour(n->now, out->to_device);
    CHECK(nb); /* the worker's plan is the epoch's */
    if (nb->state == NEIGHBOUR_RELAYED)
        head_send_bytes(n, out->bytes, out->len);
    else if (nb->state == NEIGHBOUR_DIRECT && link_is_open(nb->link))
        link_send_bytes(nb->link, out->bytes, out->len);
}

/* ---- those who fetch weights from here ---- */

static void giver_free(struct giver *g)
{
    struct giver **p = &g->node->givers;

    while (*p != g)
        p = &(*p)->next;
    *p = g->next;
    bulk_giver_free(g->bulk);
    free(g);
}

static void on_bulk_frame(void *user, struct link *l, const struct frame *f)
{
    struct giver *g = user;
    struct err_text et;

    if (f->type == FRAME_PING) {
        stages_pong(l, f);
        return;
    }
    if (f->type == FRAME_PONG || !bulk_giver_frame(g->bulk, f, &et))
        return;
    log_say(&g->node->log, "node", "a device that fetches weights from here: %s", et.text);
    giver_free(g);
    link_close(l);
}

static void on_bulk_drained(void *user, struct link *l)
{
    struct giver *g = user;

    (void)l;
    bulk_giver_drained(g->bulk);
}

static void on_bulk_closed(void *user, struct link *l, enum err e, const char *why)
{
    struct giver *g = user;

    (void)l;
    if (e != ERR_GONE)
        log_say(&g->node->log, "node", "a device that fetches weights from here: %s", why);
    giver_free(g);
}

static const struct link_calls giver_calls = {
    .frame = on_bulk_frame,
    .drained = on_bulk_drained,
    .closed = on_bulk_closed,
};

static void accept_giver(struct node *n, struct link *l)
{
    struct giver *g, *next;
    int count = 0;

    for (g = n->givers; g; g = next) {
        next = g->next;
        if (key_id_equal(link_peer(g->link), link_peer(l))) { /* of a fetch that is over */
            link_close(g->link);
            giver_free(g);
        } else {
            count++;
        }
    }
    if (count >= GIVERS_MAX) {
        link_refuse(l, ERR_LIMIT, "enough devices fetch weights from here already");
        return;
    }
    g = mem_zalloc(1, sizeof *g);
    g->node = n;
    g->link = l;
    g->store = (struct bulk_store){.cache = n->cache, .fd = -1};
    g->next = n->givers;
    n->givers = g;
    link_welcome(l, WIRE_BULK, &giver_calls, g);
    link_set_bulk(l);
    g->bulk = bulk_giver_new(&g->store, l);
}

void stages_close_givers(struct node *n)
{
    while (n->givers) {
        struct giver *g = n->givers;

        link_close(g->link);
        giver_free(g);
    }
}

/* ---- who knocks ---- */

static struct neighbour *neighbour_with(struct epoch *e, uint32_t number, const struct key_id *key)
{
    for (int i = 0; e && !e->over && e->number == number && i < e->n_neighbours; i++)
        if (e->neighbour[i].peer &&
            memcmp(e->neighbour[i].peer->key, key->bytes, sizeof key->bytes) == 0)
            return &e->neighbour[i];
    return NULL;
}

static void accept_neighbour(struct node *n, struct link *l, const struct wire_greet *greet)
{
    struct neighbour *nb = neighbour_with(n->now, greet->epoch, link_peer(l));

    if (!nb)
        nb = neighbour_with(n->next, greet->epoch, link_peer(l));
    if (!nb) {
        link_refuse(l, ERR_GONE, "this device has no neighbour of that key in that epoch");
        return;
    }
    if (nb->epoch->ready) {
        link_refuse(l, ERR_GONE, "it is linked already in this epoch");
        return;
    }
    /* One that it has given up may not have ended here yet. */
    drop_link(nb);
    link_welcome(l, WIRE_STAGES, &neighbour_calls, nb);
    stands(nb, l);
    tell_direct(nb, &(struct probe_result){0});
}

static void on_greeted(void *user, struct link *l, const struct wire_greet *greet)
{
    struct node *n = user;

    if (greet->purpose != WIRE_FOR_STAGES && greet->purpose != WIRE_FOR_BULK)
        link_refuse(l, ERR_UNSUPPORTED, "this device is no head; join the head itself");
    else if (!n->head_open || !n->roster_fresh)
        link_refuse(l, ERR_GONE, "this device is not linked with its head just now; try again");
    else if (!roster_find(n->roster, link_peer(l)))
        link_refuse(l, ERR_INPUT, "this key is not one of the cluster's devices");
    else if (greet->purpose == WIRE_FOR_BULK)
        accept_giver(n, l);
    else
        accept_neighbour(n, l, greet);
}

/* Before it was judged: nobody's loss. */
static void on_nobody_closed(void *user, struct link *l, enum err e, const char *why)
{
    (void)user;
    (void)l;
    (void)e;
    (void)why;
}

const struct link_calls stages_accept_calls = {
    .greeted = on_greeted,
    .closed = on_nobody_closed,
};
