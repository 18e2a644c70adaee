/* The chain over the toy model: whole, cut in process, and as real device processes. This program
 * is its own device program: started as `test_chain device ...` it is a device, as `test_chain
 * hold` a head that waits to be killed. */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/cmd.h"
#include "head/chain.h"
#include "toy.h"

enum { SLOTS = 4, CTX = 1200, ROWS = 1024 };

static struct err_text et;

struct rig {
    struct model *model;
    struct chain *chain;
};

static enum err rig_try(struct rig *r, const char *model, const char *split, int in_process)
{
    struct chain_opts opts = {.n_threads = 2,
                              .segment = {SLOTS, CTX, ROWS, KV_F16},
                              .split = split,
                              .in_process = in_process};
    enum err e;

    assert_int_equal(model_open(model, &r->model, &et), ERR_NONE);
    e = chain_open(r->model, &opts, &r->chain, &et);
    if (e)
        model_close(r->model);
    return e;
}

static void rig_open(struct rig *r, const char *model, const char *split, int in_process)
{
    if (rig_try(r, model, split, in_process))
        fail_msg("open %s: %s", split ? split : "whole", et.text);
}

static void rig_close(struct rig *r)
{
    chain_close(r->chain);
    model_close(r->model);
}

/* Runs n tokens in slot from position pos on; the last row is wanted if want. */
static enum err feed(struct rig *r, int slot, int pos, const int32_t *tokens, int n, int want,
                     struct tensors *logits)
{
    static int32_t slots[ROWS], positions[ROWS];
    static uint8_t wants[ROWS];
    struct batch b = {n, slots, positions, tokens, wants};

    for (int i = 0; i < n; i++) {
        slots[i] = slot;
        positions[i] = pos + i;
        wants[i] = want && i == n - 1;
    }
    return chain_run(r->chain, &b, logits, &et);
}

static int32_t best(const float *logits)
{
    int32_t at = 0;

    for (int32_t i = 1; i < TOY_VOCAB; i++)
        if (logits[i] > logits[at])
            at = i;
    return at;
}

enum { PROMPT = 23, ANSWER = 40 };

/* The prompt in chunks nobody waits for, then greedy decoding. */
static void generate(struct rig *r, int slot, int chunk, int32_t answer[ANSWER])
{
    int32_t prompt[PROMPT], next;
    struct tensors logits;

    for (int i = 0; i < PROMPT; i++)
        prompt[i] = (i * 31 + 5) % TOY_VOCAB;
    for (int at = 0; at < PROMPT; at += chunk) {
        int n = PROMPT - at < chunk ? PROMPT - at : chunk;

        if (feed(r, slot, at, prompt + at, n, at + n == PROMPT, &logits))
            fail_msg("prompt: %s", et.text);
        assert_int_equal(logits.n_rows, at + n == PROMPT);
    }
    for (int i = 0; i < ANSWER; i++) {
        assert_int_equal(logits.width[0], TOY_VOCAB);
        next = answer[i] = best(logits.data[0]);
        if (feed(r, slot, PROMPT + i, &next, 1, 1, &logits))
            fail_msg("decode: %s", et.text);
    }
    assert_int_equal(chain_slot_len(r->chain, slot), PROMPT + ANSWER);
}

static void assert_same_as_whole(const char *model, const char *split, int in_process)
{
    int32_t whole[ANSWER], cut[ANSWER];
    struct rig r;

    rig_open(&r, model, NULL, 0);
    generate(&r, 0, PROMPT, whole);
    rig_close(&r);
    rig_open(&r, model, split, in_process);
    generate(&r, 1, 4, cut);
    assert_memory_equal(whole, cut, sizeof whole);
    rig_close(&r);
}

static const char *const splits[] = {
    "1", "2", "3", "5", "0-4,5-9,10-", "0-3+9-,4-8", "4-9,0-3+10-", "1-,0", "0-2+5-7,3-4+8-", "0-,",
};
enum { N_SPLITS = sizeof splits / sizeof splits[0] - 1 };

static void test_in_process(void **state)
{
    (void)state;
    for (int i = 0; i < N_SPLITS; i++) {
        assert_same_as_whole("toy layers=6", splits[i], 1);
        assert_same_as_whole("toy layers=6 parallel=1", splits[i], 1);
    }
}

static void test_processes(void **state)
{
    (void)state;
    for (int i = 0; i < N_SPLITS; i++)
        assert_same_as_whole(i % 2 ? "toy layers=6 parallel=1" : "toy layers=6", splits[i], 0);
}

