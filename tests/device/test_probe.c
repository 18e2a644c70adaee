/* How quick a link is, measured over real links of this machine; and far ends that keep no rules. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "device/probe.h"
#include "link/link_rig.h"

/* One side of the link: what it has of probes, and what it was sent. */
struct side {
    struct end *end;
    struct probe *probe;
    bool deaf; /* frames are kept, but no probe sees them */
    enum err e;
    struct err_text et;
    int n_done;
    bool ok, free_when_done, begin_when_done;
    struct probe_result r;
    int n_frames, n_kind[WIRE_PROBE_BURST_TOOK + 1];
    int free_at; /* this many frames; 0 = never */
    struct wire_probe last;
};

struct bench {
    struct rig *r;
    struct side near, far; /* near begins */
};

static void drop_probe(struct side *s)
{
    probe_free(s->probe);
    s->probe = NULL;
}

static void on_done(void *user, bool ok, const struct probe_result *r)
{
    struct side *s = user;

    s->n_done++;
    s->ok = ok;
    s->r = *r;
    if (s->free_when_done)
        drop_probe(s);
    if (s->begin_when_done && s->n_done == 1)
        probe_begin(s->probe);
}

static void on_frame(struct end *end, const struct frame *f)
{
    struct side *s = end->user;

    if (f->type != FRAME_PROBE)
        return;
    assert_int_equal(wire_probe_decode(f, &s->last, NULL), ERR_NONE);
    s->n_kind[s->last.kind]++;
    if (++s->n_frames == s->free_at)
        drop_probe(s);
    if (!s->probe || s->deaf)
        return;
    s->e = probe_frame(s->probe, f, &s->et);
    if (s->e) {
        drop_probe(s);
        link_close(end->link);
        end->link = NULL;
    }
}

static void side_open(struct side *s, struct end *end)
{
    s->end = end;
    end->user = s;
    end->frame_hook = on_frame;
    s->probe = probe_new(end->rig->base, end->link, on_done, s);
}

static int setup(void **state)
{
    struct bench *b = mem_zalloc(1, sizeof *b);

    b->r = rig_new(NULL, NULL);
    rig_open(b->r);
    side_open(&b->near, &b->r->dialler);
    side_open(&b->far, &b->r->acceptor);
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;

    drop_probe(&b->near);
    drop_probe(&b->far);
    rig_free(b->r);
    free(b);
    return 0;
}

static void send_probe(struct side *s, struct wire_probe m)
{
    struct wire_buf buf;
    struct frame_out f;

    wire_probe_encode(&m, &buf, &f);
    link_send(s->end->link, &f);
}

static bool plausible(const struct probe_result *r)
{
    return r->rtt_us > 0 && r->rtt_us < 60 * 1000000 && r->out_bytes_per_s > 0 &&
           r->in_bytes_per_s > 0;
}

static void measures_both_ways(void **state)
{
    struct bench *b = *state;
    const uint64_t out0 = link_sent_bytes(b->near.end->link),
                   in0 = link_received_bytes(b->near.end->link);
    uint64_t out, in;

    probe_begin(b->near.probe);
    assert_int_equal(b->near.n_done, 0);
    RIG_UNTIL(b->r, b->near.n_done);
    assert_true(b->near.ok && plausible(&b->near.r));
    assert_int_equal(b->far.n_done, 0);
    assert_int_equal(b->far.n_kind[WIRE_PROBE_ECHO], b->near.n_kind[WIRE_PROBE_ECHOED]);
    assert_true(b->far.n_kind[WIRE_PROBE_ECHO] > PROBE_ECHOES);
    assert_true(b->near.n_kind[WIRE_PROBE_BURST] >= PROBE_FRAMES_MIN);
    assert_true(b->far.n_kind[WIRE_PROBE_BURST] >= PROBE_FRAMES_MIN);
    /* Echoes are some forty small frames at most. */
    out = link_sent_bytes(b->near.end->link) - out0;
    in = link_received_bytes(b->near.end->link) - in0;
    assert_true(out <= PROBE_BYTES + 8192 && in <= PROBE_BYTES + 8192);
    rig_settle(b->r, 20); /* and that was all */
    assert_true(b->near.n_done == 1 && !b->near.e && !b->far.e);
    assert_true(link_sent_bytes(b->near.end->link) - out0 == out);
}

