/* What goes on around a cluster's answers: devices that are drained, removed and renamed, a head
 * that pauses or cannot load, and words that no JSON takes. Whole clusters in this process (see
 * town.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "head/core.h"
#include "head/remote.h"
#include "support/tiny_model.h"
#include "support/town.h"

static void model_make(char *path, size_t cap, const char *name)
{
    tiny_path(path, (int)cap, name);
    tiny_write(path, TINY_LLAMA, GGML_TYPE_Q8_0, 78);
}

static enum err ask(struct town *t, const char *what, const char *name, json_t **answer)
{
    struct err_text et;
    struct remote *r;
    enum err e;

    assert_int_equal(remote_open(t->head_folder, &r, &et), ERR_NONE);
    e = remote_ask(r, json_pack("{s:s, s:s, s:i}", "do", what, "name", name, "slots", 1), answer,
                   &et);
    remote_close(r);
    return e;
}

static enum err order(struct town *t, const char *what, const char *name)
{
    json_t *answer;
    enum err e = ask(t, what, name, &answer);

    json_decref(answer);
    return e;
}

static char *text_of(struct town *t, const char *device, const char *key)
{
    json_t *all = town_json(t), *d;
    const char *text = NULL;
    char *copy;
    size_t i;

    if (!device)
        text = json_string_value(json_object_get(all, key));
    json_array_foreach(json_object_get(all, "devices"), i, d)
    {
        if (device && strcmp(json_string_value(json_object_get(d, "name")), device) == 0)
            text = json_string_value(json_object_get(d, key));
    }
    copy = strdup(text ? text : "");
    json_decref(all);
    return copy;
}

static uint64_t number_of(struct town *t, const char *key)
{
    json_t *all = town_json(t), *head = json_array_get(json_object_get(all, "devices"), 0);
    json_int_t n = json_integer_value(json_object_get(head, key));

    json_decref(all);
    return (uint64_t)n;
}

/* Until the text begins with what; fails after ten seconds. */
static void await(struct town *t, const char *device, const char *key, const char *what)
{
    const struct timespec nap = {0, 20000000};

    for (int i = 0; i < 500; i++) {
        char *text = text_of(t, device, key);
        bool there = strncmp(text, what, strlen(what)) == 0;

        free(text);
        if (there)
            return;
        nanosleep(&nap, NULL);
    }
    fail_msg("%s of %s never was \"%s\" but \"%s\"\n%s", key, device ? device : "the head", what,
             text_of(t, device, key), t->log);
}

static void a_device_without_a_part_is_idle(void **state)
{
    char path[256];
    struct town_opts opts = {.model_path = path, .n_devices = 3};
    struct town town;

    (void)state;
    model_make(path, sizeof path, "town-idle.gguf");
    town_open(&town, &opts, true);
    assert_int_equal(order(&town, "drain", "dev-1"), ERR_NONE);
    town_wait(&town, 2);
    usleep(200000); /* what it has to say of LOAD has come by then */
    await(&town, "dev-1", "state", "idle");
    assert_null(strstr(town.log, "its weights are not here"));
    town_close(&town);
}

static void nap_long(struct town *t, void *arg)
{
    (void)t;
    (void)arg;
    usleep((CLUSTER_LOST_MS + 400) * 1000);
}

static void a_pause_of_the_head_loses_nobody(void **state)
{
    char path[256];
    struct town_opts opts = {.model_path = path, .n_devices = 3};
    struct town town;

    (void)state;
    model_make(path, sizeof path, "town-pause.gguf");
    town_open(&town, &opts, true);
    for (int i = 0; i < 3; i++)
        town_call(&town, nap_long, NULL);
    usleep(600000);
    assert_null(strstr(town.log, "stopped answering"));
    town_close(&town);
}

/* Its loss is noticed also while it still has its part, because the plan cannot do without it. */
static void a_drained_device_that_leaves_is_missed(void **state)
{
    char path[256];
    struct town_opts opts = {.model_path = path, .n_devices = 1, .n_slots = 16};
    uint64_t base, whole;
    struct town town;

    (void)state;
    model_make(path, sizeof path, "town-drain.gguf");
    town_open(&town, &opts, true);
    base = number_of(&town, "base_bytes");
    whole = number_of(&town, "planned_bytes") - base;
    town_close(&town);
    opts.n_devices = 2; /* neither has room for all of it */
    opts.head_memory = opts.node_memory = base + whole / 8 * 7;
    town_open(&town, &opts, true);
    assert_int_equal(order(&town, "drain", "dev-1"), ERR_NONE);
    usleep(CORE_SETTLE_US + 200000);
    assert_non_null(strstr(town.log, "the plan stays as it is"));
    town_leave(&town, 0);
    await(&town, "dev-1", "state", "lost");
    await(&town, NULL, "state", "waiting");
    town_close(&town);
}

