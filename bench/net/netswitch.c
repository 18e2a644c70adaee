/* lingua-netswitch: an Ethernet switch in user space, for kernels without sch_netem. It makes N
 * network namespaces, each with a loopback and one TAP device at 10.77.0.(i+1)/24, and carries
 * frames between them with the delay, jitter, loss and rate it was told; devices can be cut off and
 * put back while it runs. bench/net/cluster-net is the handy way to use it.
 *
 *     lingua-netswitch N [--control FIFO] [--owner PID] [--COMMAND VALUE]...
 *
 * Commands, one a line, into the FIFO, or (those with one value) as options; P, A, B are ports from
 * 0, and where a P may be left out all ports are meant:
 *
 *     delay [P] MS     how long frames from P are on their way
 *     jitter [P] MS    up to this much more, evenly spread; frames of a port keep their order
 *     loss [P] PERCENT of the frames from P
 *     rate [P] MBIT    of P's line, in each direction; 0: no limit
 *     air MBIT         all share one medium: one frame at a time, at this rate; 0: not
 *     cut P, join P    nothing passes from or to P, what is on its way included
 *     block A B, unblock A B    nothing passes between the two
 *
 * Namespaces and devices live as long as this process holds them (descriptor NS_FD + i is the i-th
 * namespace), so there is nothing to clean up, however it ends. It ends on SIGTERM, SIGINT, or when
 * the process --owner names does. It prints "ready" when all is in place.
 *
 * A frame's way: read from its TAP, it waits for its line (or the air), travels for the delay,
 * waits for the receiver's line, is written. One heap holds everything that waits, by time. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    PORTS_MAX = 32,
    NS_FD = 100,
    FRAME_MAX = 1600,
    FRAMES_MAX = 16384,       /* 26 MB, touched only when used; a full switch drops */
    QUEUE_NS_MAX = 200000000, /* so long may a frame wait for its line, as in a home router */
    BATCH = 64,
    STATUS_SKIP = 77,
};

struct port {
    int fd;
    uint8_t mac[6]; /* of the last frame from there */
    bool cut, blocked[PORTS_MAX];
    double delay_ms, jitter_ms, loss_percent, rate_mbit;
    int64_t up_free_ns, down_free_ns, last_ns;
};

struct frame {
    int64_t at_ns;
    uint64_t order; /* of equal times the earlier goes first */
    int from, to;
    bool through; /* it has its turn on the receiver's line */
    size_t len;
    uint8_t bytes[FRAME_MAX];
};

struct net {
    int n;
    struct port ports[PORTS_MAX];
    double air_mbit;
    int64_t air_free_ns;
    struct frame *heap[FRAMES_MAX], *spare[FRAMES_MAX];
    int n_heap, n_spare;
    uint64_t order, random;
    int control, owner;
    char line[128];
    size_t line_len;
};

static volatile sig_atomic_t stop;

static void on_signal(int sig)
{
    (void)sig;
    stop = 1;
}

static void die(const char *what)
{
    fprintf(stderr, "lingua-netswitch: %s: %s\n", what, strerror(errno));
    exit(errno == EPERM || errno == EACCES || errno == ENOENT ? STATUS_SKIP : 1);
}

static int64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* 0 to 1, the same row in every run (xorshift64*). */
static double chance(struct net *net)
{
    net->random ^= net->random >> 12;
    net->random ^= net->random << 25;
    net->random ^= net->random >> 27;
    return (double)(net->random * 0x2545f4914f6cdd1dULL >> 11) / 9007199254740992.0;
}

