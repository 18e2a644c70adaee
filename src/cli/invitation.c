#define _GNU_SOURCE
#include "cli/invitation.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cmd.h"
#include "cli/say.h"

enum { TEXT_MAX = 1024, TOKEN_LETTERS = 45, TRIES = 3 };
static const char scheme[] = "lingua:";

static const char *after_blanks(const char *s)
{
    while (isspace((unsigned char)*s))
        s++;
    return s;
}

static bool has_scheme(const char *text)
{
    return strncasecmp(text, scheme, strlen(scheme)) == 0;
}

static void end_trim(char *s)
{
    size_t n = strlen(s);

    while (n && isspace((unsigned char)s[n - 1]))
        s[--n] = '\0';
}

enum err invitation_parse(const char *text, struct invitation *out, struct err_text *et)
{
    char copy[TEXT_MAX], *at;
    enum err e;

    *out = (struct invitation){0};
    text = after_blanks(text);
    if (has_scheme(text))
        text += strlen(scheme);
    if (strlen(text) >= sizeof copy)
        return err_set(et, ERR_INPUT, "that is too long to be a token");
    strcpy(copy, text);
    end_trim(copy);
    at = strchr(copy, '@');
    if (at) {
        *at++ = '\0';
        if (!*at || strlen(at) >= sizeof out->address || strpbrk(at, " \t\r\n@/"))
            e = err_set(et, ERR_INPUT, "what stands behind the @ is no HOST:PORT");
        else
            e = token_parse(copy, &out->token, et);
    } else {
        e = token_parse(copy, &out->token, et);
    }
    out->has_token = !e;
    if (at && !e)
        strcpy(out->address, at);
    explicit_bzero(copy, sizeof copy);
    return e;
}

bool invitation_is_like(const char *text)
{
    int n = 0;

    text = after_blanks(text);
    if (has_scheme(text))
        return true;
    for (; *text && *text != '@'; text++) {
        if (!isalnum((unsigned char)*text) && *text != '-' && *text != ' ')
            return false;
        n += *text != '-' && *text != ' ';
    }
    /* Some letters lost or doubled in copying make no host's name of it. */
    return n > TOKEN_LETTERS - 8 && n < TOKEN_LETTERS + 8;
}

void invitation_wipe(struct invitation *inv)
{
    token_wipe(&inv->token);
    inv->has_token = false;
}

static int taken(const char *from, const char *text, struct invitation *out)
{
    struct err_text et;

    if (!invitation_parse(text, out, &et))
        return -1;
    say("join: the token %s: %s", from, et.text);
    return STATUS_FAILED;
}

int invitation_from_argument(char *argument, struct invitation *out)
{
    int status = taken("on the command line", argument, out);

    explicit_bzero(argument, strlen(argument));
    say("warning: a token on the command line can be read by everyone on this machine; it is taken "
        "off now, but leave it out next time: it is asked for");
    return status;
}

int invitation_from_file(const char *path, struct invitation *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), status = STATUS_FAILED;
    char text[TEXT_MAX];
    struct stat st;
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);

    if (n < 0) {
        say("join: the token file %s: %s", path, strerror(errno));
    } else {
        text[n] = '\0';
        if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_mode & (S_IRWXG | S_IRWXO))
            say("warning: others on this machine can read %s; chmod 600 keeps them out", path);
        status = taken("in the file", text, out);
    }
    if (fd >= 0)
        close(fd);
    explicit_bzero(text, sizeof text);
    return status;
}

int invitation_from_environment(struct invitation *out)
{
    char *text = getenv("LINGUA_TOKEN");
    int status;

    *out = (struct invitation){0};
    if (!text || !*text)
        return 0;
    status = taken("in LINGUA_TOKEN", text, out);
    explicit_bzero(text, strlen(text)); /* /proc/PID/environ shows this very memory */
    unsetenv("LINGUA_TOKEN");
    return status;
}

bool ask_line(const char *prompt, char *buf, int cap)
{
    const char *text;

    setvbuf(stdin, NULL, _IONBF, 0); /* keeps no copy of a secret, nor what comes after the line */
    if (isatty(STDIN_FILENO))
        fprintf(stderr, "%s: ", prompt);
    if (!fgets(buf, cap, stdin)) {
        *buf = '\0';
        return false;
    }
    end_trim(buf);
    text = after_blanks(buf);
    memmove(buf, text, strlen(text) + 1);
    return true;
}

int invitation_from_stdin(struct invitation *out)
{
    bool terminal = isatty(STDIN_FILENO);
    char text[TEXT_MAX];
    int status = STATUS_FAILED;

    *out = (struct invitation){0};
    if (terminal)
        say("the head shows a token when it starts, and `lingua devices invite` makes another");
    for (int i = 0; i < (terminal ? TRIES : 1) && status >= 0; i++) {
        if (!ask_line("token", text, sizeof text) || !*text) {
            if (terminal)
                fputc('\n', stderr);
            say("join: this device belongs to no cluster yet and needs a token: at the prompt, by "
                "--token-file FILE, LINGUA_TOKEN or standard input");
            break;
        }
        status = taken(terminal ? "is not right" : "on standard input", text, out);
    }
    explicit_bzero(text, sizeof text);
    return status;
}
