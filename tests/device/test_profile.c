/* The device's speed: measured, remembered with what it depends on, measured anew when that
 * differs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/sys.h"
#include "cache_rig.h"
#include "device/profile.h"
#include "model/measure.h"
#include "model/segment.h"

static struct err_text et;

static void speed_is_measured(void **state)
{
    struct compute *c;
    double speed = 0;

    (void)state;
    assert_int_equal(compute_open(2, &c, &et), ERR_NONE);
    assert_int_equal(model_measure_speed(c, MEASURE_BYTES_MIN, &speed, &et), ERR_NONE);
    assert_true(speed > 1e6 && speed < 1e13);
    compute_close(c);
}

static uint64_t speed_with(int n_threads, const char *folder)
{
    struct compute *c;
    struct profile p;

    assert_int_equal(compute_open(n_threads, &c, &et), ERR_NONE);
    if (profile_measure(c, folder, 0, &p, &et) != ERR_NONE)
        fail_msg("%s", et.text);
    assert_true(p.base_bytes > 100000);
    compute_close(c);
    return p.speed;
}

static void speed_is_remembered(void **state)
{
    struct folder f = {""};
    char path[128], *text, *number;
    size_t len;

    (void)state;
    folder_make(&f);
    snprintf(path, sizeof path, "%s/profile", f.path);
    assert_true(speed_with(1, f.path) > 1000000);
    text = mem_zalloc(1, 512);
    {
        uint8_t *bytes = file_read(path, &len);

        memcpy(text, bytes, len);
        free(bytes);
    }
    /* A number no device has shows that it was read. */
    number = strstr(text, "speed ");
    assert_non_null(number);
    strcpy(number, "speed 4321\n");
    file_write(path, text, strlen(text));
    assert_int_equal(speed_with(1, f.path), 4321);
    assert_int_not_equal(speed_with(1, NULL), 4321);
    assert_int_not_equal(speed_with(2, f.path), 4321); /* other threads */
    strcpy(number, "speed zero\n");
    file_write(path, text, strlen(text));
    assert_true(speed_with(1, f.path) > 1000000);
    free(text);
    folder_remove(&f);
}

static uint64_t base_with(const char *folder, struct compute *c)
{
    struct profile p;

    if (profile_measure(c, folder, 0, &p, &et) != ERR_NONE)
        fail_msg("%s", et.text);
    assert_int_equal(p.speed, 4321);
    return p.base_bytes;
}

/* A plan depends on it, so it does not change by some pages at every start; but it does when it is
 * far from what it was. */
static void base_is_remembered(void **state)
{
    struct folder f = {""};
    struct profile now;
    struct compute *c;
    char path[128], *text, *number;
    uint8_t *bytes;
    size_t len;

    (void)state;
    folder_make(&f);
    snprintf(path, sizeof path, "%s/profile", f.path);
    assert_int_equal(compute_open(1, &c, &et), ERR_NONE);
    assert_int_equal(profile_measure(c, f.path, 0, &now, &et), ERR_NONE);
    bytes = file_read(path, &len);
    text = mem_zalloc(len + 64, 1);
    memcpy(text, bytes, len);
    number = strstr(text, "speed ");
    assert_non_null(number);
    assert_non_null(strstr(number, "\nbase "));
    for (int i = 0; i < 2; i++) {
        uint64_t was = now.base_bytes + (i == 0 ? 4096 : 64 << 20), got;

        snprintf(number, 64, "speed 4321\nbase %llu\n", (unsigned long long)was);
        file_write(path, text, strlen(text));
        got = base_with(f.path, c);
        if (i == 0) {
            assert_int_equal(got, was);
        } else {
            assert_true(got < was - (32 << 20));
            assert_int_equal(base_with(f.path, c), got); /* and that is remembered */
        }
    }
    compute_close(c);
    free(bytes);
    free(text);
    folder_remove(&f);
}

/* A phone lends 100 MB: measuring must not take 200. */
static void budget_is_kept_to(void **state)
{
    uint64_t before = sys_resident_bytes(), budget = before + (40 << 20);
    struct rusage most;
    struct compute *c;
    struct profile p;

    (void)state;
    assert_int_equal(compute_open(1, &c, &et), ERR_NONE);
    getrusage(RUSAGE_SELF, &most);
    assert_true((uint64_t)most.ru_maxrss * 1024 < budget); /* it is the first to take much */
    assert_int_equal(profile_measure(c, NULL, budget, &p, &et), ERR_NONE);
    getrusage(RUSAGE_SELF, &most);
    assert_true((uint64_t)most.ru_maxrss * 1024 > before + (20 << 20));
#ifndef __SANITIZE_ADDRESS__ /* which has memory of its own */
    assert_true((uint64_t)most.ru_maxrss * 1024 <= budget);
#endif
    /* One that is spent already is measured with next to nothing. */
    assert_int_equal(profile_measure(c, NULL, 1, &p, &et), ERR_NONE);
    assert_true(p.speed > 1000000);
    compute_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(budget_is_kept_to),
        cmocka_unit_test(speed_is_measured),
        cmocka_unit_test(speed_is_remembered),
        cmocka_unit_test(base_is_remembered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
