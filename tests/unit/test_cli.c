/* What the commands do with words: sizes and optional values of options, what is taken for a token,
 * QR codes as a camera sees them, bars. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <qrencode.h>

#include "base/mem.h"
#include "cli/bars.h"
#include "cli/cmd.h"
#include "cli/invitation.h"
#include "cli/options.h"
#include "cli/qr.h"
#include "head/qr.h"

/* ---- options ---- */

struct values {
    uint64_t size;
    const char *maybe;
    int n_args;
};

/* What is said about wrong ones would only be in the way here. */
static int parse(struct values *v, const char *word, const char *next)
{
    const struct option_spec options[] = {
        {"size", 's', OPTION_SIZE, &v->size, 1024, 1ull << 50, NULL, "SIZE", "a size"},
        {"maybe", 0, OPTION_MAYBE, &v->maybe, 0, 0, NULL, "DIR", "with or without"},
    };
    const struct command_spec spec = {"test", "", options, (int)ARRAY_LEN(options), 2};
    char name[] = "test", first[64], second[64];
    char *argv[] = {name, first, second, NULL};
    const char *args[ARGS_MAX];
    int status, kept = dup(STDERR_FILENO);

    *v = (struct values){.size = 7};
    snprintf(first, sizeof first, "%s", word);
    snprintf(second, sizeof second, "%s", next ? next : "");
    assert_non_null(freopen("/dev/null", "w", stderr));
    status = options_parse(&spec, next ? 3 : 2, argv, args, &v->n_args);
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    return status;
}

static void test_sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes; /* 0 = refused */
    } rows[] = {
        {"1024", 1024},
        {"4096b", 4096},
        {"512M", 512ull << 20},
        {"512m", 512ull << 20},
        {"512MiB", 512ull << 20},
        {"512MB", 512ull << 20},
        {"1.5G", 3ull << 29},
        {"64K", 64 << 10},
        {"2T", 2ull << 40},
        {"1023", 0},
        {"1K ", 0},
        {"K", 0},
        {"", 0},
        {"-2G", 0},
        {"2Q", 0},
        {"2GG", 0},
        {"2i", 0},
        {"nan", 0},
        {"9999999T", 0},
        {"1e999", 0},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char word[64];
        struct values v;

        snprintf(word, sizeof word, "--size=%s", rows[i].text);
        assert_int_equal(parse(&v, word, NULL), rows[i].bytes ? -1 : STATUS_USAGE);
        assert_int_equal(v.size, rows[i].bytes ? rows[i].bytes : 7);
    }
}

static void test_maybe(void **state)
{
    struct values v;

    (void)state;
    assert_int_equal(parse(&v, "--maybe", "arg"), -1);
    assert_string_equal(v.maybe, "");
    assert_int_equal(v.n_args, 1); /* the next word is not its value */
    assert_int_equal(parse(&v, "--maybe=folder", NULL), -1);
    assert_int_equal(v.n_args, 0);
    assert_int_equal(parse(&v, "other", NULL), -1);
    assert_null(v.maybe);
}

/* ---- tokens ---- */

static void good_token(struct token *t, char text[TOKEN_TEXT_MAX])
{
    for (int i = 0; i < TOKEN_HEAD_BYTES; i++)
        t->head[i] = (uint8_t)(i * 37 + 5);
    for (int i = 0; i < TOKEN_SECRET_BYTES; i++)
        t->secret[i] = (uint8_t)(i * 91 + 3);
    token_text(t, text);
}

static void test_invitations(void **state)
{
    static const struct {
        const char *before, *after, *address; /* address NULL = refused */
    } rows[] = {
        {"", "", ""},
        {"  \t", " \r\n", ""},
        {"lingua:", "", ""},
        {"LINGUA:", "@192.168.1.5:7333", "192.168.1.5:7333"},
        {" lingua:", "@[fe80::1]:7333\n", "[fe80::1]:7333"},
        {"", "@pi.local", "pi.local"},
        {"lingua:", "@", NULL},
        {"lingua:", "@a@b", NULL},
        {"lingua:", "@a b", NULL},
        {"http:", "", NULL},
        {"x", "", NULL},
    };
    struct token token;
    char text[TOKEN_TEXT_MAX];

    (void)state;
    good_token(&token, text);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char *whole = mem_printf("%s%s%s", rows[i].before, text, rows[i].after);
        struct invitation inv;
        struct err_text et = {{0}};
        enum err e = invitation_parse(whole, &inv, &et);

        assert_int_equal(e, rows[i].address ? ERR_NONE : ERR_INPUT);
        assert_int_equal(inv.has_token, rows[i].address != NULL);
        assert_string_equal(inv.address, rows[i].address ? rows[i].address : "");
        if (!e)
            assert_memory_equal(&inv.token, &token, sizeof token);
        assert_null(strstr(et.text, text));
        free(whole);
    }
}

static void test_long_invitation(void **state)
{
    struct invitation inv;
    struct err_text et;
    char *text = mem_alloc(5001);

    (void)state;
    memset(text, 'a', 5000);
    text[5000] = '\0';
    assert_int_equal(invitation_parse(text, &inv, &et), ERR_INPUT);
    free(text);
}

/* Hosts must not be taken for tokens, nor mistyped tokens for hosts: they would be sent about. */
static void test_likeness(void **state)
{
    static const char *const hosts[] = {"pi",
                                        "kitchen-pi",
                                        "192.168.1.5",
                                        "10.0.0.1:7",
                                        "[fe80::1]:7333",
                                        "a-rather-long-host-name-of-a-machine",
                                        "pi.local:7333",
                                        "localhost",
                                        ""};
    struct token token;
    char text[TOKEN_TEXT_MAX];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(hosts); i++)
        assert_false(invitation_is_like(hosts[i]));
    good_token(&token, text);
    assert_true(invitation_is_like(text));
    text[3] = text[3] == 'a' ? 'b' : 'a';
    assert_true(invitation_is_like(text)); /* mistyped */
    text[strlen(text) - 4] = '\0';
    assert_true(invitation_is_like(text)); /* cut short in copying */
    assert_true(invitation_is_like("lingua:whatever"));
}

