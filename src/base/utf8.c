#include "base/utf8.h"

#include <string.h>

size_t utf8_char(const uint8_t *p, size_t n)
{
    uint32_t c;
    size_t len = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;

    if (len <= 1)
        return len;
    if (len > n || p[0] > 0xf4)
        return 0;
    c = p[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3fu);
    }
    if ((len == 3 && c < 0x800) || (len == 4 && (c < 0x10000 || c > 0x10ffff)))
        return 0;
    return c >= 0xd800 && c <= 0xdfff ? 0 : len;
}

/* Length of the printable character at p; 0 when there is none. */
static size_t printable(const uint8_t *p, size_t n)
{
    size_t len = utf8_char(p, n);

    if (len == 1)
        return p[0] >= 0x20 && p[0] != 0x7f;
    /* The control characters between DEL and U+00A0. */
    return len == 2 && p[0] == 0xc2 && p[1] < 0xa0 ? 0 : len;
}

void utf8_clean(char *out, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t n = printable(bytes + i, len - i);

        if (n)
            memmove(out, bytes + i, n);
        else
            *out = '?';
        n += !n;
        out += n;
        i += n;
    }
    *out = '\0';
}
