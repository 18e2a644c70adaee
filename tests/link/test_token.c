/* Tokens as people type them, and the book that lets each be used once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "link/token.h"

static struct err_text et;

enum { SECOND = 1000000, CHARS = 45 };

static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz234567";

static struct token sample(int seed)
{
    struct token t;

    for (int i = 0; i < TOKEN_HEAD_BYTES; i++)
        t.head[i] = (uint8_t)(seed * 31 + i * 7);
    for (int i = 0; i < TOKEN_SECRET_BYTES; i++)
        t.secret[i] = (uint8_t)(seed * 17 + i * 29 + 128);
    return t;
}

static void text_round_trip(void **state)
{
    for (int seed = 0; seed < 200; seed++) {
        struct token t = sample(seed), back;
        char text[TOKEN_TEXT_MAX];

        token_text(&t, text);
        assert_int_equal(strlen(text), CHARS + 11);
        for (size_t i = 0; i < strlen(text); i++)
            assert_true(i % 5 == 4 ? text[i] == '-' : strchr(alphabet, text[i]) != NULL);
        assert_int_equal(token_parse(text, &back, &et), ERR_NONE);
        assert_memory_equal(&back, &t, sizeof t);
    }
}

/* The text of one token to the letter: what is printed today must be understood tomorrow. */
static void text_is_known(void **state)
{
    struct token t;
    char text[TOKEN_TEXT_MAX];

    for (int i = 0; i < TOKEN_HEAD_BYTES; i++)
        t.head[i] = (uint8_t)i;
    for (int i = 0; i < TOKEN_SECRET_BYTES; i++)
        t.secret[i] = (uint8_t)(TOKEN_HEAD_BYTES + i);
    token_text(&t, text);
    assert_string_equal(text, "aaaq-eaye-auda-ocaj-bifq-ydio-b4ib-ceqt-cqkr-mfyy-dgvd-c");
}

static void text_in_other_shapes(void **state)
{
    struct token t = sample(7), back;
    char text[TOKEN_TEXT_MAX], bare[TOKEN_TEXT_MAX], wide[2 * TOKEN_TEXT_MAX] = "  ";
    size_t n = 0;

    token_text(&t, text);
    for (const char *p = text; *p; p++) {
        if (*p != '-')
            bare[n++] = (char)(*p >= 'a' && *p <= 'z' ? *p - 'a' + 'A' : *p);
        strcat(wide, *p == '-' ? " - " : (char[]){*p, '\0'});
    }
    bare[n] = '\0';
    strcat(wide, "\r\n");
    assert_int_equal(token_parse(bare, &back, &et), ERR_NONE);
    assert_memory_equal(&back, &t, sizeof t);
    assert_int_equal(token_parse(wide, &back, &et), ERR_NONE);
    assert_memory_equal(&back, &t, sizeof t);
}

static void refuse(const char *text, const char *secret)
{
    struct token out;
    static const struct token none;

    assert_int_equal(token_parse(text, &out, &et), ERR_INPUT);
    assert_memory_equal(&out, &none, sizeof out);
    assert_non_null(strstr(et.text, "token"));
    if (secret)
        assert_null(strstr(et.text, secret));
}

/* Every wrong character and every swap of neighbours is noticed. */
static void typos(void **state)
{
    struct token t = sample(3);
    char text[TOKEN_TEXT_MAX], typed[TOKEN_TEXT_MAX];

    token_text(&t, text);
    for (size_t i = 0; i < strlen(text); i++) {
        for (size_t k = 0; text[i] != '-' && k < 32; k++) {
            memcpy(typed, text, sizeof text);
            typed[i] = alphabet[k];
            if (alphabet[k] != text[i])
                refuse(typed, text);
        }
        memcpy(typed, text, sizeof text);
        typed[i] = text[i + 1];
        typed[i + 1] = text[i];
        if (text[i] != '-' && text[i + 1] != '-' && text[i + 1] && text[i] != text[i + 1])
            refuse(typed, NULL);
    }
}

static void malformed(void **state)
{
    struct token t = sample(4);
    char text[TOKEN_TEXT_MAX], longer[2 * TOKEN_TEXT_MAX];

    token_text(&t, text);
    refuse("", NULL);
    refuse("----", NULL);
    refuse("hello world", NULL);
    for (size_t n = strlen(text); n-- > 0;) {
        char cut[TOKEN_TEXT_MAX] = "";

        memcpy(cut, text, n);
        refuse(cut, n > 8 ? cut : NULL);
    }
    snprintf(longer, sizeof longer, "%sa", text);
    refuse(longer, text);
    for (const char *bad = "01889!_\x80\xff"; *bad; bad++) {
        memcpy(longer, text, sizeof text);
        longer[10] = *bad;
        refuse(longer, text);
    }
}

static void names_its_head(void **state)
{
    struct token t = sample(5);
    struct key_id key = {{0}};

    memcpy(key.bytes, t.head, TOKEN_HEAD_BYTES);
    memset(key.bytes + TOKEN_HEAD_BYTES, 0xaa, KEY_ID_BYTES - TOKEN_HEAD_BYTES);
    assert_true(token_names(&t, &key));
    key.bytes[TOKEN_HEAD_BYTES - 1] ^= 1;
    assert_false(token_names(&t, &key));
}

