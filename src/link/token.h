/* The one-time token that lets one device into a cluster.
 *
 * It holds the first 16 bytes of the head's key id, so that the newcomer knows it talks to the
 * right head before it says anything, and a secret of 10 random bytes, which it proves without
 * sending it: HMAC-SHA256(secret, "lingua pair 1" || 32 bytes exported from the TLS session). A
 * head in the middle would have another session, so a proof is of no use to it.
 *
 * As text: base32 (a-z, 2-7) in groups of four joined by dashes, 2 bytes of checksum at the end, so
 * that a mistyped token is noticed before anything is sent: 45 characters in 12 groups. Upper case,
 * missing dashes and spaces are fine.
 *
 * A token_book holds what the head has given out: each token admits one device, expires, and wrong
 * guesses are counted: after GUESSES_MAX in a minute every proof is refused for the rest of it.
 * Secrets are wiped when done with and compared in constant time. Owned by one thread. */
#ifndef LINGUA_LINK_TOKEN_H
#define LINGUA_LINK_TOKEN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "link/identity.h"

enum {
    TOKEN_HEAD_BYTES = 16,
    TOKEN_SECRET_BYTES = 10,
    TOKEN_TEXT_MAX = 64,
    TOKEN_PROOF_BYTES = 32,
    TOKEN_EXPORT_BYTES = 32,
    TOKEN_LIFE_US_DEFAULT = 15 * 60 * 1000000,
    TOKENS_MAX = 8, /* open at once */
    GUESSES_MAX = 5,
};

struct token {
    uint8_t head[TOKEN_HEAD_BYTES];
    uint8_t secret[TOKEN_SECRET_BYTES];
};

void token_text(const struct token *t, char buf[TOKEN_TEXT_MAX]);
/* ERR_INPUT says what is wrong with it, never what it is. */
MUST_CHECK enum err token_parse(const char *text, struct token *out, struct err_text *et);
void token_wipe(struct token *t);
bool token_names(const struct token *t, const struct key_id *head);
void token_prove(const struct token *t, const uint8_t exported[TOKEN_EXPORT_BYTES],
                 uint8_t proof[TOKEN_PROOF_BYTES]);

struct token_book {
    struct key_id head;
    int n;
    struct {
        struct token token;
        int64_t until_us;
    } open[TOKENS_MAX];
    int guesses;
    int64_t guesses_since_us;
};

void token_book_init(struct token_book *b, const struct key_id *head);
void token_book_fini(struct token_book *b);
/* A fresh one, the oldest making room when TOKENS_MAX are open. */
void token_book_make(struct token_book *b, int64_t now_us, int64_t life_us, struct token *out);
/* Takes the token that proof proves: it admits nobody else. ERR_INPUT: none does ("used or expired,
 * or mistyped"). ERR_LIMIT: too many wrong guesses; says when to try again. */
MUST_CHECK enum err token_book_take(struct token_book *b, int64_t now_us,
                                    const uint8_t exported[TOKEN_EXPORT_BYTES],
                                    const uint8_t proof[TOKEN_PROOF_BYTES], struct err_text *et);

#endif
