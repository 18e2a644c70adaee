/* What is shown of an answer while it grows: stop words and characters that come in pieces, however
 * the text is cut into tokens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "head/gen_text.h"

enum { OUT_MAX = 4096 };

/* What came out so far. */
struct out {
    char text[OUT_MAX];
    size_t n;
    int n_tokens;
    int32_t ids[OUT_MAX];
};

static struct gen_text *with_stops(const char *a, const char *b)
{
    const char *stops[2] = {a, b};

    return gen_text_new(stops, !!a + !!b);
}

static bool add(struct gen_text *g, int id, const char *text, size_t n)
{
    struct gen_token t = {.id = id, .piece = text, .n_piece = (int)n};

    return gen_text_add(g, &t, text, n);
}

static bool put(struct gen_text *g, int id, const char *text)
{
    return add(g, id, text, strlen(text));
}

static void take(struct gen_text *g, bool all, struct out *o)
{
    struct gen_chunk c;

    gen_text_take(g, all, &c);
    assert_true(o->n + c.n_text < sizeof o->text);
    memcpy(o->text + o->n, c.text, c.n_text);
    o->n += c.n_text;
    o->text[o->n] = '\0';
    for (int i = 0; i < c.n_tokens; i++)
        o->ids[o->n_tokens++] = c.tokens[i].id;
}

static void is(const struct out *o, const char *text, int n_tokens)
{
    assert_string_equal(o->text, text);
    assert_int_equal(o->n_tokens, n_tokens);
    for (int i = 0; i < n_tokens; i++)
        assert_int_equal(o->ids[i], i + 1); /* in the order they were generated */
}

static void plain_text_goes_out_at_once(void **state)
{
    struct gen_text *g = with_stops(NULL, NULL);
    struct out o = {.n = 0};

    (void)state;
    assert_false(put(g, 1, "Once"));
    take(g, false, &o);
    is(&o, "Once", 1);
    assert_false(put(g, 2, " upon"));
    take(g, false, &o);
    is(&o, "Once upon", 2);
    take(g, true, &o);
    is(&o, "Once upon", 2);
    assert_null(gen_text_word(g));
    gen_text_free(g);
}

static void a_stop_word_over_three_tokens_ends_the_text(void **state)
{
    struct gen_text *g = with_stops("END", NULL);
    struct out o = {.n = 0};

    (void)state;
    assert_false(put(g, 1, "well.E"));
    take(g, false, &o);
    is(&o, "well.", 1); /* the token goes with its first byte */
    assert_false(put(g, 2, "N"));
    take(g, false, &o);
    is(&o, "well.", 1);
    assert_true(put(g, 3, "D and more"));
    take(g, true, &o);
    is(&o, "well.", 1);
    assert_string_equal(gen_text_word(g), "END");
    gen_text_free(g);
}

static void what_only_began_like_a_stop_word_comes_later(void **state)
{
    struct gen_text *g = with_stops("aab", NULL);
    struct out o = {.n = 0};

    (void)state;
    assert_false(put(g, 1, "xa"));
    take(g, false, &o);
    is(&o, "x", 1);
    assert_false(put(g, 2, "a"));
    take(g, false, &o);
    is(&o, "x", 1);
    assert_false(put(g, 3, "a")); /* "aaa": the last two may still begin it */
    take(g, false, &o);
    is(&o, "xa", 1);
    assert_false(put(g, 4, "c"));
    take(g, false, &o);
    is(&o, "xaaac", 4);
    gen_text_free(g);
}

static void the_end_gives_what_was_held_back(void **state)
{
    struct gen_text *g = with_stops("</s>", NULL);
    struct out o = {.n = 0};

    (void)state;
    assert_false(put(g, 1, "a</"));
    take(g, false, &o);
    is(&o, "a", 1);
    assert_false(put(g, 2, "s"));
    take(g, false, &o);
    is(&o, "a", 1);
    assert_false(add(g, 3, "\xe2\x82", 2)); /* and a character that never becomes whole */
    take(g, true, &o);
    is(&o, "a</s\xe2\x82", 3);
    gen_text_free(g);
}

static void characters_wait_until_they_are_whole(void **state)
{
    struct gen_text *g = with_stops(NULL, NULL);
    struct out o = {.n = 0};

    (void)state;
    assert_false(add(g, 1, "\xf0\x9f", 2));
    take(g, false, &o);
    is(&o, "", 0);
    assert_false(add(g, 2, "\x98", 1));
    take(g, false, &o);
    is(&o, "", 0);
    assert_false(add(g, 3, "\x80!\xc3", 3));
    take(g, false, &o);
    is(&o, "\xf0\x9f\x98\x80!", 3);
    assert_false(add(g, 4, "\xbc", 1));
    take(g, false, &o);
    is(&o, "\xf0\x9f\x98\x80!\xc3\xbc", 4);
    gen_text_free(g);
}

