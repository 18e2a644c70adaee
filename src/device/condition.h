/* How the device is, as far as its system tells: what a head should know before it relies on it.
 * Everything comes from files that a kernel may lack or fill with nonsense, so every figure can be
 * "unknown". sysfs is "/sys", or a made-up tree in tests. Any thread. */
#ifndef LINGUA_DEVICE_CONDITION_H
#define LINGUA_DEVICE_CONDITION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct condition {
    uint64_t memory_free, storage_free; /* bytes; 0 = unknown */
    int temperature_mc;                 /* hottest, thousandths of a degree Celsius; 0 = unknown */
    int battery_percent;                /* -1 = none, or unknown */
    bool charging;
};

/* storage: of the file system this folder is on; NULL = unknown. */
void condition_read(const char *sysfs, const char *folder, struct condition *out);

/* How the CPU's clock is chosen, e.g. "schedutil"; "-" when unknown. One word. */
void condition_governor(const char *sysfs, char *buf, size_t cap);
/* How many of the cores this process may use are of the fastest kind; 0 when they are all alike or
 * nothing says. */
int condition_fast_cores(const char *sysfs);

#endif
