#include "api/ask.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "api/json.h"
#include "api/params.h"
#include "base/mem.h"

enum { FIELD_MAX = 64, NAME_MAX_BYTES = 64 };

static char *dump(const json_t *v)
{
    return json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
}

char *ask_schema_text(const json_t *schema, const char *param, struct fault *f)
{
    char *text = dump(schema);

    if (!text || strlen(text) > API_SCHEMA_BYTES_MAX)
        fault_field(f, param, "%s may have %d KiB at most", param, API_SCHEMA_BYTES_MAX >> 10);
    else if (json_depth(text) > API_SCHEMA_DEPTH)
        fault_field(f, param, "%s may be nested %d deep at most", param, API_SCHEMA_DEPTH);
    else
        return text;
    free(text);
    return NULL;
}

/* ---- messages ---- */

static bool part_check(const json_t *part, const char *param, struct fault *f)
{
    const char *type = json_string_value(json_object_get(part, "type"));

    if (!type)
        return fault_field(f, param, "%s must be an object with a type", param);
    if (strcmp(type, "text") != 0 && strcmp(type, "input_text") != 0)
        return fault_field(f, param, "%s is of type %.32s; this model reads text only", param,
                           type);
    if (!json_is_string(json_object_get(part, "text")))
        return fault_field(f, param, "%s must have its text in \"text\"", param);
    return true;
}

static bool content_check(const json_t *m, int i, bool may_lack, struct fault *f)
{
    const json_t *content = json_object_get(m, "content");
    char param[FIELD_MAX];

    snprintf(param, sizeof param, "messages[%d].content", i);
    if (json_is_string(content) || (may_lack && (!content || json_is_null(content))))
        return true;
    if (!json_is_array(content))
        return fault_field(f, param, "%s must be a string or an array of parts", param);
    if (json_array_size(content) > API_MESSAGES_MAX)
        return fault_field(f, param, "%s may have %d parts at most", param, API_MESSAGES_MAX);
    for (size_t j = 0; j < json_array_size(content); j++) {
        snprintf(param, sizeof param, "messages[%d].content[%zu]", i, j);
        if (!part_check(json_array_get(content, j), param, f))
            return false;
    }
    return true;
}

static bool message_check(const json_t *m, int i, struct fault *f)
{
    static const char *const roles[] = {"system",    "developer", "user",
                                        "assistant", "tool",      "function"};
    const char *role = json_string_value(json_object_get(m, "role"));
    char param[FIELD_MAX];
    bool known = false;

    snprintf(param, sizeof param, "messages[%d]", i);
    if (!json_is_object(m))
        return fault_field(f, param, "%s must be an object", param);
    for (size_t j = 0; role && j < ARRAY_LEN(roles); j++)
        known = known || strcmp(role, roles[j]) == 0;
    snprintf(param, sizeof param, "messages[%d].role", i);
    if (!known)
        return fault_field(f, param, "%s must be system, developer, user, assistant or tool",
                           param);
    snprintf(param, sizeof param, "messages[%d].tool_calls", i);
    if (json_object_get(m, "tool_calls") && !json_is_null(json_object_get(m, "tool_calls")) &&
        !json_is_array(json_object_get(m, "tool_calls")))
        return fault_field(f, param, "%s must be an array", param);
    return content_check(m, i, strcmp(role, "assistant") == 0, f);
}

static bool messages_read(const json_t *body, struct ask *a, struct fault *f)
{
    const json_t *all = json_object_get(body, "messages");
    json_t *copy;

    if (!json_is_array(all) || json_array_size(all) == 0)
        return fault_field(f, "messages", "messages must be an array with at least one message");
    if (json_array_size(all) > API_MESSAGES_MAX)
        return fault_field(f, "messages", "there may be %d messages at most", API_MESSAGES_MAX);
    for (size_t i = 0; i < json_array_size(all); i++)
        if (!message_check(json_array_get(all, i), (int)i, f))
            return false;
    copy = json_array();
    for (size_t i = 0; i < json_array_size(all); i++) {
        json_t *m = json_copy(json_array_get(all, i));

        /* Templates know "system"; a developer's word is one. */
        if (strcmp(json_string_value(json_object_get(m, "role")), "developer") == 0)
            json_object_set_new(m, "role", json_string("system"));
        json_array_append_new(copy, m);
    }
    a->messages = dump(copy);
    json_decref(copy);
    return true;
}

/* ---- tools ---- */

static const char *tool_name(const json_t *tool)
{
    return json_string_value(json_object_get(json_object_get(tool, "function"), "name"));
}

static bool tool_check(const json_t *tool, int i, struct fault *f)
{
    const char *type = json_string_value(json_object_get(tool, "type")), *name = tool_name(tool);
    const json_t *schema = json_object_get(json_object_get(tool, "function"), "parameters");
    char param[FIELD_MAX], *text;
    bool fine;

    snprintf(param, sizeof param, "tools[%d].type", i);
    if (!type || strcmp(type, "function") != 0)
        return fault_field(f, param, "%s must be \"function\"", param);
    snprintf(param, sizeof param, "tools[%d].function.name", i);
    if (!name || !*name || strlen(name) > NAME_MAX_BYTES)
        return fault_field(f, param, "%s must be a name of up to %d bytes", param, NAME_MAX_BYTES);
    if (!schema || json_is_null(schema))
        return true;
    snprintf(param, sizeof param, "tools[%d].function.parameters", i);
    if (!json_is_object(schema))
        return fault_field(f, param, "%s must be a JSON schema: an object", param);
    text = ask_schema_text(schema, param, f);
    fine = text;
    free(text);
    return fine;
}

