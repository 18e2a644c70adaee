/* Placing: which device gets which modules, and what that will cost.
 *
 * Data in, plan out; pure. docs/planner.md has the program in the field's notation and says why each
 * term is there. In short: a plan is a path. It begins on the head (device 0), which always holds
 * `embed`, enters every other device at most once, and may come back to the head for a tail: `output` alone
 * or, where private modules are pinned, the run that begins with the first private module of the
 * end. Each device on it holds a contiguous run of modules. For a concurrency of c streams, k
 * groups of g = ceil(c / k) rows are under way at once, and one of them comes home every
 *
 *     T = max( latency(g) / k,                        it must be home before it goes out again
 *              busy(d, g) / cap(d)   for each device, which works on one group at a time
 *              wire(l, g)            for each link,
 *              air(a, g)             for each shared air )
 *
 * seconds, so that a token takes T * k / c of the whole, and the score to be made small is
 *
 *     score = T * k / c + LATENCY_WEIGHT * latency(g) / c + reference * sum of worth(d) used,
 *                                                                       the head's left out
 *
 * within every device's memory, its owner's wishes and the private pins. The second term decides
 * where one stage alone is the limit; the third leaves out a device that saves less than it is
 * worth. Everything is in seconds, bytes, bytes per second.
 *
 *     check.c     is the problem sound, and each constraint by itself satisfiable
 *     cost.c      what a given plan costs: the one place where costs are added up
 *     order.c     the best cuts for a given order of devices: exact, labels over cut points
 *     milp.c      the mixed-integer linear program, by CBC: order, lower bound, gap
 *     place.c     brings them together
 *     standby.c   the second program: copies on pipeline neighbours
 *     describe.c  a problem's modules from a model */
#ifndef LINGUA_PLAN_PLACE_H
#define LINGUA_PLAN_PLACE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "model/classes.h"
#include "model/segment.h"
#include "plan/plan.h"

enum {
    PLACE_BATCHES = 5, /* steps of 1, 2, 4, 8, 16 rows are measured; more cost in proportion */
    PLACE_AIRS_MAX = 8,
    PLACE_CONCURRENCY_MAX = 256,
    PLACE_MODULES_MAX = 2048,
};
#define PLACE_LATENCY_WEIGHT 1e-3
#define PLACE_WORTH_DEFAULT  0.01 /* a device that saves less than 1 % is left out */
#define PLACE_WORTH_SPARE    0.10 /* its owner would rather keep it free */

/* What a module costs, whoever runs it. */
struct place_module {
    int class;             /* modules of one class cost every device the same */
    uint64_t weight_bytes; /* resident once loaded */
    uint64_t decode_bytes; /* of weights, read per token */
    uint64_t kv_bytes;     /* per position of one slot */
    uint64_t out_bytes; /* leave it per row, if the next module is elsewhere; for `output` logits */
    bool is_private;    /* only on devices marked mine, when asked for */
};

/* Seconds a device takes for a module of a class. */
struct place_cost {
    double
        decode[PLACE_BATCHES]; /* for a step of 1, 2, 4, 8, 16 rows near the start of a context */
    double position;           /* on top, per row and position that is already in its slot */
    double prefill;            /* per row of a chunk of CHUNK_ROWS, near the start */
};
enum { PLACE_CHUNK_ROWS = 128 };

enum place_wish { PLACE_MAY, PLACE_MUST, PLACE_NOT }; /* PLACE_NOT is for devices beside the head */

struct place_device {
    const char *name;
    uint64_t memory_bytes; /* budget of the whole process; 0 = as much as it likes */
    uint64_t base_bytes;   /* taken before any module */
    bool mine;
    enum place_wish wish;
    double cap;    /* 0 < cap <= 1: the share of the time it may be busy */
    double worth;  /* >= 0: the least it must save to be used, as a share of the reference */
    double step_s; /* each step takes so long on it beside computing: sockets, threads */
    const struct place_cost *cost; /* (n_classes), borrowed */
};

/* One way from one device to another. */
struct place_link {
    bool there;
    double latency_s;   /* of the first byte */
    double bytes_per_s; /* > 0; INFINITY is fine */
    int air; /* 0: its own wire; 1..PLACE_AIRS_MAX: shares the air with all that say so */
};

