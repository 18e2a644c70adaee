/* lingua top: the running cluster on a terminal, drawn anew each second. Asks the head by the socket
 * in its state folder (head/remote.h) and never waits for it: a head that is stopped, or has ended,
 * is said to be so over the last picture, and one that is back is found by itself.
 *
 * Signals are let in only while it waits (ppoll), so that none is missed in between. */
#define _GNU_SOURCE
#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/cmd.h"
#include "cli/member.h"
#include "cli/open.h"
#include "cli/options.h"
#include "cli/say.h"
#include "cli/top_view.h"
#include "head/remote.h"

enum { COLUMNS_USUAL = 80, LINES_USUAL = 24 };
#define ASK_EVERY_S 1.0
#define RETRY_S     1.0
#define SILENT_S    3.0 /* an answer takes a second at most */

static const char usage[] = "top [--once | --json]";
static const char about[] =
    "Shows the cluster whose head (lingua serve) runs on this machine, as it is just now: what "
    "each\n"
    "device holds and does, the ways between them, tokens per second, and what the plan promised\n"
    "against what was measured. \"pred.\" and \"meas.\" are milliseconds per token.\n"
    "q or Ctrl-C leaves. Without a terminal it prints one picture.";

struct top {
    const char *state;
    bool json, once;

    struct remote *remote; /* NULL: lost, and tried for again */
    json_t *doc;           /* the last answer */
    bool asking;
    double asked_s, tried_s, heard_s;
    struct err_text why; /* it is lost */

    bool colours, ascii;
    bool on_screen; /* the terminal is ours */
    struct termios before;
};

/* ---- the terminal ---- */

static volatile sig_atomic_t told_end, told_stop, told_size;

static void on_signal(int signal)
{
    if (signal == SIGWINCH || signal == SIGCONT)
        told_size = 1;
    else if (signal == SIGTSTP)
        told_stop = 1;
    else
        told_end = signal;
}

static void screen_size(int *width, int *height)
{
    struct winsize size;
    const char *columns = getenv("COLUMNS");

    *width = columns && atoi(columns) > 0 ? atoi(columns) : COLUMNS_USUAL;
    *height = LINES_USUAL;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0) {
        *width = size.ws_col;
        *height = size.ws_row;
    }
}

/* The other screen, without cursor and wrapping; keys come one by one and are not shown. */
static void screen_enter(struct top *t)
{
    static const char in[] = "\033[?1049h\033[?25l\033[?7l\033[2J";
    struct termios raw = t->before;

    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    (void)out_write(in, sizeof in - 1);
    t->on_screen = true;
}

static void screen_leave(struct top *t)
{
    static const char out[] = "\033[0m\033[?7h\033[?25h\033[?1049l";

    if (!t->on_screen)
        return;
    (void)out_write(out, sizeof out - 1);
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &t->before);
    t->on_screen = false;
}

/* Ctrl-Z: the shell gets its terminal back, and we get ours when it lets us go on. */
static void stop(struct top *t)
{
    told_stop = 0;
    screen_leave(t);
    raise(SIGSTOP);
    screen_enter(t);
}

/* ---- the picture ---- */

static char *picture(const struct top *t, const char *lost, int width, int height, size_t *len)
{
    const struct top_view view = {t->doc, lost};
    const struct screen_out how = {
        .colours = t->colours, .control = t->on_screen, .ascii = t->ascii};
    struct screen *s = top_draw(&view, width, height);
    char *text = screen_text(s, &how, len);

    screen_free(s);
    return text;
}

/* What stands at the bottom when the head does not answer; NULL when it does. */
static const char *lost_text(const struct top *t, char buf[ERR_TEXT_MAX + 64])
{
    double silent = now_s() - t->heard_s;
    char time[NUM_MAX];

    if (!t->remote)
        snprintf(buf, ERR_TEXT_MAX + 64, "lost for %s: %s", num_duration(time, silent),
                 t->why.text);
    else if (silent > SILENT_S)
        snprintf(buf, ERR_TEXT_MAX + 64, "the head does not answer, for %s now",
                 num_duration(time, silent));
    else
        return NULL;
    return buf;
}

static int draw(struct top *t)
{
    char lost[ERR_TEXT_MAX + 64], *text;
    int width, height, failed;
    size_t len;

    screen_size(&width, &height);
    text = picture(t, lost_text(t, lost), width, height, &len);
    failed = out_write(text, len);
    free(text);
    return failed;
}

/* ---- the head ---- */

static void lose(struct top *t, const struct err_text *why)
{
    remote_close(t->remote);
    t->remote = NULL;
    t->asking = false;
    t->tried_s = now_s();
    t->why = *why;
}

static void take_answer(struct top *t)
{
    json_t *answer;
    struct err_text et = {{0}};

    if (remote_ask_look(t->remote, &answer, &et)) {
        lose(t, &et);
        return;
    }
    if (!answer)
        return;
    json_decref(t->doc);
    t->doc = answer;
    t->asking = false;
    t->heard_s = now_s();
}

