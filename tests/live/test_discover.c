/* Heads are found: over the loopback of a network namespace, and between two namespaces joined by a
 * cable (a veth pair). Needs root for that; skips without. What goes over the cable is recorded and
 * held against the bytes that may. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <event2/event.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "link/discover.h"
#include "link/mdns.h"

enum { PATIENCE_S = 20 };

struct seen {
    struct event_base *base;
    struct discover *browser;
    int n, wanted;
    bool close_at_once;
    char name[4][MDNS_NAME_MAX], address[4][32];
};

static void found(void *user, const struct found *f)
{
    struct seen *s = user;

    print_message("found %s at %s\n", f->name, f->address);
    assert_in_range(s->n, 0, 3);
    snprintf(s->name[s->n], sizeof s->name[0], "%s", f->name);
    snprintf(s->address[s->n++], sizeof s->address[0], "%s", f->address);
    if (s->n < s->wanted)
        return;
    if (s->close_at_once) {
        discover_close(s->browser);
        s->browser = NULL;
    }
    event_base_loopbreak(s->base);
}

static void run(struct event_base *base, int seconds)
{
    event_base_loopexit(base, &(struct timeval){seconds, 0});
    event_base_dispatch(base);
}

static struct discover *announced(struct event_base *base, const char *name, int port)
{
    struct discover *d;
    struct err_text et;

    assert_int_equal(discover_announce(base, name, port, NULL, &d, &et), ERR_NONE);
    return d;
}

static void browse(struct seen *s)
{
    struct err_text et;

    assert_int_equal(discover_browse(s->base, found, s, &s->browser, &et), ERR_NONE);
}

static void sh(const char *fmt, ...)
{
    char command[256];
    va_list args;

    va_start(args, fmt);
    vsnprintf(command, sizeof command, fmt, args);
    va_end(args);
    if (system(command) != 0)
        fail_msg("%s", command);
}

static void own_network(void)
{
    if (unshare(CLONE_NEWNET) < 0) {
        print_message("SKIPPED: a network of our own needs root\n");
        skip();
    }
}

static void bad_words_are_refused(void **state)
{
    struct event_base *base = event_base_new();
    struct discover *d;
    struct err_text et;

    assert_int_equal(discover_announce(base, "", 1, NULL, &d, &et), ERR_INPUT);
    assert_int_equal(discover_announce(base, "a\033b", 1, NULL, &d, &et), ERR_INPUT);
    assert_int_equal(discover_announce(base, "a", 0, NULL, &d, &et), ERR_INPUT);
    assert_int_equal(discover_announce(base, "a", 65536, NULL, &d, &et), ERR_INPUT);
    assert_null(d);
    discover_close(NULL);
    event_base_free(base);
}

/* Not even a loopback: nothing happens, and nothing is said. */
static void without_a_network_nobody_is_found(void **state)
{
    struct event_base *base = event_base_new();
    struct seen s = {.base = base, .wanted = 1};
    struct discover *d;

    own_network();
    d = announced(base, "alone", 7333);
    browse(&s);
    run(base, 1);
    assert_int_equal(s.n, 0);
    discover_close(d);
    discover_close(s.browser);
    event_base_free(base);
}

static void two_meet_on_a_loopback(void **state)
{
    struct event_base *base = event_base_new();
    struct seen s = {.base = base, .wanted = 2}, late = {.base = base, .wanted = 2};
    struct discover *attic, *cellar;

    own_network();
    sh("ip link set lo up");
    browse(&s);
    attic = announced(base, "Attic", 7333);
    cellar = announced(base, "Cellar", 7444);
    run(base, PATIENCE_S);
    assert_int_equal(s.n, 2);
    assert_string_not_equal(s.name[0], s.name[1]);
    for (int i = 0; i < 2; i++)
        assert_string_equal(s.address[i],
                            strcmp(s.name[i], "Attic") == 0 ? "127.0.0.1:7333" : "127.0.0.1:7444");
    /* Who comes later asks, and may close from within the call. */
    late.close_at_once = true;
    browse(&late);
    run(base, PATIENCE_S);
    assert_int_equal(late.n, 2);
    assert_null(late.browser);
    /* A known head is not told again, unless it moves. */
    run(base, 2);
    assert_int_equal(s.n, 2);
    discover_close(attic);
    attic = announced(base, "Attic", 7555);
    s.wanted = 3;
    run(base, PATIENCE_S);
    assert_int_equal(s.n, 3);
    assert_string_equal(s.name[2], "Attic");
    assert_string_equal(s.address[2], "127.0.0.1:7555");
    discover_close(attic);
    discover_close(cellar);
    discover_close(s.browser);
    event_base_free(base);
}

