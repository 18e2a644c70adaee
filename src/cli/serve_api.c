#include "cli/serve_api.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "base/sys.h"
#include "cli/cmd.h"
#include "cli/files.h"
#include "cli/say.h"

enum { KEY_BYTES_MAX = 512 };

void serve_api_options(struct serve_api *a, struct option_spec out[SERVE_API_OPTIONS])
{
    static const char *const poolings[] = {"auto", "mean", "cls", "last", NULL};
    const struct option_spec rows[SERVE_API_OPTIONS] = {
        {"host", 0, OPTION_TEXT, &a->host, 0, 0, NULL, "ADDR",
         "where the HTTP API listens (default: 127.0.0.1, this\nmachine alone)"},
        {"port", 0, OPTION_WHOLE, &a->port, 0, 65535, NULL, "PORT",
         "its port (default: 8080); 0: any that is free"},
        {"no-api", 0, OPTION_FLAG, &a->none, 0, 0, NULL, NULL, "no HTTP API at all"},
        {"api-key-file", 0, OPTION_TEXT, &a->key_file, 0, 0, NULL, "FILE",
         "keys of the API's users, one per line; LINGUA_API_KEY may\nhold one, too (default: none "
         "is asked for)"},
        {"api-key", 0, OPTION_TEXT, &a->key, 0, 0, NULL, "KEY",
         "a key itself; others on this machine could read it here"},
        {"cors", 0, OPTION_TEXT, &a->cors, 0, 0, NULL, "ORIGIN",
         "web pages from there may use the API; * = from anywhere"},
        {"tls-cert", 0, OPTION_TEXT, &a->tls_cert, 0, 0, NULL, "FILE",
         "serve the API by HTTPS with this certificate (PEM)"},
        {"tls-key", 0, OPTION_TEXT, &a->tls_key, 0, 0, NULL, "FILE", "and its private key"},
        {"alias", 0, OPTION_TEXT, &a->alias, 0, 0, NULL, "NAME",
         "the model's name in the API's answers (default: the file's)"},
        {"pooling", 0, OPTION_CHOICE, &a->pooling, 0, 0, poolings, "auto|mean|cls|last",
         "how embeddings are made of rows (default: as the file says)"},
        {"queue", 0, OPTION_WHOLE, &a->queue, 1, 768, NULL, "N",
         "requests that may wait for a slot (default: 256)"},
    };

    memcpy(out, rows, sizeof rows);
}

/* Those that a header can carry, and a person can tell from each other. */
static bool key_is_fine(const char *key, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isgraph((unsigned char)key[i]))
            return false;
    return n > 0 && n <= KEY_BYTES_MAX;
}

/* from: where it stood; the key itself is never repeated. */
static int key_take(struct serve_api *a, const char *key, size_t n, const char *from)
{
    if (!key_is_fine(key, n)) {
        say("serve: the API key %s must be 1 to %d letters, digits and signs without blanks", from,
            KEY_BYTES_MAX);
        return STATUS_USAGE;
    }
    if (a->n_keys == API_KEYS_MAX) {
        say("serve: there may be %d API keys at most", API_KEYS_MAX);
        return STATUS_USAGE;
    }
    a->keys[a->n_keys] = mem_alloc(n + 1);
    memcpy(a->keys[a->n_keys], key, n);
    a->keys[a->n_keys++][n] = '\0';
    return -1;
}

/* One per line; blanks around it and empty lines are nothing. */
static int keys_of_lines(struct serve_api *a, const char *s, const char *end, const char *from)
{
    int status = -1;

    while (status < 0 && s < end) {
        const char *line = s, *stop = memchr(s, '\n', (size_t)(end - s));
        size_t n = (size_t)((stop ? stop : end) - s);

        s += n + 1;
        for (; n && isspace((unsigned char)*line); n--)
            line++;
        while (n && isspace((unsigned char)line[n - 1]))
            n--;
        if (n)
            status = key_take(a, line, n, from);
    }
    return status;
}

static int keys_from_file(struct serve_api *a)
{
    struct stat st;
    char *bytes;
    size_t n;
    int status, before = a->n_keys;

    if (file_read(a->key_file, &bytes, &n) != 0)
        return STATUS_FAILED;
    if (stat(a->key_file, &st) == 0 && S_ISREG(st.st_mode) && st.st_mode & (S_IRWXG | S_IRWXO))
        say("warning: others on this machine can read %s; chmod 600 keeps them out", a->key_file);
    status = keys_of_lines(a, bytes, bytes + n, "in the file");
    explicit_bzero(bytes, n);
    free(bytes);
    if (status < 0 && a->n_keys == before) {
        say("serve: there is no API key in %s", a->key_file);
        return STATUS_FAILED;
    }
    return status;
}

