/* Templates and schemas, as a child process works on them (base/apart.h): without any bound on time,
 * stack or memory. */
#include "text/text_shim.h"

#include <cstdlib>
#include <cstring>
#include <string>
#include <unistd.h>

#include "ggml.h" // layers-ok: its abort callback
#include "json-schema-to-grammar.h"
#include "text/shim_guard.h"
#include <chat.h> // llama.cpp's, not ours beside this file

extern "C" {
#include "base/apart.h"
#include "base/mem.h"
}

namespace
{

/* A complaint that is already a sentence. */
struct complaint {
    enum err e;
    std::string text;
};

/* Jinja's errors are drawings of several lines with an arrow below the place. They become one line,
 * without what llama.cpp puts in front and without the rulers. */
std::string one_line(const std::string &what)
{
    std::string out;
    std::string rest = what;
    const std::string front = "Automatic parser generation failed: ";
    size_t at = rest.find(front);

    if (at != std::string::npos)
        rest = rest.substr(at + front.size());
    /* The innermost reason comes last, after its place in the template. */
    at = rest.rfind("Error: ");
    if (at != std::string::npos && at + 7 < rest.size())
        rest = rest.substr(at + 7);
    at = rest.rfind("Jinja Exception: ");
    if (at != std::string::npos)
        rest = rest.substr(at + 17);
    /* "[json.exception.parse_error.101] ", and what was given, which the asker has. */
    at = rest.find("[json.exception.");
    if (at != std::string::npos && rest.find("] ", at) != std::string::npos)
        rest.erase(at, rest.find("] ", at) + 2 - at);
    rest = rest.substr(0, rest.find("; tools = "));
    rest = rest.substr(0, rest.find(" (ref: http"));
    for (char c : rest) {
        bool space = (unsigned char)c <= ' ' || c == 0x7f;
        if (!space)
            out += c;
        else if (!out.empty() && out.back() != ' ')
            out += ' ';
    }
    while (!out.empty() && out.back() == ' ')
        out.pop_back();
    return out;
}

/* Runs f, which gives a string, and hands that out; what it throws becomes "doing: reason". */
template <class F>
enum err worked(const char *doing, char **out, size_t *n, struct err_text *et, F f)
{
    *out = nullptr;
    *n = 0;
    try {
        try {
            std::string s = f();
            *out = (char *)mem_try(s.size() + 1, 1);
            if (!*out)
                return err_set(et, ERR_MEMORY, "no memory for what %s gives", doing);
            memcpy(*out, s.data(), s.size());
            *n = s.size();
            return ERR_NONE;
        } catch (const complaint &c) {
            return err_set(et, c.e, "%s", c.text.c_str());
        } catch (const std::bad_alloc &) {
            return err_set(et, ERR_MEMORY, "%s needs more memory than there is", doing);
        } catch (const std::exception &e) {
            return err_set(et, ERR_INPUT, "%s: %s", doing, one_line(e.what()).c_str());
        }
    } catch (...) {
        return err_set(et, ERR_INPUT, "%s failed", doing);
    }
}

/* common_chat_templates_init rethrows a sliced std::exception and leaves the reason in its log, so
 * after a failure we parse once more to hear it. */
common_chat_templates_ptr templates_of(const struct text *t)
{
    try {
        return common_chat_templates_init(t->model, "");
    } catch (const std::bad_alloc &) {
        throw;
    } catch (const std::exception &) {
        common_chat_template again(t->chat_template, "", "");
        throw;
    }
}

const std::string &prompt_check(const std::string &prompt)
{
    if (prompt.size() > TEXT_BYTES_MAX)
        throw complaint{ERR_LIMIT, "the chat template writes more than " +
                                       std::to_string(TEXT_BYTES_MAX >> 20) + " MiB"};
    if (prompt.find('\0') != std::string::npos)
        throw complaint{ERR_INPUT, "the chat template writes a zero byte"};
    return prompt;
}

json json_of(const char *text, const char *name)
{
    try {
        return json::parse(text);
    } catch (const json::exception &e) {
        throw complaint{ERR_INPUT, std::string(name) + " is no JSON: " + one_line(e.what())};
    }
}

/* Clients write null for what they do not give, and pictures to models that cannot see. */
void message_tidy(json &m)
{
    for (auto it = m.begin(); it != m.end();) {
        if (it.value().is_null() && it.key() != "content")
            it = m.erase(it);
        else
            ++it;
    }
    if (!m.contains("content") || !m["content"].is_array())
        return;
    for (const auto &part : m["content"]) {
        if (part.is_object() && part.contains("type") && part["type"].is_string() &&
            part["type"] != "text")
            throw complaint{ERR_INPUT, "messages hold content of the type " + part["type"].dump() +
                                           "; this model reads text alone, so send a string, or "
                                           "parts of the type \"text\""};
        if (!part.is_object() || !part.contains("text") || !part["text"].is_string())
            throw complaint{ERR_INPUT, "messages hold a content part without its \"type\" and "
                                       "\"text\", which must be strings"};
    }
}

std::vector<common_chat_msg> messages_of(const char *text)
{
    json messages = json_of(text, "messages");

    if (!messages.is_array())
        throw complaint{ERR_INPUT, "messages must be an array"};
    for (auto &m : messages) {
        if (!m.is_object() || !m.contains("role") || !m["role"].is_string())
            throw complaint{ERR_INPUT, "each of messages must be an object with a \"role\""};
        message_tidy(m);
    }
    return common_chat_msgs_parse_oaicompat(messages);
}

/* "{}" asks for any object; to llama.cpp it means no schema. */
std::string schema_of(const char *text)
{
    json schema = json_of(text, "the JSON schema");

    if (!schema.is_object())
        throw complaint{ERR_INPUT, "the JSON schema must be an object"};
    return schema.empty() ? "{\"type\": \"object\"}" : schema.dump();
}

common_chat_templates_inputs inputs_of(const struct chat_ask *ask)
{
    common_chat_templates_inputs in;

    in.use_jinja = true;
    in.messages = messages_of(ask->messages);
    in.add_generation_prompt = ask->add_assistant;
    in.parallel_tool_calls = ask->parallel_calls;
    in.enable_thinking = !ask->no_thinking;
    in.reasoning_format = COMMON_REASONING_FORMAT_AUTO;
    if (ask->tools)
        in.tools = common_chat_tools_parse_oaicompat(json_of(ask->tools, "tools"));
    if (ask->tool_choice)
        in.tool_choice = common_chat_tool_choice_parse_oaicompat(ask->tool_choice);
    if (ask->json_schema)
        in.json_schema = schema_of(ask->json_schema);
    if (ask->template_kwargs) {
        json kwargs = json_of(ask->template_kwargs, "chat_template_kwargs");
        if (!kwargs.is_object())
            throw complaint{ERR_INPUT, "chat_template_kwargs must be an object"};
        for (const auto &el : kwargs.items())
            in.chat_template_kwargs[el.key()] = el.value().dump();
        if (kwargs.contains("enable_thinking") && kwargs["enable_thinking"].is_boolean())
            in.enable_thinking = kwargs["enable_thinking"];
    }
    return in;
}

class Writer
{
  public:
    std::string out;

