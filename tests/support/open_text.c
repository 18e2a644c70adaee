#include "support/open_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"

struct text *open_text(const char *path)
{
    struct err_text et = {{0}};
    struct text *t = NULL;
    enum err e = text_open(path, &t, &et);

    if (e)
        print_error("%s\n", et.text);
    assert_int_equal(e, ERR_NONE);
    return t;
}

struct text *open_tiny(const struct tiny_vocab *v)
{
    char path[] = "/tmp/lingua-test-text-XXXXXX";
    struct text *t;
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    close(fd);
    assert_true(tiny_vocab_write(path, v));
    t = open_text(path);
    unlink(path);
    return t;
}

int32_t token_of(const struct text *t, const char *text)
{
    size_t len = strlen(text);
    char buf[64];

    for (int32_t id = 0; id < text_n_vocab(t); id++) {
        int n = text_piece(t, id, true, buf, sizeof buf);

        if (n == (int)len && memcmp(buf, text, len) == 0)
            return id;
    }
    fail_msg("no token is \"%s\"", text);
    return -1;
}

float *logits_random(const struct text *t, uint32_t seed)
{
    float *l = mem_zalloc((size_t)text_n_vocab(t), sizeof *l);

    for (int i = 0; i < text_n_vocab(t); i++) {
        seed = seed * 1664525u + 1013904223u;
        l[i] = (float)(seed >> 8) / (float)(1 << 24) * 8 - 4;
    }
    return l;
}

struct sampler *open_sampler(const struct text *t, const struct sampling *s)
{
    struct sampler *p = NULL;
    struct err_text et = {{0}};
    enum err e = sampler_open(t, s, &p, &et);

    if (e)
        print_error("%s\n", et.text);
    assert_int_equal(e, ERR_NONE);
    return p;
}

int32_t picked(struct sampler *p, const float *logits)
{
    struct err_text et = {{0}};
    int32_t token = -1;
    enum err e = sampler_pick(p, logits, &token, NULL, 0, NULL, &et);

    if (e)
        print_error("%s\n", et.text);
    assert_int_equal(e, ERR_NONE);
    return token;
}