static void again_and_from_both_sides_at_once(void **state)
{
    struct bench *b = *state;

    b->near.begin_when_done = true;
    probe_begin(b->near.probe);
    probe_begin(b->near.probe); /* one is under way */
    probe_begin(b->far.probe);
    RIG_UNTIL(b->r, b->near.n_done == 2 && b->far.n_done == 1);
    assert_true(b->near.ok && plausible(&b->near.r));
    assert_true(b->far.ok && plausible(&b->far.r));
    assert_true(!b->near.e && !b->far.e);
}

static void freed_by_done(void **state)
{
    struct bench *b = *state;

    b->near.free_when_done = true;
    probe_begin(b->near.probe);
    RIG_UNTIL(b->r, b->near.n_done);
    assert_true(b->near.ok && !b->near.probe);
    rig_settle(b->r, 10);
    assert_true(link_is_open(b->near.end->link));
}

/* Whoever of the two goes, and whenever: nobody is called, and the other gives up in its time. */
static void freed_in_mid_flight(void **state)
{
    struct bench *b = *state;

    for (int at = 1; at < 70; at += 3) {
        b->near.free_at = b->near.n_frames + at;
        if (!b->near.probe)
            b->near.probe = probe_new(b->r->base, b->near.end->link, on_done, &b->near);
        if (!b->far.probe)
            b->far.probe = probe_new(b->r->base, b->far.end->link, on_done, &b->far);
        probe_begin(b->near.probe);
        RIG_UNTIL(b->r, !b->near.probe);
        rig_settle(b->r, 5);
        assert_int_equal(b->near.n_done, 0);
        assert_int_equal(b->far.e, ERR_NONE);
    }
}

static void nobody_answers(void **state)
{
    struct bench *b = *state;

    b->far.deaf = true;
    probe_begin(b->near.probe);
    RIG_UNTIL(b->r, b->near.n_done);
    assert_false(b->near.ok);
    assert_true(!b->near.r.rtt_us && !b->near.r.out_bytes_per_s && !b->near.r.in_bytes_per_s);
    /* Its answer comes after all; then it is asked anew. */
    assert_int_equal(b->far.last.kind, WIRE_PROBE_ECHO);
    send_probe(&b->far, (struct wire_probe){.kind = WIRE_PROBE_ECHOED, .number = 1});
    b->far.deaf = false;
    probe_begin(b->near.probe);
    RIG_UNTIL(b->r, b->near.n_done == 2);
    assert_true(b->near.ok && plausible(&b->near.r) && !b->near.e && !b->far.e);
}

/* ---- a far end that is no probe ---- */

enum lie {
    HONEST,
    ECHOED_OTHER,
    ECHOED_TWICE,
    TOOK_FOR_ECHO,
    TOOK_OTHER,
    TOOK_BYTES,
    BURST_UNASKED, /* in place of ECHOED: its own, and longer than any may be */
    BURST_OTHER,
    BURST_LONGER,
    BURST_SHORTER,
    BURST_GROWS,
    BURST_STAYS,
    BURST_LARGE,
    BURST_BROKEN,
    BURST_ENDLESS,
    LIES,
    PAUSE_BEFORE_BURST = LIES, /* no lies: it stops for longer than anybody waits */
    PAUSE_WITHIN_BURST,
};

struct fake {
    struct side *side;
    enum lie lie;
    uint32_t asked, number, left; /* while it pauses: the burst it owes */
    bool owes_echoed;
};

static struct fake fake;

static void say(enum wire_probe_kind kind, uint32_t number, uint64_t bytes)
{
    send_probe(fake.side,
               (struct wire_probe){
                   .kind = kind, .number = number, .bytes = bytes, .took_us = bytes ? 1000 : 0});
}

