/* A connection: frames over a stream socket that never blocks.
 *
 * Sending hands the frame to the kernel in one sendmsg; what the kernel does not take is kept here
 * and sent when poll says so. Reading takes what is there and gives out whole frames. Because
 * neither side ever blocks, whoever owns several connections can always read while it writes, and a
 * ring of devices cannot end with each waiting for the next to read. How much is kept is bounded by
 * how many steps the head lets be under way.
 *
 * The buffer for reading grows with the bytes that really came, never with what a frame's head
 * promises. Belongs to one thread. */
#ifndef LINGUA_DEVICE_CONN_H
#define LINGUA_DEVICE_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "wire/frame.h"

struct conn {
    int fd;     /* -1 when closed */
    bool ended; /* nothing more will come; frames already read remain */
    bool deaf;  /* the other side takes nothing more; what it said before may still be unread */
    uint8_t *in;
    size_t in_cap, in_start, in_len; /* unread bytes are in[in_start, in_len) */
    size_t in_held;                  /* of those, the frame given out last */
    uint8_t *out;
    size_t out_cap, out_start, out_len;
    uint64_t sent_bytes; /* handed to conn_send, frames and all */
};

/* Takes fd and makes it non-blocking and close-on-exec. */
void conn_init(struct conn *c, int fd);
void conn_fini(struct conn *c); /* closes; fine on a zeroed or finished one whose fd is -1 */

/* Sends or keeps the frame; f's pieces are free afterwards. A connection that has ended swallows
 * it: the loss shows where its end is read. */
void conn_send(struct conn *c, const struct frame_out *f);
/* Sends of what was kept as much as the kernel takes. */
void conn_flush(struct conn *c);
bool conn_pending(const struct conn *c);
/* One read of what is there; sets ended at the stream's end. */
void conn_read(struct conn *c);
/* The next whole frame, if *have: it borrows from the connection until the next conn_next or
 * conn_read. ERR_PROTO, ERR_LIMIT when the bytes are no frames. */
MUST_CHECK enum err conn_next(struct conn *c, struct frame *f, bool *have, struct err_text *et);
/* What to poll fd for. */
short conn_events(const struct conn *c);

#endif
