/* What a multicast DNS packet may say and may not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "link/mdns.h"

#define TYPE           "\7_lingua\4_tcp\5local\0"
#define SELF           "\6Attic!" TYPE
#define BYTES(literal) (const uint8_t *)(literal), sizeof(literal) - 1

/* All that an announcement says, to the byte. */
static const char announcement[] =
    "\0\0\x84\0\0\0\0\4\0\0\0\0" TYPE "\0\x0c\0\1\0\0\0\x78\0\x1b" SELF SELF
    "\0\x21\x80\1\0\0\0\x78\0\x21\0\0\0\0\x1c\xa5" SELF SELF "\0\x10\x80\1\0\0\0\x78\0\4\3v=1" SELF
    "\0\1\x80\1\0\0\0\x78\0\4\xc0\xa8\1\5";

static const struct mdns_head attic = {"Attic!", 0xc0a80105, 7333, MDNS_TTL_S};

/* A copy without a byte to spare, so that the sanitizer sees any reading past it. */
static enum err read_exact(const uint8_t *bytes, size_t len, const char *mine, struct mdns_heard *h)
{
    uint8_t *copy = malloc(len ? len : 1);
    enum err e;

    memcpy(copy, bytes, len);
    e = mdns_read(copy, len, mine, h);
    free(copy);
    return e;
}

static void announces_name_port_and_version(void **state)
{
    uint8_t out[MDNS_SENT_MAX];
    struct mdns_heard h;
    size_t len = mdns_write_head(out, &attic);

    assert_int_equal(len, sizeof announcement - 1);
    assert_memory_equal(out, announcement, len);
    assert_int_equal(read_exact(out, len, NULL, &h), ERR_NONE);
    assert_int_equal(h.n, 1);
    assert_false(h.asked);
    assert_string_equal(h.heads[0].name, "Attic!");
    assert_int_equal(h.heads[0].address, 0xc0a80105);
    assert_int_equal(h.heads[0].port, 7333);
    assert_int_equal(h.heads[0].ttl_s, MDNS_TTL_S);
}

static void longest_name_fits(void **state)
{
    struct mdns_head head = attic;
    uint8_t out[MDNS_SENT_MAX];
    struct mdns_heard h;

    memset(head.name, 'x', 63);
    head.name[63] = 0;
    head.ttl_s = 0;
    assert_int_equal(read_exact(out, mdns_write_head(out, &head), NULL, &h), ERR_NONE);
    assert_int_equal(h.n, 1);
    assert_string_equal(h.heads[0].name, head.name);
    assert_int_equal(h.heads[0].ttl_s, 0);
}

static void a_query_asks(void **state)
{
    uint8_t out[MDNS_SENT_MAX];
    struct mdns_heard h;
    size_t len = mdns_write_query(out);

    assert_int_equal(read_exact(out, len, "Attic!", &h), ERR_NONE);
    assert_true(h.asked);
    assert_false(h.suppress);
    assert_int_equal(h.n, 0);
    /* Letters' case does not matter; another service does. */
    assert_int_equal(
        read_exact(BYTES("\0\0\0\0\0\1\0\0\0\0\0\0\7_LINGUA\4_tcp\5LOCAL\0\0\x0c\0\1"), NULL, &h),
        ERR_NONE);
    assert_true(h.asked);
    assert_int_equal(
        read_exact(BYTES("\0\0\0\0\0\1\0\0\0\0\0\0\7_lingub\4_tcp\5local\0\0\x0c\0\1"), NULL, &h),
        ERR_NONE);
    assert_false(h.asked);
    /* Our own name. */
    assert_int_equal(read_exact(BYTES("\0\0\0\0\0\1\0\0\0\0\0\0" SELF "\0\x21\0\1"), "Attic!", &h),
                     ERR_NONE);
    assert_true(h.asked);
    assert_int_equal(read_exact(BYTES("\0\0\0\0\0\1\0\0\0\0\0\0" SELF "\0\x21\0\1"), "Other", &h),
                     ERR_NONE);
    assert_false(h.asked);
}

