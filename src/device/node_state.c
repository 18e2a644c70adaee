#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "device/node_impl.h"
#include "link/state_file.h"

/* The file `cluster`, lines of a word and what it means:
 *
 *     lingua 1
 *     head 64 hexadecimal digits
 *     head_name what the head calls itself
 *     name what the head calls this device
 *     address host:port        (as often as there are addresses, the best first)
 *
 * A reader ignores words it does not know. */
static const char file_name[] = "cluster", first_line[] = "lingua 1", roster_folder[] = "joined";
enum { FILE_MAX = 8192 };

/* ---- addresses ---- */

static void put_in_front(struct addresses *a, const char *address, int from)
{
    char copy[ADDRESS_MAX];

    snprintf(copy, sizeof copy, "%s", address);
    memmove(a->text[1], a->text[0], (size_t)from * sizeof a->text[0]);
    memcpy(a->text[0], copy, sizeof copy);
}

bool addresses_prefer(struct addresses *a, const char *address)
{
    int at = 0;

    if (strlen(address) >= ADDRESS_MAX || !*address)
        return false;
    while (at < a->n && strcmp(a->text[at], address) != 0)
        at++;
    if (at == 0 && a->n > 0)
        return false;
    if (at == a->n && a->n < ADDRESSES_MAX)
        a->n++;
    put_in_front(a, address, at < ADDRESSES_MAX ? at : ADDRESSES_MAX - 1);
    return true;
}

void addresses_add(struct addresses *a, const char *list)
{
    while (*list && a->n < ADDRESSES_MAX) {
        size_t len = strcspn(list, " ");
        bool there = len == 0 || len >= ADDRESS_MAX;

        for (int i = 0; i < a->n && !there; i++)
            there = strlen(a->text[i]) == len && strncmp(a->text[i], list, len) == 0;
        if (!there) {
            memcpy(a->text[a->n], list, len);
            a->text[a->n++][len] = '\0';
        }
        list += len + (list[len] == ' ');
    }
}

/* ---- the cluster file ---- */

static bool read_key(const char *hex, struct key_id *out)
{
    if (strlen(hex) != 2 * KEY_ID_BYTES || strspn(hex, "0123456789abcdef") != 2 * KEY_ID_BYTES)
        return false;
    for (int i = 0; i < KEY_ID_BYTES; i++) {
        const char pair[] = {hex[2 * i], hex[2 * i + 1], '\0'};

        out->bytes[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    return true;
}

static bool read_name(const char *text, char out[WIRE_NAME_MAX])
{
    return snprintf(out, WIRE_NAME_MAX, "%s", text) < WIRE_NAME_MAX;
}

static bool parse_line(struct remembered *r, const char *word, const char *rest, bool *has_head)
{
    if (strcmp(word, "head") == 0)
        return *has_head = read_key(rest, &r->head);
    if (strcmp(word, "head_name") == 0)
        return read_name(rest, r->head_name);
    if (strcmp(word, "name") == 0)
        return read_name(rest, r->name);
    if (strcmp(word, "address") == 0)
        addresses_add(&r->addresses, rest);
    return true;
}

static bool parse(char *text, struct remembered *r)
{
    char *save, *line = strtok_r(text, "\n", &save);
    bool has_head = false;

    if (!line || strcmp(line, first_line) != 0)
        return false;
    while ((line = strtok_r(NULL, "\n", &save))) {
        char *rest = strchr(line, ' ');

        if (!rest)
            continue;
        *rest++ = '\0';
        if (!parse_line(r, line, rest, &has_head))
            return false;
    }
    return has_head;
}

enum err remembered_read(const char *folder, struct remembered *r, bool *there, struct err_text *et)
{
    struct state_folder f;
    uint8_t *bytes = NULL;
    size_t len = 0;
    enum err e = state_folder_open(&f, folder, et);

    memset(r, 0, sizeof *r);
    *there = false;
    if (e)
        return e;
    e = state_file_read(&f, file_name, FILE_MAX, &bytes, &len, et);
    state_folder_close(&f);
    if (!e && bytes) {
        char *text = mem_alloc(len + 1);

        memcpy(text, bytes, len);
        text[len] = '\0';
        *there = parse(text, r);
        free(text);
        if (!*there)
            e = err_set(et, ERR_INPUT,
                        "%s/%s: cut short or damaged; remove it and join again with a new token",
                        folder, file_name);
    }
    free(bytes);
    return e;
}

enum err remembered_write(const char *folder, const struct remembered *r, struct err_text *et)
{
    char text[FILE_MAX], hex[2 * KEY_ID_BYTES + 1];
    struct state_folder f;
    size_t len;
    enum err e;

    for (int i = 0; i < KEY_ID_BYTES; i++)
        snprintf(hex + 2 * i, 3, "%02x", r->head.bytes[i]);
    len = (size_t)snprintf(text, sizeof text, "%s\nhead %s\nhead_name %s\nname %s\n", first_line,
                           hex, r->head_name, r->name);
    for (int i = 0; i < r->addresses.n; i++)
        len +=
            (size_t)snprintf(text + len, sizeof text - len, "address %s\n", r->addresses.text[i]);
    CHECK(len < sizeof text);
    e = state_folder_open(&f, folder, et);
    if (e)
        return e;
    e = state_file_write(&f, file_name, text, len, et);
    state_folder_close(&f);
    return e;
}

static void remove_file(const char *folder, const char *name)
{
    char *path = mem_printf("%s/%s", folder, name);

    unlink(path);
    free(path);
}

void remembered_forget(const char *folder)
{
    remove_file(folder, file_name);
}

/* A folder of its own: a device that is a head at other times has its own roster in the state
 * folder, which must not be lost to this one. */
enum err remembered_roster(const char *folder, const struct key_id *head, struct roster **out,
                           struct err_text *et)
{
    char *own = mem_printf("%s/%s", folder, roster_folder);
    enum err e = roster_open_member(own, head, out, et);

    if (e == ERR_INPUT) { /* of another head, or damaged: the head will send it */
        remove_file(own, "roster");
        e = roster_open_member(own, head, out, et);
    }
    free(own);
    return e;
}

enum err folder_lock(const char *folder, int *fd, struct err_text *et)
{
    struct state_folder f;
    char *path = mem_printf("%s/lock", folder);
    enum err e = state_folder_open(&f, folder, et); /* makes it */

    *fd = -1;
    if (!e) {
        state_folder_close(&f);
        *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (*fd < 0) {
            e = err_system(et, "open %s", path);
        } else if (flock(*fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
            close(*fd);
            *fd = -1;
            e = err_set(et, ERR_FILE,
                        "another lingua uses %s; stop it, or choose another folder with --state",
                        folder);
        }
    }
    free(path);
    return e;
}
