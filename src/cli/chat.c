/* The conversation is kept as messages. Before each answer the whole of it is rendered by the
 * model's template and tokenised, and the session gets only the difference: it is cut back to what
 * both have in common (all of it, unless the template rewrites history) and the rest is added.
 *
 * A model without a template is no chat partner; what is typed is then appended to one running text
 * that the model continues. */
#define _GNU_SOURCE
#include "cli/chat.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/answer.h"
#include "cli/cmd.h"
#include "cli/open.h"
#include "cli/say.h"

enum { LINE_MAX_BYTES = 1 << 20 };

/* Lines from stdin by read(2) and ppoll, not stdio: Ctrl-C must wake the prompt, and must not be
 * lost when it is pressed just before we start to wait. */
struct lines {
    char *buf;
    size_t n, cap, taken; /* [taken, n) is not given out yet */
    bool ended, skip;     /* skip: in the middle of a line that was too long */
};

enum line { LINE_GOT, LINE_END, LINE_INTERRUPTED };

struct chat {
    struct ll_engine *engine;
    struct ll_session *session;
    int64_t n_max;
    bool has_template, is_cluster;
    struct ll_message *messages; /* role is a literal, content is ours */
    int n_messages;
    char *text; /* without a template: all that was typed and told */
};

/* Waits for input, or for Ctrl-C. */
static bool input_wait(void)
{
    struct pollfd pfd = {.fd = STDIN_FILENO, .events = POLLIN};
    sigset_t block, before;
    int before_count, ready;

    sigemptyset(&block);
    sigaddset(&block, SIGINT);
    before_count = interrupts_count();
    sigprocmask(SIG_BLOCK, &block, &before);
    do
        ready = interrupts_count() != before_count ? -1 : ppoll(&pfd, 1, NULL, &before);
    while (ready < 0 && errno == EINTR && interrupts_count() == before_count);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return ready > 0;
}

static bool line_in_buffer(struct lines *l, char **line)
{
    char *start = l->buf + l->taken, *end;

    if (l->taken == l->n)
        return false;
    if (l->skip) { /* the rest of a line that was too long */
        end = memchr(start, '\n', l->n - l->taken);
        l->taken = end ? (size_t)(end - l->buf) + 1 : l->n;
        l->skip = !end;
        start = l->buf + l->taken;
        if (l->taken == l->n)
            return false;
    }
    end = memchr(start, '\n', l->n - l->taken);
    if (!end && !l->ended)
        return false;
    if (!end)
        end = l->buf + l->n; /* the last line, without a newline; there is room for its NUL */
    *end = '\0';
    l->taken = (size_t)(end - l->buf) + 1;
    if (l->taken > l->n)
        l->taken = l->n;
    *line = start;
    return true;
}

static enum line line_next(struct lines *l, char **line)
{
    while (!line_in_buffer(l, line)) {
        ssize_t got;

        if (l->ended)
            return LINE_END;
        if (l->taken) {
            memmove(l->buf, l->buf + l->taken, l->n - l->taken);
            l->n -= l->taken;
            l->taken = 0;
        }
        if (l->n == l->cap) {
            l->cap = l->cap ? 2 * l->cap : 4096;
            l->buf = mem_realloc(l->buf, l->cap + 1, 1);
        }
        if (!input_wait())
            return LINE_INTERRUPTED;
        got = read(STDIN_FILENO, l->buf + l->n, l->cap - l->n);
        if (got < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        l->ended = got <= 0;
        l->n += got > 0 ? (size_t)got : 0;
        if (l->n >= LINE_MAX_BYTES && !l->skip && !memchr(l->buf, '\n', l->n)) {
            say("that line is longer than %d KiB and is left out; --file reads long texts",
                LINE_MAX_BYTES >> 10);
            l->skip = true;
            l->taken = l->n;
        }
    }
    return LINE_GOT;
}

static void message_add(struct chat *c, const char *role, const char *content)
{
    c->messages = mem_realloc(c->messages, (size_t)c->n_messages + 1, sizeof *c->messages);
    c->messages[c->n_messages++] = (struct ll_message){role, mem_strdup(content)};
}

static void message_drop(struct chat *c)
{
    free((char *)c->messages[--c->n_messages].content);
}

static void text_append(struct chat *c, const char *s)
{
    char *longer = mem_printf("%s%s", c->text, s);

    free(c->text);
    c->text = longer;
}

static void how_to_go_on(const struct chat *c)
{
    struct ll_engine_info info;

    ll_engine_info(c->engine, &info);
    say("the context of %d tokens is full: /reset starts anew, and --ctx %d holds more", info.n_ctx,
        2 * info.n_ctx);
}

/* Gives the session what it lacks of the conversation. */
static enum ll_code conversation_feed(struct chat *c, struct ll_error *error)
{
    const int32_t *had = ll_session_tokens(c->session);
    int n_had = ll_session_length(c->session), n, same = 0;
    int32_t *tokens;
    char *rendered;
    enum ll_code code = ll_chat_render(c->engine, c->messages, c->n_messages, &rendered, error);

