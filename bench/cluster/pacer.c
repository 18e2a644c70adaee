/* Sees to it that quotas of CPU time are kept: wakes on its core all the time, and does nothing.
 *
 *     lingua-bench-pacer
 *
 * The kernel looks at the clock's ticks, mostly 4 ms apart, whether a group has used up its quota: one
 * of 1.5 ms in 5 runs for 4.4 ms and then pauses for 10.6, so that whatever ends within such a stretch has got
 * it for nothing. It looks, too, whenever another thread of the core is let in. So here is one that is, every
 * PACE_US, and then a group of 1.5 ms in 5 runs for 1.5 ms in the mean, and 2 at most. In a virtual machine
 * that makes work take a tenth more CPU time, which all devices pay alike: more often is no good. Needs
 * root, and no group with a CPU controller around it: those have no real time. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <time.h>

enum { PACE_US = 500 };

int main(void)
{
    const struct sched_param first = {.sched_priority = 1};
    const struct timespec pause = {.tv_nsec = PACE_US * 1000};

    if (sched_setscheduler(0, SCHED_FIFO, &first) != 0) {
        perror("lingua-bench-pacer: quotas are kept by the tick only, for want of real time");
        return 1;
    }
    for (;;)
        clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
}