static bool earlier(const struct frame *a, const struct frame *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void heap_push(struct net *net, struct frame *f)
{
    int i = net->n_heap++;

    f->order = net->order++;
    for (; i > 0 && earlier(f, net->heap[(i - 1) / 2]); i = (i - 1) / 2)
        net->heap[i] = net->heap[(i - 1) / 2];
    net->heap[i] = f;
}

static struct frame *heap_pop(struct net *net)
{
    struct frame *first = net->heap[0], *last = net->heap[--net->n_heap];
    int i = 0;

    for (int child; (child = 2 * i + 1) < net->n_heap; i = child) {
        if (child + 1 < net->n_heap && earlier(net->heap[child + 1], net->heap[child]))
            child++;
        if (!earlier(net->heap[child], last))
            break;
        net->heap[i] = net->heap[child];
    }
    net->heap[i] = last;
    return first;
}

static bool passes(const struct net *net, int from, int to)
{
    return from != to && !net->ports[from].cut && !net->ports[to].cut &&
           !net->ports[from].blocked[to];
}

/* Takes a turn of len bytes on a line that is free from *free_ns on; when it is over. */
static int64_t line_turn(int64_t at_ns, int64_t *free_ns, double mbit, size_t len)
{
    if (mbit <= 0)
        return at_ns;
    if (*free_ns < at_ns)
        *free_ns = at_ns;
    *free_ns += (int64_t)((double)(len + 24) * 8000 / mbit); /* with preamble, CRC and gap */
    return *free_ns;
}

/* One frame from a port to another: when does it arrive? A copy goes onto the heap. */
static void carry(struct net *net, const struct frame *f, int to, int64_t at_ns)
{
    struct frame *copy;

    if (!passes(net, f->from, to) || net->n_spare == 0)
        return;
    copy = net->spare[--net->n_spare];
    memcpy(copy->bytes, f->bytes, f->len);
    copy->len = f->len;
    copy->from = f->from;
    copy->to = to;
    copy->at_ns = at_ns;
    copy->through = false;
    heap_push(net, copy);
}

static void frame_in(struct net *net, struct frame *f, int64_t at_ns)
{
    struct port *p = &net->ports[f->from];
    bool known = false;

    memcpy(p->mac, f->bytes + 6, 6);
    if (p->cut || chance(net) * 100 < p->loss_percent || p->up_free_ns - at_ns > QUEUE_NS_MAX ||
        net->air_free_ns - at_ns > QUEUE_NS_MAX)
        return;
    at_ns = line_turn(at_ns, &p->up_free_ns, p->rate_mbit, f->len);
    at_ns = line_turn(at_ns, &net->air_free_ns, net->air_mbit, f->len);
    at_ns += (int64_t)((p->delay_ms + p->jitter_ms * chance(net)) * 1e6);
    if (at_ns < p->last_ns)
        at_ns = p->last_ns;
    p->last_ns = at_ns;
    for (int to = 0; to < net->n && !known && !(f->bytes[0] & 1); to++)
        if (to != f->from && memcmp(net->ports[to].mac, f->bytes, 6) == 0) {
            known = true;
            carry(net, f, to, at_ns);
        }
    for (int to = 0; to < net->n && !known; to++)
        carry(net, f, to, at_ns);
}

/* What is due goes out, or waits for the receiver's line. */
static void frames_out(struct net *net)
{
    while (net->n_heap && net->heap[0]->at_ns <= now()) {
        struct frame *f = heap_pop(net);
        struct port *p = &net->ports[f->to];

        if (!f->through && p->rate_mbit > 0 && passes(net, f->from, f->to) &&
            p->down_free_ns - f->at_ns < QUEUE_NS_MAX) {
            f->through = true;
            f->at_ns = line_turn(f->at_ns, &p->down_free_ns, p->rate_mbit, f->len);
            heap_push(net, f);
            continue;
        }
        if ((f->through || p->rate_mbit <= 0) && passes(net, f->from, f->to))
            (void)!write(p->fd, f->bytes, f->len); /* a full receiver drops */
        net->spare[net->n_spare++] = f;
    }
}

static void port_read(struct net *net, int port)
{
    static struct frame f;

    f.from = port;
    for (int i = 0; i < BATCH; i++) {
        ssize_t n = read(net->ports[port].fd, f.bytes, sizeof f.bytes);

        if (n < 14)
            return;
        f.len = (size_t)n;
        frame_in(net, &f, now());
    }
}

static double *setting(struct port *p, const char *word)
{
    return strcmp(word, "delay") == 0    ? &p->delay_ms
           : strcmp(word, "jitter") == 0 ? &p->jitter_ms
           : strcmp(word, "loss") == 0   ? &p->loss_percent
           : strcmp(word, "rate") == 0   ? &p->rate_mbit
                                         : NULL;
}

static bool is_port(const struct net *net, double v)
{
    return v >= 0 && v < net->n && v == (int)v;
}

static bool command(struct net *net, const char *line)
{
    char word[16], rest;
    double a, b;
    int n = sscanf(line, "%15s %lf %lf %c", word, &a, &b, &rest) - 1;

    if (n < 1 || n > 2 || a < 0 || (n == 2 && b < 0))
        return false;
    if (n == 1 && strcmp(word, "air") == 0) {
        net->air_mbit = a;
        return true;
    }
    if (n == 1 && setting(&net->ports[0], word)) {
        for (int i = 0; i < net->n; i++)
            *setting(&net->ports[i], word) = a;
        return true;
    }
    if (!is_port(net, a))
        return false;
    if (n == 1 && (strcmp(word, "cut") == 0 || strcmp(word, "join") == 0)) {
        net->ports[(int)a].cut = word[0] == 'c';
        return true;
    }
    if (n == 2 && setting(&net->ports[0], word)) {
        *setting(&net->ports[(int)a], word) = b;
        return true;
    }
    if (n == 2 && is_port(net, b) && (strcmp(word, "block") == 0 || strcmp(word, "unblock") == 0)) {
        net->ports[(int)a].blocked[(int)b] = net->ports[(int)b].blocked[(int)a] = word[0] == 'b';
        return true;
    }
    return false;
}

static void control_read(struct net *net)
{
    char c;

    while (read(net->control, &c, 1) == 1) {
        if (c != '\n') {
            if (net->line_len < sizeof net->line - 1)
                net->line[net->line_len++] = c;
            continue;
        }
        net->line[net->line_len] = 0;
        if (net->line_len && !command(net, net->line))
            fprintf(stderr, "lingua-netswitch: what is \"%s\"?\n", net->line);
        net->line_len = 0;
    }
}

static void interface_up(const char *name, uint32_t address)
{
    struct ifreq r = {0};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
    int s = socket(AF_INET, SOCK_DGRAM, 0);

    snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
    memcpy(&r.ifr_addr, &in, sizeof in);
    if (s < 0 || (address && ioctl(s, SIOCSIFADDR, &r) < 0))
        die("address");
    in.sin_addr.s_addr = htonl(0xffffff00);
    memcpy(&r.ifr_netmask, &in, sizeof in);
    if (address && ioctl(s, SIOCSIFNETMASK, &r) < 0)
        die("netmask");
    if (ioctl(s, SIOCGIFFLAGS, &r) < 0)
        die("flags");
    r.ifr_flags |= IFF_UP | IFF_RUNNING;
    if (ioctl(s, SIOCSIFFLAGS, &r) < 0)
        die("up");
    close(s);
}

/* The namespace's TAP, its name and address, and the namespace itself at NS_FD + i. */
static void port_open(struct net *net, int i)
{
    struct ifreq r = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    int ns;

    if (unshare(CLONE_NEWNET) < 0)
        die("a network namespace (this needs root)");
    ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (ns < 0 || dup3(ns, NS_FD + i, O_CLOEXEC) < 0)
        die("/proc/self/ns/net");
    close(ns);
    net->ports[i].fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (net->ports[i].fd < 0)
        die("/dev/net/tun");
    snprintf(r.ifr_name, sizeof r.ifr_name, "lg%d", i);
    if (ioctl(net->ports[i].fd, TUNSETIFF, &r) < 0)
        die("TAP device");
    interface_up("lo", 0);
    interface_up(r.ifr_name, 0x0a4d0001u + (uint32_t)i);
}

static int options(struct net *net, int argc, char **argv)
{
    for (int i = 2; i < argc; i++) {
        char line[64];

        if (i + 1 == argc || strncmp(argv[i], "--", 2) != 0)
            return -1;
        if (strcmp(argv[i], "--control") == 0) {
            net->control = open(argv[++i], O_RDWR | O_NONBLOCK | O_CLOEXEC);
            if (net->control < 0)
                die(argv[i]);
        } else if (strcmp(argv[i], "--owner") == 0) {
            net->owner = (int)syscall(SYS_pidfd_open, (pid_t)atoi(argv[++i]), 0);
            if (net->owner < 0)
                die("the owner");
        } else {
            snprintf(line, sizeof line, "%s %s", argv[i] + 2, argv[i + 1]);
            i++;
            if (!command(net, line))
                return -1;
        }
    }
    return 0;
}

/* Signals come while we wait and at no other time, so that none is missed. */
static void signals_catch(sigset_t *while_waiting)
{
    struct sigaction a = {.sa_handler = on_signal};
    sigset_t both;

    sigemptyset(&both);
    sigaddset(&both, SIGTERM);
    sigaddset(&both, SIGINT);
    sigaction(SIGTERM, &a, NULL);
    sigaction(SIGINT, &a, NULL);
    sigprocmask(SIG_BLOCK, &both, while_waiting);
    sigdelset(while_waiting, SIGTERM);
    sigdelset(while_waiting, SIGINT);
}

/* poll's own slack and waiting behind busy processes would be delays nobody asked for. */
static void be_prompt(void)
{
    struct sched_param p = {.sched_priority = 1};

    prctl(PR_SET_TIMERSLACK, 1);
    (void)sched_setscheduler(0, SCHED_FIFO, &p);
}

static void serve(struct net *net, const sigset_t *while_waiting)
{
    struct pollfd fds[PORTS_MAX + 2];

    for (int i = 0; i < net->n; i++)
        fds[i] = (struct pollfd){.fd = net->ports[i].fd, .events = POLLIN};
    fds[net->n] = (struct pollfd){.fd = net->control, .events = POLLIN};
    fds[net->n + 1] = (struct pollfd){.fd = net->owner, .events = POLLIN};
    while (!stop) {
        struct timespec wait = {0, 0};
        int64_t left = net->n_heap ? net->heap[0]->at_ns - now() : 0;

        if (left > 0)
            wait = (struct timespec){left / 1000000000, left % 1000000000};
        if (ppoll(fds, (nfds_t)net->n + 2, net->n_heap ? &wait : NULL, while_waiting) < 0) {
            if (errno != EINTR)
                die("poll");
            continue;
        }
        if (fds[net->n + 1].revents)
            return;
        if (fds[net->n].revents)
            control_read(net);
        for (int i = 0; i < net->n; i++)
            if (fds[i].revents)
                port_read(net, i);
        frames_out(net);
    }
}

int main(int argc, char **argv)
{
    static struct net net = {.control = -1, .owner = -1, .random = 88172645463325252ULL};
    sigset_t while_waiting;
    struct frame *frames = calloc(FRAMES_MAX, sizeof *frames);

    /* Whoever started us may wait for the end of a pipe we know nothing of. */
    (void)syscall(SYS_close_range, 3, ~0u, 0);
    net.n = argc > 1 ? atoi(argv[1]) : 0;
    if (!frames || net.n < 1 || net.n > PORTS_MAX || options(&net, argc, argv) < 0) {
        fprintf(stderr,
                "usage: lingua-netswitch N [--control FIFO] [--owner PID] [--delay MS]\n"
                "       [--jitter MS] [--loss PERCENT] [--rate MBIT] [--air MBIT]\n"
                "N is 1 to %d; the head of bench/net/netswitch.c says the rest.\n",
                PORTS_MAX);
        return 2;
    }
    for (int i = 0; i < FRAMES_MAX; i++)
        net.spare[net.n_spare++] = &frames[i];
    signals_catch(&while_waiting);
    for (int i = 0; i < net.n; i++)
        port_open(&net, i);
    be_prompt();
    printf("ready\n");
    fclose(stdout); /* whoever waits for it need not wait for us */
    serve(&net, &while_waiting);
    free(frames);
    return 0;
}
