/* Two devices that know each other: opening, talking, ending; and whom one does not reach. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <fcntl.h>
#include <malloc.h>
#include <sys/socket.h>
#include <unistd.h>

#include "link_rig.h"

static struct err_text et;

static int set_up(void **state)
{
    *state = rig_new(NULL, NULL);
    return 0;
}

static int tear_down(void **state)
{
    rig_free(*state);
    return 0;
}

#define SAYS(text, words)                                                                          \
    do {                                                                                           \
        if (!strstr(text, words))                                                                  \
            fail_msg("\"%s\" does not say \"%s\"", text, words);                                   \
    } while (0)

/* ---- opening ---- */

static void opens(void **state)
{
    struct rig *r = *state;
    struct end *d = &r->dialler, *a = &r->acceptor;
    uint8_t one[TOKEN_EXPORT_BYTES], two[TOKEN_EXPORT_BYTES];

    rig_open(r);
    assert_int_equal(a->n[RIG_OPENED], 0);
    assert_string_equal(a->greet.name, "phone");
    assert_int_equal(a->greet.epoch, 7);
    assert_int_equal(a->greet.purpose, WIRE_FOR_STAGES);
    assert_int_equal(a->greet.version, WIRE_VERSION);
    assert_false(a->greet.has_proof);
    assert_string_equal(d->welcome.name, "desk");
    assert_string_equal(d->welcome.address, link_peer_address(a->link));
    assert_string_equal(link_peer_address(d->link), r->address);
    assert_int_equal(link_version(d->link), WIRE_VERSION);
    assert_int_equal(link_version(a->link), WIRE_VERSION);
    assert_true(key_id_equal(link_peer(d->link), identity_key(r->id[1])));
    assert_true(key_id_equal(link_peer(a->link), identity_key(r->id[0])));
    assert_non_null(link_peer_certificate(d->link));
#ifdef LINGUA_BENCH_PLAINTEXT
    assert_string_equal(link_security(d->link), "none: bench build");
#else
    assert_string_equal(link_security(d->link), "TLSv1.3 TLS_AES_128_GCM_SHA256, Ed25519");
#endif
    assert_string_equal(link_security(d->link), link_security(a->link));
    link_exported(d->link, one);
    link_exported(a->link, two);
    assert_memory_equal(one, two, sizeof one);
    assert_ptr_equal(link_user(d->link), d);
    assert_int_equal(r->n_lines, 0);
}

static void over_ipv6_and_all_interfaces(void **state)
{
    struct rig *r = *state;
    struct dial_opts o = {.address = "[::1]"};
    int probe = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 here = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};

    assert_int_equal(hub_listen(r->hub[1], "*", 0, &o.port_default, &et), ERR_NONE);
    if (probe >= 0 && bind(probe, (struct sockaddr *)&here, sizeof here) == 0) {
        rig_dial(r, &o);
        RIG_UNTIL(r, r->dialler.n[RIG_OPENED]);
        SAYS(link_peer_address(r->acceptor.link), "[::1]:");
        link_close(r->dialler.link);
        RIG_UNTIL(r, r->acceptor.n[RIG_CLOSED]);
    }
    close(probe);
    o.address = "127.0.0.1";
    r->dialler.n[RIG_OPENED] = 0;
    rig_dial(r, &o);
    RIG_UNTIL(r, r->dialler.n[RIG_OPENED]);
    assert_memory_equal(link_peer_address(r->acceptor.link), "127.0.0.1:", 10);
}

static void by_name(void **state)
{
    struct rig *r = *state;
    struct dial_opts o = {.address = "localhost", .port_default = r->port};

    rig_dial(r, &o);
    RIG_UNTIL(r, r->dialler.n[RIG_OPENED] || r->dialler.n[RIG_CLOSED]);
    if (r->dialler.n[RIG_CLOSED])
        fail_msg("%s", r->dialler.why);
}

static void with_a_token(void **state)
{
    struct rig *r = *state;
    struct token_book book;
    struct token t;
    struct dial_opts o = {.token = &t};
    uint8_t exported[TOKEN_EXPORT_BYTES];

    token_book_init(&book, identity_key(r->id[1]));
    token_book_make(&book, 0, 1000000, &t);
    r->no_judge = true;
    rig_dial(r, &o);
    memset(&t, 0, sizeof t); /* borrows nothing */
    RIG_UNTIL(r, r->acceptor.n[RIG_GREETED]);
    assert_true(r->acceptor.greet.has_proof);
    link_exported(r->acceptor.link, exported);
    assert_int_equal(token_book_take(&book, 1, exported, r->acceptor.greet.proof, &et), ERR_NONE);
    link_welcome(r->acceptor.link, WIRE_CONTROL, &rig_calls, &r->acceptor);
    RIG_UNTIL(r, r->dialler.n[RIG_OPENED]);
    token_book_fini(&book);
}