struct place_problem {
    int n_modules, n_devices, n_classes; /* device 0 is the head */
    const struct place_module *module;   /* (n_modules) */
    const struct place_device *device;   /* (n_devices) */
    const struct place_link *link;       /* (n_devices, n_devices): [from * n_devices + to] */
    uint64_t tied_bytes;    /* weight bytes that `embed` and `output` share where both are on one
                               device; 0 when they share none */
    uint64_t scratch_bytes; /* every device with a module needs, to compute */
    uint64_t scratch_output_bytes; /* the one with `output` needs on top */
    uint64_t frame_bytes;          /* of a step, beside its rows */
    int n_slots, n_ctx;
    bool want_private;
    int concurrency; /* streams, 1..PLACE_CONCURRENCY_MAX */
    int group_max;   /* rows that the head can put into one decode step, >= 1 */
    int depth;       /* positions a stream has behind it, in what is predicted */
    int prompt;      /* tokens of the prompt whose TTFT is predicted */
    double head_s;   /* per step, from the result's coming home to the next step's going out */
};

struct placement {
    struct plan plan;                        /* n_devices counts those used; epoch is 0 */
    int used[PLAN_DEVICES_MAX];              /* plan's device i is the problem's device used[i] */
    uint64_t memory_bytes[PLAN_DEVICES_MAX]; /* what device i will take of its budget */
    int k, g;                                /* groups under way, rows of each */
    double score;
    /* How it was found. bound <= the score of every plan; gap = 1 - bound / score. */
    double bound, gap;
    int n_columns, n_rows, n_nodes; /* of the program, summed over k; 0: it was not needed */
    int n_orders;                   /* orders of devices whose cuts were made exact */
};

struct place_opts {
    double gap;    /* the program may stop when it is proved to be that near; 0 = exact */
    int nodes_max; /* of branch and bound, per program; 0 = as many as it takes */
    bool quick;    /* no program: good orders and exact cuts; bound is then a weak one */
};
#define PLACE_OPTS_DEFAULT ((struct place_opts){.gap = 0.01, .nodes_max = 1000})

/* ERR_INPUT: the problem makes no sense; names the device, module or link and what is wrong with
 * it: costs that are negative, not finite or absurd (above a day), two devices of one name, more
 * than PLAN_DEVICES_MAX of them, pins that contradict each other (PLACE_NOT on the only device
 * marked mine, ...), a device that must be used and cannot be reached. */
MUST_CHECK enum err place_check(const struct place_problem *p, struct err_text *et);

/* Checks the problem, too. ERR_MEMORY: the budgets are too small; says by how many MiB (the least
 * that would do, given to the device it names), and the largest context that would fit, if any.
 * ERR_INPUT: private modules and no room on devices marked mine; devices that must be used and
 * cannot all be. ERR_GONE: no chain of links reaches enough devices; names the pair that is
 * missing. The same problem and opts give the same placement, on any machine's clock. */
MUST_CHECK enum err place_solve(const struct place_problem *p, const struct place_opts *opts,
                                struct placement *out, struct err_text *et);
/* LinguaLinked's baseline: the devices in the order given (without those that are PLACE_NOT), the
 * modules in equal numbers, the first ones one more where they do not come out even. ERR_MEMORY
 * names the device that cannot hold its share. */
MUST_CHECK enum err place_equal(const struct place_problem *p, struct placement *out,
                                struct err_text *et);
/* Fills memory, k, g and score of a placement whose plan and used are set. ERR_INPUT, ERR_MEMORY,
 * ERR_GONE: the constraint it breaks. */
MUST_CHECK enum err place_judge(const struct place_problem *p, struct placement *out,
                                struct err_text *et);
/* The largest n_ctx (a multiple of 64, at least 64, at most 2^24) for which a plan exists; 0 =
 * none. */
int place_largest_ctx(const struct place_problem *p);

/* ---- cost.c: what a plan costs ---- */