/* wait_s lies between two heads of one name; ports decide when both start at once. */
static void namesakes(int wait_s)
{
    struct event_base *base = event_base_new();
    struct seen s = {.base = base, .wanted = 2};
    struct discover *a, *b;

    own_network();
    sh("ip link set lo up");
    a = announced(base, "Attic", 7444);
    if (wait_s)
        run(base, wait_s);
    b = announced(base, "Attic", 7333);
    run(base, 3);
    browse(&s);
    run(base, PATIENCE_S);
    assert_int_equal(s.n, 2);
    for (int i = 0; i < 2; i++)
        assert_string_equal(s.name[i], strstr(s.address[i], ":7444") ? "Attic" : "Attic (2)");
    discover_close(a);
    discover_close(b);
    discover_close(s.browser);
    event_base_free(base);
}

static void a_namesake_takes_another_name(void **state)
{
    namesakes(1);
    namesakes(0);
}

/* A process in a namespace of its own that announces until it is told to stop. */
static pid_t head_start(int *go)
{
    int started[2], may_go[2];
    char c = 0;
    pid_t pid;

    assert_int_equal(pipe(started), 0);
    assert_int_equal(pipe(may_go), 0);
    pid = fork();
    if (pid == 0) {
        struct event_base *base = event_base_new();
        struct discover *d;
        struct err_text et;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (unshare(CLONE_NEWNET) < 0 || write(started[1], &c, 1) != 1 ||
            read(may_go[0], &c, 1) != 1 ||
            system("ip link set lo up; ip addr add 10.1.2.3/24 dev vb; ip link set vb up") != 0 ||
            discover_announce(base,
                              "K\xc3\xbc"
                              "che",
                              7333, NULL, &d, &et))
            _exit(1);
        run(base, PATIENCE_S);
        discover_close(d);
        _exit(0);
    }
    assert_true(pid > 0);
    assert_int_equal(read(started[0], &c, 1), 1);
    *go = may_go[1];
    return pid;
}

/* UDP to port 5353 out of an Ethernet frame; NULL for other things. */
static const uint8_t *mdns_of(const uint8_t *frame, size_t *len)
{
    const uint8_t *ip = frame + 14, *udp;

    if (*len < 14 + 28 || frame[12] != 8 || frame[13] != 0 || ip[9] != 17)
        return NULL;
    udp = ip + (ip[0] & 15) * 4;
    assert_int_equal(ip[8], 255);
    assert_memory_equal(ip + 16, "\340\0\0\373", 4);
    assert_memory_equal(udp, "\x14\xe9\x14\xe9", 4);
    *len -= (size_t)(udp + 8 - frame);
    return udp + 8;
}

