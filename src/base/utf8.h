/* Text that others wrote, made fit to be shown, logged and put into JSON. Pure; any thread. */
#ifndef LINGUA_BASE_UTF8_H
#define LINGUA_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Length of the character at p, of which n >= 1 bytes are there; 0 when there is none. RFC 3629: no
 * overlong forms, no surrogates, nothing past U+10FFFF. */
size_t utf8_char(const uint8_t *p, size_t n);

/* Copies len bytes and ends them with a NUL; each byte that begins no printable character of UTF-8
 * (a control character, the rest of one that was cut) becomes a question mark. out has room for
 * len + 1; it may be bytes itself. */
void utf8_clean(char *out, const uint8_t *bytes, size_t len);

#endif