static void who_knows_us_is_not_answered(void **state)
{
    /* The answer it has points back at its question: 0xc00c. */
    static const char known[] = "\0\0\0\0\0\1\0\1\0\0\0\0" TYPE
                                "\0\x0c\0\1\xc0\x0c\0\x0c\0\1\0\0\0\x78\0\x09\6Attic!\xc0\x0c";
    struct mdns_heard h;

    assert_int_equal(read_exact(BYTES(known), "Attic!", &h), ERR_NONE);
    assert_true(h.asked && h.suppress);
    assert_int_equal(read_exact(BYTES(known), "Cellar", &h), ERR_NONE);
    assert_true(h.asked && !h.suppress);
}

static void truncations_are_refused(void **state)
{
    struct mdns_heard h;

    for (size_t len = 0; len < sizeof announcement - 1; len++) {
        assert_int_equal(read_exact((const uint8_t *)announcement, len, NULL, &h), ERR_PROTO);
        assert_int_equal(h.n, 0);
    }
    /* And so is one byte more. */
    assert_int_equal(read_exact((const uint8_t *)announcement, sizeof announcement, NULL, &h),
                     ERR_PROTO);
}

static void bad_names_are_refused(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } packets[] = {
#define CASE(literal) {literal, sizeof(literal) - 1}
        CASE("\0\0\0\0\0\1\0\0\0\0\0\0\xc0\x0c\0\x0c\0\1"),         /* points at itself */
        CASE("\0\0\0\0\0\1\0\0\0\0\0\0\xc0\x0e\xc0\x0c\0\x0c\0\1"), /* forward, and back */
        CASE("\0\0\0\0\0\1\0\0\0\0\0\0\1a\xc0\x0c\0\x0c\0\1"),      /* into its own label */
        CASE("\0\0\0\0\0\1\0\0\0\0\0\0\xc0\0\0\x0c\0\1"),           /* into the header */
        CASE("\0\0\0\0\0\1\0\0\0\0\0\0\xff\xff\0\x0c\0\1"),         /* past the end */
        CASE("\0\0\0\0\0\1\0\0\0\0\0\0\x41x\0\0\x0c\0\1"),          /* reserved label types */
        CASE("\0\0\0\0\0\1\0\0\0\0\0\0\x81x\0\0\x0c\0\1"),
        CASE("\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"), /* counts of nothing */
        CASE("\0\0\x84\0\0\0\xff\xff\0\0\0\0" TYPE "\0\x0c\0\1\0\0\0\x78\0\2\xc0\x0c"),
        /* An address of three bytes, and a length past the packet. */
        CASE("\0\0\x84\0\0\0\0\1\0\0\0\0\1a\0\0\1\0\1\0\0\0\x78\0\3abc"),
        CASE("\0\0\x84\0\0\0\0\1\0\0\0\0\1a\0\0\x10\0\1\0\0\0\x78\xff\xff"
             "abc"),
        /* A name that ends before, and after, its record's data. */
        CASE("\0\0\x84\0\0\0\0\1\0\0\0\0\1a\0\0\x0c\0\1\0\0\0\x78\0\4\1b\0z"),
        CASE("\0\0\x84\0\0\0\0\1\0\0\0\0\1a\0\0\x0c\0\1\0\0\0\x78\0\2\1b\0"),
#undef CASE
    };
    struct mdns_heard h;

    for (size_t i = 0; i < sizeof packets / sizeof packets[0]; i++) {
        print_message("packet %zu\n", i);
        assert_int_equal(
            read_exact((const uint8_t *)packets[i].bytes, packets[i].len, "Attic!", &h), ERR_PROTO);
        assert_false(h.asked);
    }
}

/* Four labels of 63 bytes and what else there must be make 256 bytes, one too many; so do many
 * pointers to one long label. */
