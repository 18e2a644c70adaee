/* Random problems, and what is known of them without the solver. */
#ifndef TESTS_PLAN_INSTANCE_H
#define TESTS_PLAN_INSTANCE_H

#include "plan/place.h"

enum { INSTANCE_MODULES_MAX = 256, INSTANCE_DEVICES_MAX = 20 };

struct instance {
    struct place_problem p;
    struct place_module module[INSTANCE_MODULES_MAX];
    struct place_device device[INSTANCE_DEVICES_MAX];
    struct place_cost cost[INSTANCE_DEVICES_MAX][INSTANCE_MODULES_MAX];
    struct place_link link[INSTANCE_DEVICES_MAX * INSTANCE_DEVICES_MAX];
};

/* Numbers that a seed determines. */
void chance_seed(uint64_t seed);
uint64_t chance(uint64_t below);
double chance_real(double low, double high); /* evenly in the exponent */

/* n_modules: embed, then attn and ffn by turns, then output. Everything fits and is alike, links are
 * 1 ms and 10 MB/s, a module takes 10 ms. */
void instance_plain(struct instance *in, int n_modules, int n_devices);
/* At most so many modules and devices, with all kinds of constraints. */
void instance_random(struct instance *in, uint64_t seed, int modules_max, int devices_max);
/* After its arrays were copied or changed elsewhere. */
void instance_bind(struct instance *in);

/* NULL, or the constraint that the placement breaks; says the rules again, for itself. */
const char *instance_broken(const struct place_problem *p, const struct placement *q);

#endif
