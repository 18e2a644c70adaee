#include "link/token.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <string.h>

#include "base/check.h"

enum {
    SUM_BYTES = 2,
    BODY_BYTES = TOKEN_HEAD_BYTES + TOKEN_SECRET_BYTES,
    TOKEN_BYTES = BODY_BYTES + SUM_BYTES,
    TOKEN_CHARS = (TOKEN_BYTES * 8 + 4) / 5, /* base32: five bits each */
    GROUP = 4,
    GUESS_WINDOW_US = 60 * 1000000,
};

static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz234567";
static const char proof_label[] = "lingua pair 1";

/* CRC-16/CCITT-FALSE: notices every wrong character and every swap of neighbours. */
static uint16_t checksum(const uint8_t *bytes, size_t len)
{
    uint16_t crc = 0xffff;

    for (size_t i = 0; i < len; i++) {
        crc ^= (uint16_t)(bytes[i] << 8);
        for (int bit = 0; bit < 8; bit++)
            crc = (uint16_t)(crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1);
    }
    return crc;
}

void token_text(const struct token *t, char buf[TOKEN_TEXT_MAX])
{
    uint8_t bytes[TOKEN_BYTES + 1] = {
        0}; /* one more, for the bits that fill up the last character */
    uint16_t sum;
    char *p = buf;

    memcpy(bytes, t->head, TOKEN_HEAD_BYTES);
    memcpy(bytes + TOKEN_HEAD_BYTES, t->secret, TOKEN_SECRET_BYTES);
    sum = checksum(bytes, BODY_BYTES);
    bytes[BODY_BYTES] = (uint8_t)(sum >> 8);
    bytes[BODY_BYTES + 1] = (uint8_t)sum;
    for (int i = 0; i < TOKEN_CHARS; i++) {
        int bit = i * 5;
        unsigned two = (unsigned)bytes[bit / 8] << 8 | bytes[bit / 8 + 1];

        if (i && i % GROUP == 0)
            *p++ = '-';
        *p++ = alphabet[two >> (11 - bit % 8) & 31];
    }
    *p = '\0';
    OPENSSL_cleanse(bytes, sizeof bytes);
}

/* Of a character in either case; -1 when it has no value. */
static int value_of(char c)
{
    if (c >= 'a' && c <= 'z')
        return c - 'a';
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= '2' && c <= '7')
        return c - '2' + 26;
    return -1;
}

/* The characters' bits in a row; the caller wipes bytes. */
static enum err parse_bytes(const char *text, uint8_t bytes[TOKEN_BYTES + 1], struct err_text *et)
{
    int n = 0;

    for (const char *p = text; *p; p++) {
        int v = value_of(*p), bit = n * 5;
        unsigned two;

        if (*p == '-' || *p == ' ' || *p == '\t' || *p == '\r' || *p == '\n')
            continue;
        if (v < 0)
            return err_set(et, ERR_INPUT,
                           "the token has a character at place %d that no token has (only a-z and "
                           "2-7)",
                           n + 1);
        if (++n > TOKEN_CHARS)
            return err_set(et, ERR_INPUT, "the token is too long: it has %d characters",
                           TOKEN_CHARS);
        two = (unsigned)v << (11 - bit % 8);
        bytes[bit / 8] |= (uint8_t)(two >> 8);
        bytes[bit / 8 + 1] |= (uint8_t)two;
    }
    if (n < TOKEN_CHARS)
        return err_set(et, ERR_INPUT, "the token is too short: %d of %d characters", n,
                       TOKEN_CHARS);
    return ERR_NONE;
}

enum err token_parse(const char *text, struct token *out, struct err_text *et)
{
    uint8_t bytes[TOKEN_BYTES + 1] = {0};
    enum err e = parse_bytes(text, bytes, et);
    uint16_t sum = checksum(bytes, BODY_BYTES);

