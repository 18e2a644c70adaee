/* From a llama2.c checkpoint to GGUF: how the default model, stories15M, comes to be.
 *
 * The input is the pair of files llama2.c trains and exports. Little endian throughout.
 *
 *   checkpoint   7 int32: dim, hidden, layers, heads, kv heads, vocabulary, context; then f32:
 *                token embedding (vocabulary, dim); attention norms of all layers (layers, dim);
 *                wq of all layers (layers, dim, dim), wk, wv (layers, kv dim, dim), wo (layers,
 *                dim, dim); FFN norms (layers, dim); w1 = gate (layers, hidden, dim), w2 = down
 *                (layers, dim, hidden), w3 = up (layers, hidden, dim); final norm (dim); two
 *                tables of rotary cosines and sines (context, head size / 2) that nobody needs.
 *   tokenizer    int32 longest length; then per token of the vocabulary: f32 score, int32 length,
 *                bytes. 0, 1, 2 are unknown, start and end; 3..258 are the 256 bytes; a space
 *                stands for SentencePiece's U+2581.
 *
 * The output head is the embedding (tied). Nothing in the input is trusted: counts are bounded,
 * both sizes must be exact, every weight must be finite. The same input gives the same bytes.
 * Whether the tokens make a vocabulary (no duplicates, say) is asked when the result is opened, as
 * of every model file. Any thread. */
#ifndef LINGUA_MODEL_LLAMA2C_H
#define LINGUA_MODEL_LLAMA2C_H

#include <stddef.h>
#include <stdio.h>

#include "base/err.h"

enum llama2c_type { LLAMA2C_Q8_0, LLAMA2C_F16 }; /* of the matrices; norms are always f32 */

struct llama2c_input {
    const void *checkpoint; /* aligned for float; borrowed for the call, like all of this */
    size_t n_checkpoint;    /* bytes */
    const void *tokenizer;
    size_t n_tokenizer;
    const char *name, *license, *source; /* general.name and so on; NULL leaves a key out */
};

/* Writes the GGUF to out, which stays open and may still hold buffered bytes: the caller flushes it
 * and looks at the result. ERR_INPUT says what is wrong with the input, ERR_UNSUPPORTED what we do
 * not convert, ERR_FILE why out refused. */
MUST_CHECK enum err llama2c_convert(const struct llama2c_input *in, enum llama2c_type type,
                                    FILE *out, struct err_text *et);

#endif
