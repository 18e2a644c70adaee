#include "api/vector.h"

#include <math.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"

void vector_init(struct vector *v, enum pooling pooling, int n_tokens)
{
    *v = (struct vector){.pooling = pooling, .n_tokens = n_tokens};
    v->next = vector_want_from(v);
}

void vector_fini(struct vector *v)
{
    free(v->sum);
    v->sum = NULL;
}

int vector_want_from(const struct vector *v)
{
    return v->pooling == POOLING_LAST ? v->n_tokens - 1 : 0;
}

void vector_rows(struct vector *v, const float *rows, int pos, int n, int width)
{
    if (!v->sum) {
        v->width = width;
        v->sum = mem_zalloc((size_t)width, sizeof *v->sum);
    }
    CHECK(width == v->width);
    for (int k = 0; k < n; k++) {
        const float *row = rows + (size_t)k * (size_t)width;

        if (pos + k != v->next || v->next >= v->n_tokens)
            continue;
        v->next++;
        if (v->pooling == POOLING_CLS && pos + k > 0)
            continue;
        for (int i = 0; i < width; i++)
            v->sum[i] += (double)row[i];
    }
}

bool vector_settle(struct vector *v, bool unit)
{
    double square = 0, scale = v->pooling == POOLING_MEAN ? 1.0 / v->n_tokens : 1;

    CHECK(v->next == v->n_tokens && v->sum);
    for (int i = 0; i < v->width; i++) {
        v->sum[i] *= scale;
        square += v->sum[i] * v->sum[i];
    }
    if (!isfinite(square))
        return false;
    scale = unit && square > 0 ? 1 / sqrt(square) : 1;
    for (int i = 0; i < v->width; i++)
        v->sum[i] *= scale;
    return true;
}

json_t *vector_json(const struct vector *v)
{
    json_t *list = json_array();

    for (int i = 0; i < v->width; i++)
        json_array_append_new(list, json_real((double)(float)v->sum[i]));
    return list;
}

json_t *vector_base64(const struct vector *v)
{
    size_t n = 4 * (size_t)v->width;
    unsigned char *bytes = mem_alloc(n), *text = mem_alloc(4 * ((n + 2) / 3) + 1);
    json_t *value;
    int len;

    for (int i = 0; i < v->width; i++) {
        float one = (float)v->sum[i];
        uint32_t bits;

        memcpy(&bits, &one, sizeof bits);
        for (int k = 0; k < 4; k++)
            bytes[4 * i + k] = (unsigned char)(bits >> (8 * k));
    }
    len = EVP_EncodeBlock(text, bytes, (int)n);
    value = json_stringn((const char *)text, (size_t)len);
    CHECK(value);
    free(bytes);
    free(text);
    return value;
}
