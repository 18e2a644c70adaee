/* GET /cluster/timeline and /cluster/trace: where the time of the last answer went. The cluster makes
 * the texts (head/timeline.h), when the devices have sent what they know. */
#include <stdlib.h>

#include "api/api_impl.h"
#include "base/mem.h"

struct look {
    struct cluster *cluster;
    struct call *call;
    enum cluster_picture kind;
};

static void on_gone(void *user)
{
    struct look *l = user;

    cluster_picture_forget(l->cluster, l);
    free(l);
}

static void refuse(struct call *call, const char *why)
{
    struct fault f = {
        .status = 503, .type = "unavailable_error", .code = "try_again", .retry_s = 1};

    snprintf(f.message, sizeof f.message, "%s", why);
    fault_reply(call, &f);
}

static void on_text(void *user, const char *text, size_t n)
{
    struct look *l = user;
    struct call *call = l->call;

    if (text && l->kind == CLUSTER_TRACE)
        http_header(call, "Content-Disposition", "attachment; filename=\"lingua-trace.json\"");
    free(l);
    if (text)
        http_reply_bytes(call, 200, "application/json", text, n);
    else
        refuse(call, "this head is closing");
}

static void look(struct api *a, struct call *call, enum cluster_picture kind)
{
    struct look *l = mem_alloc(sizeof *l);

    *l = (struct look){a->cluster, call, kind};
    if (!cluster_picture_ask(a->cluster, kind, on_text, l)) {
        free(l);
        refuse(call, "too many look at the timeline at once");
        return;
    }
    call_on_gone(call, on_gone, l);
}

void handle_timeline(void *user, struct call *call)
{
    look(user, call, CLUSTER_TIMELINE);
}

void handle_trace(void *user, struct call *call)
{
    look(user, call, CLUSTER_TRACE);
}
