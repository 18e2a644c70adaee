/* Pages of their own: where they begin, how far they reach, and that they go back to the system. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/sys.h"

enum { HUGE = 2 << 20 };

static void test_pages_are_zero_and_reach_to_their_last_byte(void **state)
{
    static const size_t sizes[] = {0, 1, 4096, HUGE - 1, HUGE, 5 * HUGE + 12345};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        uint8_t *p = mem_pages(sizes[i]);

        assert_non_null(p);
        assert_int_equal((uintptr_t)p % HUGE, 0);
        for (size_t at = 0; at < sizes[i]; at++)
            assert_int_equal(p[at], 0);
        memset(p, 7, sizes[i]);
        mem_pages_free(p, sizes[i]);
    }
    mem_pages_free(NULL, HUGE);
}

static void test_more_than_there_can_be_is_refused(void **state)
{
    (void)state;
    assert_null(mem_pages(SIZE_MAX));
    assert_null(mem_pages(SIZE_MAX / 2));
}

static void test_freed_pages_are_the_systems_again(void **state)
{
    const size_t bytes = (size_t)64 << 20;
    uint64_t before = sys_resident_bytes(), full;
    uint8_t *p = mem_pages(bytes);

    (void)state;
    assert_non_null(p);
    memset(p, 1, bytes);
    full = sys_resident_bytes();
    mem_pages_free(p, bytes);
    assert_true(full >= before + bytes);
    assert_true(sys_resident_bytes() + bytes / 2 < full);
}

/* The advice is for whole huge pages inside; what lies beside them keeps what it holds. */
static void test_advice_leaves_the_neighbours_alone(void **state)
{
    uint8_t *p = mem_alloc(5 * HUGE);

    (void)state;
    memset(p, 3, 5 * HUGE);
    mem_huge(p + 1, 100);
    mem_huge(p + 100, 4 * HUGE);
    for (size_t at = 0; at < 5 * (size_t)HUGE; at++)
        assert_int_equal(p[at], 3);
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages_are_zero_and_reach_to_their_last_byte),
        cmocka_unit_test(test_more_than_there_can_be_is_refused),
        cmocka_unit_test(test_freed_pages_are_the_systems_again),
        cmocka_unit_test(test_advice_leaves_the_neighbours_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