static void expect_failure(struct rig *r, enum err e, const char *words)
{
    RIG_UNTIL(r, r->dialler.n[RIG_CLOSED]);
    if (r->dialler.err != e)
        fail_msg("error %d, not %d: %s", r->dialler.err, e, r->dialler.why);
    SAYS(r->dialler.why, words);
    assert_int_equal(r->dialler.n[RIG_OPENED], 0);
    assert_int_equal(r->dialler.n[RIG_CLOSED], 1);
}

static void someone_else(void **state)
{
    struct rig *r = *state;
    struct dial_opts o = {.want_key = identity_key(r->id[0])};

    rig_dial(r, &o);
    expect_failure(r, ERR_INPUT, "another device");
    rig_settle(r, 50);
    assert_int_equal(r->acceptor.n[RIG_GREETED], 0); /* it was told nothing */
    assert_int_equal(r->n_lines, 1);
}

static void someone_elses_token(void **state)
{
    struct rig *r = *state;
    struct token t = {{1}, {2}};
    struct dial_opts o = {.token = &t};

    rig_dial(r, &o);
    expect_failure(r, ERR_INPUT, "token");
    rig_settle(r, 50);
    assert_int_equal(r->acceptor.n[RIG_GREETED], 0);
}

static void refuse_now(struct end *e, enum rig_call call)
{
    if (call == RIG_GREETED) {
        link_refuse(e->link, ERR_LIMIT, "the cluster\x1b[31m is full");
        e->link = NULL;
    }
}

static void refused(void **state)
{
    struct rig *r = *state;

    r->no_judge = true;
    r->acceptor.hook = refuse_now;
    rig_dial(r, NULL);
    expect_failure(r, ERR_LIMIT, "the cluster?[31m is full");
    assert_int_equal(r->acceptor.n[RIG_CLOSED], 0);
    assert_int_equal(r->n_lines, 1);
    SAYS(r->line[0], "refused 127.0.0.1:");
    SAYS(r->line[0], "\"phone\"");
    SAYS(r->line[0], "is full");
}

static void refused_later(void **state)
{
    struct rig *r = *state;

    r->no_judge = true;
    rig_dial(r, NULL);
    RIG_UNTIL(r, r->acceptor.n[RIG_GREETED]);
    rig_settle(r, 20);
    assert_false(link_is_open(r->acceptor.link));
    assert_int_equal(r->dialler.n[RIG_CLOSED], 0);
    link_refuse(r->acceptor.link, ERR_INPUT, "not in the roster");
    expect_failure(r, ERR_INPUT, "not in the roster");
}

/* The judge takes its time, and meanwhile the device goes. */
static void left_while_judged(void **state)
{
    struct rig *r = *state;

    r->no_judge = true;
    rig_dial(r, NULL);
    RIG_UNTIL(r, r->acceptor.n[RIG_GREETED]);
    link_close(r->dialler.link);
    RIG_UNTIL(r, r->acceptor.n[RIG_CLOSED]);
    assert_int_equal(r->acceptor.err, ERR_GONE);
    assert_int_equal(r->n_lines, 1);
}

/* ---- versions ---- */

static void versions(int d, int d_min, int a, int a_min, int agreed, const char *words)
{
    struct hub_opts dialling = {.version = d, .version_min = d_min},
                    accepting = {.version = a, .version_min = a_min};
    struct rig *r = rig_new(&dialling, &accepting);

    rig_dial(r, NULL);
    if (agreed) {
        RIG_UNTIL(r, r->dialler.n[RIG_OPENED]);
        assert_int_equal(link_version(r->dialler.link), agreed);
        assert_int_equal(link_version(r->acceptor.link), agreed);
        assert_int_equal(r->dialler.welcome.version, agreed);
    } else {
        expect_failure(r, ERR_UNSUPPORTED, words);
        assert_int_equal(r->acceptor.n[RIG_GREETED], 0);
        assert_int_equal(r->n_lines, 1);
        SAYS(r->line[0], words);
    }
    rig_free(r);
}

