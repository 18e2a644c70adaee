/* What the system tells of itself, by made-up trees of its files: usual ones, and nonsense. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/sys.h"
#include "cache_rig.h"
#include "device/condition.h"

static void put(const struct folder *f, const char *path, const char *text)
{
    char whole[256];

    snprintf(whole, sizeof whole, "%s/%s", f->path, path);
    for (char *p = whole + strlen(f->path) + 1; (p = strchr(p, '/')); p++) {
        *p = '\0';
        mkdir(whole, 0700);
        *p = '/';
    }
    file_write(whole, text, strlen(text));
}

static void nothing_is_unknown(void **state)
{
    struct folder f = {""};
    struct condition c;
    char governor[16];

    (void)state;
    folder_make(&f);
    condition_read(f.path, NULL, &c);
    assert_int_equal(c.temperature_mc, 0);
    assert_int_equal(c.battery_percent, -1);
    assert_false(c.charging);
    assert_true(c.storage_free == 0);
    condition_read("no-such-folder", f.path, &c);
    assert_true(c.storage_free > 0);
    assert_int_equal(c.battery_percent, -1);
    condition_read(f.path, "no-such-folder", &c);
    assert_true(c.storage_free == 0);
    condition_governor(f.path, governor, sizeof governor);
    assert_string_equal(governor, "-");
    assert_int_equal(condition_fast_cores(f.path), 0);
    folder_remove(&f);
}

static void the_hottest_plausible_zone_counts(void **state)
{
    struct folder f = {""};
    struct condition c;

    (void)state;
    folder_make(&f);
    put(&f, "class/thermal/thermal_zone0/temp", "41250\n");
    put(&f, "class/thermal/thermal_zone1/temp", "-273000\n");
    put(&f, "class/thermal/thermal_zone2/temp", "0\n");
    put(&f, "class/thermal/thermal_zone3/temp", "150001\n");
    put(&f, "class/thermal/thermal_zone4/temp", "");
    put(&f, "class/thermal/thermal_zone5/temp", "hot\n");
    put(&f, "class/thermal/thermal_zone6/temp", "99999999999999999999999999999999999999\n");
    put(&f, "class/thermal/thermal_zone7/temp", "90000x\n");
    put(&f, "class/thermal/thermal_zone8/type", "no temp at all\n");
    put(&f, "class/thermal/cooling_device0/temp", "99000\n");
    condition_read(f.path, NULL, &c);
    assert_int_equal(c.temperature_mc, 41250);
    put(&f, "class/thermal/thermal_zone9/temp", "55000");
    condition_read(f.path, NULL, &c);
    assert_int_equal(c.temperature_mc, 55000);
    folder_remove(&f);
}

static void batteries_are_told_from_others(void **state)
{
    struct folder f = {""};
    struct condition c;

    (void)state;
    folder_make(&f);
    put(&f, "class/power_supply/AC/type", "Mains\n");
    put(&f, "class/power_supply/AC/capacity", "3\n");
    put(&f, "class/power_supply/mouse/type", "Battery\n");
    put(&f, "class/power_supply/mouse/scope", "Device\n");
    put(&f, "class/power_supply/mouse/capacity", "5\n");
    put(&f, "class/power_supply/odd/type", "Battery\n");
    put(&f, "class/power_supply/odd/capacity", "101\n");
    put(&f, "class/power_supply/empty/type", "Battery\n");
    put(&f, "class/power_supply/empty/capacity", "");
    condition_read(f.path, NULL, &c);
    assert_int_equal(c.battery_percent, -1);
    put(&f, "class/power_supply/BAT0/type", "Battery\n");
    put(&f, "class/power_supply/BAT0/capacity", "73\n");
    put(&f, "class/power_supply/BAT0/status", "Charging\n");
    condition_read(f.path, NULL, &c);
    assert_int_equal(c.battery_percent, 73);
    assert_true(c.charging);
    put(&f, "class/power_supply/BAT1/type", "Battery\n"); /* the emptiest counts */
    put(&f, "class/power_supply/BAT1/capacity", "0\n");
    put(&f, "class/power_supply/BAT1/status", "Discharging\n");
    condition_read(f.path, NULL, &c);
    assert_int_equal(c.battery_percent, 0);
    assert_false(c.charging);
    folder_remove(&f);
}

static void the_governor_is_one_word(void **state)
{
    const char *const file = "devices/system/cpu/cpu0/cpufreq/scaling_governor";
    struct folder f = {""};
    char governor[16], huge[4000];

    (void)state;
    folder_make(&f);
    put(&f, file, "schedutil\n");
    condition_governor(f.path, governor, sizeof governor);
    assert_string_equal(governor, "schedutil");
    put(&f, file, "two words");
    condition_governor(f.path, governor, sizeof governor);
    assert_string_equal(governor, "two");
    put(&f, file, "\n");
    condition_governor(f.path, governor, sizeof governor);
    assert_string_equal(governor, "-");
    memset(huge, 'g', sizeof huge - 1);
    huge[sizeof huge - 1] = '\0';
    put(&f, file, huge);
    condition_governor(f.path, governor, sizeof governor);
    assert_int_equal(strlen(governor), sizeof governor - 1);
    folder_remove(&f);
}

/* Of the cores this process may use, whichever they are here. */
static void fast_cores_are_counted(void **state)
{
    struct folder f = {""};
    int cores = sys_cores();
    char path[96], text[32];

    (void)state;
    folder_make(&f);
    for (int pass = 0; pass < 2; pass++) {
        const char *file = pass ? "cpu_capacity" : "cpufreq/cpuinfo_max_freq";

        for (int i = 0; i < 1024; i++) { /* all alike */
            snprintf(path, sizeof path, "devices/system/cpu/cpu%d/%s", i, file);
            put(&f, path, "1000\n");
        }
        assert_int_equal(condition_fast_cores(f.path), 0);
        for (int i = 0; i < 1024; i += 2) {
            snprintf(path, sizeof path, "devices/system/cpu/cpu%d/%s", i, file);
            snprintf(text, sizeof text, "%d\n", pass ? 400 : 1800000);
            put(&f, path, text);
        }
        if (cores > 1)
            assert_in_range(condition_fast_cores(f.path), 1, cores - 1);
        for (int i = 1; i < 1024; i += 2) { /* a core that does not say makes it of no use */
            snprintf(path, sizeof path, "devices/system/cpu/cpu%d/%s", i, file);
            put(&f, path, "fast\n");
        }
        assert_int_equal(condition_fast_cores(f.path), 0);
    }
    folder_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_unknown),
        cmocka_unit_test(the_hottest_plausible_zone_counts),
        cmocka_unit_test(batteries_are_told_from_others),
        cmocka_unit_test(the_governor_is_one_word),
        cmocka_unit_test(fast_cores_are_counted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
