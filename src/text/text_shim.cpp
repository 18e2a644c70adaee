#include "text/text_shim.h"

#include <cstring>
#include <mutex>

#include "ggml.h" // layers-ok: llama.h speaks in ggml_log_level
#include "log.h"
#include "text/shim_guard.h"

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

} // namespace

void shim_quiet()
{
    static std::once_flag once;

    std::call_once(once, [] {
        llama_log_set(log_line, nullptr);
        common_log_set_verbosity_thold(-1);
    });
}

extern "C" enum err shim_load(const char *path, struct llama_model **out, struct err_text *et)
{
    struct err_text reason = {};

    *out = nullptr;
    shim_quiet();
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
