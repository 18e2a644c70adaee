#include "text/text_shim.h"

#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <new>
#include <string>
#include <unistd.h>

#include "chat.h"
#include "ggml.h" // layers-ok: llama.h speaks in ggml_log_level
#include "log.h"

extern "C" {
#include "base/mem.h"
}

namespace
{

/* Where llama.cpp's next error line of this thread goes, while shim_load runs; else lines are
 * dropped. Thread-local because llama.cpp reports load failures by its log alone, and its log is
 * one function for the whole process. */
thread_local struct err_text *load_reason;

void log_line(enum ggml_log_level level, const char *line, void *)
{
    if (level != GGML_LOG_LEVEL_ERROR || !load_reason || load_reason->text[0])
        return;
    /* "function: error loading model: the reason\n": people need the last part. */
    const char *colon = strstr(line, ": ");
    if (colon)
        line = colon + 2;
    const char *prefix = "error loading model: ";
    if (strncmp(line, prefix, strlen(prefix)) == 0)
        line += strlen(prefix);
    err_set(load_reason, ERR_INPUT, "%.*s", (int)strcspn(line, "\n"), line);
}

/* Runs f and turns whatever it throws into an error. */
template <class F> enum err guarded(struct err_text *et, const char *doing, F f)
{
    try {
        return f();
    } catch (const std::bad_alloc &) {
        return err_set(et, ERR_MEMORY, "%s: out of memory", doing);
    } catch (const std::exception &e) {
        return err_set(et, ERR_INPUT, "%s: %s", doing, e.what());
    } catch (...) {
        return err_set(et, ERR_INPUT, "%s: an unnamed error inside llama.cpp", doing);
    }
}

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

common_chat_templates_inputs inputs_of(const struct text_message *messages, int n_messages,
                                       bool add_assistant)
{
    common_chat_templates_inputs in;

    for (int i = 0; i < n_messages; i++) {
        common_chat_msg m;
        m.role = messages[i].role;
        m.content = messages[i].content;
        in.messages.push_back(std::move(m));
    }
    in.add_generation_prompt = add_assistant;
    in.use_jinja = true;
    return in;
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

} // namespace

extern "C" enum err shim_load(const char *path, struct llama_model **out, struct err_text *et)
{
    static std::once_flag quiet;
    struct err_text reason = {};

    *out = nullptr;
    /* llama.cpp and ggml write their progress to stderr, which belongs to our caller. Their log
     * function is global state we cannot avoid; it is set once, before their first line. */
    std::call_once(quiet, [] { llama_log_set(log_line, nullptr); });
    load_reason = &reason;
    enum err e = guarded(et, path, [&] {
        struct llama_model_params p = llama_model_default_params();
        p.vocab_only = true;
        p.n_gpu_layers = 0;
        *out = llama_model_load_from_file(path, p);
        if (!*out)
            return err_set(et, ERR_INPUT, "%s: %s", path,
                           reason.text[0] ? reason.text : "llama.cpp cannot read its vocabulary");
        return ERR_NONE;
    });
    load_reason = nullptr;
    return e;
}

extern "C" enum err shim_tokenize(const struct llama_vocab *vocab, const char *s, int n_bytes,
                                  bool add_special, bool parse_special, int32_t *tokens, int cap,
                                  int *n, struct err_text *et)
{
    return guarded(et, "split the text into tokens", [&] {
        *n = llama_tokenize(vocab, s, n_bytes, tokens, cap, add_special, parse_special);
        return ERR_NONE;
    });
}

extern "C" int shim_piece(const struct llama_vocab *vocab, int32_t token, bool show_special,
                          char *buf, int cap)
{
    try {
        return llama_token_to_piece(vocab, token, buf, cap, 0, show_special);
    } catch (...) {
        return 0; /* a token without a text of its own prints as nothing */
    }
}

extern "C" enum err shim_render(const struct text *t, const struct text_message *messages,
                                int n_messages, bool add_assistant, char **out, size_t *n,
                                struct err_text *et)
{
    *out = nullptr;
    *n = 0;
    try {
        common_chat_templates_ptr tmpls = templates_of(t);
        /* This drops a BOS the template writes itself when the tokenizer will add one, and an EOS
         * likewise. */
        std::string text =
            common_chat_templates_apply(tmpls.get(), inputs_of(messages, n_messages, add_assistant))
                .prompt;
        if (text.size() > TEXT_BYTES_MAX)
            return err_set(et, ERR_LIMIT, "the chat template writes more than %d MiB",
                           TEXT_BYTES_MAX >> 20);
        if (memchr(text.data(), 0, text.size()))
            return err_set(et, ERR_INPUT, "the chat template writes a zero byte");
        *out = (char *)mem_try(text.size() + 1, 1);
        if (!*out)
            return err_set(et, ERR_MEMORY, "no memory for the rendered chat");
        memcpy(*out, text.data(), text.size());
        *n = text.size();
        return ERR_NONE;
    } catch (const std::bad_alloc &) {
        return err_set(et, ERR_MEMORY, "the chat template needs more memory than there is");
    } catch (const std::exception &e) {
        try {
            return err_set(et, ERR_INPUT, "chat template: %s", one_line(e.what()).c_str());
        } catch (...) {
            return err_set(et, ERR_INPUT, "the chat template failed");
        }
    } catch (...) {
        return err_set(et, ERR_INPUT, "the chat template failed");
    }
}

extern "C" void shim_child_prepare(void)
{
    common_log_set_verbosity_thold(-1);
    std::set_new_handler([] { _exit(RENDER_EXIT_MEMORY); });
    /* Without a callback ggml's abort would start a debugger for a backtrace. */
    ggml_set_abort_callback([](const char *) { _exit(RENDER_EXIT_ABORT); });
}

extern "C" struct llama_sampler *shim_chain_new(const struct sampling *s)
{
    try {
        /* llama.cpp takes this one value for "draw a seed"; ours are all fixed. */
        uint32_t seed = s->seed == LLAMA_DEFAULT_SEED ? LLAMA_DEFAULT_SEED - 1 : s->seed;
        struct llama_sampler *chain =
            llama_sampler_chain_init(llama_sampler_chain_default_params());

        if (s->top_k > 0)
            llama_sampler_chain_add(chain, llama_sampler_init_top_k(s->top_k));
        if (s->top_p < 1)
            llama_sampler_chain_add(chain, llama_sampler_init_top_p(s->top_p, 1));
        if (s->min_p > 0)
            llama_sampler_chain_add(chain, llama_sampler_init_min_p(s->min_p, 1));
        llama_sampler_chain_add(chain, llama_sampler_init_temp(s->temp));
        llama_sampler_chain_add(chain, llama_sampler_init_dist(seed));
        return chain;
    } catch (...) {
        return nullptr;
    }
}

extern "C" int shim_chain_pick(struct llama_sampler *chain, struct llama_token_data *data, int n)
{
    struct llama_token_data_array a = {data, (size_t)n, -1, false};

    try {
        llama_sampler_apply(chain, &a);
    } catch (...) {
        return -1;
    }
    return a.data == data ? (int)a.selected : -1;
}
