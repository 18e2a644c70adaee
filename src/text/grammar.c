/* grammar_scan: what a grammar would cost llama.cpp's reader, found by reading over it once.
 *
 * That reader recurses into parentheses, writes repetitions out ("x{9}" becomes nine x), and copies
 * a rule's name for each group in it, all without bounds of its own that would help us. We follow
 * its division of the text into words exactly, since a parenthesis that we took for part of a
 * string and it does not would not be counted; what is no grammar is left for it to complain about.
 */
#include <stdbool.h>
#include <string.h>

#include "text/text_shim.h"

enum {
    DEPTH_MAX = 64,
    REPEAT_MAX = 2000,         /* llama.cpp's own */
    ELEMENTS_MAX = 1 << 19,    /* characters and references when all is written out, 8 bytes each */
    NAME_BYTES_MAX = 16 << 20, /* of all rules and groups together */
    TOKEN_BYTES_MAX = 256,     /* of "<name>", which goes through the tokenizer */
};

struct scan {
    const char *at;
    int line, depth;
    uint64_t item[DEPTH_MAX + 1]; /* elements of the last item at each depth, 0: none */
    uint64_t n_elements, n_name_bytes;
    size_t word_len, name_len;
    struct err_text *et;
};

static enum err complain(const struct scan *s, enum err e, const char *what)
{
    return err_set(s->et, e, "grammar, line %d: %s", s->line, what);
}

static enum err item_add(struct scan *s, uint64_t n)
{
    s->item[s->depth] = n;
    s->n_elements += n;
    return s->n_elements <= ELEMENTS_MAX ? ERR_NONE
                                         : complain(s, ERR_LIMIT, "the grammar is too large");
}

/* A rule of llama.cpp's own making, named after the one it is in. */
static enum err rules_add(struct scan *s, uint64_t n)
{
    s->n_name_bytes += n * (s->name_len + 16);
    return s->n_name_bytes <= NAME_BYTES_MAX
               ? ERR_NONE
               : complain(s, ERR_LIMIT, "the grammar has too many groups and repetitions");
}

/* Past one character of a string or a class. False at the end, or where a character is not whole.
 */
static bool char_skip(struct scan *s)
{
    unsigned char c = (unsigned char)*s->at;
    int more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc0 ? 1 : 0;

    if (c == '\\')
        more = 1;
    if (c == '\n')
        s->line++;
    for (s->at++; more > 0; more--, s->at++) {
        if (!*s->at || (c != '\\' && ((unsigned char)*s->at & 0xc0) != 0x80))
            return false;
    }
    return c != '\0';
}

static enum err quoted(struct scan *s, char end)
{
    uint64_t n = 0;

    for (s->at++; *s->at && *s->at != end; n++) {
        if (!char_skip(s))
            return complain(s, ERR_INPUT, "a character is not whole UTF-8");
    }
    if (!*s->at)
        return complain(s, ERR_INPUT,
                        end == '"' ? "a string is never closed by \""
                                   : "a character class is never closed by ]");
    s->at++;
    return item_add(s, n);
}

static enum err token(struct scan *s)
{
    const char *end = strchr(s->at, '>');

    if (!end)
        return complain(s, ERR_INPUT, "a token is never closed by >");
    if (end - s->at > TOKEN_BYTES_MAX)
        return complain(s, ERR_LIMIT, "the name of a token is too long");
    for (; s->at <= end; s->at++)
        s->line += *s->at == '\n';
    return item_add(s, 1);
}

static void space_skip(struct scan *s)
{
    for (;; s->at++) {
        if (*s->at == '#') {
            s->at += strcspn(s->at, "\r\n");
            s->at--;
        } else if (*s->at != ' ' && *s->at != '\t' && *s->at != '\r' && *s->at != '\n') {
            return;
        }
        s->line += *s->at == '\n';
    }
}

/* A number of a repetition; false where there is none. */
static bool number(struct scan *s, uint64_t *out)
{
    const char *start = s->at;

    for (*out = 0; *s->at >= '0' && *s->at <= '9'; s->at++) {
        if (*out <= REPEAT_MAX)
            *out = *out * 10 + (uint64_t)(*s->at - '0');
    }
    return s->at > start;
}

/* The last item once or more: `least` times for certain, then `more` times maybe. */
static enum err repeat(struct scan *s, uint64_t least, uint64_t more)
{
    uint64_t n = s->item[s->depth];
    enum err e = rules_add(s, more);

    s->n_elements += more * (n + 3);
    s->n_elements += least > 1 ? (least - 1) * n : 0;
    s->item[s->depth] = least * n + (more > 0);
    if (!e && s->n_elements > ELEMENTS_MAX)
        e = complain(s, ERR_LIMIT, "the repetitions unfold to too much; use smaller numbers");
    return e;
}

/* {n} {n,} {n,m}. What is none of them is the reader's to complain about. */
static enum err braces(struct scan *s)
{
    uint64_t least, most;
    bool open_end = false;

    s->at++;
    space_skip(s);
    if (!number(s, &least))
        return ERR_NONE;
    most = least;
    space_skip(s);
    if (*s->at == ',') {
        s->at++;
        space_skip(s);
        open_end = !number(s, &most);
        space_skip(s);
    }
    if (least > REPEAT_MAX || (!open_end && most > REPEAT_MAX))
        return complain(s, ERR_LIMIT, "more than 2000 repetitions");
    if (!open_end && most < least)
        return complain(s, ERR_INPUT, "a repetition's first number is above its second");
    if (*s->at == '}')
        s->at++;
    return repeat(s, least, open_end ? 1 : most - least);
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
}

static enum err word(struct scan *s)
{
    const char *start = s->at;

    while (is_word(*s->at))
        s->at++;
    s->word_len = (size_t)(s->at - start);
    s->n_name_bytes += s->word_len;
    return item_add(s, 1);
}

static enum err mark(struct scan *s, char c)
{
    switch (c) {
    case '(':
        if (s->depth == DEPTH_MAX)
            return complain(s, ERR_LIMIT, "parentheses nest deeper than 64");
        s->item[++s->depth] = 0;
        return rules_add(s, 1);
    case ')':
        if (s->depth == 0)
            return complain(s, ERR_INPUT, "a ) that closes nothing");
        s->depth--;
        return item_add(s, 1);
    case '|':
        s->item[s->depth] = 0;
        s->n_elements++;
        return ERR_NONE;
    case '.':
        return item_add(s, 1);
    case '*':
        return repeat(s, 0, 1);
    case '+':
        return repeat(s, 1, 1);
    case '?':
        return repeat(s, 0, 1);
    case ':':
        s->name_len = s->word_len;
        return ERR_NONE;
    case '\n':
        s->line++;
        if (s->depth == 0)
            s->item[0] = 0;
        return ERR_NONE;
    default:
        return ERR_NONE;
    }
}

enum err grammar_scan(const char *text, struct err_text *et)
{
    struct scan s = {.at = text, .line = 1, .et = et};
    enum err e = ERR_NONE;

    while (*s.at && !e) {
        char c = *s.at;

        if (c == '"')
            e = quoted(&s, '"');
        else if (c == '[')
            e = quoted(&s, ']');
        else if (c == '<')
            e = token(&s);
        else if (c == '{')
            e = braces(&s);
        else if (c == '#')
            s.at += strcspn(s.at, "\r\n");
        else if (is_word(c))
            e = word(&s);
        else
            e = mark(&s, *s.at++);
    }
    if (!e && s.depth > 0)
        e = complain(&s, ERR_INPUT, "a ( is never closed");
    return e;
}
