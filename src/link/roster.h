/* The roster: which devices belong to a cluster, signed by its head.
 *
 * The head writes it (a new version with each change), every device keeps the newest it has seen
 * and refuses an older one or one that another key signed. Kept in the state folder as it came
 * (`roster`, written by temporary file and rename), so a revoked device stays revoked over a
 * restart. Owned by one thread. */
#ifndef LINGUA_LINK_ROSTER_H
#define LINGUA_LINK_ROSTER_H

#include <openssl/types.h>
#include <stdbool.h>

#include "link/identity.h"
#include "wire/cluster.h"

struct roster;

/* The head's own: reads folder/roster or begins version 1 with the head alone, named name. */
MUST_CHECK enum err roster_open_head(const char *folder, const struct identity *id,
                                     const char *name, struct roster **out, struct err_text *et);
/* A device's copy, empty at first. head is whose signature counts. */
MUST_CHECK enum err roster_open_member(const char *folder, const struct key_id *head,
                                       struct roster **out, struct err_text *et);
void roster_close(struct roster *r);

const struct wire_roster_body *roster_body(const struct roster *r);
uint64_t roster_version(const struct roster *r); /* 0 = a device that has none yet */
const struct wire_member *roster_find(const struct roster *r, const struct key_id *key);
const struct wire_member *roster_named(const struct roster *r, const char *name);
/* The signed bytes to send, borrowed until the next change. */
struct wire_roster roster_signed(const struct roster *r);

/* The head's changes; each makes, signs and writes a new version. The name gets "-2", "-3", ...
 * when it is taken by another key; a key already there keeps its place and gets the name.
 * *name_given may be NULL. ERR_LIMIT when full, ERR_INPUT when there is none of that name or it is
 * the head itself. On error nothing has changed. */
MUST_CHECK enum err roster_add(struct roster *r, const struct key_id *key, const char *name,
                               char name_given[WIRE_NAME_MAX], struct err_text *et);
MUST_CHECK enum err roster_revoke(struct roster *r, const char *name, struct key_id *key,
                                  struct err_text *et);
MUST_CHECK enum err roster_mine(struct roster *r, const char *name, bool mine, struct err_text *et);

/* A device takes what the head sent. head_certificate is the far end of the link it came by. The
 * version it has already is fine and changes nothing; ERR_PROTO: older than that, wrongly signed,
 * or of another head. ERR_FILE: it counts from now on, but could not be written. */
MUST_CHECK enum err roster_take(struct roster *r, const struct wire_roster *w,
                                X509 *head_certificate, struct err_text *et);

#endif