static void versions_agree_or_part(void **state)
{
    const int v = WIRE_VERSION;

    versions(v, v, v, v, v, "");
    versions(v + 1, v, v, v, v, "");
    versions(v, v, v + 1, v, v, "");
    versions(v + 2, v + 1, v, v, 0, "update lingua on desk");
    versions(v, v, v + 2, v + 1, 0, "update lingua on the device that dials");
    versions(v, v, v + 2, v + 1, 0, "desk speaks protocol versions 3 to 4");
}

/* ---- talking ---- */

static void many_frames_of_all_sizes(void **state)
{
    static const size_t sizes[] = {0, 1, 2, 3, 4, 1152, 4095, 16333, 16384, 32767, 70001, 300000};
    struct rig *r = *state;
    const int n = 600;
    uint64_t bytes = 0;

    rig_open(r);
    for (int i = 0; i < n; i++) {
        size_t size = sizes[(size_t)i * 7 % (sizeof sizes / sizeof sizes[0])];

        rig_send(r->dialler.link, (uint64_t)i, size);
        rig_send(r->acceptor.link, (uint64_t)i, size);
        bytes += size;
        if (i % 50 == 0)
            rig_settle(r, 1);
    }
    RIG_UNTIL(r, r->dialler.n[RIG_FRAME] == n && r->acceptor.n[RIG_FRAME] == n);
    assert_false(r->dialler.wrong || r->acceptor.wrong);
    assert_int_equal(r->dialler.payload_bytes, bytes);
    assert_int_equal(r->acceptor.payload_bytes, bytes);
    assert_int_equal(link_pending(r->dialler.link), 0);
}

static void huge_frames_both_ways(void **state)
{
    struct rig *r = *state;

    rig_open(r);
    rig_send(r->dialler.link, 0, 64 << 20);
    rig_send(r->acceptor.link, 0, (64 << 20) + 2);
    rig_send(r->acceptor.link, 1, 5);
    RIG_UNTIL(r, r->dialler.n[RIG_FRAME] == 2 && r->acceptor.n[RIG_FRAME] == 1);
    assert_false(r->dialler.wrong || r->acceptor.wrong);
    assert_true(link_received_bytes(r->acceptor.link) >= 64 << 20);
    assert_true(link_received_bytes(r->acceptor.link) == link_sent_bytes(r->dialler.link));
    assert_true(link_received_bytes(r->dialler.link) == link_sent_bytes(r->acceptor.link));
    assert_true(r->dialler.n[RIG_DRAINED] == 1 && r->acceptor.n[RIG_DRAINED] == 1);
}

/* What a step costs on the network beside its own bytes. */
static void a_frame_is_a_record(void **state)
{
    struct rig *r = *state;
    const size_t frame = 12 + 40 + 1152, over = 22;
    uint64_t before;

    rig_open(r);
    before = link_sent_bytes(r->dialler.link);
    rig_send(r->dialler.link, 0, 1152);
    RIG_UNTIL(r, r->acceptor.n[RIG_FRAME] == 1);
#ifdef LINGUA_BENCH_PLAINTEXT
    assert_int_equal(link_sent_bytes(r->dialler.link) - before, frame);
    (void)over;
#else
    assert_int_equal(link_sent_bytes(r->dialler.link) - before, frame + over);
    /* 1 MiB is 65 records, the last of them with what heads and headers add. */
    before = link_sent_bytes(r->dialler.link);
    rig_send(r->dialler.link, 1, 1 << 20);
    RIG_UNTIL(r, r->acceptor.n[RIG_FRAME] == 2);
    assert_int_equal(link_sent_bytes(r->dialler.link) - before, (1 << 20) + 52 + 65 * over);
#endif
}

static void bytes_in_a_row(void **state)
{
    struct rig *r = *state;
    uint8_t bytes[12 + 4] = {12, 0, 0, 0, FRAME_PING, 0, 0, 0, 2, 0, 0, 0, 8, 1, 0, 0};

    rig_open(r);
    link_send_bytes(r->dialler.link, bytes, sizeof bytes);
    RIG_UNTIL(r, r->acceptor.n[RIG_FRAME] == 1);
    assert_int_equal(r->acceptor.type, FRAME_PING);
}

