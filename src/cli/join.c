/* lingua join: lends this device to a cluster until it is told to stop. Needs nothing of the head,
 * so that the join-only build has it too. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/folder.h"
#include "base/mem.h"
#include "cli/bars.h"
#include "cli/cmd.h"
#include "cli/invitation.h"
#include "cli/loop.h"
#include "cli/member.h"
#include "cli/options.h"
#include "cli/say.h"
#include "device/node.h"
#include "link/discover.h"

enum { FOUND_MAX = 16, TROUBLES_MAX = 8, NOBODY_S = 10 };

struct join {
    struct member_options member;
    const char *address, *token_file, *token_arg;
    uint64_t cache;
    struct invitation invitation;
    char typed[INVITATION_ADDRESS_MAX]; /* the address, when it was asked for */
    char *state_folder, *cache_folder;

    struct loop loop;
    struct node *node;
    struct discover *discover;
    struct event *tick, *nobody;
    struct bars bars;
    struct member_log log;
    struct node_status shown; /* the last that was said */
    struct node_status now;
    bool linked_once;
    int n_troubles; /* said since the last link: each is said once, not at every attempt */
    char troubles[TROUBLES_MAX][ERR_TEXT_MAX];
    int n_found;
    char found[FOUND_MAX][INVITATION_ADDRESS_MAX];
};

static const char usage[] = "join [ADDRESS] [OPTIONS]";
static const char about[] =
    "Lends this device to the cluster of a head (lingua serve) until Ctrl-C. The first time it\n"
    "needs the token that the head shows; it is asked for, or read from --token-file, "
    "LINGUA_TOKEN\n"
    "or standard input. After that the device is known and needs none. Without ADDRESS the head "
    "is\n"
    "looked for where it was last time and on the local network. Weights that came once are kept.";

/* Sets what the arguments say, in any order: an address, a token. */
static int args_take(struct join *j, const char *const *args, int n_args)
{
    int status = -1;

    /* Every token first, so that none stays readable when something else is wrong. */
    for (int i = 0; i < n_args; i++)
        if (invitation_is_like(args[i]))
            status = invitation_from_argument((char *)args[i], &j->invitation);
        else if (j->address)
            status = STATUS_USAGE;
        else
            j->address = args[i];
    if (j->token_arg && status < 0)
        status = invitation_from_argument((char *)j->token_arg, &j->invitation);
    if (status == STATUS_USAGE)
        say("join: two addresses were given; one is enough");
    return status;
}

static int parse(struct join *j, int argc, char **argv)
{
    const struct option_spec options[] = {
        OPTION_NAME(&j->member),
        OPTION_MEMORY(&j->member),
        OPTION_CORES(&j->member),
        OPTION_CAP(&j->member),
        OPTION_SPARE(&j->member),
        {"cache", 0, OPTION_SIZE, &j->cache, 1 << 20, 1ull << 50, NULL, "SIZE",
         "the most that kept weights may take on the disk; what was\nnot used for longest makes "
         "room (default: no limit)"},
        {"token-file", 0, OPTION_TEXT, &j->token_file, 0, 0, NULL, "FILE",
         "the token stands in this file"},
        {"token", 0, OPTION_TEXT, &j->token_arg, 0, 0, NULL, "TOKEN",
         "the token itself; others on this machine could read it here"},
        OPTION_LISTEN(&j->member, "where other devices reach this one (default: any free port)"),
        OPTION_STATE(&j->member.state),
        OPTION_VERBOSE(&j->member),
    };
    const struct command_spec spec = {usage, about, options, sizeof options / sizeof *options, 2};
    const char *args[ARGS_MAX];
    int n_args, status = options_parse(&spec, argc, argv, args, &n_args);

    if (status < 0)
        status = args_take(j, args, n_args);
    if (status < 0)
        status = member_settle("join", &j->member);
    return status;
}

/* ---- what is known before it begins ---- */

static bool is_paired(const struct join *j)
{
    char *path = mem_printf("%s/cluster", j->state_folder);
    bool there = access(path, F_OK) == 0;

    free(path);
    return there;
}

static int folders_find(struct join *j)
{
    struct err_text et;

    if (!folder_state(j->member.state, &j->state_folder, &et) &&
        !folder_cache(j->member.state, &j->cache_folder, &et))
        return -1;
    say("join: %s", et.text);
    return STATUS_FAILED;
}

