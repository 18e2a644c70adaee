#include "api/api_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "support/tiny_vocab.h"

static const char chat_template[] =
    "{%- if tools %}<|im_start|>system\nTools:\n{%- for tool in tools %}\n{{ tool | tojson }}"
    "{%- endfor %}\nCall one by <tool_call>\n{\"name\": ..., \"arguments\": ...}\n</tool_call>"
    "<|im_end|>\n{%- endif %}"
    "{%- for m in messages %}"
    "{%- if m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n"
    "</tool_response><|im_end|>\n"
    "{%- else %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}"
    "{%- if m.tool_calls %}{%- for c in m.tool_calls %}\n<tool_call>\n{\"name\": \"{{ "
    "c.function.name }}\", \"arguments\": {{ c.function.arguments | tojson }}}\n</tool_call>"
    "{%- endfor %}{%- endif %}<|im_end|>\n{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{%- endif %}";

void api_rig_open(struct api_rig *r, const struct api_opts *opts)
{
    const struct tiny_vocab vocab = {.chat_template = chat_template};
    const struct api_opts plain = {0};
    char path[] = "/tmp/test_api.XXXXXX";
    struct err_text et;
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    close(fd);
    assert_true(tiny_vocab_write(path, &vocab));
    *r = (struct api_rig){.base = event_base_new(), .answer = mem_strdup("")};
    r->cluster = fake_open(r->base, path, "tiny");
    unlink(path);
    if (api_open(r->base, r->cluster, opts ? opts : &plain, &r->api, &et))
        fail_msg("%s", et.text);
}

void api_rig_close(struct api_rig *r)
{
    if (r->api)
        api_close(r->api);
    fake_close(r->cluster);
    event_base_loop(r->base, EVLOOP_NONBLOCK);
    event_base_free(r->base);
    free(r->answer);
}

void api_begin(struct api_rig *r, struct client *c, const char *path, const char *body)
{
    char *request =
        body ? mem_printf("POST %s HTTP/1.0\r\nHost: a\r\nContent-Type: application/json\r\n"
                          "Content-Length: %zu\r\n\r\n%s",
                          path, strlen(body), body)
             : mem_printf("GET %s HTTP/1.0\r\nHost: a\r\n\r\n", path);

    client_open(c, r->base, api_port(r->api));
    client_say(c, request);
    free(request);
}

const char *api_ask(struct api_rig *r, const char *path, const char *body)
{
    struct client c;
    char *at;

    api_begin(r, &c, path, body);
    assert_true(client_wait_end(&c));
    at = strstr(c.in, "\r\n\r\n");
    assert_non_null(at);
    assert_int_equal(sscanf(c.in, "HTTP/%*d.%*d %d", &r->status), 1);
    free(r->answer);
    r->answer = mem_strdup(at + 4);
    client_close(&c);
    return r->answer;
}

json_t *api_json(struct api_rig *r, const char *path, const char *body, int status)
{
    json_t *v = json_loads(api_ask(r, path, body), 0, NULL);

    if (!v || r->status != status)
        fail_msg("%s: %d %s", path, r->status, r->answer);
    return v;
}

json_t *api_events(struct api_rig *r, const char *path, const char *body)
{
    json_t *events = json_array();
    char *save = NULL;

    (void)api_ask(r, path, body);
    for (char *s = strtok_r(r->answer, "\n", &save); s; s = strtok_r(NULL, "\n", &save)) {
        json_t *event;

        if (strncmp(s, "data: ", 6) != 0)
            fail_msg("no event: %s", s);
        event = json_loads(s + 6, 0, NULL);
        json_array_append_new(events, event ? event : json_string(s + 6));
    }
    return events;
}

const json_t *at(const json_t *v, const char *path)
{
    char *copy = mem_strdup(path), *save = NULL;

    for (char *s = strtok_r(copy, ".", &save); s && v; s = strtok_r(NULL, ".", &save))
        v = json_is_array(v) ? json_array_get(v, strtoul(s, NULL, 10)) : json_object_get(v, s);
    free(copy);
    return v;
}

const char *at_text(const json_t *v, const char *path)
{
    const char *s = json_string_value(at(v, path));

    return s ? s : "";
}

long long at_number(const json_t *v, const char *path)
{
    const json_t *n = at(v, path);

    return json_is_number(n) ? (long long)json_number_value(n) : -1;
}
