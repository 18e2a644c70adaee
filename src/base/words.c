#include "base/words.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { WORD_MAX = 32 };

/* Edits (insert, drop, change a letter) from a to b: Levenshtein's distance, one row at a time. */
static int distance(const char *a, const char *b)
{
    int n = (int)strlen(b), row[WORD_MAX + 1];

    for (int j = 0; j <= n; j++)
        row[j] = j;
    for (int i = 0; a[i]; i++) {
        int diagonal = row[0];

        row[0] = i + 1;
        for (int j = 0; j < n; j++) {
            int change = diagonal + (a[i] != b[j]),
                step = row[j] < row[j + 1] ? row[j] : row[j + 1];

            diagonal = row[j + 1];
            row[j + 1] = change < step + 1 ? change : step + 1;
        }
    }
    return row[n];
}

const char *nearest_word(const char *typed, const char *const *words, int n_words)
{
    size_t len = strlen(typed);
    const char *best = NULL;
    int best_distance = 3; /* further than two edits is another word */

    if (len == 0 || len > WORD_MAX)
        return NULL;
    for (int i = 0; i < n_words; i++) {
        int d = strlen(words[i]) > WORD_MAX ? 99 : distance(typed, words[i]);

        if (len >= 3 && d > 2 && strncmp(typed, words[i], len) == 0)
            d = 2; /* the beginning of a longer word */
        if (d < best_distance && d < (int)len) {
            best = words[i];
            best_distance = d;
        }
    }
    return best;
}

bool size_parse(const char *text, double *bytes)
{
    static const char letters[] = "kmgt";
    const char *letter;
    char *end;

    if (!*text || !strchr("0123456789", *text))
        return false;
    *bytes = strtod(text, &end);
    letter = *end ? strchr(letters, tolower((unsigned char)*end)) : NULL;
    if (letter) {
        for (int i = 0; i <= letter - letters; i++)
            *bytes *= 1024;
        end++;
    }
    return *end == '\0' || strcasecmp(end, "b") == 0 || (letter && strcasecmp(end, "ib") == 0);
}

const char *list_next(const char **list, size_t *n)
{
    while (*list && **list) {
        const char *word = *list + strspn(*list, " "), *end = *list + strcspn(*list, ",");

        *list = end + (*end == ',');
        while (end > word && end[-1] == ' ')
            end--;
        *n = end > word ? (size_t)(end - word) : 0;
        if (*n)
            return word;
    }
    return NULL;
}

bool list_has(const char *list, const char *word)
{
    size_t len = strlen(word), n;

    for (const char *s; (s = list_next(&list, &n));)
        if (n == len && memcmp(s, word, n) == 0)
            return true;
    return false;
}

bool word_is_plain(const char *word)
{
    for (const char *p = word; *p; p++) {
        unsigned char c = (unsigned char)*p;

        if (!isalnum(c) && c < 0x80 && (!strchr("._-", c) || p == word))
            return false;
    }
    return *word;
}