static int key_from_argument(struct serve_api *a)
{
    int status = key_take(a, a->key, strlen(a->key), "on the command line");

    explicit_bzero((char *)a->key, strlen(a->key)); /* argv's own memory */
    say("warning: an API key on the command line can be read by everyone on this machine; it is "
        "taken off now, but use --api-key-file or LINGUA_API_KEY next time");
    return status;
}

static int key_from_environment(struct serve_api *a)
{
    char *text = getenv("LINGUA_API_KEY");
    int status;

    if (!text || !*text)
        return -1;
    status = key_take(a, text, strlen(text), "in LINGUA_API_KEY");
    explicit_bzero(text, strlen(text)); /* /proc/PID/environ shows this very memory */
    unsetenv("LINGUA_API_KEY");
    return status;
}

int serve_api_settle(struct serve_api *a)
{
    int status = a->key ? key_from_argument(a) : -1;

    if (status < 0 && !a->tls_cert != !a->tls_key) {
        say("serve: HTTPS needs both a certificate and its key: --tls-cert and --tls-key");
        status = STATUS_USAGE;
    }
    if (status < 0)
        status = key_from_environment(a);
    if (status < 0 && a->key_file)
        status = keys_from_file(a);
    return status;
}

static bool is_this_machine(const char *host)
{
    return !host || strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0 ||
           strncmp(host, "127.", 4) == 0;
}

/* "http://127.0.0.1:8080"; free(). */
static char *url_of(const struct serve_api *a, const char *host)
{
    bool v6 = strchr(host, ':');

    return mem_printf("%s://%s%s%s:%d", a->tls_cert ? "https" : "http", v6 ? "[" : "", host,
                      v6 ? "]" : "", api_port(a->api));
}

static void page_say(const struct serve_api *a, const char *host, const char *from)
{
    char *url = url_of(a, host);

    say("page%s: %s/#key=%s", from, url, api_page_key(a->api));
    free(url);
}

static bool is_everywhere(const char *host)
{
    return !*host || strcmp(host, "*") == 0 || strcmp(host, "0.0.0.0") == 0 ||
           strcmp(host, "::") == 0;
}

/* Where the page is, for this machine and, when the API is for others, for them. */
static void pages_say(const struct serve_api *a, const char *host)
{
    char address[64];

    if (!is_everywhere(host)) {
        page_say(a, host, "");
        return;
    }
    page_say(a, "127.0.0.1", "");
    sys_local_address(address, sizeof address);
    if (*address)
        page_say(a, address, " for others");
}

static void opened_say(const struct serve_api *a)
{
    const char *host = a->host ? a->host : "127.0.0.1";
    char *url = url_of(a, host);

    say("the API is at %s/v1 (OpenAI's dialect)", url);
    free(url);
    pages_say(a, host);
    if (is_this_machine(host))
        return;
    if (a->n_keys == 0)
        say("warning: everyone who reaches %s can use it; --api-key-file asks for a key", host);
    if (!a->tls_cert)
        say("warning: what is asked there crosses the network in the clear; --tls-cert and "
            "--tls-key encrypt it");
}

int serve_api_open(struct serve_api *a, struct event_base *base, struct cluster *cluster,
                   struct log log)
{
    const struct api_opts opts = {.host = a->host,
                                  .port = (int)a->port,
                                  .keys = (const char *const *)a->keys,
                                  .n_keys = a->n_keys,
                                  .cors = a->cors,
                                  .tls_cert = a->tls_cert,
                                  .tls_key = a->tls_key,
                                  .alias = a->alias,
                                  .pooling = a->pooling,
                                  .log = log};
    struct err_text et;

    if (a->none)
        return -1;
    if (api_open(base, cluster, &opts, &a->api, &et)) {
        say("serve: the API: %s", et.text);
        return STATUS_FAILED;
    }
    opened_say(a);
    return -1;
}

void serve_api_close(struct serve_api *a)
{
    api_close(a->api);
    a->api = NULL;
    for (int i = 0; i < a->n_keys; i++) {
        explicit_bzero(a->keys[i], strlen(a->keys[i]));
        free(a->keys[i]);
    }
    a->n_keys = 0;
}
