/* Finding heads on the local network: DNS-SD over multicast DNS (RFC 6762, 6763), service type
 * "_lingua._tcp". The announcement says a name, a port and the protocol's version. No token, no key
 * and no hash of one is in it: an announced hash would let a listener try guesses at leisure.
 * Whoever answers is trusted with nothing; the token's fingerprint decides. Belongs to the thread
 * of its event base. A machine without multicast simply finds nobody. */
#ifndef LINGUA_LINK_DISCOVER_H
#define LINGUA_LINK_DISCOVER_H

#include "base/err.h"
#include "base/log.h"

struct event_base;
struct discover;

struct found {
    const char *name, *address; /* "192.168.1.5:7333" */
};

/* Announces name at port on every interface until closed. */
MUST_CHECK enum err discover_announce(struct event_base *base, const char *name, int port,
                                      const struct log *log, struct discover **out,
                                      struct err_text *et);
/* Looks for heads, calling found for each new one (and again when its address changes). */
MUST_CHECK enum err discover_browse(struct event_base *base,
                                    void (*found)(void *user, const struct found *f), void *user,
                                    struct discover **out, struct err_text *et);
void discover_close(struct discover *d); /* NULL is fine; says goodbye */

#endif
