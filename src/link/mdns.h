/* What one multicast DNS packet says about heads (RFC 1035, 6762, 6763), and the few packets we
 * send. Pure: bytes in, values out, no clock, no socket; any thread.
 *
 * Packets come from anyone on the network, so mdns_read looks at every byte of one before it
 * believes a word: counts and lengths must fit, a compressed name may only point backwards, nothing
 * may trail. What it gives is bounded: at most MDNS_HEADS_MAX heads of a packet, their names
 * cleaned of what a terminal would act on.
 *
 * A head is one DNS-SD service (name in UTF-8, up to 63 bytes):
 *
 *     _lingua._tcp.local         PTR  <name>._lingua._tcp.local
 *     <name>._lingua._tcp.local  SRV  0 0 port <name>._lingua._tcp.local
 *     <name>._lingua._tcp.local  TXT  "v=1"
 *     <name>._lingua._tcp.local  A    address
 *
 * All four always travel together. The service's own name serves as the host's: the machine's host
 * name is nobody's business, and would collide with whoever else announces it. */
#ifndef LINGUA_LINK_MDNS_H
#define LINGUA_LINK_MDNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum {
    MDNS_PORT = 5353,
    MDNS_GROUP = 0xe00000fb, /* 224.0.0.251 */
    MDNS_TTL_S = 120,
    MDNS_NAME_MAX = 64,     /* terminating NUL included */
    MDNS_PACKET_MAX = 9000, /* RFC 6762 section 17 */
    MDNS_SENT_MAX = 512,    /* none of ours is longer */
    MDNS_HEADS_MAX = 8,
};

struct mdns_head {
    char name[MDNS_NAME_MAX];
    uint32_t address; /* host byte order */
    uint16_t port;
    uint32_t ttl_s; /* 0: it says goodbye */
};

struct mdns_heard {
    bool asked;    /* someone asks for heads, or for `mine` by name */
    bool suppress; /* but knows `mine` already */
    int n;
    struct mdns_head heads[MDNS_HEADS_MAX];
};

/* May it be said: 1 to 63 bytes of UTF-8 without control characters? */
bool mdns_name_fits(const char *name);

/* mine: the name we announce, or NULL. ERR_PROTO on anything malformed, of which nothing is
 * believed; a good packet about other things gives an empty *out. */
MUST_CHECK enum err mdns_read(const uint8_t *packet, size_t len, const char *mine,
                              struct mdns_heard *out);

/* Both write at most MDNS_SENT_MAX bytes and say how many. */
size_t mdns_write_query(uint8_t out[MDNS_SENT_MAX]);
size_t mdns_write_head(uint8_t out[MDNS_SENT_MAX], const struct mdns_head *head);

#endif
