/* Reads what a model writes with the parser its template gave, again and again while it grows. */
#include "text/text_shim.h"

#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <sys/random.h>
#include <vector>

#include "text/shim_guard.h"
#include <chat.h> // llama.cpp's, not ours beside this file

extern "C" {
#include "base/mem.h"
}

struct shim_parser {
    common_chat_parser_params params;
    std::string text;
    bool one_call = false; /* grammars of some templates allow several whatever was asked for */
    size_t n_brackets = 0; /* [ and { in text: the parser recurses no deeper */
    common_chat_msg now;   /* what the deltas given so far amount to */
    std::vector<std::string> ids;
};

namespace
{

enum err give(const json &j, char **out, struct err_text *et)
{
    std::string s = j.dump(-1, ' ', false, json::error_handler_t::replace);

    *out = (char *)mem_try(s.size() + 1, 1);
    if (!*out)
        return err_set(et, ERR_MEMORY, "no memory for a part of the answer");
    memcpy(*out, s.c_str(), s.size());
    return ERR_NONE;
}

/* OpenAI's clients send a call's id back with its result, so it must not repeat in a talk. */
std::string call_id()
{
    unsigned char bytes[12];
    std::string id = "call_";

    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        throw std::runtime_error("the system gives no random numbers");
    for (unsigned char b : bytes) {
        id += "0123456789abcdef"[b >> 4];
        id += "0123456789abcdef"[b & 15];
    }
    return id;
}

json delta_of(const common_chat_msg_diff &d)
{
    json j = json::object();

    if (!d.reasoning_content_delta.empty())
        j["reasoning_content"] = d.reasoning_content_delta;
    if (!d.content_delta.empty())
        j["content"] = d.content_delta;
    if (d.tool_call_index != std::string::npos) {
        json call = {{"index", d.tool_call_index}};
        json function = json::object();
        if (!d.tool_call_delta.name.empty()) {
            call["id"] = d.tool_call_delta.id;
            call["type"] = "function";
            function["name"] = d.tool_call_delta.name;
        }
        function["arguments"] = d.tool_call_delta.arguments;
        call["function"] = function;
        j["tool_calls"] = json::array({call});
    }
    return j;
}

/* Clients add deltas up, so nothing said can be taken back: of two messages the later must begin
 * with the earlier. */
bool goes_on(const common_chat_msg &from, const common_chat_msg &to)
{
    auto begins = [](const std::string &a, const std::string &b) {
        return b.compare(0, a.size(), a) == 0;
    };

    if (!begins(from.content, to.content) ||
        !begins(from.reasoning_content, to.reasoning_content) ||
        to.tool_calls.size() < from.tool_calls.size())
        return false;
    for (size_t i = 0; i < from.tool_calls.size(); i++) {
        const auto &a = from.tool_calls[i], &b = to.tool_calls[i];
        if (a.name != b.name || a.id != b.id || !begins(a.arguments, b.arguments))
            return false;
    }
    return true;
}

/* The message of all the text. False when it is none, or not yet. */
bool message_of(struct shim_parser *p, bool final, common_chat_msg &msg)
{
    try {
        msg = common_chat_parse(p->text, !final, p->params);
    } catch (const std::bad_alloc &) {
        throw;
    } catch (const std::exception &) {
        return false;
    }
    /* A call is told once its name is whole: the name cannot grow any more when something follows
     * it. */
    if (!final && !msg.tool_calls.empty() && msg.tool_calls.back().arguments.empty())
        msg.tool_calls.pop_back();
    if (p->one_call && msg.tool_calls.size() > 1)
        msg.tool_calls.resize(1);
    msg.set_tool_call_ids(p->ids, call_id);
    return true;
}

size_t valid_bytes(const unsigned char *s, size_t n)
{
    size_t more = s[0] >= 0xf0 ? 3 : s[0] >= 0xe0 ? 2 : 1;

    if (s[0] < 0x80)
        return 1;
    if (s[0] < 0xc2 || s[0] > 0xf4 || more >= n)
        return 0;
    for (size_t i = 1; i <= more; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return more + 1;
}

} // namespace

extern "C" enum err shim_parser_new(const char *parser, struct shim_parser **out,
                                    struct err_text *et)
{
    *out = nullptr;
    shim_quiet();
    return guarded(et, "read the chat's parser", [&] {
        auto p = std::make_unique<shim_parser>();
        json j = json::parse(parser);
        int format = j.at("format");
        std::string arena = j.at("parser");
        if (format < 0 || format >= COMMON_CHAT_FORMAT_COUNT)
            return err_set(et, ERR_INPUT, "the chat's parser is of no known format");
        p->params.format = (common_chat_format)format;
        p->params.generation_prompt = j.at("prefix");
        p->one_call = j.at("one_call");
        p->params.reasoning_format = COMMON_REASONING_FORMAT_AUTO;
        if (!arena.empty())
            p->params.parser.load(arena);
        p->now.role = "assistant";
        *out = p.release();
        return ERR_NONE;
    });
}

extern "C" void shim_parser_free(struct shim_parser *p)
{
    delete p;
}

extern "C" enum err shim_parser_add(struct shim_parser *p, const char *text, size_t n,
                                    size_t *levels, struct err_text *et)
{
    *levels = p->n_brackets;
    if (n > TEXT_BYTES_MAX - p->text.size())
        return err_set(et, ERR_LIMIT, "the answer is longer than %d MiB", TEXT_BYTES_MAX >> 20);
    return guarded(et, "read the answer", [&] {
        /* Parsers refuse a text for one byte that is no UTF-8; a client's JSON cannot hold it. */
        for (size_t i = 0, k; i < n; i += k ? k : 1) {
            k = valid_bytes((const unsigned char *)text + i, n - i);
            if (k)
                p->text.append(text + i, k);
            else
                p->text += "\xef\xbf\xbd";
            p->n_brackets += text[i] == '[' || text[i] == '{';
        }
        *levels = p->n_brackets;
        return ERR_NONE;
    });
}

extern "C" enum err shim_parser_read(struct shim_parser *p, bool final, bool plain, char **out,
                                     struct err_text *et)
{
    *out = nullptr;
    return guarded(et, "read the answer", [&] {
        json deltas = json::array();
        common_chat_msg msg;
        bool good = !plain && message_of(p, final, msg) && goes_on(p->now, msg);
        if (!good && final && p->now.tool_calls.empty() && p->now.reasoning_content.empty()) {
            msg = p->now;
            msg.content = p->text;
            good = goes_on(p->now, msg);
        }
        if (good) {
            for (const auto &d : common_chat_msg_diff::compute_diffs(p->now, msg))
                deltas.push_back(delta_of(d));
            p->now = msg;
        }
        return give(deltas, out, et);
    });
}

extern "C" enum err shim_parser_message(const struct shim_parser *p, char **out, int *n_calls,
                                        struct err_text *et)
{
    *out = nullptr;
    *n_calls = (int)p->now.tool_calls.size();
    return guarded(et, "write the answer", [&] {
        json j = {{"role", "assistant"}, {"content", p->now.content}};
        if (p->now.content.empty() && !p->now.tool_calls.empty())
            j["content"] = nullptr;
        if (!p->now.reasoning_content.empty())
            j["reasoning_content"] = p->now.reasoning_content;
        for (const auto &c : p->now.tool_calls)
            j["tool_calls"].push_back(
                {{"id", c.id},
                 {"type", "function"},
                 {"function", {{"name", c.name}, {"arguments", c.arguments}}}});
        return give(j, out, et);
    });
}