static int token_find(struct join *j)
{
    int status;

    if (j->invitation.has_token)
        return -1;
    if (j->token_file)
        return invitation_from_file(j->token_file, &j->invitation);
    status = invitation_from_environment(&j->invitation);
    if (status == 0 && !is_paired(j))
        status = invitation_from_stdin(&j->invitation);
    return status > 0 ? status : -1;
}

static int address_ask(struct join *j, const char *why)
{
    say("%s", why);
    if (isatty(STDIN_FILENO) && ask_line("address of the head", j->typed, sizeof j->typed) &&
        *j->typed) {
        j->address = j->typed;
        return -1;
    }
    say("join: name the head's address: lingua join ADDRESS (lingua serve says it when it starts)");
    return STATUS_USAGE;
}

/* ---- while it runs ---- */

static void on_found(void *user, const struct found *f)
{
    struct join *j = user;
    bool known = false;

    for (int i = 0; i < j->n_found; i++)
        known |= strcmp(j->found[i], f->address) == 0;
    if (!known && j->n_found < FOUND_MAX) {
        snprintf(j->found[j->n_found++], sizeof j->found[0], "%s", f->address);
        if (!j->linked_once)
            bars_say(&j->bars, "found the head %s at %s", f->name, f->address);
    }
    node_found(j->node, f->address);
}

static void on_nobody(evutil_socket_t fd, short what, void *user)
{
    struct join *j = user;

    (void)fd;
    (void)what;
    if (!j->linked_once && !j->n_found)
        bars_say(&j->bars, "no head has answered yet. Does lingua serve run, on the same network? "
                           "It says its address when it starts: lingua join ADDRESS goes there");
}

static void bars_update(struct join *j)
{
    const struct node_status *s = &j->now;
    bool moving = s->state == NODE_FETCHING || s->state == NODE_LOADING;

    bars_begin(&j->bars);
    if (moving && s->total)
        bars_set(&j->bars, s->state == NODE_FETCHING ? s->coming : s->modules,
                 s->state == NODE_FETCHING ? "fetching" : "loading", s->done, s->total);
    bars_end(&j->bars);
    if (moving)
        event_add(j->tick, &(struct timeval){.tv_usec = 500000});
}

static void on_tick(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    bars_update(user);
}

static void state_say(struct join *j, const struct node_status *s)
{
    bool was_linked = j->shown.state != NODE_DIALLING;
    char buf[NUM_MAX];

    switch (s->state) {
    case NODE_DIALLING:
        if (j->linked_once && was_linked && !*s->trouble)
            bars_say(&j->bars, "lost the head %s; trying to reach it again", s->head_name);
        break;
    case NODE_WAITING:
        if (!was_linked || !j->linked_once)
            bars_say(&j->bars, "linked to %s as %s; waiting for a part of the model", s->head_name,
                     s->name);
        else if (j->shown.state == NODE_MEASURING)
            bars_say(&j->bars, "has measured; waiting for a part of the model (a device that would "
                               "slow the others gets none)");
        else if (*j->shown.modules)
            bars_say(&j->bars, "holds no part of the model any more; waiting for one");
        j->linked_once = true;
        break;
    case NODE_FETCHING:
        break; /* fetching_say, once it is known what */
    case NODE_MEASURING:
        if (!j->linked_once)
            bars_say(&j->bars, "linked to %s as %s", s->head_name, s->name);
        j->linked_once = true;
        bars_say(&j->bars, "measures how fast it is with this model; the next time it knows");
        break;
    case NODE_LOADING:
        bars_say(&j->bars, "loads %s", s->modules);
        break;
    case NODE_READY:
        bars_say(&j->bars, "ready: holds %s; %s of weights were received", s->modules,
                 num_bytes(buf, s->received));
        break;
    case NODE_ENDED:
        break;
    }
}

/* Of a part that is here already nothing is said. */
static void fetching_say(struct join *j, const struct node_status *s)
{
    char buf[NUM_MAX];

    if (s->state != NODE_FETCHING || s->done >= s->total ||
        (j->shown.state == NODE_FETCHING && j->shown.total == s->total))
        return;
    bars_say(&j->bars, "fetches %s, %s", s->coming,
             num_bytes(buf, s->total - s->done + s->received)); /* some may have come already */
}

/* Nobody was found yet, and it is too early to complain: on_nobody will. */
static bool is_looking(const struct join *j)
{
    return j->now.state == NODE_DIALLING && !j->linked_once && !j->address && !j->n_found;
}

