/* Errors of the outside world: a peer, a file, a user, the system.
 *
 * A function that can fail returns an `enum err` that must be looked at, gives its result by an out
 * parameter, and leaves one sentence for the person in a `struct err_text` the caller owns. On the
 * way out each layer may put its own words in front:
 *
 *     load model.gguf: tensor blk.3.attn_q.weight: data ends past the file
 *
 * The sentence names the thing and, where there is something to do, what to do. It is one line:
 * control characters, as a file's names may hold them, become question marks, as does what is no
 * UTF-8. Our own bugs are not
 * errors: see check.h. Any thread may use these functions; an err_text has one owner at a time. */
#ifndef LINGUA_BASE_ERR_H
#define LINGUA_BASE_ERR_H

#include <stdarg.h>

#define MUST_CHECK __attribute__((warn_unused_result))

enum err {
    ERR_NONE = 0,
    ERR_INPUT,       /* what a person or a file said is wrong: malformed, missing, out of range */
    ERR_FILE,        /* the system refused a file or a descriptor; the text carries its reason */
    ERR_MEMORY,      /* more memory was needed than there is or than was allowed */
    ERR_LIMIT,       /* a bound of ours was met: frame size, context, number of slots */
    ERR_PROTO,       /* bytes from a peer make no sense */
    ERR_UNSUPPORTED, /* well-formed, but not something this build can do */
    ERR_CANCELLED,   /* the caller asked us to stop */
    ERR_GONE,        /* the other side left */
};

enum { ERR_TEXT_MAX = 512 };

struct err_text {
    char text[ERR_TEXT_MAX]; /* always terminated; cut short rather than overrun */
};

/* Writes the sentence and returns e, so that `return err_set(et, ERR_INPUT, ...)` reads as one
 * thought. et may be NULL. */
enum err err_set(struct err_text *et, enum err e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "words: " in front of the sentence already there and returns e. */
enum err err_wrap(struct err_text *et, enum err e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* ERR_FILE (or ERR_MEMORY for ENOMEM) with the system's reason for errno appended: "words: No such
 * file or directory". */
enum err err_system(struct err_text *et, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
