/* From tokens to the text that may be shown: held back is what may turn out to be the beginning of
 * a stop word, and what is no whole character yet. Bytes that can never become a character count as
 * whole and go out as they are. Pure; one thread at a time.
 *
 * A stop word is found by the byte: the first one that is complete ends the text, wherever tokens
 * begin and end; of those that are complete at once the longest. So what comes out does not depend
 * on how the text was cut into tokens. */
#ifndef LINGUA_HEAD_GEN_TEXT_H
#define LINGUA_HEAD_GEN_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "head/gen.h"

struct gen_text;

/* Stop words are copied; none is empty. */
struct gen_text *gen_text_new(const char *const *stops, int n_stops);
void gen_text_free(struct gen_text *g); /* NULL is fine */

/* A token (copied) and its n bytes of text, which may be none. True: a stop word is complete; no
 * token may be added any more. What was taken before is not borrowed any longer. */
bool gen_text_add(struct gen_text *g, const struct gen_token *token, const char *text, size_t n);

/* What is ready, borrowed until the next call; all: no more comes, so everything is. A token goes
 * with its first byte, one without text as soon as all before it has gone; those whose text begins
 * with or behind a stop word never do. */
void gen_text_take(struct gen_text *g, bool all, struct gen_chunk *out);

/* The stop word that was found, borrowed; or NULL. */
const char *gen_text_word(const struct gen_text *g);

#endif
