/* A small vocabulary in GGUF for tests, SentencePiece ("llama") or byte-pair ("gpt2"): tokens for
 * all bytes, so that every text can be written in it, a few control tokens, and some merges. */
#ifndef LINGUA_TESTS_TINY_VOCAB_H
#define LINGUA_TESTS_TINY_VOCAB_H

#include <stdbool.h>

struct gguf_context;

struct tiny_vocab {
    const char *chat_template; /* NULL: none */
    const char *bpe;           /* NULL: SentencePiece; else byte-pair encoding (GPT-2's) with this
                                  pre-tokenizer's name, e.g. "gpt-2", "bloom" */
    bool no_bos;               /* do not add BOS in front of a text */
    int n_vocab;               /* padded with unused tokens up to this; 0: as many as there are */
};

enum {
    TINY_UNK = 0,
    TINY_BOS = 1,
    TINY_EOS = 2,
    TINY_BYTE0 = 3,         /* the token of byte b is TINY_BYTE0 + b */
    TINY_IM_START = 259,    /* "<|im_start|>" */
    TINY_IM_END = 260,      /* "<|im_end|>", ends generation */
    TINY_PIECE_FIRST = 261, /* ordinary pieces from here: letters, then merges */
};

/* Adds the tokenizer.* keys to a model being written. Returns the number of tokens. */
int tiny_vocab_put(struct gguf_context *g, const struct tiny_vocab *v);

/* Writes a file that holds the vocabulary and nothing else. False when it cannot. */
bool tiny_vocab_write(const char *path, const struct tiny_vocab *v);

#endif