/* ---- QR codes ---- */

/* The modules that a terminal would show: the upper and the lower half of each character. Returns
 * how many rows. */
static int picture(char *text, unsigned char *dark, int width)
{
    char *rest = NULL;
    int y = 0;

    for (char *line = strtok_r(text, "\n", &rest); line;
         line = strtok_r(NULL, "\n", &rest), y += 2) {
        static const char colours[] = "\033[38;5;16;48;5;231m", end[] = "\033[0m";
        const char *p = line + strlen(colours);

        assert_memory_equal(line, colours, strlen(colours)); /* never the theme's own */
        for (int x = 0; x < width; x++) {
            bool full = strncmp(p, "\u2588", 3) == 0, up = strncmp(p, "\u2580", 3) == 0,
                 low = strncmp(p, "\u2584", 3) == 0;

            assert_true(full || up || low || *p == ' ');
            dark[y * width + x] = full || up;
            dark[(y + 1) * width + x] = full || low;
            p += *p == ' ' ? 1 : 3;
        }
        assert_string_equal(p, end);
    }
    return y;
}

/* The page draws it, too: of a token without its dashes, to an address with its own. */
static void test_qr_of_invitation(void **state)
{
    struct qr *a = qr_of_invitation("ab-cd-ef", "my-host:7333");
    struct qr *b = qr_of("lingua:abcdef@my-host:7333");
    struct qr *bare = qr_of_invitation("ab-cd-ef", ""), *c = qr_of("lingua:abcdef");
    char *longest = mem_alloc(8001);

    (void)state;
    memset(longest, 'x', 8000);
    longest[8000] = '\0';
    assert_null(qr_of(longest));
    free(longest);
    assert_int_equal(a->width, b->width);
    assert_memory_equal(a->module, b->module, (size_t)a->width * (size_t)a->width);
    assert_int_equal(bare->width, c->width);
    assert_memory_equal(bare->module, c->module, (size_t)c->width * (size_t)c->width);
    assert_true(qr_is_dark(a, 0, 0)); /* a finder's corner */
    assert_false(qr_is_dark(a, -1, 0));
    assert_false(qr_is_dark(a, 0, a->width));
    qr_free(a);
    qr_free(b);
    qr_free(bare);
    qr_free(c);
    qr_free(NULL);
}

static void test_qr(void **state)
{
    static const char words[] = "lingua:abcdefgh@192.168.1.5:7333";
    static unsigned char dark[200 * 200];
    QRcode *code = QRcode_encodeString8bit(words, 0, QR_ECLEVEL_L);
    int width = code->width + 8, rows;
    size_t n;
    char *text = NULL;
    FILE *f = open_memstream(&text, &n);

    (void)state;
    assert_false(qr_print(words, width, f)); /* the last column would wrap */
    assert_true(qr_print(words, width + 1, f));
    fclose(f);
    rows = picture(text, dark, width);
    assert_in_range(rows, width, width + 1);
    for (int y = 0; y < rows; y++)
        for (int x = 0; x < width; x++) {
            int cx = x - 4, cy = y - 4;
            bool inside = cx >= 0 && cy >= 0 && cx < code->width && cy < code->width;

            assert_int_equal(dark[y * width + x],
                             inside ? code->data[cy * code->width + cx] & 1 : 0);
        }
    QRcode_free(code);
    free(text);
}

/* ---- bars ---- */

static void test_bar_text(void **state)
{
    struct bar bar = {.what = "fetching", .done = 12300000, .total = 27100000};
    char buf[BAR_TEXT_MAX];

    (void)state;
    assert_string_equal(bar_text(&bar, buf), "12.3 MB of 27.1 MB"); /* no rate is known yet */
    bar.n_samples = 1;
    bar.sample[0].at_s = -1e9; /* long ago: nothing comes */
    bar.sample[0].done = 12300000;
    assert_string_equal(bar_text(&bar, buf), "12.3 MB of 27.1 MB, nothing comes just now");
}

static void test_bars(void **state)
{
    struct bars *b = mem_zalloc(1, sizeof *b);
    char name[BARS_NAME_MAX + 20];

    (void)state;
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    bars_begin(b);
    bars_set(b, "pi", "fetching", 5, 10);
    bars_set(b, name, "loading", 20, 10); /* too long a name, more than there is */
    bars_set(b, name, "loading", 20, 10);
    bars_end(b);
    assert_int_equal(b->n, 2);
    assert_int_equal(b->bar[1].done, 10);
    bars_begin(b);
    bars_set(b, "pi", "fetching", 6, 10);
    bars_end(b);
    assert_int_equal(b->n, 1); /* what is not under way any more is gone */
    assert_string_equal(b->bar[0].name, "pi");
    bars_begin(b);
    for (int i = 0; i < BARS_MAX + 5; i++) {
        snprintf(name, sizeof name, "device %d", i);
        bars_set(b, name, "fetching", 1, 2);
    }
    bars_end(b);
    assert_in_range(b->n, BARS_MAX - 1, BARS_MAX);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_maybe),
        cmocka_unit_test(test_invitations),
        cmocka_unit_test(test_long_invitation),
        cmocka_unit_test(test_likeness),
        cmocka_unit_test(test_qr),
        cmocka_unit_test(test_qr_of_invitation),
        cmocka_unit_test(test_bar_text),
        cmocka_unit_test(test_bars),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