static void say_part(uint32_t number, uint32_t left, size_t payload)
{
    send_probe(fake.side, (struct wire_probe){.kind = WIRE_PROBE_BURST,
                                              .number = number,
                                              .left = left,
                                              .payload_len = payload});
}

static void say_burst(uint32_t number, uint32_t n)
{
    while (n-- > 0)
        say_part(number, n, PROBE_PAYLOAD);
}

static void answer_echo(uint32_t number)
{
    say(WIRE_PROBE_ECHOED, number + (fake.lie == ECHOED_OTHER), 0);
    if (fake.lie == ECHOED_TWICE)
        say(WIRE_PROBE_ECHOED, number, 0);
    if (fake.lie == TOOK_FOR_ECHO)
        say(WIRE_PROBE_BURST_TOOK, number, 0);
    if (fake.lie == BURST_UNASKED)
        say_part(number, PROBE_FRAMES_MAX, 1);
}

static void answer_ask(uint32_t number, uint32_t n)
{
    fake.number = number;
    fake.left = n;
    fake.owes_echoed = fake.lie == PAUSE_BEFORE_BURST;
    if (fake.owes_echoed)
        return;
    say(WIRE_PROBE_ECHOED, number, 0);
    if (fake.lie == PAUSE_WITHIN_BURST) {
        say_part(number, --fake.left, PROBE_PAYLOAD);
    } else if (fake.lie == BURST_OTHER) {
        say_burst(number + 1, n);
    } else if (fake.lie == BURST_LONGER) {
        say_burst(number, n + 1);
    } else if (fake.lie == BURST_SHORTER) {
        say_burst(number, n - 1);
    } else if (fake.lie == BURST_LARGE) {
        say_part(number, n - 1, WIRE_PROBE_MAX);
    } else if (fake.lie == BURST_GROWS || fake.lie == BURST_STAYS) {
        say_part(number, n - 1, PROBE_PAYLOAD);
        say_part(number, n - (fake.lie == BURST_STAYS), PROBE_PAYLOAD);
    } else if (fake.lie == BURST_BROKEN) {
        say_part(number, n - 1, PROBE_PAYLOAD);
        say(WIRE_PROBE_ECHO, 1, 0);
    } else {
        say_burst(number, n);
    }
    if (fake.lie == BURST_ENDLESS)
        for (int i = 0; i < 200; i++)
            say_burst(number, 2);
}

static void on_fake_frame(struct end *end, const struct frame *f)
{
    static uint64_t bytes;
    struct wire_probe m;

    if (f->type != FRAME_PROBE || !end->link)
        return;
    assert_int_equal(wire_probe_decode(f, &m, NULL), ERR_NONE);
    if (m.kind == WIRE_PROBE_ECHO && m.left == 0)
        answer_echo(m.number);
    if (m.kind == WIRE_PROBE_ECHO && m.left)
        answer_ask(m.number, m.left);
    if (m.kind == WIRE_PROBE_BURST)
        bytes = m.number == fake.asked ? bytes + m.payload_len : 0;
    fake.asked = m.number;
    if (m.kind == WIRE_PROBE_BURST && m.left == 0)
        say(WIRE_PROBE_BURST_TOOK, m.number + (fake.lie == TOOK_OTHER),
            bytes + (fake.lie == TOOK_BYTES));
}

static void be_fake(struct bench *b, enum lie lie)
{
    drop_probe(&b->far);
    b->r->acceptor.frame_hook = on_fake_frame;
    fake = (struct fake){.side = &b->far, .lie = lie};
}

static void an_honest_far_end_is_believed(void **state)
{
    struct bench *b = *state;

    be_fake(b, HONEST);
    probe_begin(b->near.probe);
    RIG_UNTIL(b->r, b->near.n_done);
    assert_true(b->near.ok && plausible(&b->near.r));
}

static void lies_are_seen(void **state)
{
    for (int lie = HONEST + 1; lie < LIES; lie++) {
        struct bench *b;

        setup(state);
        b = *state;
        be_fake(b, (enum lie)lie);
        probe_begin(b->near.probe);
        RIG_UNTIL(b->r,
                  b->near.e || b->near.n_done > 1 || (b->near.n_done && lie != BURST_ENDLESS));
        if (b->near.e != ERR_PROTO)
            fail_msg("lie %d was believed", lie);
        assert_int_equal(b->near.n_done, lie == BURST_ENDLESS ? b->near.n_done : 0);
        teardown(state);
    }
}