static const uint8_t session[TOKEN_EXPORT_BYTES] = {1, 2, 3}, other[TOKEN_EXPORT_BYTES] = {9};

static void book(struct token_book *b)
{
    struct key_id head;

    memset(head.bytes, 0x5c, sizeof head.bytes);
    token_book_init(b, &head);
}

static enum err take(struct token_book *b, int64_t now, const struct token *t,
                     const uint8_t exported[TOKEN_EXPORT_BYTES])
{
    uint8_t proof[TOKEN_PROOF_BYTES];

    token_prove(t, session, proof);
    return token_book_take(b, now, exported, proof, &et);
}

static void admits_once(void **state)
{
    struct token_book b;
    struct token one, two;

    book(&b);
    token_book_make(&b, 0, 900 * (int64_t)SECOND, &one);
    token_book_make(&b, 0, 900 * (int64_t)SECOND, &two);
    assert_true(token_names(&one, &b.head));
    assert_memory_not_equal(one.secret, two.secret, TOKEN_SECRET_BYTES);
    assert_int_equal(take(&b, SECOND, &one, session), ERR_NONE);
    assert_int_equal(take(&b, SECOND, &one, session), ERR_INPUT);
    assert_int_equal(take(&b, SECOND, &two, session), ERR_NONE);
    assert_int_equal(b.n, 0);
    token_book_fini(&b);
}

/* A proof heard in another session is worth nothing here. */
static void replayed_elsewhere(void **state)
{
    struct token_book b;
    struct token t;

    book(&b);
    token_book_make(&b, 0, 900 * (int64_t)SECOND, &t);
    assert_int_equal(take(&b, SECOND, &t, other), ERR_INPUT);
    assert_int_equal(take(&b, SECOND, &t, session), ERR_NONE);
    token_book_fini(&b);
}

static void expires(void **state)
{
    struct token_book b;
    struct token t;
    static const uint8_t zeros[sizeof b.open];

    book(&b);
    token_book_make(&b, 5 * SECOND, 10 * SECOND, &t);
    assert_int_equal(take(&b, 15 * SECOND, &t, session), ERR_INPUT);
    assert_memory_equal(b.open, zeros, sizeof zeros); /* wiped */
    token_book_make(&b, 5 * SECOND, 10 * SECOND, &t);
    assert_int_equal(take(&b, 15 * SECOND - 1, &t, session), ERR_NONE);
    assert_memory_equal(b.open, zeros, sizeof zeros);
    token_book_fini(&b);
}

static void oldest_makes_room(void **state)
{
    struct token_book b;
    struct token t[TOKENS_MAX + 1];

    book(&b);
    for (int i = 0; i <= TOKENS_MAX; i++)
        token_book_make(&b, i, 900 * (int64_t)SECOND, &t[i]);
    assert_int_equal(b.n, TOKENS_MAX);
    assert_int_equal(take(&b, SECOND, &t[0], session), ERR_INPUT);
    for (int i = 1; i <= TOKENS_MAX; i++)
        assert_int_equal(take(&b, SECOND, &t[i], session), ERR_NONE);
    token_book_fini(&b);
}

static void guesses_are_limited(void **state)
{
    struct token_book b;
    struct token t, wrong = sample(1);

    book(&b);
    token_book_make(&b, 0, 900 * (int64_t)SECOND, &t);
    for (int i = 0; i < GUESSES_MAX; i++)
        assert_int_equal(take(&b, (10 + i) * (int64_t)SECOND, &wrong, session), ERR_INPUT);
    /* Even the right one has to wait now; no guesser learns anything. */
    assert_int_equal(take(&b, 20 * SECOND, &t, session), ERR_LIMIT);
    assert_non_null(strstr(et.text, "50 s"));
    assert_int_equal(take(&b, 70 * (int64_t)SECOND - 1, &t, session), ERR_LIMIT);
    assert_int_equal(take(&b, 70 * (int64_t)SECOND, &t, session), ERR_NONE);
    /* The count began anew. */
    for (int i = 0; i < GUESSES_MAX; i++)
        assert_int_equal(take(&b, 71 * (int64_t)SECOND, &wrong, session), ERR_INPUT);
    assert_int_equal(take(&b, 71 * (int64_t)SECOND, &wrong, session), ERR_LIMIT);
    token_book_fini(&b);
}

static void no_token_no_entry(void **state)
{
    static const uint8_t zeros[TOKEN_PROOF_BYTES];
    struct token_book b;
    struct token t;

    book(&b);
    assert_int_equal(token_book_take(&b, 0, session, zeros, &et), ERR_INPUT);
    memset(&t, 0, sizeof t); /* what a wiped place would prove */
    assert_int_equal(take(&b, 0, &t, session), ERR_INPUT);
    token_book_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_round_trip),
        cmocka_unit_test(text_is_known),
        cmocka_unit_test(text_in_other_shapes),
        cmocka_unit_test(typos),
        cmocka_unit_test(malformed),
        cmocka_unit_test(names_its_head),
        cmocka_unit_test(admits_once),
        cmocka_unit_test(replayed_elsewhere),
        cmocka_unit_test(expires),
        cmocka_unit_test(oldest_makes_room),
        cmocka_unit_test(guesses_are_limited),
        cmocka_unit_test(no_token_no_entry),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