static void a_frame_out_of_place_ends_it(void **state)
{
    /* ROSTER has no place on a stage's link; the second is longer than any PING. */
    static const uint8_t bad[][12] = {
        {8, 0, 0, 0, FRAME_ROSTER}, {0, 0, 1, 0, FRAME_PING},       {8, 0, 0, 0, FRAME_GREET},
        {8, 0, 0, 0, 0xff, 0xff},   {8, 0, 0, 0, FRAME_PING, 0, 1},
    };

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct rig *r = rig_new(NULL, NULL);

        rig_open(r);
        link_send_bytes(r->dialler.link, bad[i], sizeof bad[i]);
        RIG_UNTIL(r, r->acceptor.n[RIG_CLOSED]);
        assert_int_equal(r->acceptor.err, i == 1 ? ERR_LIMIT : ERR_PROTO);
        assert_int_equal(r->acceptor.n[RIG_FRAME], 0);
        RIG_UNTIL(r, r->dialler.n[RIG_CLOSED]);
        assert_int_equal(r->dialler.err, ERR_GONE);
        rig_free(r);
    }
}

/* A gigabyte is promised and not sent: memory is spent on what came alone. */
static void promises_cost_nothing(void **state)
{
    struct rig *r = *state;
    uint8_t head[12] = {0, 0, 0, 0x3f, FRAME_STEP, 0, 0, 0, 4, 0, 0, 0};
    struct mallinfo2 before;

    rig_open(r);
    before = mallinfo2();
    link_send_bytes(r->dialler.link, head, sizeof head);
    rig_settle(r, 30);
    assert_int_equal(r->acceptor.n[RIG_CLOSED], 0);
    assert_true(mallinfo2().hblkhd + mallinfo2().uordblks <
                before.hblkhd + before.uordblks + (1 << 20));
}

static void bulk_works_too(void **state)
{
    struct rig *r = *state;

    rig_open(r);
    link_set_bulk(r->dialler.link);
    link_set_bulk(r->acceptor.link);
    for (int i = 0; i < 20; i++)
        rig_send(r->dialler.link, (uint64_t)i, 128 << 10);
    RIG_UNTIL(r, r->acceptor.n[RIG_FRAME] == 20);
    assert_false(r->acceptor.wrong);
}

/* ---- ending ---- */

static void closing_is_told_to_the_other(void **state)
{
    struct rig *r = *state;

    rig_open(r);
    link_close(r->dialler.link);
    RIG_UNTIL(r, r->acceptor.n[RIG_CLOSED]);
    assert_int_equal(r->acceptor.err, ERR_GONE);
    SAYS(r->acceptor.why, "closed the link");
    assert_int_equal(r->dialler.n[RIG_CLOSED], 0);
    assert_int_equal(r->n_lines, 0);
}

static void an_open_link_may_be_refused(void **state)
{
    struct rig *r = *state;

    rig_open(r);
    link_refuse(r->dialler.link, ERR_CANCELLED, "I serve another head now");
    RIG_UNTIL(r, r->acceptor.n[RIG_CLOSED]);
    assert_int_equal(r->acceptor.err, ERR_CANCELLED);
    SAYS(r->acceptor.why, "another head");
    assert_int_equal(r->acceptor.n[RIG_FRAME] + r->dialler.n[RIG_CLOSED], 0);
}

static void last_words_arrive(void **state)
{
    struct rig *r = *state;

    rig_open(r);
    for (int i = 0; i < 30; i++)
        rig_send(r->dialler.link, (uint64_t)i, 1 << 20);
    rig_send(r->acceptor.link, 0, 100); /* which nobody will read */
    link_close_after_sending(r->dialler.link);
    RIG_UNTIL(r, r->acceptor.n[RIG_CLOSED]);
    assert_int_equal(r->acceptor.n[RIG_FRAME], 30);
    assert_false(r->acceptor.wrong);
    assert_int_equal(r->dialler.n[RIG_CLOSED] + r->dialler.n[RIG_FRAME], 0);
}

static void cut(void **state)
{
    struct rig *r = *state;

    rig_open(r);
    assert_int_equal(hub_cut(r->hub[1], identity_key(r->id[1]), "x"), 0);
    assert_int_equal(hub_cut(r->hub[1], identity_key(r->id[0]), "it was revoked"), 1);
    assert_int_equal(r->acceptor.n[RIG_CLOSED], 0); /* not from within the call */
    assert_false(link_is_open(r->acceptor.link));
    rig_send(r->dialler.link, 0, 10);
    rig_send(r->acceptor.link, 0, 10); /* goes nowhere */
    RIG_UNTIL(r, r->acceptor.n[RIG_CLOSED] && r->dialler.n[RIG_CLOSED]);
    SAYS(r->acceptor.why, "it was revoked");
    assert_int_equal(r->acceptor.n[RIG_FRAME] + r->dialler.n[RIG_FRAME], 0);
    assert_int_equal(hub_cut(r->hub[1], identity_key(r->id[0]), "again"), 0);
}

