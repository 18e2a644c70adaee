#define _GNU_SOURCE
#include "device/condition.h"

#include <ctype.h>
#include <dirent.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/sys.h"

enum { WORD_MAX = 32, PATH_BYTES = 512, TEMPERATURE_MAX_MC = 150000 };

/* The first word of a file, printable ASCII, cut short where it is long; false when there is none. */
static bool read_word(const char *path, char *buf, size_t cap)
{
    FILE *f = fopen(path, "re");
    size_t len = 0;
    int c;

    if (!f)
        return false;
    while (len + 1 < cap && (c = fgetc(f)) != EOF && isgraph(c))
        buf[len++] = (char)c;
    buf[len] = '\0';
    fclose(f);
    return len > 0;
}

/* A whole number and nothing else, in [min, max]. */
static bool read_whole(const char *path, long min, long max, long *out)
{
    char word[WORD_MAX], *end;

    if (!read_word(path, word, sizeof word))
        return false;
    *out = strtol(word, &end, 10);
    return !*end && *out >= min && *out <= max;
}

static bool is_battery(const char *supply)
{
    char path[PATH_BYTES], word[WORD_MAX];

    snprintf(path, sizeof path, "%s/type", supply);
    if (!read_word(path, word, sizeof word) || strcmp(word, "Battery") != 0)
        return false;
    /* A mouse's or a pen's says that it is a device's, not the system's. */
    snprintf(path, sizeof path, "%s/scope", supply);
    return !read_word(path, word, sizeof word) || strcmp(word, "Device") != 0;
}

static void read_battery(const char *supply, struct condition *out)
{
    char path[PATH_BYTES], word[WORD_MAX];
    long percent;

    if (!is_battery(supply))
        return;
    snprintf(path, sizeof path, "%s/capacity", supply);
    if (!read_whole(path, 0, 100, &percent))
        return;
    /* Of several the emptiest counts. */
    if (out->battery_percent >= 0 && out->battery_percent <= percent)
        return;
    out->battery_percent = (int)percent;
    snprintf(path, sizeof path, "%s/status", supply);
    out->charging = read_word(path, word, sizeof word) &&
                    (strcmp(word, "Charging") == 0 || strcmp(word, "Full") == 0);
}

static void read_zone(const char *zone, struct condition *out)
{
    char path[PATH_BYTES];
    long mc;

    snprintf(path, sizeof path, "%s/temp", zone);
    if (read_whole(path, 1, TEMPERATURE_MAX_MC, &mc) && mc > out->temperature_mc)
        out->temperature_mc = (int)mc;
}

/* Calls each for every entry of sysfs/class whose name begins so. */
static void each_entry(const char *sysfs, const char *class, const char *begins,
                       void (*each)(const char *path, struct condition *out), struct condition *out)
{
    char folder[PATH_BYTES / 2], path[PATH_BYTES - 32];
    const struct dirent *d;
    DIR *dir;

    snprintf(folder, sizeof folder, "%s/class/%s", sysfs, class);
    dir = opendir(folder);
    if (!dir)
        return;
    while ((d = readdir(dir))) {
        if (d->d_name[0] == '.' || strncmp(d->d_name, begins, strlen(begins)) != 0)
            continue;
        if (snprintf(path, sizeof path, "%s/%s", folder, d->d_name) >= (int)sizeof path)
            continue;
        each(path, out);
    }
    closedir(dir);
}

void condition_read(const char *sysfs, const char *folder, struct condition *out)
{
    struct statvfs v;

    *out = (struct condition){.battery_percent = -1, .memory_free = sys_available_bytes()};
    if (folder && statvfs(folder, &v) == 0)
        out->storage_free = (uint64_t)v.f_bavail * v.f_frsize;
    each_entry(sysfs, "thermal", "thermal_zone", read_zone, out);
    each_entry(sysfs, "power_supply", "", read_battery, out);
}

void condition_governor(const char *sysfs, char *buf, size_t cap)
{
    char path[PATH_BYTES];

    snprintf(path, sizeof path, "%s/devices/system/cpu/cpu0/cpufreq/scaling_governor", sysfs);
    if (!read_word(path, buf, cap))
        snprintf(buf, cap, "-");
}

/* By one measure, for all cores alike: a core that does not say makes it of no use. */
static int count_fastest(const char *sysfs, const cpu_set_t *set, const char *file)
{
    long most = 0, least = 0, speed;
    int n = 0;

    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        char path[PATH_BYTES];

        if (!CPU_ISSET(cpu, set))
            continue;
        snprintf(path, sizeof path, "%s/devices/system/cpu/cpu%d/%s", sysfs, cpu, file);
        if (!read_whole(path, 1, 100000000, &speed))
            return 0;
        if (speed > most) {
            most = speed;
            n = 0;
        }
        if (!least || speed < least)
            least = speed;
        n += speed == most;
    }
    return most > least ? n : 0;
}

int condition_fast_cores(const char *sysfs)
{
    cpu_set_t set;
    int n;

    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 0;
    n = count_fastest(sysfs, &set, "cpu_capacity");
    return n ? n : count_fastest(sysfs, &set, "cpufreq/cpuinfo_max_freq");
}