static void trouble_say(struct join *j, const struct node_status *s)
{
    if (s->state == NODE_READY || s->state == NODE_WAITING || s->state == NODE_MEASURING)
        j->n_troubles = 0;
    /* Why it ended is said at the end. */
    if (!*s->trouble || is_looking(j) || s->state == NODE_ENDED ||
        strcmp(s->trouble, j->shown.trouble) == 0)
        return;
    for (int i = 0; i < j->n_troubles; i++)
        if (strcmp(j->troubles[i], s->trouble) == 0)
            return;
    if (j->n_troubles < TROUBLES_MAX)
        memcpy(j->troubles[j->n_troubles++], s->trouble, sizeof j->troubles[0]);
    bars_say(&j->bars, "%s%s", s->trouble,
             s->state == NODE_DIALLING && j->n_troubles == 1 ? "; it is tried again and again"
                                                             : "");
}

static void on_status(void *user, const struct node_status *s)
{
    struct join *j = user;

    j->now = *s;
    if ((s->state == NODE_WAITING || s->state == NODE_MEASURING) && !*s->name)
        return; /* what it is called here comes in a moment */
    if (s->state != j->shown.state ||
        (s->state == NODE_READY && strcmp(s->modules, j->shown.modules) != 0))
        state_say(j, s);
    fetching_say(j, s);
    trouble_say(j, s);
    j->shown = *s;
    bars_update(j);
}

static int ended(struct join *j)
{
    struct err_text et;

    bars_wipe(&j->bars);
    if (!j->loop.signal && node_ended(j->node, &et)) {
        say("%s", et.text);
        return STATUS_FAILED;
    }
    say("stopped; what was fetched is kept");
    return STATUS_OK;
}

static int live(struct join *j)
{
    struct node_opts opts = {.state_folder = j->state_folder,
                             .cache_folder = j->cache_folder,
                             .cache_bytes = j->cache,
                             .name = j->member.name,
                             .listen = j->member.listen,
                             .address = j->address,
                             .n_threads = (int)j->member.threads,
                             .memory_bytes = j->member.memory,
                             .cap = (int)j->member.cap,
                             .spare = j->member.spare,
                             .log = member_log(&j->log),
                             .status = on_status,
                             .user = j};
    struct err_text et;

    if (j->invitation.has_token)
        opts.token = &j->invitation.token;
    if (node_open(j->loop.base, &opts, &j->node, &et)) {
        say("join: %s", et.text);
        return STATUS_FAILED;
    }
    invitation_wipe(&j->invitation);
    say("%s%s; this device is %s, with %lld thread%s", j->address ? "joins " : "looks for the head",
        j->address ? j->address : "", j->member.name, (long long)j->member.threads,
        j->member.threads == 1 ? "" : "s");
    if (!j->address)
        event_add(j->nobody, &(struct timeval){.tv_sec = NOBODY_S});
    loop_run(&j->loop);
    return ended(j);
}

/* false: heads cannot be looked for, and *why says why. */
static bool begin(struct join *j, struct err_text *why)
{
    loop_init(&j->loop);
    j->tick = evtimer_new(j->loop.base, on_tick, j);
    j->nobody = evtimer_new(j->loop.base, on_nobody, j);
    return j->address || !discover_browse(j->loop.base, on_found, j, &j->discover, why);
}

static void end(struct join *j)
{
    discover_close(j->discover);
    if (j->node)
        node_close(j->node);
    event_free(j->tick);
    event_free(j->nobody);
    loop_fini(&j->loop);
}

static int join(struct join *j)
{
    struct err_text why;
    int status = -1;

    if (!begin(j, &why) && is_paired(j)) {
        say("%s; the head is sought where it was last time", why.text);
    } else if (!j->address && !j->discover) {
        end(j); /* so that Ctrl-C ends the question, too */
        status = address_ask(j, why.text);
        if (status >= 0)
            return status;
        (void)begin(j, &why);
    }
    status = live(j);
    end(j);
    return status;
}

int cmd_join(int argc, char **argv)
{
    struct join j = {0};
    int status;

    j.log = (struct member_log){&j.bars, false};
    status = parse(&j, argc, argv);
    j.log.verbose = j.member.verbose;
    if (status < 0)
        status = folders_find(&j);
    if (status < 0)
        status = token_find(&j);
    if (!j.address && *j.invitation.address)
        j.address = j.invitation.address;
    if (status < 0) {
        member_threads(&j.member, j.state_folder);
        status = join(&j);
    }
    invitation_wipe(&j.invitation);
    free(j.state_folder);
    free(j.cache_folder);
    return status;
}