/* A new device may have the name of one that was removed: orders are for the new one. */
static void a_name_used_again_means_the_new_device(void **state)
{
    char path[256];
    struct town_opts opts = {.model_path = path, .n_devices = 2};
    struct town town;
    json_t *answer;

    (void)state;
    model_make(path, sizeof path, "town-name.gguf");
    town_open(&town, &opts, true);
    assert_int_equal(order(&town, "revoke", "dev-1"), ERR_NONE);
    town_wait(&town, 1);
    town_leave(&town, 0);
    /* Another key, and so another device. */
    strcat(town.node[0].state, "-anew");
    assert_int_equal(mkdir(town.node[0].state, 0700), 0);
    assert_int_equal(ask(&town, "invite", "", &answer), ERR_NONE);
    town_pair(&town, 0, json_string_value(json_object_get(answer, "token")));
    json_decref(answer);
    town_wait(&town, 2);
    assert_int_equal(order(&town, "drain", "dev-1"), ERR_NONE);
    town_wait(&town, 1);
    await(&town, "dev-1", "state", "idle");
    town_close(&town);
}

/* Its token is spent, but it never heard so: the link broke between. Its key is in the roster. */
static void a_device_whose_welcome_was_lost_is_let_in(void **state)
{
    char path[256];
    struct town_opts opts = {.model_path = path, .n_devices = 2};
    struct town town;
    char *file;

    (void)state;
    model_make(path, sizeof path, "town-again.gguf");
    town_open(&town, &opts, true);
    town_wait(&town, 2);
    town_leave(&town, 0);
    town_wait(&town, 1);
    file = mem_printf("%s/cluster", town.node[0].state);
    assert_int_equal(unlink(file), 0);
    free(file);
    /* The token that it was paired with is the town's first: spent. */
    town_pair(&town, 0, town.first_token);
    town_wait(&town, 2);
    town_close(&town);
}

static void removing_a_device_is_waited_for_by_nobody(void **state)
{
    char path[256];
    struct town_opts opts = {.model_path = path, .n_devices = 3};
    struct town town;

    (void)state;
    model_make(path, sizeof path, "town-revoke.gguf");
    town_open(&town, &opts, true);
    assert_int_equal(order(&town, "revoke", "dev-2"), ERR_NONE);
    town_wait(&town, 2);
    assert_non_null(strstr(town.log, "dev-2 was removed from the cluster; it is left out"));
    town_close(&town);
}

/* It ended the head, while another device was there. */
static void a_head_that_cannot_load_says_so(void **state)
{
    char path[256];
    struct town_opts opts = {.model_path = path, .n_devices = 2};
    struct town town;

    (void)state;
    model_make(path, sizeof path, "town-cut.gguf");
    town_open(&town, &opts, true);
    assert_int_equal(unlink(path), 0);
    town_leave(&town, 0); /* now the head is to load all of it */
    await(&town, "head", "state", "failed");
    town_return(&town, 0);
    await(&town, NULL, "waiting_for", "head cannot take part itself: ");
    town_close(&town);
}

static void words_that_are_no_json_end_nobody(void **state)
{
    char path[256], name[400] = "";
    struct town_opts opts = {.model_path = path, .n_devices = 1};
    struct town town;

    (void)state;
    model_make(path, sizeof path, "town-\xe9.gguf");
    town_open(&town, &opts, true);
    assert_int_equal(order(&town, "open", ""), ERR_LIMIT);
    for (int shift = 0; shift < 2; shift++) { /* one of them is cut within a character */
        snprintf(name, sizeof name, "%s", shift ? "x" : "");
        while (strlen(name) + 2 < sizeof name)
            strcat(name, "\xc3\xa9");
        while (strlen(name) + 2 < sizeof name)
            strcat(name, "y");
        assert_int_equal(order(&town, "revoke", name), ERR_INPUT);
    }
    town_close(&town);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_device_without_a_part_is_idle),
        cmocka_unit_test(a_pause_of_the_head_loses_nobody),
        cmocka_unit_test(a_drained_device_that_leaves_is_missed),
        cmocka_unit_test(a_name_used_again_means_the_new_device),
        cmocka_unit_test(a_device_whose_welcome_was_lost_is_let_in),
        cmocka_unit_test(removing_a_device_is_waited_for_by_nobody),
        cmocka_unit_test(a_head_that_cannot_load_says_so),
        cmocka_unit_test(words_that_are_no_json_end_nobody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
