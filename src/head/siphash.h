/* SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012): a keyed hash of a
 * few bytes, here for tags of token prefixes. Who does not have the key can neither make a tag nor
 * read a prefix out of one. Pure; any thread. */
#ifndef LINGUA_HEAD_SIPHASH_H
#define LINGUA_HEAD_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t siphash(const uint8_t key[16], const uint8_t *data, size_t len);

#endif
