#include "base/folder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"

enum err folder_make(const char *path, struct err_text *et)
{
    char *p = mem_strdup(path);
    enum err e = ERR_NONE;
    struct stat st;

    for (char *at = p + 1; *p && !e; at++) {
        char was = *at;

        if (was && was != '/')
            continue;
        *at = '\0';
        if (mkdir(p, was ? 0755 : 0700) < 0 && errno != EEXIST)
            e = err_system(et, "make the folder %s", p);
        *at = was;
        if (!was)
            break;
    }
    if (!e && (stat(path, &st) < 0 || !S_ISDIR(st.st_mode)))
        e = err_set(et, ERR_FILE, "%s is not a folder", path);
    free(p);
    return e;
}

static enum err usual(const char *xdg, const char *below_home, char **out, struct err_text *et)
{
    const char *base = getenv(xdg), *home = getenv("HOME");
    enum err e;

    if (base && *base == '/')
        *out = mem_printf("%s/lingua", base);
    else if (home && *home)
        *out = mem_printf("%s/%s/lingua", home, below_home);
    else
        return err_set(et, ERR_INPUT,
                       "neither %s nor HOME is set, so there is no place to keep things: name one "
                       "with --state DIR",
                       xdg);
    e = folder_make(*out, et);
    if (e) {
        free(*out);
        *out = NULL;
    }
    return e;
}

enum err folder_state(const char *chosen, char **out, struct err_text *et)
{
    enum err e;

    *out = NULL;
    if (!chosen || !*chosen)
        return usual("XDG_STATE_HOME", ".local/state", out, et);
    e = folder_make(chosen, et);
    if (!e)
        *out = mem_strdup(chosen);
    return e;
}

enum err folder_cache(const char *chosen_state, char **out, struct err_text *et)
{
    enum err e;

    *out = NULL;
    if (!chosen_state || !*chosen_state)
        return usual("XDG_CACHE_HOME", ".cache", out, et);
    *out = mem_printf("%s/cache", chosen_state);
    e = folder_make(*out, et);
    if (e) {
        free(*out);
        *out = NULL;
    }
    return e;
}
