/* Pages of their own: where they begin, how far they reach, and that they go back to the system. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* Whether the system was asked for huge pages where p is: 1, 0, or -1 when it does not say. */
static int advised(const void *p)
{
    FILE *f = fopen("/proc/self/smaps", "r");
    char line[512];
    unsigned long from, to;
    bool here = false;
    int said = -1;

    while (f && said < 0 && fgets(line, sizeof line, f))
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            here = from <= (uintptr_t)p && (uintptr_t)p < to;
        else if (here && strncmp(line, "VmFlags:", 8) == 0)
            said = strstr(line, " hg") != NULL;
    if (f)
        fclose(f);
    return said;
}

/* Whole huge pages inside are asked for; what lies beside them keeps what it holds. */
static void test_advice_is_for_whole_huge_pages_inside(void **state)
{
    uint8_t *p = mem_pages(HUGE / 2), *q = mem_pages(6 * HUGE);

    (void)state;
    assert_non_null(p);
    assert_non_null(q);
    if (advised(p) < 0 || access("/sys/kernel/mm/transparent_hugepage", F_OK) != 0) {
        print_message("SKIPPED: this system has no huge pages to ask for\n");
        skip();
    }
    assert_int_equal(advised(p), 0); /* too little */
    assert_int_equal(advised(q), 1);
    assert_int_equal(advised(q + 6 * HUGE - 1), 1);
    mem_pages_free(q, 6 * HUGE);

    q = mem_alloc(6 * HUGE);
    memset(q, 3, 6 * HUGE);
    mem_huge(q + 1, 100);
    assert_int_equal(advised(q + HUGE), 0);
    mem_huge(q + 100, 5 * HUGE);
    assert_int_equal(advised(q + 2 * HUGE), 1);
    for (size_t at = 0; at < 6 * (size_t)HUGE; at++)
        assert_int_equal(q[at], 3);
    free(q);
    mem_pages_free(p, HUGE / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages_are_zero_and_reach_to_their_last_byte),
        cmocka_unit_test(test_more_than_there_can_be_is_refused),
        cmocka_unit_test(test_freed_pages_are_the_systems_again),
        cmocka_unit_test(test_advice_is_for_whole_huge_pages_inside),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