    if (!e && (bytes[BODY_BYTES] != sum >> 8 || bytes[BODY_BYTES + 1] != (sum & 0xff) ||
               bytes[TOKEN_BYTES]))
        e = err_set(et, ERR_INPUT, "the token is mistyped: its checksum does not fit");
    memset(out, 0, sizeof *out);
    if (!e) {
        memcpy(out->head, bytes, TOKEN_HEAD_BYTES);
        memcpy(out->secret, bytes + TOKEN_HEAD_BYTES, TOKEN_SECRET_BYTES);
    }
    OPENSSL_cleanse(bytes, sizeof bytes);
    return e;
}

void token_wipe(struct token *t)
{
    OPENSSL_cleanse(t, sizeof *t);
}

bool token_names(const struct token *t, const struct key_id *head)
{
    return CRYPTO_memcmp(t->head, head->bytes, TOKEN_HEAD_BYTES) == 0;
}

void token_prove(const struct token *t, const uint8_t exported[TOKEN_EXPORT_BYTES],
                 uint8_t proof[TOKEN_PROOF_BYTES])
{
    uint8_t words[sizeof proof_label - 1 + TOKEN_EXPORT_BYTES];
    unsigned n = TOKEN_PROOF_BYTES;

    memcpy(words, proof_label, sizeof proof_label - 1);
    memcpy(words + sizeof proof_label - 1, exported, TOKEN_EXPORT_BYTES);
    CHECK(HMAC(EVP_sha256(), t->secret, TOKEN_SECRET_BYTES, words, sizeof words, proof, &n) &&
          n == TOKEN_PROOF_BYTES);
    OPENSSL_cleanse(words, sizeof words);
}

void token_book_init(struct token_book *b, const struct key_id *head)
{
    memset(b, 0, sizeof *b);
    b->head = *head;
}

void token_book_fini(struct token_book *b)
{
    OPENSSL_cleanse(b, sizeof *b);
}

static void forget(struct token_book *b, int i)
{
    b->n--;
    memmove(&b->open[i], &b->open[i + 1], (size_t)(b->n - i) * sizeof b->open[0]);
    OPENSSL_cleanse(&b->open[b->n], sizeof b->open[0]);
}

static void forget_expired(struct token_book *b, int64_t now_us)
{
    for (int i = b->n - 1; i >= 0; i--)
        if (now_us >= b->open[i].until_us)
            forget(b, i);
}

void token_book_make(struct token_book *b, int64_t now_us, int64_t life_us, struct token *out)
{
    forget_expired(b, now_us);
    if (b->n == TOKENS_MAX)
        forget(b, 0);
    memcpy(out->head, b->head.bytes, TOKEN_HEAD_BYTES);
    CHECK(RAND_bytes(out->secret, TOKEN_SECRET_BYTES) == 1);
    b->open[b->n].token = *out;
    b->open[b->n].until_us = now_us + life_us;
    b->n++;
}

enum err token_book_take(struct token_book *b, int64_t now_us,
                         const uint8_t exported[TOKEN_EXPORT_BYTES],
                         const uint8_t proof[TOKEN_PROOF_BYTES], struct err_text *et)
{
    uint8_t expected[TOKEN_PROOF_BYTES];
    int64_t left_us = b->guesses_since_us + GUESS_WINDOW_US - now_us;
    int found = -1;

    if (b->guesses && left_us <= 0)
        b->guesses = 0;
    if (b->guesses >= GUESSES_MAX)
        return err_set(et, ERR_LIMIT, "too many wrong tokens were tried; try again in %d s",
                       (int)((left_us + 999999) / 1000000));
    forget_expired(b, now_us);
    for (int i = 0; i < b->n; i++) {
        token_prove(&b->open[i].token, exported, expected);
        if (CRYPTO_memcmp(expected, proof, TOKEN_PROOF_BYTES) == 0)
            found = i;
    }
    OPENSSL_cleanse(expected, sizeof expected);
    if (found >= 0) {
        forget(b, found);
        return ERR_NONE;
    }
    if (b->guesses++ == 0)
        b->guesses_since_us = now_us;
    return err_set(et, ERR_INPUT,
                   "this token was used already, has expired or is mistyped; ask the head for a "
                   "fresh one (lingua devices invite)");
}