/* Cut at every place once. */
static void test_every_cut(void **state)
{
    (void)state;
    for (int at = 1; at < 14; at++) {
        char split[32];

        snprintf(split, sizeof split, "0-%d,%d-", at - 1, at);
        assert_same_as_whole("toy layers=6 parallel=1", split, 1);
    }
}

/* The same calls on a whole chain and on one of processes, logits compared after each. */
static void test_slots_travel(void **state)
{
    struct rig rigs[2];
    float seen[2][3][TOY_VOCAB];
    int32_t tokens[64];

    (void)state;
    for (int i = 0; i < 64; i++)
        tokens[i] = (i * 7 + 1) % TOY_VOCAB;
    rig_open(&rigs[0], "toy layers=6", NULL, 0);
    rig_open(&rigs[1], "toy layers=6", "3", 0);
    for (int i = 0; i < 2; i++) {
        struct chain *c = rigs[i].chain;
        struct tensors t;
        /* Three slots in one step, interleaved; the first and last of each wanted. */
        int32_t slot[] = {0, 2, 0, 3, 2, 0}, pos[] = {10, 5, 11, 0, 6, 12};
        uint8_t want[] = {1, 0, 0, 1, 1, 0};
        struct batch b = {6, slot, pos, tokens, want};

        assert_int_equal(feed(&rigs[i], 0, 0, tokens, 20, 0, &t), ERR_NONE);
        assert_int_equal(chain_slot_truncate(c, 0, 15, &et), ERR_NONE);
        assert_int_equal(chain_slot_truncate(c, 0, 10, &et), ERR_NONE);
        assert_int_equal(chain_slot_copy(c, 0, 2, 10, &et), ERR_NONE);
        assert_int_equal(chain_slot_truncate(c, 2, 5, &et), ERR_NONE);
        assert_int_equal(chain_slot_len(c, 2), 5);
        assert_int_equal(chain_run(c, &b, &t, &et), ERR_NONE);
        assert_int_equal(t.n_rows, 3);
        memcpy(seen[i], t.data[0], sizeof seen[i]);
        assert_int_equal(chain_slot_len(c, 0), 13);
        assert_int_equal(chain_slot_len(c, 2), 7);
        assert_int_equal(chain_slot_len(c, 3), 1);
    }
    assert_memory_equal(seen[0], seen[1], sizeof seen[0]);
    /* More changes than one step may carry. */
    for (int i = 0; i < 2; i++) {
        struct tensors t;

        for (int k = 0; k < 3000; k++)
            assert_int_equal(chain_slot_copy(rigs[i].chain, k % 2 ? 0 : 2, k % 2 ? 2 : 0, 7, &et),
                             ERR_NONE);
        assert_int_equal(feed(&rigs[i], 2, 3, tokens + 3, 1, 1, &t), ERR_NONE);
        memcpy(seen[i][0], t.data[0], sizeof seen[i][0]);
        rig_close(&rigs[i]);
    }
    assert_memory_equal(seen[0][0], seen[1][0], sizeof seen[0][0]);
}

/* What the caller gets wrong is refused before any device has heard of it. */
static void test_refusals(void **state)
{
    static const struct {
        int32_t slot[2], pos[2], token[2];
        enum err e;
    } rows[] = {
        {{SLOTS, 0}, {0, 0}, {0, 0}, ERR_INPUT}, {{-1, 0}, {0, 0}, {0, 0}, ERR_INPUT},
        {{0, 0}, {1, 2}, {0, 0}, ERR_INPUT},     {{0, 0}, {0, 2}, {0, 0}, ERR_INPUT},
        {{0, 0}, {0, 0}, {0, 0}, ERR_INPUT},     {{0, 0}, {-1, 0}, {0, 0}, ERR_INPUT},
        {{0, 0}, {0, 1}, {0, -1}, ERR_INPUT},    {{0, 0}, {0, 1}, {TOY_VOCAB, 0}, ERR_INPUT},
    };
    uint8_t want[2] = {1, 1};
    int32_t answer[ANSWER];
    struct tensors t;
    struct rig r;

    (void)state;
    rig_open(&r, "toy layers=6", "3", 0);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct batch b = {2, rows[i].slot, rows[i].pos, rows[i].token, want};

        assert_int_equal(chain_run(r.chain, &b, &t, &et), rows[i].e);
        assert_int_equal(chain_slot_len(r.chain, 0), 0);
    }
    {
        struct batch b = {ROWS + 1, rows[0].slot, rows[0].pos, rows[0].token, want};

        assert_int_equal(chain_run(r.chain, &b, &t, &et), ERR_LIMIT);
        b.n_rows = 0;
        assert_int_equal(chain_run(r.chain, &b, &t, &et), ERR_INPUT);
    }
    assert_int_equal(chain_slot_truncate(r.chain, 0, 1, &et), ERR_INPUT);
    assert_int_equal(chain_slot_truncate(r.chain, SLOTS, 0, &et), ERR_INPUT);
    assert_int_equal(chain_slot_copy(r.chain, 0, 1, 1, &et), ERR_INPUT);
    assert_int_equal(chain_slot_copy(r.chain, 0, 0, 0, &et), ERR_INPUT);
    assert_int_equal(chain_slot_copy(r.chain, 0, -1, 0, &et), ERR_INPUT);
    generate(&r, 0, 5, answer); /* as if nothing had been said */
    rig_close(&r);
}