double place_module_s(const struct place_problem *p, int device, int module, int rows);
/* A stage's computing, with the device's step_s. rows of one step, each `depth` deep. */
double place_run_s(const struct place_problem *p, int device, int first, int end, int rows);
/* From one device to another behind `module` (-1: tokens to the first stage): latency, and the
 * time its bytes take. 0 from a device to itself. */
double place_hop_s(const struct place_problem *p, int from, int to, int module, int rows);
double place_wire_s(const struct place_problem *p, int from, int to, int module, int rows);
/* The sum, over modules, of what the quickest device takes, shared by the streams. */
double place_reference_s(const struct place_problem *p);
/* What a device of the plan, which is the problem's device `is`, takes of its budget. */
uint64_t place_memory(const struct place_problem *p, const struct plan *plan, int device, int is);

enum place_limit { PLACE_LIMIT_LATENCY, PLACE_LIMIT_DEVICE, PLACE_LIMIT_LINK, PLACE_LIMIT_AIR };

struct place_prediction {
    int k, g;
    double period_s;     /* T */
    double latency_s;    /* of a step of g rows, once round */
    double tokens_per_s; /* of all streams together: c / (k * T) */
    double token_s;      /* of one stream alone: latency of one row */
    double ttft_s;       /* of a prompt of p->prompt tokens, nothing else going on */
    enum place_limit limit;
    int limit_at; /* plan's device; stage in front of the link; air */
    /* Of one row alone, by part; they add up to token_s. hop[i] goes to stage i, hop[n_stages] goes
     * home; head_s is the head's client. */
    double compute_s[PLAN_STAGES_MAX], hop_s[PLAN_STAGES_MAX + 1], head_s;
    double busy[PLAN_DEVICES_MAX]; /* plan's device: its share of the period, 0..1 */
};
/* used[i] is the problem's device that is the plan's device i. k is the one that gives the best
 * score. */
void place_predict(const struct place_problem *p, const struct plan *plan, const int *used,
                   struct place_prediction *out);

/* What the head's batching wants to know of a plan: what a step takes on the device that it keeps
 * busy longest (with its `output`, where that comes back to it), and how
 * many groups are best kept under way when every slot is in use (or as many streams as the plan is
 * made for, if these are more). */
struct place_pace {
    int k;
    double step_s[PLACE_BATCHES]; /* decode rows, as for struct place_cost */
    double read_s[PLACE_BATCHES]; /* the same of a prompt, whose rows do not meet `output` */
    double row_s;                 /* each row of a prompt beyond */
    double position_s; /* each row of a prompt, per position beyond the problem's depth */
    double latency_s;  /* once round for one row */
};
/* used as for place_predict. */
void place_pace(const struct place_problem *p, const struct plan *plan, const int *used,
                struct place_pace *out);

/* ---- standby ---- */

struct place_standby {
    struct {
        int first,
            end; /* modules held as copies, in front of the own or behind them; empty: equal */
    } before[PLAN_STAGES_MAX], after[PLAN_STAGES_MAX]; /* by stage */
    uint64_t bytes;                                    /* held twice, in all */
};
/* Copies so that as many bytes as possible are held twice: each module at most once more, on a
 * device that is its stage's neighbour in the pipeline (plan's stages i and i + 1), contiguous with
 * what that one holds, within memory_bytes and storage_bytes (by plan's device; the latter counts
 * the weights of copies alone, NULL = no limit). `embed` and `output` stay where they are. */
void place_standby(const struct place_problem *p, const struct placement *placement,
                   const uint64_t *storage_bytes, struct place_standby *out);

/* ---- from a model ---- */

/* Fills modules, classes, tied, scratch and frame figures, slots and context from a model and how
 * its segments will be opened (describe.c). modules is (model_n_modules) and borrowed by p; p's
 * devices, links and wishes stay as they are. */
void place_describe(const struct model *m, const struct model_classes *classes,
                    const struct segment_opts *opts, struct place_problem *p,
                    struct place_module *modules);
/* Costs of a device of which nothing but the speed is known (weight bytes per second at one row):
 * a batch of g rows is taken to cost as much as one up to 4, then in proportion to fours. cost is
 * (n_classes). */
void place_guess_cost(const struct place_problem *p, double bytes_per_s, struct place_cost *cost);

#endif
