/* Links: frames between two devices over mutual TLS 1.3, and the door strangers knock at.
 *
 * The story of a link:
 *   1. Someone dials (hub_dial), someone listens (hub_listen). Both show their certificate; TLS
 *      proves that each has its key. Nothing else is judged yet: any certificate of an Ed25519 key
 *      passes, none does not, nor does another version than TLS 1.3.
 *   2. The dialler, which knows whom it wants (want_key, or the token's 16 bytes of it), closes at
 *      once when it got someone else. Otherwise it sends GREET.
 *   3. The other side has its `greeted` callback judge: it looks the key up in the roster, checks a
 *      pairing proof (link_exported), and calls link_welcome or link_refuse (now or later). Until
 *      then the link is a stranger's: small frames only, a deadline, and at most STRANGERS_MAX of
 *      them at once; whoever comes beyond is closed before TLS has cost anything.
 *   4. WELCOME opens the link on both sides (`opened` on the dialler's). From then on frames of the
 *      link's trust (wire/frame.h) pass; anything else closes it.
 *   5. It ends once, by `closed` with the reason, after which the link is gone. link_close ends it
 *      from this side, from any callback, without a call to closed. An accepted link that ends
 *      before `greeted` was called ends without `closed` too: nobody was told of it.
 *
 * Ending has two phases, so that any callback may close any link, its own and hub_close included:
 * a closed link says and hears nothing more from that moment, but its memory goes only when the
 * outermost call from the event loop returns. What the network or hub_cut ends is told by `closed`
 * from the event loop, never from within another call. Whoever closed a link must not use it again.
 *
 * There is no resumption, no ticket, no early data: every link is judged anew. Frames go out as one
 * piece (one TLS record each where they fit). All of a hub belongs to the thread of its event base.
 * Every refusal is one log line.
 *
 * A build with LINGUA_BENCH_PLAINTEXT (CMake) has no TLS: both sides show their certificate and
 * prove nothing. It exists to measure what TLS costs, says so in link_security, and understands no
 * other build. */
#ifndef LINGUA_LINK_LINK_H
#define LINGUA_LINK_LINK_H

#include <openssl/types.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"
#include "link/identity.h"
#include "link/token.h"
#include "wire/cluster.h"

struct event_base;
struct hub;
struct link;

enum {
    STRANGERS_MAX = 64,
    GREET_TIMEOUT_MS = 10000, /* from accept to the end of judging */
    DIAL_TIMEOUT_MS = 5000,
    LINK_KEPT_MAX = 64 << 20, /* bytes waiting to go out, the largest frame among them not counted;
                                 a link with more waiting is closed when it is given another */
    LINK_BULK_DRAINED = 512 << 10,
    ADDRESS_MAX = 128,
};

struct link_calls {
    /* Of accepted links: judge. greet borrows for the call. */
    void (*greeted)(void *user, struct link *link, const struct wire_greet *greet);
    /* Of dialled links: the other side said WELCOME. */
    void (*opened)(void *user, struct link *link, const struct wire_welcome *welcome);
    /* An open link's frame; borrows for the call. Its payload lies at a multiple of four. */
    void (*frame)(void *user, struct link *link, const struct frame *f);
    /* More than half of LINK_KEPT_MAX was waiting to go out, and now less is; of bulk links
     * LINK_BULK_DRAINED, so that what waits there can be kept small. May be NULL. */
    void (*drained)(void *user, struct link *link);
    /* The link is over; it must not be used after this call. For a dialled link that never opened,
     * e says why: ERR_GONE nobody there, ERR_INPUT someone else's key, or the refusal's own code,
     * which an open link may get as well. */
    void (*closed)(void *user, struct link *link, enum err e, const char *why);
};