static void test_context_has_an_end(void **state)
{
    struct rig r;
    static int32_t tokens[ROWS];
    struct tensors t;

    (void)state;
    rig_open(&r, "toy layers=2", "2", 1);
    assert_int_equal(feed(&r, 0, 0, tokens, ROWS, 0, &t), ERR_NONE);
    assert_int_equal(feed(&r, 0, ROWS, tokens, CTX - ROWS + 1, 1, &t), ERR_LIMIT);
    assert_int_equal(feed(&r, 0, ROWS, tokens, CTX - ROWS, 1, &t), ERR_NONE);
    rig_close(&r);
}

/* A device in the middle cannot run position 12, while the chunks of a prompt are under way. */
static void failing_step(const char *split, int in_process)
{
    const char *model = "toy layers=6 fail_module=6 fail_pos=12";
    int32_t tokens[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    float clean[TOY_VOCAB], other[TOY_VOCAB];
    enum err e = ERR_NONE;
    struct tensors t;
    struct rig r;

    rig_open(&r, model, NULL, 0);
    assert_int_equal(feed(&r, 0, 0, tokens, 8, 1, &t), ERR_NONE);
    memcpy(clean, t.data[0], sizeof clean);
    assert_int_equal(feed(&r, 0, 8, tokens + 8, 1, 1, &t), ERR_NONE);
    memcpy(other, t.data[0], sizeof other);
    rig_close(&r);

    rig_open(&r, model, split, in_process);
    assert_int_equal(feed(&r, 1, 0, tokens, 8, 0, &t), ERR_NONE);
    for (int at = 0; at < 16 && !e; at += 2)
        e = feed(&r, 0, at, tokens + at, 2, at == 14, &t);
    assert_int_equal(e, ERR_MEMORY);
    assert_non_null(strstr(et.text, "position 12 is too much"));
    for (int i = 0; i < 8 && chain_slot_len(r.chain, 0); i++) /* more of it may be under way */
        (void)!feed(&r, 1, 7, tokens + 7, 1, 1, &t);
    assert_int_equal(chain_slot_len(r.chain, 0), 0);
    assert_int_equal(chain_slot_len(r.chain, 1), 8); /* it touched nothing else */
    e = feed(&r, 1, 8, tokens + 8, 1, 1, &t);
    if (e) /* the last echo of the failure */
        e = feed(&r, 1, 8, tokens + 8, 1, 1, &t);
    assert_int_equal(e, ERR_NONE);
    assert_memory_equal(t.data[0], other, sizeof other);
    assert_int_equal(feed(&r, 0, 0, tokens, 8, 1, &t), ERR_NONE);
    assert_memory_equal(t.data[0], clean, sizeof clean);
    rig_close(&r);
}

static void test_failed_step(void **state)
{
    (void)state;
    failing_step(NULL, 0);
    failing_step("3", 1);
    failing_step("3", 0);
    failing_step("0-3+9-,4-8", 0);
    failing_step("4-7,0-3+8-", 0);
}

/* Frames far larger than a socket's buffer, many of them, over devices that send to each other both
 * ways: nobody may wait for somebody who waits for him. */
static void test_large_frames(void **state)
{
    static int32_t tokens[ROWS];
    float whole[TOY_VOCAB];
    static const char *const cuts[] = {NULL, "0-3,4-5,6-", "0+3-4,1-2+5-6,7-", "2-3,0-1+4,5-"};

    (void)state;
    for (int i = 0; i < ROWS; i++)
        tokens[i] = i % TOY_VOCAB;
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        struct tensors t;
        struct rig r;

        rig_open(&r, "toy layers=3 width=4096 parallel=1", cuts[i], 0);
        for (int round = 0; round < 3; round++)
            for (int at = 0; at < ROWS; at += ROWS / 4)
                if (feed(&r, round % SLOTS, at, tokens + at, ROWS / 4,
                         round == 2 && at + ROWS / 4 == ROWS, &t))
                    fail_msg("%s: %s", cuts[i], et.text);
        if (cuts[i])
            assert_memory_equal(whole, t.data[0], sizeof whole);
        else
            memcpy(whole, t.data[0], sizeof whole);
        rig_close(&r);
    }
}

