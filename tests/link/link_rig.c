#include "link_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/check.h"

enum { STEP_HEADER = 37 }; /* not a multiple of four */

static void call(struct end *e, enum rig_call c)
{
    e->n[c]++;
    if (e->hook)
        e->hook(e, c);
}

static void on_greeted(void *user, struct link *l, const struct wire_greet *greet)
{
    struct end *e = user;

    e->link = l;
    e->greet = *greet;
    if (!e->rig->no_judge)
        link_welcome(l, e->rig->trust, &rig_calls, e);
    call(e, RIG_GREETED);
}

static void on_opened(void *user, struct link *l, const struct wire_welcome *welcome)
{
    struct end *e = user;

    e->welcome = *welcome;
    call(e, RIG_OPENED);
}

static uint32_t word_of(uint64_t number, size_t i)
{
    return (uint32_t)(number * 2654435761u + i * 40503u);
}

static void on_frame(void *user, struct link *l, const struct frame *f)
{
    struct end *e = user;

    e->type = f->type;
    e->payload_bytes += f->payload_len;
    if (f->type == FRAME_STEP) {
        e->wrong |= (uintptr_t)f->payload % 4 != 0 || f->header_len != STEP_HEADER;
        for (size_t i = 0; i < f->payload_len / 4; i++) {
            uint32_t w;

            memcpy(&w, f->payload + 4 * i, 4);
            e->wrong |= w != word_of(e->next, i);
        }
        e->next++;
    }
    if (e->frame_hook)
        e->frame_hook(e, f);
    call(e, RIG_FRAME);
}

static void on_drained(void *user, struct link *l)
{
    call(user, RIG_DRAINED);
}

static void on_closed(void *user, struct link *l, enum err err, const char *why)
{
    struct end *e = user;

    e->err = err;
    snprintf(e->why, sizeof e->why, "%s", why);
    call(e, RIG_CLOSED);
    e->link = NULL;
}

const struct link_calls rig_calls = {on_greeted, on_opened, on_frame, on_drained, on_closed};

void rig_send(struct link *l, uint64_t number, size_t payload)
{
    uint8_t header[STEP_HEADER + 3], *bytes = malloc(payload ? payload : 1);
    struct frame_out out = {.n_payloads = 2};
    size_t first = payload / 3; /* the pieces' seam lies anywhere */

    memset(header, 0x41, sizeof header);
    memset(bytes, 0x5a, payload);
    for (size_t i = 0; i < payload / 4; i++) {
        uint32_t w = word_of(number, i);

        memcpy(bytes + 4 * i, &w, 4);
    }
    out.payload[0] = bytes;
    out.payload_len[0] = first;
    out.payload[1] = bytes + first;
    out.payload_len[1] = payload - first;
    frame_finish(&out, FRAME_STEP, header, STEP_HEADER);
    link_send(l, &out);
    free(bytes);
}

static void keep_line(void *user, const char *component, const char *text)
{
    struct rig *r = user;

    CHECK(r->n_lines < RIG_LINES && strcmp(component, "link") == 0);
    r->line[r->n_lines++] = strdup(text);
}

bool rig_logged(const struct rig *r, const char *words)
{
    for (int i = 0; i < r->n_lines; i++)
        if (strstr(r->line[i], words))
            return true;
    return false;
}

static void tick(evutil_socket_t fd, short what, void *arg)
{
}

struct rig *rig_new(const struct hub_opts *dialling, const struct hub_opts *accepting)
{
    const struct hub_opts *given[] = {dialling, accepting};
    struct timeval ms = {0, 5000};
    struct rig *r = calloc(1, sizeof *r);
    struct err_text et;

    r->base = event_base_new();
    assert_int_equal(event_base_priority_init(r->base, 3), 0); /* for bulk links */
    r->tick = event_new(r->base, -1, EV_PERSIST, tick, NULL);
    event_add(r->tick, &ms);
    r->dialler.rig = r->acceptor.rig = r;
    r->trust = WIRE_STAGES;
    for (int i = 0; i < 2; i++) {
        struct hub_opts o = given[i] ? *given[i] : (struct hub_opts){0};

        r->id[i] = identity_new();
        o.base = r->base;
        o.identity = r->id[i];
        o.log = (struct log){keep_line, r};
        strcpy(o.name, i ? "desk" : "phone");
        o.calls = &rig_calls;
        o.user = i ? &r->acceptor : &r->dialler;
        assert_int_equal(hub_open(&o, &r->hub[i], &et), ERR_NONE);
    }
    assert_int_equal(hub_listen(r->hub[1], "127.0.0.1", 0, &r->port, &et), ERR_NONE);
    snprintf(r->address, sizeof r->address, "127.0.0.1:%d", r->port);
    return r;
}

void rig_free(struct rig *r)
{
    for (int i = 0; i < 2; i++) {
        hub_close(r->hub[i]);
        identity_close(r->id[i]);
    }
    rig_settle(r, 1); /* libevent frees some things in its loop alone */
    event_free(r->tick);
    event_base_free(r->base);
    for (int i = 0; i < r->n_lines; i++)
        free(r->line[i]);
    free(r);
}

void rig_dial(struct rig *r, const struct dial_opts *opts)
{
    struct dial_opts o = opts ? *opts : (struct dial_opts){0};
    int closed = r->dialler.n[RIG_CLOSED];
    struct wire_greet greet = {.purpose = WIRE_FOR_STAGES, .name = "phone", .epoch = 7};

    if (!o.address)
        o.address = r->address;
    if (!o.want_key && !o.token)
        o.want_key = identity_key(r->id[1]);
    if (!o.greet)
        o.greet = &greet;
    if (!o.trust)
        o.trust = r->trust;
    o.calls = &rig_calls;
    o.user = &r->dialler;
    r->dialler.link = hub_dial(r->hub[0], &o);
    assert_non_null(r->dialler.link);
    assert_int_equal(r->dialler.n[RIG_CLOSED], closed); /* never at once */
}

void rig_open(struct rig *r)
{
    rig_dial(r, NULL);
    RIG_UNTIL(r, r->dialler.n[RIG_OPENED]);
    assert_int_equal(r->acceptor.n[RIG_GREETED], 1);
    assert_true(link_is_open(r->dialler.link) && link_is_open(r->acceptor.link));
}

void rig_settle(struct rig *r, int ms)
{
    int64_t end_us = clock_us() + ms * 1000;

    do
        event_base_loop(r->base, EVLOOP_NONBLOCK);
    while (clock_us() < end_us);
}
