/* Where the program keeps things: the XDG folders, or what the person named.
 *
 *     state   --state DIR, else $XDG_STATE_HOME/lingua, else ~/.local/state/lingua
 *     cache   DIR/cache when --state was given, else $XDG_CACHE_HOME/lingua, else ~/.cache/lingua
 *
 * State holds the key and who belongs to the cluster, so its folder is made with mode 0700. */
#ifndef LINGUA_BASE_FOLDER_H
#define LINGUA_BASE_FOLDER_H

#include "base/err.h"

/* Makes the folder and those above it. chosen NULL or "" = the usual place. gives *out: free(). */
MUST_CHECK enum err folder_state(const char *chosen, char **out, struct err_text *et);
MUST_CHECK enum err folder_cache(const char *chosen_state, char **out, struct err_text *et);
/* "mkdir -p", the last one with mode 0700; a folder that is there stays as it is. */
MUST_CHECK enum err folder_make(const char *path, struct err_text *et);

#endif