static void test_report(void **state)
{
    struct device_report d[3];
    int32_t answer[ANSWER];
    struct rig r;

    (void)state;
    rig_open(&r, "toy layers=6 width=64", "3", 0);
    generate(&r, 0, 4, answer);
    assert_int_equal(chain_n_devices(r.chain), 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(chain_report(r.chain, i, &d[i], &et), ERR_NONE);
    assert_string_equal(d[1].name, "device 1");
    assert_int_equal(d[0].pid, getpid());
    assert_true(d[1].pid != d[0].pid && d[2].pid != d[1].pid);
    assert_non_null(strstr(d[0].modules, " + output"));
    assert_int_equal(d[0].weight_bytes + d[1].weight_bytes + d[2].weight_bytes, 14000);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(d[i].steps, 6 + ANSWER);
        assert_int_equal(d[i].rows, PROMPT + ANSWER);
        assert_int_equal(d[i].decode_steps, ANSWER);
        assert_true(d[i].n_threads >= 1 && d[i].resident_bytes > 0);
        assert_true(d[i].decode_sent_bytes <= ANSWER * (4 * 64 + 200));
        assert_true(d[i].decode_sent_bytes > ANSWER * 4 * 64);
        assert_true(d[i].sent_bytes > d[i].decode_sent_bytes);
    }
    assert_int_equal(chain_report(r.chain, 3, &d[0], &et), ERR_INPUT);
    rig_close(&r);
    rig_open(&r, "toy layers=6", NULL, 0);
    generate(&r, 0, 4, answer);
    assert_int_equal(chain_report(r.chain, 0, &d[0], &et), ERR_NONE);
    assert_string_equal(d[0].modules, "embed..output");
    assert_int_equal(d[0].sent_bytes, 0);
    rig_close(&r);
}

static void test_interrupt_spares_devices(void **state)
{
    struct device_report d;
    int32_t answer[ANSWER];
    struct rig r;

    (void)state;
    rig_open(&r, "toy layers=6", "3", 0);
    assert_int_equal(chain_report(r.chain, 1, &d, &et), ERR_NONE);
    kill(d.pid, SIGINT);
    generate(&r, 0, 4, answer);
    rig_close(&r);
}

