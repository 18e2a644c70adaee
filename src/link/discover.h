/* Finding heads on the local network: DNS-SD over multicast DNS (RFC 6762, 6763), service type
 * "_lingua._tcp". The announcement says a name, a port and the protocol's version. No token, no key
 * and no hash of one is in it: an announced hash would let a listener try guesses at leisure.
 * Whoever answers is trusted with nothing; the token's fingerprint decides. Belongs to the thread
 * of its event base. A machine without multicast simply finds nobody.
 *
 * IPv4, on every interface that can multicast, tunnels excepted; on the loopback where there is no
 * other. Interfaces may come and go. The protocol is in link/mdns.h, why it is ours in
 * docs/decisions.md. */
#ifndef LINGUA_LINK_DISCOVER_H
#define LINGUA_LINK_DISCOVER_H

#include "base/err.h"
#include "base/log.h"

struct event_base;
struct discover;

struct found {
    const char *name, *address; /* "192.168.1.5:7333" */
};

/* Announces name at port on every interface until closed. Where another head has the name already,
 * this one is announced as "name (2)". ERR_INPUT for a name that is no plain text of 1 to 63 bytes.
 * What keeps a machine from announcing at all is one line in the log, and tried again. */
MUST_CHECK enum err discover_announce(struct event_base *base, const char *name, int port,
                                      const struct log *log, struct discover **out,
                                      struct err_text *et);
/* Looks for heads, calling found for each new one (and again when its address changes, or when it
 * has been away). found borrows f for the call and may close d. Names are clean of control
 * characters; at most 64 heads are known at a time. */
MUST_CHECK enum err discover_browse(struct event_base *base,
                                    void (*found)(void *user, const struct found *f), void *user,
                                    struct discover **out, struct err_text *et);
void discover_close(struct discover *d); /* NULL is fine; says goodbye */

#endif
