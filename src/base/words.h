/* Words that people write, in options and in files: sizes, and what they may have meant. Pure; any
 * thread. */
#ifndef LINGUA_BASE_WORDS_H
#define LINGUA_BASE_WORDS_H

#include <stdbool.h>

/* The one of words nearest to what was typed, or NULL when none is near. */
const char *nearest_word(const char *typed, const char *const *words, int n_words);

/* "512M", "1.5G", "2GiB", "800000000": the letters are powers of 1024. false: that is no size. */
bool size_parse(const char *text, double *bytes);

#endif
