/* Who knocks and is not let in: each is refused with one line that says who and why, and what they
 * cost is bounded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/socket.h>
#include <unistd.h>

#include "link_rig.h"

/* The address sanitizer holds on to what was freed; but it sees itself what is never freed. */
#ifdef __SANITIZE_ADDRESS__
#define MEMORY_IS_KEPT_BACK true
#elif defined(__has_feature)
#define MEMORY_IS_KEPT_BACK __has_feature(address_sanitizer)
#else
#define MEMORY_IS_KEPT_BACK false
#endif

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

/* ---- strangers without TLS ---- */

static int knock(const struct rig *r, char who[64])
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, me;
    socklen_t len = sizeof me;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    to.sin_port = htons((uint16_t)r->port);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&me, &len), 0);
    if (who)
        snprintf(who, 64, "127.0.0.1:%d", ntohs(me.sin_port));
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

/* The other side has closed. */
static bool over(int fd)
{
    char sink[4096];
    ssize_t n;

    do
        n = recv(fd, sink, sizeof sink, MSG_DONTWAIT);
    while (n > 0);
    return n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
}

static void expect_line(struct rig *r, const char *who, const char *why)
{
    RIG_UNTIL(r, r->n_lines >= 1);
    rig_settle(r, 20);
    assert_int_equal(r->n_lines, 1);
    if (!strstr(r->line[0], why) || !strstr(r->line[0], who))
        fail_msg("\"%s\" names not both \"%s\" and \"%s\"", r->line[0], who, why);
    assert_int_equal(r->acceptor.n[RIG_GREETED] + r->acceptor.n[RIG_CLOSED], 0);
}

static void says(struct rig *r, const void *bytes, size_t len, const char *why)
{
    char who[64];
    int fd = knock(r, who);

    assert_int_equal(send(fd, bytes, len, MSG_NOSIGNAL), len);
    expect_line(r, who, why);
    RIG_UNTIL(r, over(fd));
    close(fd);
}

static void plain_http(void **state)
{
    static const char get[] = "GET / HTTP/1.1\r\nHost: desk\r\n\r\n";

    says(*state, get, sizeof get - 1, "plain HTTP");
}

static void a_frame_without_tls(void **state)
{
    static const uint8_t greet[64] = {60, 0, 0, 0, FRAME_GREET, 0, 0, 0, 40};

    says(*state, greet, sizeof greet, "refused");
}

static void random_bytes(void **state)
{
    uint32_t seed = 12345;

    for (int round = 0; round < 60; round++) {
        struct rig *r = rig_new(NULL, NULL);
        uint8_t bytes[3000];
        size_t len = 5 + seed % 2900;

        for (size_t i = 0; i < sizeof bytes; i++) {
            seed = seed * 1664525 + 1013904223;
            bytes[i] = (uint8_t)(seed >> 24);
        }
        if (round % 3 == 0) { /* as if it were a handshake */
            bytes[0] = 22;
            bytes[1] = 3;
            bytes[2] = (uint8_t)(round % 5);
            bytes[3] = (uint8_t)(round % 2);
            bytes[5] = 1;
        }
        int fd = knock(r, NULL);

        assert_int_equal(send(fd, bytes, len, MSG_NOSIGNAL), len);
        shutdown(fd, SHUT_WR);
        RIG_UNTIL(r, r->n_lines == 1 && over(fd));
        assert_non_null(strstr(r->line[0], "refused 127.0.0.1:"));
        close(fd);
        rig_free(r);
    }
}

static void comes_and_goes(void **state)
{
    struct rig *r = *state;
    char who[64];

    close(knock(r, who));
    expect_line(r, who, "refused");
}

static void says_nothing(void **state)
{
    struct hub_opts quick = {.greet_timeout_ms = 120};
    struct rig *r = rig_new(NULL, &quick);
    char who[64];
    int fd = knock(r, who);

    expect_line(r, who, "did not say who it is");
    RIG_UNTIL(r, over(fd));
    close(fd);
    rig_free(r);
}

/* ---- strangers with TLS ---- */

struct client {
    int fd;
    SSL_CTX *ctx;
    SSL *ssl;
    char who[64];
    bool finished, failed;
    char alert[128];
};