/* ---- nobody ---- */

static void nobody_there(void **state)
{
    struct rig *r = *state;
    char address[64];
    struct dial_opts o = {.address = address};
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof here;
    int fd = socket(AF_INET, SOCK_STREAM, 0); /* bound and not listening: nobody else takes it */

    assert_int_equal(bind(fd, (struct sockaddr *)&here, sizeof here), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&here, &len), 0);
    snprintf(address, sizeof address, "127.0.0.1:%d", ntohs(here.sin_port));
    rig_dial(r, &o);
    expect_failure(r, ERR_GONE, "Connection refused");
    SAYS(r->dialler.why, address);
    close(fd);
}

static void bad_addresses(void **state)
{
    static const char *const bad[] = {
        "", ":", "127.0.0.1:99999", "[::1", "127.0.0.1:x", ":7333", "127.0.0.1:0"};

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct rig *r = rig_new(NULL, NULL);
        struct dial_opts o = {.address = bad[i]};

        rig_dial(r, &o);
        expect_failure(r, ERR_INPUT, bad[i]);
        rig_free(r);
    }
}

/* A listener whose queue is full answers no SYN: what a switched-off device looks like. */
static void black_hole(void **state)
{
    struct hub_opts quick = {.dial_timeout_ms = 150};
    struct rig *r = rig_new(&quick, NULL);
    char address[64];
    struct dial_opts o = {.address = address};
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof here;
    int fd = socket(AF_INET, SOCK_STREAM, 0), filler[4];

    assert_int_equal(bind(fd, (struct sockaddr *)&here, sizeof here), 0);
    assert_int_equal(listen(fd, 0), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&here, &len), 0);
    for (int i = 0; i < 4; i++) {
        filler[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(filler[i], (struct sockaddr *)&here, sizeof here);
    }
    snprintf(address, sizeof address, "127.0.0.1:%d", ntohs(here.sin_port));
    rig_dial(r, &o);
    expect_failure(r, ERR_GONE, "does not answer");
    for (int i = 0; i < 4; i++)
        close(filler[i]);
    close(fd);
    rig_free(r);
}

/* Someone listens and says nothing. */
static void mute_listener(void **state)
{
    struct hub_opts quick = {.greet_timeout_ms = 150};
    struct rig *r = rig_new(&quick, NULL);
    char address[64];
    struct dial_opts o = {.address = address};
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof here;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&here, sizeof here), 0);
    assert_int_equal(listen(fd, 5), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&here, &len), 0);
    snprintf(address, sizeof address, "127.0.0.1:%d", ntohs(here.sin_port));
    rig_dial(r, &o);
    expect_failure(r, ERR_GONE, "did not say");
    close(fd);
    rig_free(r);
}

static void unknown_name(void **state)
{
    struct hub_opts quick = {.dial_timeout_ms = 300};
    struct rig *r = rig_new(&quick, NULL);
    struct dial_opts o = {.address = "no-such-device.invalid:7333"};

    rig_dial(r, &o);
    RIG_UNTIL(r, r->dialler.n[RIG_CLOSED]);
    assert_int_equal(r->dialler.err, ERR_GONE);
    SAYS(r->dialler.why, "no-such-device.invalid");
    rig_free(r);
    /* Closing everything while the question is out. */
    r = rig_new(NULL, NULL);
    rig_dial(r, &o);
    rig_free(r);
}

static void listening_goes_wrong(void **state)
{
    struct rig *r = *state;
    int port;

    assert_int_equal(hub_listen(r->hub[1], r->address, 0, &port, &et), ERR_FILE);
    SAYS(et.text, "taken");
    SAYS(et.text, "another port");
    assert_int_equal(hub_listen(r->hub[1], "192.0.2.1", 0, &port, &et), ERR_FILE);
    SAYS(et.text, "192.0.2.1");
    assert_int_equal(hub_listen(r->hub[1], "desk.example", 0, &port, &et), ERR_INPUT);
    assert_int_equal(hub_listen(r->hub[1], "127.0.0.1:70000", 0, &port, &et), ERR_INPUT);
    assert_int_equal(hub_listen(r->hub[1], "localhost:0", 9, &port, &et), ERR_NONE);
    assert_true(port > 0 && port != 9);
}