static void over_a_cable_only_name_port_and_version(void **state)
{
    struct event_base *base = event_base_new();
    struct seen s = {.base = base, .wanted = 1};
    struct mdns_head head = {"K\xc3\xbc"
                             "che",
                             0x0a010203, 7333, MDNS_TTL_S};
    struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP)};
    uint8_t frame[2048], head_bytes[MDNS_SENT_MAX], query_bytes[MDNS_SENT_MAX];
    size_t head_len = mdns_write_head(head_bytes, &head), query_len = mdns_write_query(query_bytes);
    int tap, go, n_heads = 0, n_queries = 0;
    ssize_t n;
    pid_t pid;

    own_network();
    pid = head_start(&go);
    sh("ip link set lo up && ip link add va type veth peer name vb netns %d && "
       "ip addr add 10.1.2.4/24 dev va && ip link set va up",
       pid);
    tap = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(ETH_P_IP));
    at.sll_ifindex = (int)if_nametoindex("va");
    assert_int_equal(bind(tap, (struct sockaddr *)&at, sizeof at), 0);
    browse(&s);
    assert_int_equal(write(go, "", 1), 1);
    run(base, PATIENCE_S);
    assert_int_equal(s.n, 1);
    assert_string_equal(s.name[0], head.name);
    assert_string_equal(s.address[0], "10.1.2.3:7333");
    while ((n = recv(tap, frame, sizeof frame, 0)) > 0) {
        size_t len = (size_t)n;
        const uint8_t *said = mdns_of(frame, &len);

        if (!said)
            continue;
        if (len == query_len && memcmp(said, query_bytes, len) == 0)
            n_queries++;
        else if (len == head_len && memcmp(said, head_bytes, len) == 0)
            n_heads++;
        else
            fail_msg("a packet of %zu bytes says something else", len);
    }
    assert_in_range(n_heads, 1, 10);
    assert_in_range(n_queries, 1, 10);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    discover_close(s.browser);
    close(tap);
    event_base_free(base);
}

/* Bytes that make no sense, and some that nearly do, do not disturb the search. */
static void noise_is_borne(void **state)
{
    struct event_base *base = event_base_new();
    struct seen s = {.base = base, .wanted = 1};
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_port = htons(MDNS_PORT)};
    struct sockaddr_in group = {
        .sin_family = AF_INET, .sin_port = htons(MDNS_PORT), .sin_addr.s_addr = htonl(MDNS_GROUP)};
    struct mdns_head head = {"Attic", 0x7f000001, 7333, MDNS_TTL_S};
    const int on = 1;
    struct in_addr lo = {htonl(INADDR_LOOPBACK)};
    uint8_t noise[2000];
    struct discover *d;
    int fd, other;

    own_network();
    sh("ip link set lo up");
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &lo, sizeof lo);
    assert_int_equal(bind(fd, (struct sockaddr *)&from, sizeof from), 0);
    browse(&s);
    run(base, 1);
    srand(7);
    for (int i = 0; i < 3000; i++) {
        size_t len = mdns_write_head(noise, &head);

        for (int j = 0; j < 1 + i % 40; j++)
            noise[12 + rand() % (len - 12)] ^= (uint8_t)(1 + rand() % 255);
        noise[20] ^= 0x80; /* no service of ours, whatever else came out */
        noise[50] = 0xc0;
        len = i % 3 ? len : (size_t)rand() % sizeof noise;
        (void)!sendto(fd, noise, len, 0, (struct sockaddr *)&group, sizeof group);
        if (i % 100 == 0)
            event_base_loop(base, EVLOOP_NONBLOCK);
    }
    /* A good packet from another port than 5353 is not mDNS. */
    other = socket(AF_INET, SOCK_DGRAM, 0);
    setsockopt(other, IPPROTO_IP, IP_MULTICAST_IF, &lo, sizeof lo);
    (void)!sendto(other, noise, mdns_write_head(noise, &head), 0, (struct sockaddr *)&group,
                  sizeof group);
    run(base, 1);
    assert_int_equal(s.n, 0);
    d = announced(base, "Cellar", 7444);
    run(base, PATIENCE_S);
    assert_int_equal(s.n, 1);
    assert_string_equal(s.name[0], "Cellar");
    discover_close(d);
    discover_close(s.browser);
    close(fd);
    close(other);
    event_base_free(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_words_are_refused),
        cmocka_unit_test(without_a_network_nobody_is_found),
        cmocka_unit_test(two_meet_on_a_loopback),
        cmocka_unit_test(a_namesake_takes_another_name),
        cmocka_unit_test(over_a_cable_only_name_port_and_version),
        cmocka_unit_test(noise_is_borne),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
