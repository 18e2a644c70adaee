/* Whatever is closed from whichever callback: no memory is used after it is gone (the sanitizers
 * watch), nobody is called about a link it closed, and the far end learns of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "link_rig.h"

enum what {
    CLOSE_OWN,
    CLOSE_OTHER, /* the far end's side, which is in the same event loop here */
    CLOSE_BOTH,
    CLOSE_SENDING,
    CLOSE_HUB,
    CLOSE_OTHER_HUB,
    CLOSE_HUBS,
    CUT_OWN,
    DIAL_ANEW, /* and close */
    WHATS
};

static enum what what;
static enum rig_call when;
static struct end *where;
static int done;

static void drop(struct end *e)
{
    if (e->link)
        link_close(e->link);
    e->link = NULL;
}

/* Each end forgets its link when the hub that holds it goes. */
static void drop_hub(struct rig *r, int i)
{
    hub_close(r->hub[i]);
    r->hub[i] = NULL;
    (i ? &r->acceptor : &r->dialler)->link = NULL;
}

static void hook(struct end *e, enum rig_call call)
{
    struct rig *r = e->rig;
    int side = e == &r->acceptor;
    struct end *other = side ? &r->dialler : &r->acceptor;

    if (call == RIG_CLOSED)
        e->link = call == when && e == where ? e->link : NULL;
    if (done || call != when || e != where)
        return;
    done = 1;
    switch (what) {
    case CLOSE_OWN:
        drop(e);
        break;
    case CLOSE_OTHER:
        drop(other);
        break;
    case CLOSE_BOTH:
        drop(other);
        drop(e);
        break;
    case CLOSE_SENDING:
        link_close_after_sending(e->link);
        e->link = NULL;
        break;
    case CLOSE_HUB:
        drop_hub(r, side);
        break;
    case CLOSE_OTHER_HUB:
        drop_hub(r, !side);
        break;
    case CLOSE_HUBS:
        drop_hub(r, side);
        drop_hub(r, !side);
        break;
    case CUT_OWN:
        (void)hub_cut(r->hub[side], link_peer(e->link), "cut");
        break;
    default:
        drop(e);
        rig_dial(r, NULL);
        drop(&r->dialler);
    }
}

static void one(bool at_acceptor, bool no_judge)
{
    struct rig *r = rig_new(NULL, NULL);
    int closed[2];

    done = 0;
    where = at_acceptor ? &r->acceptor : &r->dialler;
    r->dialler.hook = r->acceptor.hook = hook;
    r->no_judge = no_judge;
    rig_dial(r, NULL);
    if (when == RIG_FRAME) {
        RIG_UNTIL(r, r->dialler.n[RIG_OPENED]);
        /* Several at once, large and small: closing in the first must end the rest. */
        for (int i = 0; i < 3; i++) {
            if (r->dialler.link && link_is_open(r->dialler.link))
                rig_send(r->dialler.link, (uint64_t)i, i == 1 ? 200000 : 10);
            if (r->acceptor.link && link_is_open(r->acceptor.link))
                rig_send(r->acceptor.link, (uint64_t)i, i == 1 ? 200000 : 10);
        }
    } else if (when == RIG_CLOSED) {
        RIG_UNTIL(r, r->dialler.n[RIG_OPENED]);
        drop(at_acceptor ? &r->dialler : &r->acceptor);
    }
    RIG_UNTIL(r, done);
    closed[0] = r->dialler.n[RIG_CLOSED];
    closed[1] = r->acceptor.n[RIG_CLOSED];
    if (what == CLOSE_OWN && when != RIG_CLOSED) {
        /* The far end is told, and only it. */
        assert_int_equal(closed[at_acceptor], 0);
        RIG_UNTIL(r, (at_acceptor ? &r->dialler : &r->acceptor)->n[RIG_CLOSED] ||
                         (!at_acceptor && !r->acceptor.n[RIG_GREETED]));
        assert_int_equal(where->n[RIG_CLOSED], 0);
    }
    rig_settle(r, 20);
    if (when == RIG_FRAME && what == CLOSE_OWN)
        assert_int_equal(where->n[RIG_FRAME], 1);
    assert_true(r->dialler.n[RIG_CLOSED] <= 1 && r->acceptor.n[RIG_CLOSED] <= 1);
    rig_free(r);
}

static void from_every_callback(void **state)
{
    for (what = 0; what < WHATS; what++)
        for (int acceptor = 0; acceptor < 2; acceptor++)
            for (when = 0; when < RIG_CALLS; when++) {
                if (when == RIG_DRAINED || when == (acceptor ? RIG_OPENED : RIG_GREETED))
                    continue;
                if (when == RIG_CLOSED && what == CLOSE_SENDING)
                    continue; /* of a link that is gone, nothing is left to send */
                one(acceptor, false);
                if (when == RIG_GREETED)
                    one(acceptor, true);
            }
}

static void close_in_drained(struct end *e, enum rig_call call)
{
    if (call == RIG_DRAINED)
        drop(e);
}

static void from_drained(void **state)
{
    struct rig *r = rig_new(NULL, NULL);

    r->dialler.hook = close_in_drained;
    rig_open(r);
    rig_send(r->dialler.link, 0, 40 << 20);
    RIG_UNTIL(r, r->acceptor.n[RIG_CLOSED]);
    assert_int_equal(r->dialler.n[RIG_DRAINED], 1);
    assert_int_equal(r->dialler.n[RIG_CLOSED], 0);
    rig_free(r);
}

/* From outside of all callbacks it is at once. */
static void from_outside(void **state)
{
    for (int stage = 0; stage < 40; stage++) {
        struct rig *r = rig_new(NULL, NULL);

        rig_dial(r, NULL);
        for (int i = 0; i < stage; i++)
            event_base_loop(r->base, EVLOOP_NONBLOCK);
        drop(stage % 2 && r->acceptor.link ? &r->acceptor : &r->dialler);
        rig_settle(r, 5);
        rig_free(r);
    }
}

static void many_at_once(void **state)
{
    enum { N = 40 };
    struct rig *r = rig_new(NULL, NULL);

    for (int i = 0; i < N; i++)
        rig_dial(r, NULL);
    RIG_UNTIL(r, r->dialler.n[RIG_OPENED] == N && r->acceptor.n[RIG_GREETED] == N);
    assert_int_equal(hub_cut(r->hub[1], identity_key(r->id[0]), "revoked"), N);
    RIG_UNTIL(r, r->dialler.n[RIG_CLOSED] == N && r->acceptor.n[RIG_CLOSED] == N);
    rig_free(r);
}

/* The far end's process dies: no goodbye, the system closes the socket. */
static void a_dead_peer_is_noticed(void **state)
{
    struct rig *r = rig_new(NULL, NULL);

    rig_open(r);
    hub_close(r->hub[0]); /* frees, and closes the socket without a word */
    r->hub[0] = NULL;
    RIG_UNTIL(r, r->acceptor.n[RIG_CLOSED]);
    assert_int_equal(r->acceptor.err, ERR_GONE);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(from_every_callback),    cmocka_unit_test(from_drained),
        cmocka_unit_test(from_outside),           cmocka_unit_test(many_at_once),
        cmocka_unit_test(a_dead_peer_is_noticed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
