/* The cluster as a picture on a terminal: what `lingua top` shows. Pure: from the document that
 * {"do":"devices"} answers (head/remote.h); members that are missing there are left out here. */
#ifndef LINGUA_CLI_TOP_VIEW_H
#define LINGUA_CLI_TOP_VIEW_H

#include <jansson.h>
#include <stdbool.h>

#include "cli/screen.h"

struct top_view {
    const json_t *doc; /* NULL: nothing has been heard yet */
    const char *lost;  /* not NULL: the head does not answer, and so; what is shown is old */
};

/* height 0: as many lines as there is to show. */
struct screen *top_draw(const struct top_view *v, int width, int height);

#endif