static void bytes_that_are_no_characters_go_out_as_they_are(void **state)
{
    struct gen_text *g = with_stops("\xff\xff", NULL);
    struct out o = {.n = 0};

    (void)state;
    assert_false(add(g, 1, "a\x80\xfe", 3));
    take(g, false, &o);
    is(&o, "a\x80\xfe", 1);
    assert_false(add(g, 2, "\xff", 1));
    take(g, false, &o);
    is(&o, "a\x80\xfe", 1);
    assert_false(add(g, 3, "\xe2", 1)); /* cannot be of the stop word; may become a character */
    take(g, false, &o);
    is(&o, "a\x80\xfe\xff", 2);
    assert_false(add(g, 4, "b", 1)); /* it does not */
    take(g, false, &o);
    is(&o,
       "a\x80\xfe\xff\xe2"
       "b",
       4);
    gen_text_free(g);
}

static void the_first_complete_word_counts(void **state)
{
    struct gen_text *g = with_stops("abcd", "bc");
    struct out o = {.n = 0};

    (void)state;
    assert_true(put(g, 1, "xabcd"));
    take(g, true, &o);
    is(&o, "xa", 1);
    assert_string_equal(gen_text_word(g), "bc");
    gen_text_free(g);
    g = with_stops("b", "ab"); /* both end at once */
    o = (struct out){.n = 0};
    assert_true(put(g, 1, "xab"));
    take(g, true, &o);
    is(&o, "x", 1);
    assert_string_equal(gen_text_word(g), "ab");
    gen_text_free(g);
}

static void tokens_without_text_keep_their_place(void **state)
{
    struct gen_text *g = with_stops("<end>", NULL);
    struct out o = {.n = 0};

    (void)state;
    assert_false(put(g, 1, ""));
    take(g, false, &o);
    is(&o, "", 1);
    assert_false(put(g, 2, "a<"));
    assert_false(put(g, 3, "")); /* behind what is held back */
    take(g, false, &o);
    is(&o, "a", 2);
    assert_false(put(g, 4, "b"));
    take(g, false, &o);
    is(&o, "a<b", 4);
    gen_text_free(g);
}

static void a_token_keeps_its_probabilities(void **state)
{
    struct gen_text *g = with_stops("stop", NULL);
    struct token_prob top[2] = {{7, -0.5f}, {8, -1.5f}};
    char piece[] = "st";
    struct gen_token t = {
        .id = 7, .own = top[0], .n_top = 2, .top = top, .piece = piece, .n_piece = 2};
    struct gen_chunk c;

    (void)state;
    assert_false(gen_text_add(g, &t, piece, 2));
    memset(top, 0, sizeof top); /* it was copied */
    memset(piece, 0, sizeof piece);
    gen_text_take(g, false, &c);
    assert_int_equal(c.n_tokens, 0);
    gen_text_take(g, true, &c);
    assert_int_equal(c.n_tokens, 1);
    assert_int_equal(c.tokens[0].top[1].token, 8);
    assert_true(c.tokens[0].top[1].logprob == -1.5f && c.tokens[0].own.logprob == -0.5f);
    assert_int_equal(c.tokens[0].n_piece, 2);
    assert_memory_equal(c.tokens[0].piece, "st", 2);
    gen_text_free(g);
}

static uint64_t next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static bool is_whole(const char *s, size_t n)
{
    return text_utf8_whole(s, n) == n;
}

/* Feeds text in pieces of 0 to `most` bytes; what came out in all. */
static void feed(const char *text, int most, uint64_t *seed, struct out *o)
{
    struct gen_text *g = with_stops("\xc3\xa4\xc3\xb6.", "aba");
    size_t n = strlen(text), at = 0;
    bool over = false;

    *o = (struct out){.n = 0};
    for (int id = 1; at < n && !over; id++) {
        size_t len = next(seed) % (uint64_t)(most + 1);
        size_t before = o->n;

        len = len < n - at ? len : n - at;
        over = add(g, id, text + at, len);
        at += len;
        take(g, over || at == n, o);
        if (!over && at < n)
            assert_true(is_whole(o->text + before, o->n - before));
    }
    gen_text_free(g);
}

static void cutting_into_tokens_changes_nothing(void **state)
{
    static const char *const letters[] = {"a", "b", "\xc3\xa4", "\xc3\xb6", ".", "\xe2\x82\xac"};
    uint64_t seed = 5;
    struct out one, many;

    (void)state;
    for (int round = 0; round < 3000; round++) {
        char text[64] = "";

        for (int i = 0; i < 12; i++)
            strcat(text, letters[next(&seed) % 6]);
        feed(text, 64, &seed, &one);
        for (int most = 1; most < 6; most++) {
            feed(text, most, &seed, &many);
            assert_string_equal(one.text, many.text);
        }
        assert_null(strstr(one.text, "aba"));
        assert_null(strstr(one.text, "\xc3\xa4\xc3\xb6."));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_text_goes_out_at_once),
        cmocka_unit_test(a_stop_word_over_three_tokens_ends_the_text),
        cmocka_unit_test(what_only_began_like_a_stop_word_comes_later),
        cmocka_unit_test(the_end_gives_what_was_held_back),
        cmocka_unit_test(characters_wait_until_they_are_whole),
        cmocka_unit_test(bytes_that_are_no_characters_go_out_as_they_are),
        cmocka_unit_test(the_first_complete_word_counts),
        cmocka_unit_test(tokens_without_text_keep_their_place),
        cmocka_unit_test(a_token_keeps_its_probabilities),
        cmocka_unit_test(cutting_into_tokens_changes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