/* ---- a command on this machine ---- */

static void send_admin(struct link *l, size_t len)
{
    static char text[WIRE_ADMIN_MAX];
    struct wire_admin m = {.number = 1, .json = text, .len = len};
    struct wire_buf buf;
    struct frame_out out;

    memset(text, ' ', sizeof text);
    wire_admin_encode(&m, &buf, &out);
    link_send(l, &out);
}

static void local_link(void **state)
{
    struct rig *r = *state;
    int fd[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    r->dialler.link = hub_adopt_local(r->hub[0], fd[0], &rig_calls, &r->dialler);
    r->acceptor.link = hub_adopt_local(r->hub[1], fd[1], &rig_calls, &r->acceptor);
    assert_true(link_is_open(r->dialler.link));
    assert_non_null(link_security(r->dialler.link));
    for (int i = 0; i < 10; i++)
        send_admin(r->dialler.link, (size_t)i * 100001 + 2);
    send_admin(r->acceptor.link, 2);
    RIG_UNTIL(r, r->acceptor.n[RIG_FRAME] == 10 && r->dialler.n[RIG_FRAME] == 1);
    assert_int_equal(r->acceptor.payload_bytes, 45 * 100001 + 20);
    assert_int_equal(link_sent_bytes(r->dialler.link), link_received_bytes(r->acceptor.link));
    assert_int_equal(hub_cut(r->hub[1], link_peer(r->acceptor.link), "x"), 0);
    link_close(r->dialler.link);
    RIG_UNTIL(r, r->acceptor.n[RIG_CLOSED]);
    assert_int_equal(r->n_lines, 0);
}

/* The far end takes nothing: what is kept is bounded; and when it takes again, we hear of it. */
static void what_is_kept_is_bounded(void **state)
{
    struct rig *r = *state;
    static char sink[1 << 20];
    int fd[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    r->dialler.link = hub_adopt_local(r->hub[0], fd[0], &rig_calls, &r->dialler);
    for (int i = 0; i < 10; i++)
        send_admin(r->dialler.link, WIRE_ADMIN_MAX);
    rig_settle(r, 5);
    assert_int_equal(r->dialler.n[RIG_DRAINED], 0);
    while (link_pending(r->dialler.link) >= LINK_KEPT_MAX / 2) {
        assert_int_equal(r->dialler.n[RIG_DRAINED], 0);
        assert_true(read(fd[1], sink, sizeof sink) > 0);
        rig_settle(r, 0);
    }
    RIG_UNTIL(r, r->dialler.n[RIG_DRAINED] == 1);
    while (link_is_open(r->dialler.link)) {
        assert_true(link_pending(r->dialler.link) <
                    LINK_KEPT_MAX + 2 * wire_frame_max(FRAME_ADMIN));
        send_admin(r->dialler.link, WIRE_ADMIN_MAX);
    }
    RIG_UNTIL(r, r->dialler.n[RIG_CLOSED]);
    assert_int_equal(r->dialler.err, ERR_LIMIT);
    assert_int_equal(r->dialler.n[RIG_DRAINED], 1);
    close(fd[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(opens),
        TEST(over_ipv6_and_all_interfaces),
        TEST(by_name),
        TEST(with_a_token),
        TEST(someone_else),
        TEST(someone_elses_token),
        TEST(refused),
        TEST(refused_later),
        TEST(left_while_judged),
        TEST(versions_agree_or_part),
        TEST(many_frames_of_all_sizes),
        TEST(huge_frames_both_ways),
        TEST(a_frame_is_a_record),
        TEST(bytes_in_a_row),
        TEST(a_frame_out_of_place_ends_it),
        TEST(promises_cost_nothing),
        TEST(bulk_works_too),
        TEST(closing_is_told_to_the_other),
        TEST(an_open_link_may_be_refused),
        TEST(last_words_arrive),
        TEST(cut),
        TEST(nobody_there),
        TEST(bad_addresses),
        TEST(black_hole),
        TEST(mute_listener),
        TEST(unknown_name),
        TEST(listening_goes_wrong),
        TEST(local_link),
        TEST(what_is_kept_is_bounded),
    };

    cmocka_set_test_filter(getenv("LINK_TEST")); /* one test alone, when looking into it */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
