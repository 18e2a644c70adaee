/* Vocabularies for tests of src/text. */
#ifndef LINGUA_TESTS_OPEN_TEXT_H
#define LINGUA_TESTS_OPEN_TEXT_H

#include "support/tiny_vocab.h"
#include "text/text.h"

/* The vocabulary, written to a file and opened; fails the test when it cannot. */
struct text *open_tiny(const struct tiny_vocab *v);

/* The file's vocabulary; fails the test when it cannot. */
struct text *open_text(const char *path);

/* The token that is exactly this text; fails the test when there is none. */
int32_t token_of(const struct text *t, const char *text);

/* Logits that look random but are always the same for a seed, about as spread as a model's:
 * (n_vocab), free(). */
float *logits_random(const struct text *t, uint32_t seed);

/* What sampler_open gives; fails the test when it refuses. */
struct sampler *open_sampler(const struct text *t, const struct sampling *s);

/* What sampler_pick gives; fails the test when it refuses. */
int32_t picked(struct sampler *p, const float *logits);

#endif
