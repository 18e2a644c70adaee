/* The typed getters over the keys that modelfile.c has found and bounded. */
#include "model/modelfile.h"

#include <math.h>
#include <string.h>

#include "model/modelfile_impl.h"

bool modelfile_has(const struct modelfile *mf, const char *key)
{
    return modelfile_key(mf, key) != NULL;
}

static enum err missing(const struct modelfile *mf, const char *key, struct err_text *et)
{
    return modelfile_key_error(mf, key, et, ERR_INPUT, "missing");
}

static enum err wrong_type(const struct modelfile *mf, const char *key, const struct mf_key *k,
                           const char *want, struct err_text *et)
{
    return modelfile_key_error(mf, key, et, ERR_INPUT, "%s%s where %s is expected",
                               k->is_array ? "an array of " : "", modelfile_value_name(k->type),
                               want);
}

static enum err element_u32(const struct modelfile *mf, const char *key, const struct mf_key *k,
                            uint64_t i, uint32_t *out, struct err_text *et)
{
    uint64_t v;

    if (!modelfile_uint(k, i, &v))
        return modelfile_key_error(mf, key, et, ERR_INPUT, "a negative number");
    if (v > UINT32_MAX)
        return modelfile_key_error(mf, key, et, ERR_INPUT, "%llu does not fit 32 bits",
                                   (unsigned long long)v);
    *out = (uint32_t)v;
    return ERR_NONE;
}

enum err modelfile_u32(const struct modelfile *mf, const char *key, uint32_t *out,
                       struct err_text *et)
{
    const struct mf_key *k = modelfile_key(mf, key);

    if (!k)
        return missing(mf, key, et);
    if (k->is_array || !modelfile_value_is_integer(k->type))
        return wrong_type(mf, key, k, "an integer", et);
    return element_u32(mf, key, k, 0, out, et);
}

enum err modelfile_u32s(const struct modelfile *mf, const char *key, int n, uint32_t *out,
                        struct err_text *et)
{
    const struct mf_key *k = modelfile_key(mf, key);

    if (!k)
        return missing(mf, key, et);
    if (!modelfile_value_is_integer(k->type))
        return wrong_type(mf, key, k, "an integer or an array of them", et);
    if (k->is_array && (n < 0 || k->n < (uint64_t)n))
        return modelfile_key_error(mf, key, et, ERR_INPUT, "an array of %llu where %d are needed",
                                   (unsigned long long)k->n, n);
    for (int i = 0; i < n; i++) {
        enum err e = element_u32(mf, key, k, k->is_array ? (uint64_t)i : 0, &out[i], et);

        if (e)
            return e;
    }
    return ERR_NONE;
}

enum err modelfile_f32(const struct modelfile *mf, const char *key, float *out, struct err_text *et)
{
    const struct mf_key *k = modelfile_key(mf, key);
    double wide = 0;
    float v;

    if (!k)
        return missing(mf, key, et);
    if (k->is_array || (k->type != VALUE_F32 && k->type != VALUE_F64))
        return wrong_type(mf, key, k, "a floating-point number", et);
    if (k->type == VALUE_F32)
        wide = (double)modelfile_load_f32(k->data);
    else
        memcpy(&wide, k->data, sizeof wide);
    /* Nothing a model says about itself is infinite, and NaN passes every comparison unnoticed. */
    if (!(fabs(wide) <= 3.4028234663852886e38))
        return modelfile_key_error(mf, key, et, ERR_INPUT, "%g does not fit an f32", wide);
    v = (float)wide;
    *out = v;
    return ERR_NONE;
}

enum err modelfile_bool(const struct modelfile *mf, const char *key, bool *out, struct err_text *et)
{
    const struct mf_key *k = modelfile_key(mf, key);

    if (!k)
        return missing(mf, key, et);
    if (k->is_array || k->type != VALUE_BOOL)
        return wrong_type(mf, key, k, "a bool", et);
    if (k->data[0] > 1)
        return modelfile_key_error(mf, key, et, ERR_INPUT, "%u is neither true nor false",
                                   k->data[0]);
    *out = k->data[0] == 1;
    return ERR_NONE;
}

enum err modelfile_str(const struct modelfile *mf, const char *key, const char **out,
                       struct err_text *et)
{
    const struct mf_key *k = modelfile_key(mf, key);

    if (!k)
        return missing(mf, key, et);
    if (k->is_array || k->type != VALUE_STRING)
        return wrong_type(mf, key, k, "a string", et);
    if (!k->str)
        return modelfile_key_error(mf, key, et, ERR_INPUT,
                                   modelfile_load_u64(k->data) > STRING_MAX
                                       ? "a string longer than 1 MiB"
                                       : "a NUL byte inside the string");
    *out = k->str;
    return ERR_NONE;
}

enum err modelfile_u32_opt(const struct modelfile *mf, const char *key, uint32_t *out,
                           struct err_text *et)
{
    return modelfile_has(mf, key) ? modelfile_u32(mf, key, out, et) : ERR_NONE;
}

enum err modelfile_f32_opt(const struct modelfile *mf, const char *key, float *out,
                           struct err_text *et)
{
    return modelfile_has(mf, key) ? modelfile_f32(mf, key, out, et) : ERR_NONE;
}

enum err modelfile_bool_opt(const struct modelfile *mf, const char *key, bool *out,
                            struct err_text *et)
{
    return modelfile_has(mf, key) ? modelfile_bool(mf, key, out, et) : ERR_NONE;
}

enum err modelfile_str_opt(const struct modelfile *mf, const char *key, const char **out,
                           struct err_text *et)
{
    return modelfile_has(mf, key) ? modelfile_str(mf, key, out, et) : ERR_NONE;
}

enum err modelfile_arr_len(const struct modelfile *mf, const char *key, uint64_t *out,
                           struct err_text *et)
{
    const struct mf_key *k = modelfile_key(mf, key);

    if (!k)
        return missing(mf, key, et);
    if (!k->is_array)
        return wrong_type(mf, key, k, "an array", et);
    *out = k->n;
    return ERR_NONE;
}