static void client_init(struct client *c, const struct identity *id)
{
    memset(c, 0, sizeof *c);
    c->fd = -1;
    c->ctx = SSL_CTX_new(TLS_client_method());
    if (id) {
        SSL_CTX_use_certificate(c->ctx, identity_certificate(id));
        SSL_CTX_use_PrivateKey(c->ctx, identity_private_key(id));
    }
}

static void client_connect(struct client *c, struct rig *r, SSL_SESSION *session)
{
    c->fd = knock(r, c->who);
    c->ssl = SSL_new(c->ctx);
    SSL_set_fd(c->ssl, c->fd);
    if (session)
        SSL_set_session(c->ssl, session);
    SSL_set_connect_state(c->ssl);
    c->finished = c->failed = false;
}

static bool client_step(struct client *c, int result)
{
    int e = SSL_get_error(c->ssl, result);

    if (result > 0 || e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE)
        return result > 0;
    c->failed = true;
    if (ERR_peek_error())
        snprintf(c->alert, sizeof c->alert, "%s", ERR_reason_error_string(ERR_peek_error()));
    ERR_clear_error();
    return false;
}

static void client_shake(struct client *c, struct rig *r)
{
    RIG_UNTIL(r, (c->finished = client_step(c, SSL_do_handshake(c->ssl))) || c->failed);
}

/* Reads until something comes or the other side has closed. */
static int client_read(struct client *c, struct rig *r, void *buf, int len)
{
    int n = 0;

    RIG_UNTIL(r, client_step(c, n = SSL_read(c->ssl, buf, len)) || c->failed);
    return n > 0 ? n : 0;
}