    void number(size_t n)
    {
        uint32_t u = (uint32_t)n;
        out.append((const char *)&u, sizeof u);
    }
    void text(const std::string &s)
    {
        if (s.find('\0') != std::string::npos)
            throw complaint{ERR_INPUT, "the chat template or a tool's name holds a zero byte"};
        number(s.size());
        out += s;
    }
};

enum trigger_kind kind_of(common_grammar_trigger_type type)
{
    switch (type) {
    case COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN:
        return TRIGGER_TOKEN;
    case COMMON_GRAMMAR_TRIGGER_TYPE_WORD:
        return TRIGGER_WORD;
    case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN:
        return TRIGGER_PATTERN;
    case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN_FULL:
        break;
    }
    return TRIGGER_PATTERN_FULL;
}

/* What shim_parser_new reads. */
std::string parser_text(const common_chat_params &p, const struct chat_ask *ask)
{
    json j = {
        {"format", (int)p.format},
        {"prefix", p.generation_prompt},
        {"parser", p.parser},
        {"one_call", !ask->parallel_calls},
    };
    return j.dump(-1, ' ', true, json::error_handler_t::replace);
}

void grammar_check(const std::string &grammar)
{
    if (grammar.size() > GRAMMAR_BYTES_MAX)
        throw complaint{ERR_LIMIT, "the grammar of the tools or the schema would be longer than " +
                                       std::to_string(GRAMMAR_BYTES_MAX >> 10) +
                                       " KiB; make them smaller"};
}

std::string form_of(const common_chat_params &p, const struct chat_ask *ask,
                    const std::string &grammar, const std::string &prefix, const std::string &begin)
{
    Writer w;

    grammar_check(grammar);
    w.text(prompt_check(p.prompt));
    w.text(grammar);
    w.text(prefix);
    w.text(begin);
    w.number(p.grammar_lazy);
    w.number(p.grammar_triggers.size());
    for (const auto &t : p.grammar_triggers) {
        w.number(kind_of(t.type));
        w.number((uint32_t)t.token);
        w.text(t.value);
    }
    w.number(p.additional_stops.size());
    for (const auto &s : p.additional_stops)
        w.text(s);
    w.text(parser_text(p, ask));
    return std::move(w.out);
}

/* Templates' grammars for required calls allow any text in front of them, which a weak model never
 * ends. One that does not think first has nothing to say there, so it begins with what calls of
 * choice are known by. Empty when that is no word. */
std::string call_begin(const common_chat_templates *tmpls, common_chat_templates_inputs in)
{
    in.tool_choice = COMMON_CHAT_TOOL_CHOICE_AUTO;
    for (const auto &t : common_chat_templates_apply(tmpls, in).grammar_triggers)
        if (t.type == COMMON_GRAMMAR_TRIGGER_TYPE_WORD)
            return t.value;
    return "";
}

std::string answer_to(const struct text *t, const struct chat_ask *ask)
{
    common_chat_templates_inputs in = inputs_of(ask);
    common_chat_templates_ptr tmpls = templates_of(t);
    common_chat_params p = common_chat_templates_apply(tmpls.get(), in);
    bool required = !in.tools.empty() && in.tool_choice == COMMON_CHAT_TOOL_CHOICE_REQUIRED;

    if (p.grammar.empty()) {
        if (required)
            throw complaint{ERR_UNSUPPORTED,
                            "a tool call is required, but the model's chat template does not say "
                            "how this model calls tools; leave out tool_choice"};
        return form_of(p, ask, ask->grammar ? ask->grammar : "", "", "");
    }
    if (p.grammar_lazy && p.grammar.size() > GRAMMAR_BYTES_MAX) {
        /* Many tools: the model may call them as it was taught, unaided. */
        p.grammar_lazy = false;
        p.grammar_triggers.clear();
        return form_of(p, ask, "", "", "");
    }
    bool begins = required && in.json_schema.empty() && !p.grammar_lazy &&
                  !(p.supports_thinking && in.enable_thinking);
    /* A template's grammar begins with what its prompt ends with. */
    return form_of(p, ask, p.grammar, p.grammar_lazy ? "" : p.generation_prompt,
                   begins ? call_begin(tmpls.get(), in) : "");
}

} // namespace

