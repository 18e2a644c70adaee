#define _GNU_SOURCE
#include "base/sys.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

int64_t clock_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int sys_cores(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

uint64_t sys_resident_bytes(void)
{
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");

    if (!f)
        return 0;
    if (fscanf(f, "%*u %llu", &pages) != 1)
        pages = 0;
    fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* The number a one-line file begins with; UINT64_MAX when there is none ("max", or no such file).
 * */
static uint64_t read_number(const char *path)
{
    unsigned long long n;
    FILE *f = fopen(path, "r");
    int got = f ? fscanf(f, "%llu", &n) : 0;

    if (f)
        fclose(f);
    return got == 1 ? n : UINT64_MAX;
}

/* What a control group, a container's or a service's, leaves of its own limit. */
static uint64_t group_available(const char *limit, const char *used)
{
    uint64_t most = read_number(limit), now = read_number(used);

    if (most == UINT64_MAX || now == UINT64_MAX)
        return UINT64_MAX;
    return now < most ? most - now : 0;
}

uint64_t sys_available_bytes(void)
{
    char line[128];
    unsigned long long kib = 0;
    uint64_t v2 = group_available("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current");
    uint64_t v1 = group_available("/sys/fs/cgroup/memory/memory.limit_in_bytes",
                                  "/sys/fs/cgroup/memory/memory.usage_in_bytes");
    uint64_t group = v1 < v2 ? v1 : v2;
    FILE *f = fopen("/proc/meminfo", "r");

    if (!f)
        return 0;
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
            break;
    fclose(f);
    return group < kib * 1024 ? group : kib * 1024;
}

void sys_kind(char *buf, size_t cap)
{
    struct utsname u;

    if (uname(&u) == 0)
        snprintf(buf, cap, "%s %s", u.machine, u.sysname);
    else
        snprintf(buf, cap, "unknown");
}

void sys_local_address(char *buf, size_t cap)
{
    struct ifaddrs *list;

    *buf = '\0';
    if (getifaddrs(&list) < 0)
        return;
    for (const struct ifaddrs *i = list; i; i = i->ifa_next) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)i->ifa_addr;
        char text[INET_ADDRSTRLEN];

        if (!in || in->sin_family != AF_INET || !(i->ifa_flags & IFF_UP) ||
            (i->ifa_flags & IFF_LOOPBACK))
            continue;
        if (inet_ntop(AF_INET, &in->sin_addr, text, sizeof text) && strlen(text) < cap) {
            memcpy(buf, text, strlen(text) + 1);
            break;
        }
    }
    freeifaddrs(list);
}
