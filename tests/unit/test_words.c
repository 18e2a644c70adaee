/* Lists that people write, and names that may stand in a command to copy. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/words.h"

static void test_a_list_gives_its_words(void **state)
{
    const char *list = " kitchen, old phone ,,pi,", *at = list;
    static const char *const words[] = {"kitchen", "old phone", "pi"};
    size_t n;

    (void)state;
    for (int i = 0; i < 3; i++) {
        const char *word = list_next(&at, &n);

        assert_non_null(word);
        assert_int_equal(n, strlen(words[i]));
        assert_memory_equal(word, words[i], n);
        assert_true(list_has(list, words[i]));
    }
    assert_null(list_next(&at, &n));
    assert_false(list_has(list, "old"));
    assert_false(list_has(list, ""));
    assert_false(list_has(NULL, "pi"));
    assert_false(list_has(" , ,", ""));
}

static void test_only_plain_names_are_put_into_commands(void **state)
{
    static const char *const plain[] = {"pi", "old-phone", "a.b_c",
                                        ("k\xc3\xbc"
                                         "che"),
                                        "4"};
    static const char *const odd[] = {"", "-rf", "a b", "a;b", "a,b", "$(x)", "a'b", "../x"};

    (void)state;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        assert_true(word_is_plain(plain[i]));
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        assert_false(word_is_plain(odd[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_list_gives_its_words),
        cmocka_unit_test(test_only_plain_names_are_put_into_commands),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
