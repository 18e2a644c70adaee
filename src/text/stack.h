/* Work that recurses as deep as its input goes, on a thread whose stack is made for it. Inside
 * src/text only. Any thread. */
#ifndef LINGUA_TEXT_STACK_H
#define LINGUA_TEXT_STACK_H

#include <stddef.h>

#include "base/err.h"

/* Calls work(arg) on a stack of so many bytes and returns after it. ERR_MEMORY when there is no
 * such stack; then nothing was called. */
MUST_CHECK enum err stack_run(void (*work)(void *arg), void *arg, size_t bytes,
                              struct err_text *et);

#endif