/* Asks when it is time to, and looks for a head when there is none. */
static void go_on(struct top *t)
{
    struct err_text et = {{0}};
    double now = now_s();

    if (!t->remote && now - t->tried_s >= RETRY_S) {
        t->tried_s = now;
        if (remote_open(t->state, &t->remote, &et))
            t->why = et;
        else
            t->asked_s = 0;
    }
    if (t->remote && !t->asking && now - t->asked_s >= ASK_EVERY_S) {
        t->asked_s = now;
        t->asking = true;
        remote_ask_begin(t->remote, json_pack("{s:s}", "do", "devices"));
    }
}

/* ---- keys, signals, time ---- */

static bool key_leaves(void)
{
    char keys[64];
    ssize_t n = read(STDIN_FILENO, keys, sizeof keys);

    if (n == 0)
        return true;
    for (ssize_t i = 0; i < n; i++)
        if (keys[i] == 'q' || keys[i] == 'Q' || keys[i] == 3 || keys[i] == 4)
            return true;
    return false;
}

static struct timespec until_next(const struct top *t)
{
    double next = t->remote && !t->asking ? t->asked_s + ASK_EVERY_S
                  : t->remote             ? now_s() + 1 /* the seconds of its silence */
                                          : t->tried_s + RETRY_S;
    double s = next - now_s();

    s = s < 0.01 ? 0.01 : s > 1 ? 1 : s;
    return (struct timespec){(time_t)s, (long)((s - (double)(time_t)s) * 1e9)};
}

/* False: it is to end. */
static bool wait_for_something(struct top *t, const sigset_t *open)
{
    struct pollfd p[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = -1}};
    struct timespec s = until_next(t);

    if (t->remote)
        p[1] = (struct pollfd){.fd = remote_fd(t->remote), .events = remote_events(t->remote)};
    if (ppoll(p, 2, &s, open) < 0 && errno != EINTR)
        return false;
    if (told_end)
        return false;
    if (told_stop)
        stop(t);
    if (p[0].revents && key_leaves())
        return false;
    if (t->remote)
        take_answer(t);
    return true;
}

static void signals_catch(sigset_t *open)
{
    static const int caught[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH};
    struct sigaction sa = {.sa_handler = on_signal};
    sigset_t held;

    sigemptyset(&held);
    for (size_t i = 0; i < sizeof caught / sizeof *caught; i++) {
        sigaction(caught[i], &sa, NULL);
        sigaddset(&held, caught[i]);
    }
    sigprocmask(SIG_BLOCK, &held, open);
}

static int watch(struct top *t)
{
    sigset_t open;
    int failed = 0;

    if (tcgetattr(STDIN_FILENO, &t->before)) {
        say("top: standard input is no terminal; --once prints one picture");
        return STATUS_USAGE;
    }
    signals_catch(&open);
    screen_enter(t);
    do {
        go_on(t);
        failed = draw(t);
    } while (!failed && wait_for_something(t, &open));
    screen_leave(t);
    return failed ? out_failed(failed) : STATUS_OK;
}

/* ---- once ---- */

static int print_once(struct top *t)
{
    int width, height, failed;
    struct err_text et;
    size_t len;
    char *text;

    if (remote_ask(t->remote, json_pack("{s:s}", "do", "devices"), &t->doc, &et)) {
        say("top: %s", et.text);
        return STATUS_FAILED;
    }
    if (t->json)
        return json_print(json_incref(t->doc));
    screen_size(&width, &height);
    text = picture(t, NULL, width, 0, &len);
    failed = out_write(text, len);
    free(text);
    return failed ? out_failed(failed) : STATUS_OK;
}

static int parse(struct top *t, int argc, char **argv)
{
    const struct option_spec options[] = {
        {"once", 0, OPTION_FLAG, &t->once, 0, 0, NULL, NULL, "print one picture and end"},
        {"json", 0, OPTION_FLAG, &t->json, 0, 0, NULL, NULL, "the same once, for machines"},
        OPTION_STATE(&t->state),
    };
    const struct command_spec spec = {usage, about, options, sizeof options / sizeof *options, 0};
    const char *args[ARGS_MAX];
    int n_args, status = options_parse(&spec, argc, argv, args, &n_args);

    if (status >= 0)
        return status;
    if (t->json && t->once) {
        say("top: --json is printed once by itself");
        return STATUS_USAGE;
    }
    return -1;
}

static void look_at_terminal(struct top *t)
{
    const char *none = getenv("NO_COLOR"), *term = getenv("TERM");
    bool dumb = !term || !*term || strcmp(term, "dumb") == 0;

    t->once = t->once || dumb || !isatty(STDOUT_FILENO);
    t->colours = isatty(STDOUT_FILENO) && !dumb && !(none && *none);
    setlocale(LC_CTYPE, "");
    t->ascii = isatty(STDOUT_FILENO) && strcmp(nl_langinfo(CODESET), "UTF-8") != 0;
}

int cmd_top(int argc, char **argv)
{
    struct top t = {0};
    struct err_text et;
    int status = parse(&t, argc, argv);

    if (status >= 0)
        return status;
    look_at_terminal(&t);
    if (remote_open(t.state, &t.remote, &et)) {
        say("top: %s", et.text);
        return STATUS_FAILED;
    }
    t.heard_s = now_s();
    status = t.json || t.once ? print_once(&t) : watch(&t);
    json_decref(t.doc);
    remote_close(t.remote);
    return status;
}