    if (code)
        return code;
    code = ll_tokenize(c->engine, rendered, -1, LL_SPECIAL | LL_BOS, &tokens, &n, error);
    free(rendered);
    if (code)
        return code;
    while (same < n && same < n_had && tokens[same] == had[same])
        same++;
    code = ll_session_truncate(c->session, same, error);
    if (!code)
        code = ll_session_add_tokens(c->session, tokens + same, n - same, error);
    free(tokens);
    return code;
}

/* Without a template: the line goes on the end of the text. */
static enum ll_code text_feed(struct chat *c, const char *line, struct ll_error *error)
{
    bool first = ll_session_length(c->session) == 0;
    char *piece = mem_printf("%s%s", first ? "" : "\n", line);
    enum ll_code code = ll_session_add_text(c->session, piece, -1, first ? LL_BOS : 0, error);

    if (!code)
        text_append(c, piece);
    free(piece);
    return code;
}

/* What was said stays said, also when it was cut short. */
static int answer_keep(struct chat *c, const struct answer *a)
{
    struct ll_error error;

    if (c->has_template && a->end == ANSWER_FAILED && !a->n_text)
        message_drop(c); /* it got no answer, so it may be said again */
    else if (c->has_template)
        message_add(c, "assistant", a->text);
    else
        text_append(c, a->text);
    /* An end token in the middle of a text would tell the model that another one begins. */
    if (!c->has_template && a->end == ANSWER_STOP &&
        ll_session_truncate(c->session, ll_session_length(c->session) - 1, &error))
        return fail(&error);
    if (a->n_text && a->text[a->n_text - 1] != '\n' && !a->out_reason)
        (void)out_write("\n", 1);
    if (a->end == ANSWER_CONTEXT)
        how_to_go_on(c);
    if (a->end == ANSWER_CANCELLED)
        say("stopped");
    if (a->end == ANSWER_FAILED && c->is_cluster && a->error.code == LL_GONE) {
        say("%s",
            a->error.message); /* what was said so far stays; the next message may go through */
        return -1;
    }
    if (a->end == ANSWER_FAILED)
        return fail(&a->error);
    if (a->end == ANSWER_UNHEARD)
        return out_failed(a->out_reason);
    answer_report(a, NULL);
    return -1;
}

/* Returns -1 to go on, or the exit status. */
static int turn(struct chat *c, const char *line)
{
    struct ll_error error;
    struct answer a;
    enum ll_code code;
    int status;

    if (c->has_template)
        message_add(c, "user", line);
    code = c->has_template ? conversation_feed(c, &error) : text_feed(c, line, &error);
    if (code && c->has_template)
        message_drop(c); /* it was not read, so it was not said */
    if (code == LL_FULL) {
        how_to_go_on(c);
        return -1;
    }
    if (code == LL_GONE && !c->is_cluster)
        return fail(&error);
    if (code) {
        say("%s", error.message);
        return -1;
    }
    answer_make(c->session, c->n_max, true, &a);
    status = answer_keep(c, &a);
    answer_fini(&a);
    return status;
}

static int reset(struct chat *c)
{
    struct ll_error error;

    while (c->n_messages)
        message_drop(c);
    free(c->text);
    c->text = mem_strdup("");
    if (ll_session_truncate(c->session, 0, &error))
        return fail(&error);
    say("the conversation starts anew");
    return -1;
}

static void save(const struct chat *c, const char *path)
{
    FILE *f;
    bool failed = false;

    if (!*path) {
        say("/save needs the name of a file");
        return;
    }
    f = fopen(path, "we");
    if (!f) {
        say("%s: %s", path, strerror(errno));
        return;
    }
    for (int i = 0; i < c->n_messages; i++)
        failed |= fprintf(f, "%s%s: %s\n", i ? "\n" : "", c->messages[i].role,
                          c->messages[i].content) < 0;
    if (!c->has_template)
        failed |= fprintf(f, "%s\n", c->text) < 0;
    failed |= fclose(f) != 0;
    if (failed)
        say("%s: %s", path, strerror(errno));
    else
        say("saved to %s", path);
}

/* A line that begins with a slash. Returns -1 to go on, or the exit status. */
static int command(struct chat *c, const char *line)
{
    size_t n = strcspn(line, " \t");
    const char *rest = line + n + strspn(line + n, " \t");

    if (n == 5 && strncmp(line, "/quit", n) == 0)
        return STATUS_OK;
    if (n == 6 && strncmp(line, "/reset", n) == 0)
        return reset(c);
    if (n == 5 && strncmp(line, "/save", n) == 0) {
        save(c, rest);
    } else if (n == 5 && strncmp(line, "/help", n) == 0) {
        fputs("/reset      forget the conversation\n"
              "/save FILE  write the conversation to a file\n"
              "/quit       leave, as does Ctrl-D, or Ctrl-C pressed twice\n"
              "Ctrl-C      stop the answer\n",
              stderr);
    } else {
        say("there is no %.*s; /help lists the commands", (int)(n < 40 ? n : 40), line);
    }
    return -1;
}

static int loop(struct chat *c, struct lines *l)
{
    int n_interrupts = 0, status = -1;

    while (status < 0) {
        char *line = NULL;
        size_t len;

        fputs("> ", stderr);
        switch (line_next(l, &line)) {
        case LINE_END:
            fputs("\n", stderr);
            return STATUS_OK;
        case LINE_INTERRUPTED:
            fputs("\n", stderr);
            if (n_interrupts++)
                return STATUS_OK;
            say("Ctrl-C again, Ctrl-D or /quit leaves");
            l->n = l->taken = 0;
            continue;
        case LINE_GOT:
            break;
        }
        n_interrupts = 0;
        len = strlen(line);
        if (len && line[len - 1] == '\r')
            line[len - 1] = '\0';
        if (*line)
            status = *line == '/' ? command(c, line) : turn(c, line);
    }
    return status;
}

int chat(struct ll_engine *engine, struct ll_session *session, int64_t n_max, bool is_cluster)
{
    struct chat c = {
        .engine = engine, .session = session, .n_max = n_max, .is_cluster = is_cluster};
    struct lines lines = {0};
    struct ll_engine_info info;
    int status;

    ll_engine_info(engine, &info);
    c.has_template = info.has_chat_template;
    c.text = mem_strdup("");
    if (c.has_template)
        say("%s: type a message; /help lists the commands", info.model_name);
    else
        say("%s has no chat template, so it continues the text you type; /help lists the commands",
            info.model_name);
    status = loop(&c, &lines);
    while (c.n_messages)
        message_drop(&c);
    free(c.messages);
    free(c.text);
    free(lines.buf);
    return status;
}
