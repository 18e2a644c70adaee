/* What fuzz_api.c's requests run in: the real core and the real generations (head/gen.c) on two
 * devices that exist only here, a pool without threads, a clock that only we set, and chat forms
 * that were made once (a real one costs a child process). Everything that is due happens in an order
 * that the input chooses. One world at a time. */
#ifndef LINGUA_TESTS_API_WORLD_H
#define LINGUA_TESTS_API_WORLD_H

#include <stdbool.h>
#include <stdint.h>

struct cluster;

struct world_opts {
    uint32_t order;  /* of what is due at the same time */
    int fail_step;   /* this step of all fails on its device; 0 = none */
    int lose_step;   /* with this one the second device is gone; 0 = never */
    bool broken;     /* results are no numbers */
    bool tools;      /* forms are of chats with tools */
    bool no_devices; /* no plan ever works */
};

/* Once per process: opens the vocabulary and makes the forms. */
void world_open(void);
void world_begin(const struct world_opts *o);
struct cluster *world_cluster(void);
/* Lets one thing happen; passes time when nothing else is due. False: nothing will ever. */
bool world_turn(void);
/* Nothing of the requests may be left. */
void world_end(void);

#endif