/* kill -9 of a device: before a step, and while one is under way. */
static void killed_device(const char *model, int victim, int under_way)
{
    char pid[32];
    struct device_report d;
    struct tensors t;
    int32_t tokens[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    struct rig r;

    rig_open(&r, model, "3", 0);
    assert_int_equal(chain_report(r.chain, victim, &d, &et), ERR_NONE);
    if (under_way)
        assert_int_equal(feed(&r, 0, 0, tokens, 4, 0, &t), ERR_NONE);
    kill(d.pid, SIGKILL);
    assert_int_equal(feed(&r, 1, 0, tokens, 8, 1, &t), ERR_GONE);
    snprintf(pid, sizeof pid, "device %d (process %d)", victim, d.pid);
    assert_non_null(strstr(et.text, pid));
    assert_non_null(strstr(et.text, "signal 9"));
    assert_int_equal(feed(&r, 1, 0, tokens, 8, 1, &t), ERR_GONE);
    assert_int_equal(feed(&r, 1, 0, tokens, 8, 0, &t), ERR_GONE);
    assert_int_equal(chain_report(r.chain, 1, &d, &et), ERR_GONE);
    rig_close(&r);
}

static void test_killed_device(void **state)
{
    (void)state;
    killed_device("toy layers=6", 1, 0);
    killed_device("toy layers=6", 2, 0);
    killed_device("toy layers=6 slow_us=100000", 1, 1);
    killed_device("toy layers=6 slow_us=100000", 2, 1);
}

static void test_device_that_cannot_load(void **state)
{
    struct rig r;

    (void)state;
    assert_int_equal(rig_try(&r, "toy layers=6 fail_load=6", "0-4,5-9,10-", 0), ERR_MEMORY);
    assert_string_equal(et.text, "device 1: modules 5 to 9 need more memory than there is");
    /* The head's own failure ends the others. */
    assert_int_equal(rig_try(&r, "toy layers=6 fail_load=0", "0-4,5-9,10-", 0), ERR_MEMORY);
    assert_string_equal(et.text, "modules 0 to 4 need more memory than there is");
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nobody is left behind */
    assert_int_equal(errno, ECHILD);
}

static void test_program_that_is_no_device(void **state)
{
    struct chain_opts opts = {
        .n_threads = 1, .segment = {1, 8, 8, KV_F16}, .split = "2", .device_program = "/bin/true"};
    struct model *m;
    struct chain *c;

    (void)state;
    assert_int_equal(model_open("toy", &m, &et), ERR_NONE);
    assert_int_equal(chain_open(m, &opts, &c, &et), ERR_GONE);
    assert_non_null(strstr(et.text, "device 1"));
    assert_non_null(strstr(et.text, "status 0 before it was ready"));
    opts.device_program = "/nowhere/lingua";
    assert_int_equal(chain_open(m, &opts, &c, &et), ERR_FILE);
    assert_non_null(strstr(et.text, "/nowhere/lingua"));
    assert_non_null(strstr(et.text, "No such file"));
    opts.split = "9";
    assert_int_equal(chain_open(m, &opts, &c, &et), ERR_INPUT);
    opts.split = NULL;
    opts.n_threads = 0;
    assert_int_equal(chain_open(m, &opts, &c, &et), ERR_INPUT);
    model_close(m);
}

static void count_progress(void *user, uint64_t done, uint64_t total)
{
    uint64_t *last = user;

    assert_true(done >= *last && done <= total && total == 14000);
    *last = done;
}

static void test_progress(void **state)
{
    static const char *const cuts[] = {NULL, "3"};
    struct model *m;

    (void)state;
    assert_int_equal(model_open("toy layers=6", &m, &et), ERR_NONE);
    for (int i = 0; i < 4; i++) {
        uint64_t last = 0;
        struct chain_opts opts = {.n_threads = 1,
                                  .segment = {1, 8, 8, KV_F16},
                                  .split = cuts[i % 2],
                                  .in_process = i / 2,
                                  .progress = count_progress,
                                  .user = &last};
        struct chain *c;

        assert_int_equal(chain_open(m, &opts, &c, &et), ERR_NONE);
        assert_int_equal(last, 14000);
        chain_close(c);
    }
    model_close(m);
}

/* A head that is killed takes its devices with it, also one in the middle of a long step. */
static void test_parent_death(void **state)
{
    int pipes[2], n = 0;
    pid_t head, devices[2];
    FILE *f;

    (void)state;
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0); /* so that we hear of orphans' ends */
    assert_int_equal(pipe(pipes), 0);
    head = fork();
    assert_true(head >= 0);
    if (head == 0) {
        dup2(pipes[1], 1);
        close(pipes[0]);
        close(pipes[1]);
        execl("/proc/self/exe", "test_chain", "hold", (char *)NULL);
        _exit(127);
    }
    close(pipes[1]);
    f = fdopen(pipes[0], "r");
    assert_int_equal(fscanf(f, "%d %d", &devices[0], &devices[1]), 2);
    fclose(f);
    kill(head, SIGKILL);
    for (;;) { /* the head and both devices; ctest's time limit is the alarm */
        int status;
        pid_t pid = wait(&status);

        if (pid < 0)
            break;
        n += pid == head || pid == devices[0] || pid == devices[1];
    }
    assert_int_equal(n, 3);
}

/* A head that holds nothing itself but what is slow, with one step in its first device and one more
 * waiting, until it is killed. */
static int hold(void)
{
    int32_t tokens[2] = {1, 2};
    struct device_report d[2];
    struct tensors t;
    struct rig r;

    if (rig_try(&r, "toy layers=6 slow_us=60000000", "13,1-5,0+6-12", 0))
        return 1;
    for (int i = 0; i < 2; i++)
        if (chain_report(r.chain, i + 1, &d[i], &et))
            return 1;
    printf("%d %d\n", d[0].pid, d[1].pid);
    fflush(stdout);
    (void)!feed(&r, 0, 0, tokens, 2, 1, &t);
    return 1;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_process),
        cmocka_unit_test(test_processes),
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_slots_travel),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_context_has_an_end),
        cmocka_unit_test(test_failed_step),
        cmocka_unit_test(test_large_frames),
        cmocka_unit_test(test_report),
        cmocka_unit_test(test_interrupt_spares_devices),
        cmocka_unit_test(test_killed_device),
        cmocka_unit_test(test_device_that_cannot_load),
        cmocka_unit_test(test_program_that_is_no_device),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_parent_death),
    };

    if (argc > 1 && strcmp(argv[1], "device") == 0)
        return cmd_device(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "hold") == 0)
        return hold();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
