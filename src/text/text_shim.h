/* Inside src/text only: what the C++ files shim_*.cpp and text_shim.cpp give to the C files beside
 * them.
 *
 * llama.cpp's C functions may throw (tokenising, pieces, samplers, templates), and a C++ exception
 * that meets a C frame ends the process. So the C files call only those llama.h functions that do
 * nothing but read a field, and come here for the rest. Every shim_ function catches everything.
 * Threads: as text.h and chat.h say; functions marked "child" are for a child process (base/apart.h)
 * alone, since they know no bounds on time, stack and memory. */
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
#include "text/chat.h"
#include "text/text.h"

struct text {
    struct llama_model *model;       /* vocabulary and metadata only, no weights */
    const struct llama_vocab *vocab; /* inside model */
    const char *chat_template;       /* inside model; NULL when the file has none */
    int n_vocab;
};

enum { TEMPLATE_BYTES_MAX = 256 << 10 }; /* the longest in use is about 30 KiB */

/* ERR_LIMIT for a template (there is one) that is too long to be read. */
MUST_CHECK enum err template_check(const struct text *t, struct err_text *et);

/* ---- text_shim.cpp: vocabulary and the sampling chain ---- */

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

/* A chain top-k, top-p, min-p, temperature, random choice. gives: free with llama_sampler_free.
 * NULL when there is no memory. */
struct llama_sampler *shim_chain_new(const struct sampling *s);
/* Index into data of the choice; data (n candidates, finite logits) is reordered and scaled. -1
 * when there is no memory. */
int shim_chain_pick(struct llama_sampler *chain, struct llama_token_data *data, int n);

/* ---- shim_grammar.cpp ---- */

/* Bounds that llama.cpp's reader and matcher need, on nothing but the text (grammar.c): length,
 * nesting, repetitions, what it would unfold to. The first of a pair; shim_grammar_new is the
 * second. ERR_LIMIT, ERR_INPUT with the line. */
MUST_CHECK enum err grammar_scan(const char *text, struct err_text *et);

struct shim_grammar;
/* g->text has passed grammar_scan. gives *out: shim_grammar_free. ERR_INPUT with the line of what
 * cannot be read, for left recursion, for a prefix that does not fit; ERR_LIMIT. */
MUST_CHECK enum err shim_grammar_new(const struct llama_vocab *vocab, const struct grammar *g,
                                     struct shim_grammar **out, struct err_text *et);
void shim_grammar_free(struct shim_grammar *g);
struct shim_grammar *shim_grammar_clone(const struct shim_grammar *g); /* NULL: no memory */
/* Whether the token may come next. */
MUST_CHECK enum err shim_grammar_allows(struct shim_grammar *g, int32_t token, bool *yes,
                                        struct err_text *et);
/* Of data[*n] keeps those that may come next, in their order. While a lazy grammar waits, only the
 * tokens shim_grammar_allows has refused since the last one go. */
MUST_CHECK enum err shim_grammar_mask(struct shim_grammar *g, struct llama_token_data *data, int *n,
                                      struct err_text *et);
/* The token was chosen; it is an allowed one. ERR_LIMIT when the grammar has become too ambiguous.
 */
MUST_CHECK enum err shim_grammar_accept(struct shim_grammar *g, int32_t token, struct err_text *et);

/* ---- shim_chat.cpp ---- */

/* All four in the child; each gives *out (*n bytes and a terminator): free(). ERR_INPUT with the
 * complaint in one line, ERR_LIMIT past TEXT_BYTES_MAX or GRAMMAR_BYTES_MAX, ERR_MEMORY. */
MUST_CHECK enum err shim_render(const struct text *t, const struct text_message *messages,
                                int n_messages, bool add_assistant, char **out, size_t *n,
                                struct err_text *et);
/* chat_apply's answer as chat.c reads it: numbers are u32 of this machine, texts are a number and
 * so many bytes without NUL: prompt, grammar (empty: none), prefix, begin, lazy, triggers (number; each
 * kind, token, text), stops (number; each a text), parser. */
MUST_CHECK enum err shim_chat_apply(const struct text *t, const struct chat_ask *ask, char **out,
                                    size_t *n, struct err_text *et);
MUST_CHECK enum err shim_schema_grammar(const char *schema, char **out, size_t *n,
                                        struct err_text *et);
MUST_CHECK enum err shim_chat_caps(const struct text *t, char **out, size_t *n,
                                   struct err_text *et);

/* In the child: out of memory and ggml's aborts become exit statuses at once, and llama.cpp's
 * common library logs nothing, since logging would start a thread. */
void shim_child_prepare(void);
/* What a child for templates and schemas may take (struct apart_task). */
#ifdef __SANITIZE_ADDRESS__
#define SHIM_CPU_S 20 /* what is instrumented takes several times as long */
#else
#define SHIM_CPU_S 2
#endif
#define SHIM_CHILD .prepare = shim_child_prepare, .cpu_s = SHIM_CPU_S, .memory_bytes = 512 << 20

/* ---- shim_parser.cpp ---- */

struct shim_parser;
MUST_CHECK enum err shim_parser_new(const char *parser, struct shim_parser **out,
                                    struct err_text *et);
void shim_parser_free(struct shim_parser *p);
/* n more bytes. *levels: how deep the parser may recurse for what it has now, at most. */
MUST_CHECK enum err shim_parser_add(struct shim_parser *p, const char *text, size_t n,
                                    size_t *levels, struct err_text *et);
/* Reads all there is, or with `plain` takes it for content; *out as chat_parser_feed's deltas. */
MUST_CHECK enum err shim_parser_read(struct shim_parser *p, bool final, bool plain, char **out,
                                     struct err_text *et);
MUST_CHECK enum err shim_parser_message(const struct shim_parser *p, char **out, int *n_calls,
                                        struct err_text *et);

#ifdef __cplusplus
}
#endif

#endif