static bool choice_read(const json_t *body, const char **word, const char **function,
                        struct fault *f)
{
    const json_t *choice = json_object_get(body, "tool_choice");

    *word = "auto";
    *function = NULL;
    if (!choice || json_is_null(choice))
        return true;
    if (json_is_object(choice)) {
        *word = "required";
        *function = tool_name(choice);
        return *function || fault_field(f, "tool_choice",
                                        "tool_choice as an object must be "
                                        "{\"type\": \"function\", \"function\": "
                                        "{\"name\": ...}}");
    }
    *word = json_string_value(choice);
    if (*word && strcmp(*word, "auto") != 0 && strcmp(*word, "none") != 0 &&
        strcmp(*word, "required") != 0)
        *word = NULL;
    return *word ||
           fault_field(f, "tool_choice", "tool_choice must be auto, none, required or a function");
}

/* Those that may be called: all, or the one that tool_choice names. */
static json_t *tools_offered(const json_t *all, const char *function)
{
    json_t *offered = json_array();

    for (size_t i = 0; i < json_array_size(all); i++) {
        json_t *tool = json_array_get(all, i);

        if (!function || strcmp(tool_name(tool), function) == 0)
            json_array_append(offered, tool);
    }
    return offered;
}

static bool tools_read(const json_t *body, struct ask *a, struct fault *f)
{
    const json_t *all = json_object_get(body, "tools");
    const char *word, *function;
    json_t *offered;

    if (all && !json_is_null(all) && !json_is_array(all))
        return fault_field(f, "tools", "tools must be an array");
    if (json_array_size(all) > API_TOOLS_MAX)
        return fault_field(f, "tools", "there may be %d tools at most", API_TOOLS_MAX);
    for (size_t i = 0; i < json_array_size(all); i++)
        if (!tool_check(json_array_get(all, i), (int)i, f))
            return false;
    if (!choice_read(body, &word, &function, f))
        return false;
    if (json_array_size(all) == 0)
        return strcmp(word, "required") != 0 ||
               fault_field(f, "tool_choice", "tool_choice asks for a call, but there are no tools");
    offered = tools_offered(all, function);
    if (json_array_size(offered) == 0) {
        json_decref(offered);
        return fault_field(f, "tool_choice",
                           "tool_choice names \"%.64s\", which is none of the tools", function);
    }
    a->tools = dump(offered);
    json_decref(offered);
    a->chat.tool_choice = word;
    a->has_tools = strcmp(word, "none") != 0;
    return true;
}

/* ---- the rest ---- */

static bool kwargs_read(const json_t *body, struct ask *a, struct fault *f)
{
    const json_t *all = json_object_get(body, "chat_template_kwargs");

    if (!all || json_is_null(all))
        return true;
    if (!json_is_object(all))
        return fault_field(f, "chat_template_kwargs", "chat_template_kwargs must be an object");
    a->chat.no_thinking = json_is_false(json_object_get(all, "enable_thinking"));
    a->kwargs = ask_schema_text(all, "chat_template_kwargs", f);
    return a->kwargs;
}

static bool shape_read(const json_t *body, struct ask *a, struct fault *f)
{
    const json_t *schema;
    const char *grammar = NULL;
    bool any_object;

    if (!params_schema(body, &schema, &any_object, f) ||
        !json_get_string(body, "grammar", &grammar, f))
        return false;
    if (schema) {
        a->schema = ask_schema_text(schema, "response_format.json_schema.schema", f);
        if (!a->schema)
            return false;
    } else if (any_object) {
        a->schema = mem_strdup("{}");
    }
    if (!grammar || !*grammar)
        return true;
    if (a->schema || a->has_tools)
        return fault_field(f, "grammar", "a grammar excludes tools and a JSON schema");
    a->grammar = mem_strdup(grammar);
    return true;
}

bool ask_read(const json_t *body, struct ask *out, struct fault *f)
{
    *out = (struct ask){.chat = {.add_assistant = true, .parallel_calls = true}};
    if (!messages_read(body, out, f) || !tools_read(body, out, f) || !kwargs_read(body, out, f) ||
        !shape_read(body, out, f) ||
        !json_get_bool(body, "parallel_tool_calls", &out->chat.parallel_calls, f) ||
        !json_get_bool(body, "add_generation_prompt", &out->chat.add_assistant, f))
        return false;
    out->chat.messages = out->messages;
    out->chat.tools = out->tools;
    out->chat.json_schema = out->schema;
    out->chat.grammar = out->grammar;
    out->chat.template_kwargs = out->kwargs;
    return true;
}

void ask_fini(struct ask *a)
{
    free(a->messages);
    free(a->tools);
    free(a->schema);
    free(a->grammar);
    free(a->kwargs);
    *a = (struct ask){0};
}