struct hub_opts {
    struct event_base *base;         /* borrowed */
    const struct identity *identity; /* borrowed */
    struct log log;
    char name[WIRE_NAME_MAX]; /* said in WELCOME */
    /* For accepted links. */
    const struct link_calls *calls;
    void *user;
    /* 0: what this build speaks, and the times above. Others are for tests. */
    int version, version_min;
    int greet_timeout_ms, dial_timeout_ms;
};

/* Blocks SIGPIPE in the calling thread for good: libevent writes to sockets whose far end may have
 * gone, and a library must not set a handler. */
MUST_CHECK enum err hub_open(const struct hub_opts *opts, struct hub **out, struct err_text *et);
/* Closes every link without calling closed. */
void hub_close(struct hub *h);

/* address: "host", "host:port", "[v6]:port", "" or "*" for all interfaces; port 0 = any free one.
 * host is "localhost" or an address of this machine in numbers. *port gets the real one. ERR_INPUT;
 * ERR_FILE with the system's reason and what to do when the port is taken. */
MUST_CHECK enum err hub_listen(struct hub *h, const char *address, int port_default, int *port,
                               struct err_text *et);

struct dial_opts {
    const char *address; /* "host:port" of one address; names are resolved without blocking */
    int port_default;
    const struct key_id *want_key;  /* or NULL, and then */
    const struct token *token;      /* its 16 bytes must fit, and GREET carries the proof */
    const struct wire_greet *greet; /* what to say; version fields are filled in */
    enum wire_trust trust;          /* of the open link */
    const struct link_calls *calls;
    void *user;
};
/* Never fails at once: what goes wrong is told by closed, from the event loop. Borrows nothing. */
struct link *hub_dial(struct hub *h, const struct dial_opts *opts);

/* A link over a connected unix socket, without TLS, as WIRE_LOCAL: for commands on this machine.
 * Takes fd. It is open at once; closed and frame are called as usual. */
struct link *hub_adopt_local(struct hub *h, int fd, const struct link_calls *calls, void *user);

/* The judge's answers. trust is what the link may carry from here on. After link_refuse the link is
 * as good as closed; it serves for open links too, whose far end is told why by `closed`. */
void link_welcome(struct link *l, enum wire_trust trust, const struct link_calls *calls,
                  void *user);
void link_refuse(struct link *l, enum err code, const char *text); /* says why, then closes */

/* Sends or keeps the frame; f's pieces are free afterwards. */
void link_send(struct link *l, const struct frame_out *f);
/* The same for a whole frame's bytes. */
void link_send_bytes(struct link *l, const uint8_t *bytes, size_t len);
size_t link_pending(const struct link *l);     /* bytes that wait to go out */
void link_close(struct link *l);               /* what was sent before may be lost */
void link_close_after_sending(struct link *l); /* or when the far end stops taking it */
/* Bulk links run behind all others in the event loop, if its base has several priorities
 * (event_base_priority_init with three: the one in the middle is everybody else's). */
void link_set_bulk(struct link *l);
void *link_user(const struct link *l);

const struct key_id *link_peer(const struct link *l);
X509 *link_peer_certificate(const struct link *l);
const char *link_peer_address(const struct link *l); /* "192.168.1.7:40123" */
const char *link_security(const struct link *l);     /* "TLSv1.3 TLS_AES_128_GCM_SHA256, Ed25519" */
bool link_is_open(const struct link *l);
int link_version(const struct link *l); /* of the protocol, agreed on */
/* As they crossed the network, TLS records and handshake included; without TLS, frames. */
uint64_t link_sent_bytes(const struct link *l);
uint64_t link_received_bytes(const struct link *l);
/* Whether bytes came or went out since it was asked last. A large step on a slow link holds a PING
 * up for longer than a device may be silent, but then something moves. */
bool link_moved(struct link *l);
/* 32 bytes bound to this TLS session (RFC 8446 section 7.5). */
void link_exported(const struct link *l, uint8_t out[TOKEN_EXPORT_BYTES]);
/* Closes every open link whose far end is key; how many. */
int hub_cut(struct hub *h, const struct key_id *key, const char *why);

#endif
