/* Inside src/text only: what text_shim.cpp, the one C++ file of the project, gives to the C files
 * beside it.
 *
 * llama.cpp's C functions may throw (tokenising, pieces, samplers, templates), and a C++ exception
 * that meets a C frame ends the process. So the C files call only those llama.h functions that do
 * nothing but read a field, and come here for the rest. Every shim_ function catches everything.
 * Threads: as text.h says; shim_child_prepare is for the renderer's child process alone. */
#ifndef LINGUA_TEXT_TEXT_SHIM_H
#define LINGUA_TEXT_TEXT_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "llama.h"

#ifdef __cplusplus
extern "C" {
#endif

#include "base/err.h"
#include "text/text.h"

struct text {
    struct llama_model *model;       /* vocabulary and metadata only, no weights */
    const struct llama_vocab *vocab; /* inside model */
    const char *chat_template;       /* inside model; NULL when the file has none */
    int n_vocab;
};

/* gives *out: free with llama_model_free. ERR_INPUT with llama.cpp's own reason. */
MUST_CHECK enum err shim_load(const char *path, struct llama_model **out, struct err_text *et);

/* As llama_tokenize: *n is the number of tokens, or minus the number needed when cap is too small.
 */
MUST_CHECK enum err shim_tokenize(const struct llama_vocab *vocab, const char *s, int n_bytes,
                                  bool add_special, bool parse_special, int32_t *tokens, int cap,
                                  int *n, struct err_text *et);

/* As text_piece. */
int shim_piece(const struct llama_vocab *vocab, int32_t token, bool show_special, char *buf,
               int cap);

/* Runs the template here and now, without any bound on time, stack or memory: text_render_chat
 * calls it in a child process. gives *out (*n bytes and a terminator): free with free(). ERR_INPUT
 * with the template's complaint in one line, ERR_LIMIT past TEXT_BYTES_MAX, ERR_MEMORY. */
MUST_CHECK enum err shim_render(const struct text *t, const struct text_message *messages,
                                int n_messages, bool add_assistant, char **out, size_t *n,
                                struct err_text *et);

/* Exit statuses of the renderer's child that say how it ended when it could not say it in words. */
enum { RENDER_EXIT_DONE = 0, RENDER_EXIT_MEMORY = 40, RENDER_EXIT_ABORT, RENDER_EXIT_LIMITS };

/* In the child: out of memory and ggml's aborts become exit statuses at once, and llama.cpp's
 * common library logs nothing, since logging would start a thread. */
void shim_child_prepare(void);

/* A chain top-k, top-p, min-p, temperature, random choice. gives: free with llama_sampler_free.
 * NULL when there is no memory. */
struct llama_sampler *shim_chain_new(const struct sampling *s);
/* Index into data of the choice; data (n candidates, finite logits) is reordered and scaled. -1
 * when there is no memory. */
int shim_chain_pick(struct llama_sampler *chain, struct llama_token_data *data, int n);

#ifdef __cplusplus
}
#endif

#endif