extern "C" enum err shim_render(const struct text *t, const struct text_message *messages,
                                int n_messages, bool add_assistant, char **out, size_t *n,
                                struct err_text *et)
{
    return worked("chat template", out, n, et, [&] {
        common_chat_templates_ptr tmpls = templates_of(t);
        common_chat_templates_inputs in;
        for (int i = 0; i < n_messages; i++) {
            common_chat_msg m;
            m.role = messages[i].role;
            m.content = messages[i].content;
            in.messages.push_back(std::move(m));
        }
        in.add_generation_prompt = add_assistant;
        in.use_jinja = true;
        /* This drops a BOS the template writes itself when the tokenizer will add one, and an EOS
         * likewise. */
        return prompt_check(common_chat_templates_apply(tmpls.get(), in).prompt);
    });
}

extern "C" enum err shim_chat_apply(const struct text *t, const struct chat_ask *ask, char **out,
                                    size_t *n, struct err_text *et)
{
    return worked("chat", out, n, et, [&] { return answer_to(t, ask); });
}

extern "C" enum err shim_schema_grammar(const char *schema, char **out, size_t *n,
                                        struct err_text *et)
{
    return worked("JSON schema", out, n, et, [&] {
        std::string g = json_schema_to_grammar(json::parse(schema_of(schema)), true);
        grammar_check(g);
        if (g.find('\0') != std::string::npos)
            throw complaint{ERR_INPUT, "the JSON schema holds a zero byte"};
        return g;
    });
}

extern "C" enum err shim_chat_caps(const struct text *t, char **out, size_t *n, struct err_text *et)
{
    return worked("chat template", out, n, et, [&] {
        common_chat_templates_ptr tmpls = templates_of(t);
        const std::string front = "supports_";
        json caps = json::object();
        for (const auto &c : common_chat_templates_get_caps(tmpls.get()))
            caps[c.first.rfind(front, 0) == 0 ? c.first.substr(front.size()) : c.first] = c.second;
        bool thinking = false;
        try {
            thinking = common_chat_templates_support_enable_thinking(tmpls.get());
        } catch (const std::exception &) {
            /* It refuses the one message that question is asked with. */
        }
        caps["thinking"] = thinking;
        return caps.dump();
    });
}

extern "C" void shim_child_prepare(void)
{
    std::set_new_handler([] { _exit(APART_EXIT_MEMORY); });
    /* Without a callback ggml's abort would start a debugger for a backtrace. */
    ggml_set_abort_callback([](const char *) { _exit(APART_EXIT_ABORT); });
}