static void client_hang_up(struct client *c)
{
    SSL_free(c->ssl);
    c->ssl = NULL;
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

static void client_fini(struct client *c)
{
    client_hang_up(c);
    SSL_CTX_free(c->ctx);
}

static void no_certificate(void **state)
{
    struct rig *r = *state;
    struct client c;
    char buf[64];

    client_init(&c, NULL);
    client_connect(&c, r, NULL);
    client_shake(&c, r);
    assert_int_equal(client_read(&c, r, buf, sizeof buf), 0);
    expect_line(r, c.who, "showed no certificate");
    assert_non_null(strstr(c.alert, "certificate required"));
    client_fini(&c);
}

/* An ECDSA certificate, as a browser or another program might have. */
static void another_kind_of_certificate(void **state)
{
    struct rig *r = *state;
    struct client c;
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    X509 *x = X509_new();
    char buf[64];

    X509_gmtime_adj(X509_getm_notBefore(x), 0);
    X509_gmtime_adj(X509_getm_notAfter(x), 1000);
    X509_set_pubkey(x, key);
    assert_true(X509_sign(x, key, EVP_sha256()) > 0);
    client_init(&c, NULL);
    assert_int_equal(SSL_CTX_use_certificate(c.ctx, x), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(c.ctx, key), 1);
    client_connect(&c, r, NULL);
    client_shake(&c, r);
    assert_int_equal(client_read(&c, r, buf, sizeof buf), 0);
    expect_line(r, c.who, "certificate");
    client_fini(&c);
    X509_free(x);
    EVP_PKEY_free(key);
}

/* An Ed25519 certificate swollen by a name of 8 KiB. */
static void a_huge_certificate(void **state)
{
    struct rig *r = *state;
    struct client c;
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    X509 *x = X509_new();
    X509_NAME *name = X509_NAME_new();
    unsigned char part[64];
    char buf[64];

    memset(part, 'x', sizeof part);
    for (int i = 0; i < 128; i++)
        X509_NAME_add_entry_by_txt(name, "OU", MBSTRING_ASC, part, sizeof part, -1, 0);
    X509_set_subject_name(x, name);
    X509_gmtime_adj(X509_getm_notBefore(x), 0);
    X509_gmtime_adj(X509_getm_notAfter(x), 1000);
    X509_set_pubkey(x, key);
    assert_true(X509_sign(x, key, NULL) > 0 && i2d_X509(x, NULL) > 8192);
    client_init(&c, NULL);
    SSL_CTX_use_certificate(c.ctx, x);
    SSL_CTX_use_PrivateKey(c.ctx, key);
    client_connect(&c, r, NULL);
    client_shake(&c, r);
    assert_int_equal(client_read(&c, r, buf, sizeof buf), 0);
    expect_line(r, c.who, "refused");
    client_fini(&c);
    X509_NAME_free(name);
    X509_free(x);
    EVP_PKEY_free(key);
}

static void old_tls(void **state)
{
    struct rig *r = *state;
    struct client c;

    client_init(&c, r->id[0]);
    SSL_CTX_set_max_proto_version(c.ctx, TLS1_2_VERSION);
    client_connect(&c, r, NULL);
    client_shake(&c, r);
    assert_true(c.failed);
    expect_line(r, c.who, "does not speak TLS 1.3");
    client_fini(&c);
}

static void judged_out(struct end *e, enum rig_call call)
{
    if (call == RIG_GREETED) {
        link_refuse(e->link, ERR_INPUT, "this device is not in the roster");
        e->link = NULL;
    }
}

static size_t greet_bytes(uint8_t *bytes)
{
    struct wire_greet m = {.version = WIRE_VERSION,
                           .version_min = WIRE_VERSION_MIN,
                           .purpose = WIRE_FOR_MEMBER,
                           .name = "x"};
    struct wire_buf buf;
    struct frame_out out;

    wire_greet_encode(&m, &buf, &out);
    frame_copy(&out, bytes);
    return out.total;
}

/* A certificate we do not know: TLS lets it in, the judge does not. */
static void unknown_certificate(void **state)
{
    struct rig *r = *state;
    struct identity *mallory = identity_new();
    struct client c;
    uint8_t bytes[512];
    struct frame f;
    struct wire_refuse no;
    struct err_text et;
    char key[KEY_ID_TEXT_MAX];
    int n;

    r->no_judge = true;
    r->acceptor.hook = judged_out;
    client_init(&c, mallory);
    client_connect(&c, r, NULL);
    client_shake(&c, r);
    assert_true(c.finished);
    assert_true(SSL_write(c.ssl, bytes, (int)greet_bytes(bytes)) > 0);
    n = client_read(&c, r, bytes, sizeof bytes);
    assert_int_equal(frame_decode(bytes, (size_t)n, &f, &et), ERR_NONE);
    assert_int_equal(wire_refuse_decode(&f, &no, &et), ERR_NONE);
    assert_int_equal(no.code, ERR_INPUT);
    assert_int_equal(client_read(&c, r, bytes, sizeof bytes), 0);
    assert_int_equal(r->n_lines, 1);
    assert_non_null(strstr(r->line[0], c.who));
    assert_non_null(strstr(r->line[0], key_id_short(identity_key(mallory), key)));
    assert_non_null(strstr(r->line[0], "not in the roster"));
    client_fini(&c);
    identity_close(mallory);
}

/* What a device with a key says instead of a good GREET. */
static void instead_of_greet(const void *bytes, size_t len, const char *why)
{
    struct rig *r = rig_new(NULL, NULL);
    struct client c;
    char buf[64];

    client_init(&c, r->id[0]);
    client_connect(&c, r, NULL);
    client_shake(&c, r);
    assert_true(c.finished);
    assert_int_equal(SSL_write(c.ssl, bytes, (int)len), len);
    assert_int_equal(client_read(&c, r, buf, sizeof buf), 0);
    expect_line(r, c.who, why);
    client_fini(&c);
    rig_free(r);
}

static void bad_greetings(void **state)
{
    static const uint8_t step[12] = {40, 0, 0, 0, FRAME_STEP},
                         large[12] = {0, 8, 0, 0, FRAME_GREET, 0, 0, 0, 12},
                         enormous[12] = {0xff, 0xff, 0xff, 0xff, FRAME_GREET},
                         welcome[12] = {8, 0, 0, 0, FRAME_WELCOME},
                         refuse[12] = {8, 0, 0, 0, FRAME_REFUSE},
                         empty[12] = {8, 0, 0, 0, FRAME_GREET},
                         rubbish[16] = {12, 0, 0, 0, FRAME_GREET, 0,    0,    0,
                                        4,  0, 0, 0, 0xff,        0xff, 0xff, 0xff};
    static uint8_t flood[60000];

    instead_of_greet(step, sizeof step, "no place");
    instead_of_greet(large, sizeof large, "more than");
    instead_of_greet(enormous, sizeof enormous, "more than");
    instead_of_greet(welcome, sizeof welcome, "greeting was due");
    instead_of_greet(refuse, sizeof refuse, "greeting was due");
    instead_of_greet(empty, sizeof empty, "greet");
    instead_of_greet(rubbish, sizeof rubbish, "make no sense");
    instead_of_greet("GET / HTTP/1.1\r\n\r\n", 18, "refused");
    memcpy(flood, enormous, sizeof enormous);
    instead_of_greet(flood, 16000, "more than");
}

/* Half a GREET, and then nothing. */
static void half_a_greeting(void **state)
{
    struct hub_opts quick = {.greet_timeout_ms = 150};
    struct rig *r = rig_new(NULL, &quick);
    struct client c;
    uint8_t bytes[512];

    client_init(&c, r->id[0]);
    client_connect(&c, r, NULL);
    client_shake(&c, r);
    assert_true(SSL_write(c.ssl, bytes, (int)greet_bytes(bytes) - 1) > 0);
    assert_int_equal(client_read(&c, r, bytes, sizeof bytes), 0);
    expect_line(r, c.who, "did not say who it is");
    client_fini(&c);
    rig_free(r);
}

static void impatient(void **state)
{
    struct rig *r = *state;
    struct client c;
    uint8_t bytes[1024];
    size_t n = greet_bytes(bytes);

    r->no_judge = true;
    memcpy(bytes + n, bytes, n);
    client_init(&c, r->id[0]);
    client_connect(&c, r, NULL);
    client_shake(&c, r);
    assert_true(SSL_write(c.ssl, bytes, (int)(2 * n)) > 0);
    RIG_UNTIL(r, r->acceptor.n[RIG_CLOSED]);
    assert_int_equal(r->acceptor.err, ERR_PROTO);
    assert_int_equal(r->acceptor.n[RIG_GREETED], 1);
    assert_int_equal(r->n_lines, 1);
    client_fini(&c);
}

/* The judge never answers. */
static void never_judged(void **state)
{
    struct hub_opts quick = {.greet_timeout_ms = 150};
    struct rig *r = rig_new(NULL, &quick);

    r->no_judge = true;
    rig_dial(r, NULL);
    RIG_UNTIL(r, r->acceptor.n[RIG_CLOSED] && r->dialler.n[RIG_CLOSED]);
    assert_int_equal(r->n_lines, 1);
    assert_non_null(strstr(r->line[0], "not judged"));
    rig_free(r);
}

/* ---- sessions ---- */

static int keep_session(SSL *ssl, SSL_SESSION *s)
{
    SSL_SESSION **kept = SSL_get_app_data(ssl);

    SSL_SESSION_free(*kept);
    *kept = s;
    return 1;
}

/* A device that was a member keeps its TLS session and tries to come back with it: it has to show
 * its key again, every time. */
static void sessions_are_not_resumed(void **state)
{
    struct rig *r = *state;
    SSL_SESSION *kept = NULL, *last;
    struct client c;
    uint8_t bytes[512];

    client_init(&c, r->id[0]);
    SSL_CTX_set_session_cache_mode(c.ctx, SSL_SESS_CACHE_CLIENT);
    SSL_CTX_sess_set_new_cb(c.ctx, keep_session);
    client_connect(&c, r, NULL);
    SSL_set_app_data(c.ssl, &kept);
    client_shake(&c, r);
    assert_true(SSL_write(c.ssl, bytes, (int)greet_bytes(bytes)) > 0);
    assert_true(client_read(&c, r, bytes, sizeof bytes) > 0);
    rig_settle(r, 20);
    (void)SSL_read(c.ssl, bytes, sizeof bytes); /* would find a ticket */
    assert_null(kept);
    last = SSL_get1_session(c.ssl);
    assert_false(SSL_SESSION_is_resumable(last));
    client_hang_up(&c);
    RIG_UNTIL(r, r->acceptor.n[RIG_CLOSED] == 1);

    client_connect(&c, r, last);
    SSL_set_app_data(c.ssl, &kept);
    client_shake(&c, r);
    assert_true(c.finished);
    assert_int_equal(SSL_session_reused(c.ssl), 0);
    assert_true(SSL_write(c.ssl, bytes, (int)greet_bytes(bytes)) > 0);
    assert_true(client_read(&c, r, bytes, sizeof bytes) > 0);
    assert_int_equal(r->acceptor.n[RIG_GREETED], 2);
    assert_true(key_id_equal(link_peer(r->acceptor.link), identity_key(r->id[0])));
    SSL_SESSION_free(last);
    client_fini(&c);
    RIG_UNTIL(r, r->acceptor.n[RIG_CLOSED] == 2);
}

/* ---- crowds ---- */

/* A thousand connections that say nothing, while two devices talk. */
static void a_thousand_half_open(void **state)
{
    enum { N = 1000 };
    struct rig *r = *state;
    uint64_t before;
    int fd[N], closed = 0, frames = 0;

    rig_open(r);
    rig_settle(r, 20);
    before = sys_resident_bytes();
    for (int i = 0; i < N; i++) {
        fd[i] = knock(r, NULL);
        if (i % 50 == 0) {
            rig_send(r->dialler.link, (uint64_t)frames++, 5000);
            rig_settle(r, 2);
        }
    }
    RIG_UNTIL(r, r->n_lines == N - STRANGERS_MAX && r->acceptor.n[RIG_FRAME] == frames);
    assert_false(r->acceptor.wrong);
    for (int i = 0; i < N; i++)
        closed += over(fd[i]);
    assert_int_equal(closed, N - STRANGERS_MAX);
    assert_non_null(strstr(r->line[0], "turned away 127.0.0.1:"));
    /* 64 strangers at about 50 KiB, and the sockets of this process itself. */
    assert_true(MEMORY_IS_KEPT_BACK || sys_resident_bytes() < before + (16 << 20));
    /* The place of one that gives up is free for the next. */
    for (int i = 0; i < N; i++)
        close(fd[i]);
    RIG_UNTIL(r, r->n_lines == N);
    link_close(r->dialler.link);
    RIG_UNTIL(r, r->acceptor.n[RIG_CLOSED]);
    r->dialler.n[RIG_OPENED] = 0;
    rig_dial(r, NULL);
    RIG_UNTIL(r, r->dialler.n[RIG_OPENED]);
}

/* Two waves of strangers cost no more than one: nothing of the first is left. */
static void strangers_leave_nothing_behind(void **state)
{
    struct rig *r = *state;
    uint64_t after[5];

    for (int wave = 0; wave < 5; wave++) {
        int fd[STRANGERS_MAX];

        for (int i = 0; i < STRANGERS_MAX; i++)
            fd[i] = knock(r, NULL);
        rig_settle(r, 10);
        for (int i = 0; i < STRANGERS_MAX; i++)
            close(fd[i]);
        RIG_UNTIL(r, r->n_lines == (wave + 1) * STRANGERS_MAX);
        rig_settle(r, 10);
        after[wave] = sys_resident_bytes();
    }
    assert_true(MEMORY_IS_KEPT_BACK || after[4] < after[1] + (1 << 20));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(plain_http),
        TEST(a_frame_without_tls),
        cmocka_unit_test(random_bytes),
        TEST(comes_and_goes),
        cmocka_unit_test(says_nothing),
        TEST(no_certificate),
        TEST(another_kind_of_certificate),
        TEST(a_huge_certificate),
        TEST(old_tls),
        TEST(unknown_certificate),
        cmocka_unit_test(bad_greetings),
        cmocka_unit_test(half_a_greeting),
        TEST(impatient),
        cmocka_unit_test(never_judged),
        TEST(sessions_are_not_resumed),
        TEST(a_thousand_half_open),
        TEST(strangers_leave_nothing_behind),
    };

    cmocka_set_test_filter(getenv("LINK_TEST")); /* one test alone, when looking into it */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
