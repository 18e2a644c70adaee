#include "cli/member.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/sys.h"
#include "cli/cmd.h"
#include "cli/say.h"
#include "device/profile.h"

/* The host's name, or, where hosts have none (Android calls every phone "localhost"), the kind of
 * thing it is. The head makes names different that are not. */
static void host_name(char name[MEMBER_NAME_MAX])
{
    if (gethostname(name, MEMBER_NAME_MAX) < 0)
        *name = '\0';
    name[MEMBER_NAME_MAX - 1] = '\0';
    name[strcspn(name, ".")] = '\0';
    if (!*name || strcmp(name, "localhost") == 0)
        strcpy(name, getenv("ANDROID_ROOT") ? "phone" : "device");
}

static const char *name_trouble(const char *name)
{
    if (!*name)
        return "is empty";
    if (strlen(name) >= MEMBER_NAME_MAX)
        return "is longer than 63 bytes";
    for (const char *p = name; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return "has control characters";
    if (*name == ' ' || name[strlen(name) - 1] == ' ')
        return "begins or ends with a blank";
    return NULL;
}

int member_settle(const char *command, struct member_options *o)
{
    int cores = sys_cores();
    const char *trouble = o->name ? name_trouble(o->name) : NULL;

    umask(S_IRWXG | S_IRWXO); /* whatever is kept is nobody else's business */
    if (trouble) {
        say("%s: the --name %s", command, trouble);
        return STATUS_USAGE;
    }
    if (!o->name) {
        host_name(o->host);
        o->name = o->host;
    }
    if (o->threads > cores)
        say("warning: %lld threads were asked for, but there are %d cores: using %d",
            (long long)o->threads, cores, cores);
    if (o->threads > cores)
        o->threads = cores;
    return -1;
}

void member_threads(struct member_options *o, const char *state_folder)
{
    if (o->threads == 0)
        o->threads = profile_threads(state_folder, o->memory, "/sys");
}

static void line(void *user, const char *component, const char *text)
{
    static const char *const explaining[] = {"discover", "bulk", "fetch", "cache",
                                             "plan",     "step", "node"};
    const struct member_log *m = user;

    for (size_t i = 0; !m->verbose && i < ARRAY_LEN(explaining); i++)
        if (strcmp(component, explaining[i]) == 0)
            return;
    bars_say(m->bars, "[%s] %s", component, text);
}

struct log member_log(struct member_log *m)
{
    return (struct log){line, m};
}