static void names_have_an_end(void **state)
{
    uint8_t p[600] = {0, 0, 0, 0, 0, 1};
    struct mdns_heard h;
    size_t n = 12;

    for (int i = 0; i < 4; i++) {
        p[n] = 63;
        memset(p + n + 1, 'a', 63);
        n += 64;
    }
    memcpy(p + n, "\0\0\x0c\0\1", 5);
    assert_int_equal(read_exact(p, n + 5, NULL, &h), ERR_PROTO);
    p[n - 64] = 61; /* 255 in all */
    memcpy(p + n - 2, "\0\0\x0c\0\1", 5);
    assert_int_equal(read_exact(p, n + 3, NULL, &h), ERR_NONE);

    /* A ladder of pointers, each a step further back, hides no more than 16 of them. */
    memset(p, 0, sizeof p);
    p[5] = 20;
    n = 12;
    memcpy(p + n, "\0\0\x0c\0\1", 5);
    n += 5;
    for (size_t i = 1, last = 12; i < 20; i++, last = n, n += 6)
        memcpy(p + n, (uint8_t[]){0xc0, (uint8_t)last, 0, 12, 0, 1}, 6);
    assert_int_equal(read_exact(p, n, NULL, &h), ERR_PROTO);
    p[5] = 16;
    assert_int_equal(read_exact(p, n - 4 * 6, NULL, &h), ERR_NONE);
}

/* Makes the announcement of a head with these particulars and says how many heads are believed. */
static int believed(const char *name, uint32_t address, int port)
{
    struct mdns_head head = attic;
    struct mdns_heard h;
    uint8_t out[MDNS_SENT_MAX];

    snprintf(head.name, sizeof head.name, "%s", name);
    head.address = address;
    head.port = (uint16_t)port;
    assert_int_equal(read_exact(out, mdns_write_head(out, &head), NULL, &h), ERR_NONE);
    return h.n;
}

static void what_cannot_be_dialled_or_printed_is_left_out(void **state)
{
    static const char *const bad[] = {
        "\x1b[2J",  "a\nb",     "\x7f",         "\xc2\x9b[m", "\xe2\x80\xaetxt", "\xff",
        "\xc0\xaf", "half\xc3", "\xed\xa0\x80", "\xf4\x90",   "\xe2\x81\xa6",    "\xe0\x80\xaf"};

    assert_int_equal(believed("K\xc3\xbc"
                              "che \xe2\x82\xac \xf0\x9f\x8d\x8e",
                              0x0a000001, 1),
                     1);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(mdns_name_fits(bad[i]));
        assert_int_equal(believed(bad[i], 0x0a000001, 1), 0);
    }
    assert_false(mdns_name_fits(""));
    assert_int_equal(believed("a", 0, 1), 0);
    assert_int_equal(believed("a", 0xe00000fb, 1), 0);
    assert_int_equal(believed("a", 0xffffffff, 1), 0);
    assert_int_equal(believed("a", 0x0a000001, 0), 0);
}

static void errors_and_updates_are_not_for_us(void **state)
{
    char p[sizeof announcement];
    struct mdns_heard h;

    for (int i = 0; i < 2; i++) {
        memcpy(p, announcement, sizeof p);
        p[2 + i] |= i ? 3 : 0x28;
        assert_int_equal(read_exact((uint8_t *)p, sizeof p - 1, NULL, &h), ERR_NONE);
        assert_int_equal(h.n, 0);
    }
}

/* Any byte of a good packet turned into any other: never out of bounds, never out of measure. */
static void no_byte_is_trusted(void **state)
{
    uint8_t p[sizeof announcement - 1];
    struct mdns_heard h;

    for (size_t at = 0; at < sizeof p; at++)
        for (int v = 0; v < 256; v++) {
            memcpy(p, announcement, sizeof p);
            p[at] = (uint8_t)v;
            if (read_exact(p, sizeof p, "Attic!", &h))
                assert_int_equal(h.n, 0);
            assert_in_range(h.n, 0, 1);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(announces_name_port_and_version),
        cmocka_unit_test(longest_name_fits),
        cmocka_unit_test(a_query_asks),
        cmocka_unit_test(who_knows_us_is_not_answered),
        cmocka_unit_test(truncations_are_refused),
        cmocka_unit_test(bad_names_are_refused),
        cmocka_unit_test(names_have_an_end),
        cmocka_unit_test(what_cannot_be_dialled_or_printed_is_left_out),
        cmocka_unit_test(errors_and_updates_are_not_for_us),
        cmocka_unit_test(no_byte_is_trusted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
