#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>

/* The one place below src/cli that writes to stderr: there is no caller left to hand the sentence
 * to. */
void check_failed(const char *what, const char *file, int line)
{
    fprintf(stderr, "lingua: internal error: %s does not hold (%s:%d). Please report this.\n", what,
            file, line);
    abort();
}
