/* Words that people write, in options and in files: sizes, and what they may have meant. Pure; any
 * thread. */
#ifndef LINGUA_BASE_WORDS_H
#define LINGUA_BASE_WORDS_H

#include <stdbool.h>
#include <stddef.h>

/* The one of words nearest to what was typed, or NULL when none is near. */
const char *nearest_word(const char *typed, const char *const *words, int n_words);

/* "512M", "1.5G", "2GiB", "800000000": the letters are powers of 1024. false: that is no size. */
bool size_parse(const char *text, double *bytes);

/* "kitchen, old-phone": the next of *list, n bytes without the blanks around it; NULL: there is none
 * left. Empty ones are passed over. */
const char *list_next(const char **list, size_t *n);
bool list_has(const char *list, const char *word); /* list may be NULL */

/* Whether it can be typed in a shell and in a list with commas as it stands. Other names are not put
 * into a command to copy: they were chosen by other people. */
bool word_is_plain(const char *word);

#endif
