/* Computes nothing, at idle priority, for as long as it may: beside an emulated phone it uses up what
 * the phone would not be owed later.
 *
 *     lingua-bench-idler
 *
 * It yields all the time. One that just spins is left running for a while when real work wakes beside
 * it, and gets the first share of each stage: 12 ms of CPU time at 1.5 ms in 5 ms took 44 ms from its first
 * instruction on, instead of 40, and up to 55; beside this one 39.5, and 41 at most. Linux only. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>

int main(void)
{
    struct sched_param none = {0};

    if (sched_setscheduler(0, SCHED_IDLE, &none) != 0) {
        perror("lingua-bench-idler: sched_setscheduler");
        return 1;
    }
    for (;;)
        sched_yield();
}