/* What comes when nobody waits for it any more means nothing, however much of it is due. */
static void late_bursts_mean_nothing(void **state)
{
    struct bench *b = *state;

    for (int i = 1; i <= 2; i++) {
        be_fake(b, i == 1 ? PAUSE_BEFORE_BURST : PAUSE_WITHIN_BURST);
        probe_begin(b->near.probe);
        RIG_UNTIL(b->r, b->near.n_done == 2 * i - 1);
        assert_false(b->near.ok);
        fake.lie = HONEST;
        probe_begin(b->near.probe); /* before the rest has come */
        if (fake.owes_echoed)
            say(WIRE_PROBE_ECHOED, fake.number, 0);
        say_burst(fake.number, fake.left);
        RIG_UNTIL(b->r, b->near.n_done == 2 * i || b->near.e);
        assert_true(!b->near.e && b->near.ok && plausible(&b->near.r));
    }
}

/* ---- a near end that is no probe ---- */

static void hostile_askers(void **state)
{
    static const struct wire_probe rows[] = {
        {.kind = WIRE_PROBE_ECHO, .left = 1},
        {.kind = WIRE_PROBE_ECHO, .left = PROBE_FRAMES_MAX + 1},
        {.kind = WIRE_PROBE_ECHO, .left = UINT32_MAX},
        {.kind = WIRE_PROBE_ECHOED, .number = 1},
        {.kind = WIRE_PROBE_BURST_TOOK, .number = 1, .bytes = 1, .took_us = 1},
        {.kind = WIRE_PROBE_BURST, .payload_len = 1},
        {.kind = WIRE_PROBE_BURST, .left = PROBE_FRAMES_MAX, .payload_len = 1},
        {.kind = WIRE_PROBE_BURST, .left = UINT32_MAX, .payload_len = 1},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct bench *b;

        setup(state);
        b = *state;
        send_probe(&b->near, rows[i]);
        RIG_UNTIL(b->r, b->far.n_frames);
        if (b->far.e != ERR_PROTO)
            fail_msg("row %zu was taken", i);
        teardown(state);
    }
}

/* Small bursts without end, and large ones: what was taken stays within the bound. */
static void endless_bursts(void **state)
{
    static const size_t payloads[] = {1 << 10, WIRE_PROBE_MAX};

    for (size_t i = 0; i < 2; i++) {
        struct bench *b;

        setup(state);
        b = *state;
        b->near.deaf = true;
        send_probe(&b->near, (struct wire_probe){.kind = WIRE_PROBE_ECHO, .number = 1});
        for (size_t n = 0; n * payloads[i] < 4 * PROBE_BYTES; n++)
            send_probe(&b->near, (struct wire_probe){.kind = WIRE_PROBE_BURST,
                                                     .number = (uint32_t)(n / 16),
                                                     .left = (uint32_t)(15 - n % 16),
                                                     .payload_len = payloads[i]});
        RIG_UNTIL(b->r, b->far.e);
        assert_int_equal(b->far.e, ERR_PROTO);
        assert_true((size_t)b->far.n_frames * payloads[i] <= PROBE_BYTES + 2 * payloads[i]);
        teardown(state);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(measures_both_ways, setup, teardown),
        cmocka_unit_test_setup_teardown(again_and_from_both_sides_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(freed_by_done, setup, teardown),
        cmocka_unit_test_setup_teardown(freed_in_mid_flight, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_answers, setup, teardown),
        cmocka_unit_test_setup_teardown(an_honest_far_end_is_believed, setup, teardown),
        cmocka_unit_test(lies_are_seen),
        cmocka_unit_test_setup_teardown(late_bursts_mean_nothing, setup, teardown),
        cmocka_unit_test(hostile_askers),
        cmocka_unit_test(endless_bursts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
