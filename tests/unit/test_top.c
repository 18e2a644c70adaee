/* What lingua top draws, held against pictures that a person has looked at (tests/unit/top). With
 * UPDATE_GOLDEN set they are written anew. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cli/top_view.h"

static json_t *document(const char *name)
{
    char *path = mem_printf("%s/%s.json", GOLDEN, name);
    json_t *doc = json_load_file(path, 0, NULL);

    free(path);
    assert_non_null(doc);
    return doc;
}

static char *drawn(const char *name, const char *lost, int width, int height,
                   const struct screen_out *how)
{
    json_t *doc = document(name);
    struct screen *s = top_draw(&(struct top_view){doc, lost}, width, height);
    size_t len;
    char *text = screen_text(s, how, &len);

    assert_int_equal(strlen(text), len);
    if (height)
        assert_int_equal(screen_height(s), height);
    screen_free(s);
    json_decref(doc);
    return text;
}

static char *file_text(const char *path)
{
    char *text = mem_zalloc(1 << 16, 1);
    FILE *f = fopen(path, "rb");

    if (!f)
        fail_msg("%s is not there", path);
    (void)!fread(text, 1, (1 << 16) - 1, f);
    fclose(f);
    return text;
}

static void golden(const char *name, const char *lost, int width, int height)
{
    char *text = drawn(name, lost, width, height, &(struct screen_out){0}), *was;
    char *path = mem_printf("%s/%s%s-%dx%d.txt", GOLDEN, name, lost ? "-lost" : "", width, height);

    if (getenv("UPDATE_GOLDEN")) {
        FILE *f = fopen(path, "wb");

        assert_non_null(f);
        fputs(text, f);
        fclose(f);
    }
    was = file_text(path);
    if (strcmp(was, text) != 0)
        fail_msg("%s has changed:\n%s", path, text);
    free(was);
    free(path);
    free(text);
}

static void test_golden(void **state)
{
    static const char *const names[] = {"home", "alone", "fetching", "many"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        golden(names[i], NULL, 80, 24);
        golden(names[i], NULL, 120, 40);
    }
    golden("home", "lost for 12 s: the head has ended", 80, 24);
    golden("home", NULL, 80, 0);
    golden("home", NULL, 60, 12);
    golden("rude", NULL, 80, 24);
}

/* Whatever the size, nothing is drawn outside: valgrind and the sanitizers watch. No line is wider
 * than it may be, and there are as many as there should be. */
static void test_sizes(void **state)
{
    static const char *const names[] = {"home", "alone", "fetching", "many", "rude"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (int width = 1; width < 200; width += 7)
            for (int height = 0; height < 60; height += height < 30 ? 1 : 9) {
                json_t *doc = document(names[i]);
                struct top_view v = {doc, height % 3 == 0 ? "lost" : NULL};
                struct screen *s = top_draw(&v, width, height);
                size_t len;
                char *text = screen_text(s, &(struct screen_out){0}, &len), *at = text;

                for (char *end; (end = strchr(at, '\n')); at = end + 1) {
                    *end = '\0';
                    assert_true(screen_width_of(at) <= (width < 20 ? 20 : width));
                }
                free(text);
                screen_free(s);
                json_decref(doc);
            }
    screen_free(top_draw(&(struct top_view){NULL, "nothing yet"}, 80, 24));
    screen_free(top_draw(&(struct top_view){NULL, NULL}, 80, 0));
}

/* No byte that a terminal obeys but our own. */
static void test_no_control(void **state)
{
    const struct screen_out plain = {0}, full = {true, true, false}, ascii = {true, false, true};
    char *text = drawn("rude", NULL, 80, 24, &plain);

    (void)state;
    for (const unsigned char *p = (unsigned char *)text; *p; p++)
        assert_true(*p >= 0x20 || *p == '\n');
    assert_null(strstr(text, "\xe2\x80\xae")); /* from right to left */
    assert_null(strstr(text, "\xc2\x9b"));
    free(text);
    text = drawn("rude", NULL, 80, 24, &full);
    for (const char *p = text; (p = strchr(p, 033)); p++)
        assert_non_null(strchr("HKJm", p[1 + strspn(p + 1, "[0123456789;")]));
    assert_null(strstr(text, "\033[2J"));
    assert_null(strchr(text, '\a'));
    free(text);
    text = drawn("rude", NULL, 80, 24, &ascii);
    for (const unsigned char *p = (unsigned char *)text; *p; p++)
        assert_true(*p < 0x80);
    free(text);
}

static void test_colours(void **state)
{
    const struct screen_out plain = {0}, colours = {.colours = true};
    char *with = drawn("home", NULL, 80, 24, &colours),
         *without = drawn("home", NULL, 80, 24, &plain);

    (void)state;
    assert_null(strchr(without, 033));
    assert_non_null(strchr(with, 033));
    for (char *p = with; (p = strchr(p, 033));) /* they are all that is on top */
        memmove(p, strchr(p, 'm') + 1, strlen(strchr(p, 'm')));
    for (char *a = with, *b = without; *b;) { /* but for blanks at the end of a line */
        size_t n = strcspn(a, "\n"), m = strcspn(b, "\n");

        assert_true(n >= m && strspn(a + m, " ") >= n - m);
        assert_memory_equal(a, b, m);
        a += n + 1;
        b += m + 1;
    }
    free(with);
    free(without);
}

static void test_cells(void **state)
{
    const struct screen_out how = {0};
    struct screen *s = screen_new(12, 2);
    size_t len;
    char *text;

    (void)state;
    assert_int_equal(screen_width_of("abc"), 3);
    assert_int_equal(screen_width_of("\xe5\xae\xb6"), 2);         /* a house */
    assert_int_equal(screen_width_of("e\xcc\x81"), 1);            /* an accent of its own */
    assert_int_equal(screen_width_of("\xff\xc3"), 2);             /* no UTF-8 */
    assert_int_equal(screen_width_of("\xc0\x80\xed\xa0\x80"), 5); /* nor these: too long, half */
    assert_int_equal(screen_put(s, 0, 0, 4, STYLE_PLAIN, "abcdef"), 4);
    assert_int_equal(screen_put(s, 0, 5, 4, STYLE_PLAIN, "\xe5\xae\xb6\xe5\xae\xb6\xe5\xae\xb6"),
                     3);
    assert_int_equal(screen_put(s, 0, 10, 9, STYLE_PLAIN, "xyz"), 2);
    assert_int_equal(screen_put(s, 1, 12, 9, STYLE_PLAIN, "x"), 0);
    assert_int_equal(screen_put(s, 2, 0, 9, STYLE_PLAIN, "x"), 0);
    assert_int_equal(screen_put(s, -1, -1, 9, STYLE_PLAIN, "x"), 0);
    assert_int_equal(screen_put(s, 1, 0, 0, STYLE_PLAIN, "x"), 0);
    screen_put_right(s, 1, 2, 6, STYLE_PLAIN, "1.25");
    text = screen_text(s, &how, &len);
    assert_string_equal(text, "abc~ \xe5\xae\xb6~  x~\n    1.25\n");
    free(text);
    screen_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),     cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_no_control), cmocka_unit_test(test_colours),
        cmocka_unit_test(test_cells),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
