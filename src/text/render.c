/* text_render_chat: a chat template is a program that came with a file, so it runs in a child
 * process (base/apart.h). */
#include "text/text.h"

#include <string.h>

#include "base/apart.h"
#include "base/check.h"
#include "text/text_shim.h"

enum { MESSAGES_MAX = 1 << 16 };

struct job {
    const struct text *t;
    const struct text_message *messages;
    int n_messages;
    bool add_assistant;
};

static enum err job_check(const struct job *job, struct err_text *et)
{
    size_t total = 0;
    enum err e;

    if (!text_has_template(job->t))
        return err_set(et, ERR_INPUT, "the model has no chat template; it can only continue text");
    e = template_check(job->t, et);
    if (e)
        return e;
    if (job->n_messages > MESSAGES_MAX)
        return err_set(et, ERR_LIMIT, "the chat has %d messages; %d is the most", job->n_messages,
                       MESSAGES_MAX);
    for (int i = 0; i < job->n_messages; i++) {
        const struct text_message *m = &job->messages[i];

        CHECK(m->role && m->content);
        total += strlen(m->role) + strlen(m->content);
        if (total > TEXT_BYTES_MAX)
            return err_set(et, ERR_LIMIT, "the chat's messages exceed %d MiB",
                           TEXT_BYTES_MAX >> 20);
    }
    return ERR_NONE;
}

static enum err job_work(const void *arg, char **out, size_t *n, struct err_text *et)
{
    const struct job *job = arg;

    return shim_render(job->t, job->messages, job->n_messages, job->add_assistant, out, n, et);
}

enum err template_check(const struct text *t, struct err_text *et)
{
    if (strlen(text_template(t)) > TEMPLATE_BYTES_MAX)
        return err_set(et, ERR_LIMIT, "the model's chat template is longer than %d KiB",
                       TEMPLATE_BYTES_MAX >> 10);
    return ERR_NONE;
}

enum err text_render_chat(const struct text *t, const struct text_message *messages, int n_messages,
                          bool add_assistant, char **out, struct err_text *et)
{
    struct job job = {t, messages, n_messages, add_assistant};
    struct apart_task task = {"the chat template", job_work, &job, SHIM_CHILD,
                              .answer_max = TEXT_BYTES_MAX};
    enum err e = job_check(&job, et);
    size_t n;

    *out = NULL;
    return e ? e : apart_run(&task, out, &n, et);
}
