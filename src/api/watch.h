/* Pages that look on. The document of /cluster is made once for all of them: when something has changed,
 * at most every 250 ms, and twice a second while figures move; only one that differs from the last is
 * sent. Whoever has not read what was sent before is passed over until it has, and then gets the newest:
 * nothing is kept for anybody. Event loop's thread only. */
#ifndef LINGUA_API_WATCH_H
#define LINGUA_API_WATCH_H

struct api;
struct watch;

struct watch *watch_new(struct api *a); /* borrows a */
void watch_free(struct watch *w);       /* all watchers are gone */

#endif
