/* Reading order of a GGUF file, all numbers little endian:
 *
 *   "GGUF"  u32 version  u64 n_tensors  u64 n_keys
 *   n_keys times:     string key, u32 type, value; an array is u32 type, u64 n, n values
 *   n_tensors times:  string name, u32 n_dims, u64 ne[n_dims], u32 type, u64 offset
 *   padding up to the alignment; from here the tensors' offsets count
 *
 * where a string is u64 length and its bytes. A cursor walks over the mapping and every length is
 * compared with what is left before it is used for anything, so that a lie can cost neither memory
 * nor a read outside the file. Counts have bounds of our own as well: libllama reads the same file
 * for its vocabulary and compares all names in pairs. */
#include "model/modelfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "ggml.h"
#include "gguf.h"
#include "model/modelfile_impl.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF is read in place, as it lies");
_Static_assert(GGML_MAX_DIMS == 4, "struct mf_tensor has four dimensions");
_Static_assert(sizeof(((struct mf_record *)0)->name) == GGML_MAX_NAME, "names fit ggml's");

enum {
    KEYS_MAX = 4096,
    TENSORS_MAX = 32768,
    KEY_NAME_MAX = 65535,    /* the format's own limit */
    ARRAY_MAX = 1 << 24,     /* elements; the largest vocabularies have a few hundred thousand */
    ALIGNMENT_MIN = 8,       /* the widest scalar inside a block is read aligned */
    ALIGNMENT_MAX = 1 << 16, /* bytes */
    KEY_BYTES_MIN = 14,      /* u64 length, one byte of name, u32 type, one byte of value */
    TENSOR_BYTES_MIN = 33,   /* u64 length, one byte of name, u32, u64 ne[0], u32, u64 offset */
    PATH_SHOWN_MAX = 200,    /* bytes of the path in messages; the reason must fit behind it */
};

struct cursor {
    const uint8_t *bytes;
    uint64_t at, size;
};

/* --- messages --- */

static bool printable(unsigned char c, bool utf8)
{
    return (c >= 0x20 && c < 0x7f) || (utf8 && c >= 0x80);
}

const char *modelfile_show(struct mf_shown *shown, const char *bytes, uint64_t n)
{
    size_t used = 0;

    for (uint64_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)bytes[i];
        size_t need = printable(c, false) ? 1 : 4;

        if (used + need > SHOWN_MAX) {
            memcpy(shown->text + used, "...", 4);
            return shown->text;
        }
        if (need == 1)
            shown->text[used] = (char)c;
        else
            snprintf(shown->text + used, 5, "\\x%02x", c);
        used += need;
    }
    shown->text[used] = '\0';
    return shown->text;
}

/* The path as messages show it: its end when it is long, no control bytes. */
static char *shown_path(const char *path)
{
    size_t n = strlen(path);
    char *s = mem_printf("%s%s", n > PATH_SHOWN_MAX ? "..." : "",
                         n > PATH_SHOWN_MAX ? path + n - PATH_SHOWN_MAX : path);

    for (char *p = s; *p; p++)
        if (!printable((unsigned char)*p, true))
            *p = '?';
    return s;
}

static enum err file_error(const struct modelfile *mf, struct err_text *et, enum err e,
                           const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static enum err tensor_error(const struct modelfile *mf, const struct mf_tensor *t,
                             struct err_text *et, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

static enum err file_error(const struct modelfile *mf, struct err_text *et, enum err e,
                           const char *fmt, ...)
{
    char words[ERR_TEXT_MAX];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(words, sizeof words, fmt, ap);
    va_end(ap);
    return err_set(et, e, "%s: %s", mf->shown, words);
}

static enum err tensor_error(const struct modelfile *mf, const struct mf_tensor *t,
                             struct err_text *et, const char *fmt, ...)
{
    char words[ERR_TEXT_MAX];
    struct mf_shown name;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(words, sizeof words, fmt, ap);
    va_end(ap);
    return err_set(et, ERR_INPUT, "%s: tensor %s: %s", mf->shown,
                   modelfile_show(&name, t->name, strlen(t->name)), words);
}

enum err modelfile_key_error(const struct modelfile *mf, const char *name, struct err_text *et,
                             enum err e, const char *fmt, ...)
{
    char words[ERR_TEXT_MAX];
    struct mf_shown shown;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(words, sizeof words, fmt, ap);
    va_end(ap);
    return err_set(et, e, "%s: key %s: %s", mf->shown, modelfile_show(&shown, name, strlen(name)),
                   words);
}

static enum err name_error(const struct modelfile *mf, const struct mf_key *k, struct err_text *et,
                           const char *words)
{
    struct mf_shown shown;

    return err_set(et, ERR_INPUT, "%s: key %s: %s", mf->shown,
                   modelfile_show(&shown, k->name, k->name_len), words);
}

/* --- numbers --- */

uint32_t modelfile_load_u32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof v);
    return v;
}

uint64_t modelfile_load_u64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof v);
    return v;
}

float modelfile_load_f32(const uint8_t *p)
{
    float v;

    memcpy(&v, p, sizeof v);
    return v;
}

static const struct {
    const char *name;
    uint8_t size; /* bytes; 0 when it varies */
} values[VALUE_COUNT] = {
    [VALUE_U8] = {"u8", 1},       [VALUE_I8] = {"i8", 1},     [VALUE_U16] = {"u16", 2},
    [VALUE_I16] = {"i16", 2},     [VALUE_U32] = {"u32", 4},   [VALUE_I32] = {"i32", 4},
    [VALUE_F32] = {"f32", 4},     [VALUE_BOOL] = {"bool", 1}, [VALUE_STRING] = {"string", 0},
    [VALUE_ARRAY] = {"array", 0}, [VALUE_U64] = {"u64", 8},   [VALUE_I64] = {"i64", 8},
    [VALUE_F64] = {"f64", 8},
};

const char *modelfile_value_name(unsigned type)
{
    CHECK(type < VALUE_COUNT);
    return values[type].name;
}

bool modelfile_value_is_integer(unsigned type)
{
    return type <= VALUE_I32 || type == VALUE_U64 || type == VALUE_I64;
}

bool modelfile_uint(const struct mf_key *k, uint64_t i, uint64_t *out)
{
    const uint8_t *p = k->data + i * values[k->type].size;
    bool is_signed =
        k->type == VALUE_I8 || k->type == VALUE_I16 || k->type == VALUE_I32 || k->type == VALUE_I64;
    size_t size = values[k->type].size;

    CHECK(i < k->n && modelfile_value_is_integer(k->type));
    if (is_signed && p[size - 1] & 0x80)
        return false;
    *out = 0;
    memcpy(out, p, size);
    return true;
}

/* --- walking the file --- */

static bool take(struct cursor *c, uint64_t n, const uint8_t **out)
{
    if (n > c->size - c->at)
        return false;
    *out = c->bytes + c->at;
    c->at += n;
    return true;
}

static bool take_u32(struct cursor *c, uint32_t *out)
{
    const uint8_t *p;

    if (!take(c, 4, &p))
        return false;
    *out = modelfile_load_u32(p);
    return true;
}

static bool take_u64(struct cursor *c, uint64_t *out)
{
    const uint8_t *p;

    if (!take(c, 8, &p))
        return false;
    *out = modelfile_load_u64(p);
    return true;
}

static bool take_string(struct cursor *c, const uint8_t **out, uint64_t *n)
{
    return take_u64(c, n) && take(c, *n, out);
}

static enum err read_magic(const struct modelfile *mf, struct cursor *c, uint64_t *n_tensors,
                           uint64_t *n_keys, struct err_text *et)
{
    const uint8_t *magic;
    struct mf_shown shown;
    uint32_t version;

    if (mf->size == 0)
        return file_error(mf, et, ERR_INPUT, "the file is empty");
    if (!take(c, 4, &magic) || memcmp(magic, "GGUF", 4) != 0)
        return file_error(
            mf, et, ERR_INPUT, "not a GGUF file (it starts with \"%s\")",
            modelfile_show(&shown, (const char *)mf->bytes, mf->size < 4 ? mf->size : 4));
    if (!take_u32(c, &version))
        return file_error(mf, et, ERR_INPUT, "the file ends inside the GGUF header");
    if (version != 0 && (version & 0xffff) == 0)
        return file_error(mf, et, ERR_UNSUPPORTED,
                          "a big-endian GGUF file; convert it to little endian");
    if (version == 1 || version > 3)
        return file_error(mf, et, ERR_UNSUPPORTED,
                          "GGUF version %u; versions 2 and 3 are supported", version);
    if (version == 0)
        return file_error(mf, et, ERR_INPUT, "GGUF version 0 does not exist");
    if (!take_u64(c, n_tensors) || !take_u64(c, n_keys))
        return file_error(mf, et, ERR_INPUT, "the file ends inside the GGUF header");
    if (*n_keys > (c->size - c->at) / KEY_BYTES_MIN)
        return file_error(mf, et, ERR_INPUT,
                          "says it has %llu metadata keys, more than its %llu bytes can hold",
                          (unsigned long long)*n_keys, (unsigned long long)mf->size);
    if (*n_tensors > (c->size - c->at) / TENSOR_BYTES_MIN)
        return file_error(mf, et, ERR_INPUT,
                          "says it has %llu tensors, more than its %llu bytes can hold",
                          (unsigned long long)*n_tensors, (unsigned long long)mf->size);
    if (*n_keys > KEYS_MAX || *n_tensors > TENSORS_MAX)
        return file_error(mf, et, ERR_INPUT,
                          "has %llu metadata keys and %llu tensors; at most %d and %d are read",
                          (unsigned long long)*n_keys, (unsigned long long)*n_tensors, KEYS_MAX,
                          TENSORS_MAX);
    return ERR_NONE;
}

static enum err skip_elements(const struct modelfile *mf, struct cursor *c, struct mf_key *k,
                              struct err_text *et)
{
    static const char past[] = "its value ends past the file";
    uint64_t size = values[k->type].size, n;
    const uint8_t *p;

    k->data = c->bytes + c->at;
    if (size > 0) {
        /* n is at most ARRAY_MAX here, so the product cannot overflow. */
        return take(c, k->n * size, &p) ? ERR_NONE : name_error(mf, k, et, past);
    }
    if (k->n > (c->size - c->at) / 8)
        return name_error(mf, k, et, past);
    for (uint64_t i = 0; i < k->n; i++)
        if (!take_string(c, &p, &n))
            return name_error(mf, k, et, past);
    return ERR_NONE;
}

static enum err read_key(const struct modelfile *mf, struct cursor *c, uint32_t i, struct mf_key *k,
                         struct err_text *et)
{
    const uint8_t *name;
    uint32_t type;
    uint64_t n;

    if (!take_string(c, &name, &n))
        return file_error(mf, et, ERR_INPUT, "key %u: its name ends past the file", i);
    if (n == 0 || n > KEY_NAME_MAX)
        return file_error(mf, et, ERR_INPUT, "key %u: a name of %llu bytes", i,
                          (unsigned long long)n);
    k->name = (const char *)name;
    k->name_len = (uint32_t)n;
    if (memchr(name, 0, n))
        return name_error(mf, k, et, "a NUL byte in its name");
    if (!take_u32(c, &type))
        return name_error(mf, k, et, "its type ends past the file");
    k->n = 1;
    if (type == VALUE_ARRAY) {
        k->is_array = 1;
        if (!take_u32(c, &type) || !take_u64(c, &k->n))
            return name_error(mf, k, et, "its array header ends past the file");
        if (type == VALUE_ARRAY)
            return name_error(mf, k, et, "arrays inside arrays are not read");
        if (k->n > ARRAY_MAX)
            return name_error(mf, k, et,
                              k->n > mf->size ? "more array elements than the file has bytes"
                                              : "an array of more than 16777216 elements");
    }
    if (type >= VALUE_COUNT)
        return name_error(mf, k, et, "its value is of no type known to GGUF");
    k->type = (uint8_t)type;
    return skip_elements(mf, c, k, et);
}

static int compare_bytes(const void *a, size_t na, const void *b, size_t nb)
{
    int d = memcmp(a, b, na < nb ? na : nb);

    return d != 0 ? d : (na > nb) - (na < nb);
}

static int compare_keys(const void *a, const void *b)
{
    const struct mf_key *x = a, *y = b;

    return compare_bytes(x->name, x->name_len, y->name, y->name_len);
}

/* Scalar strings are copied once, behind each a NUL, so that a getter can lend them to any thread.
 */
static enum err copy_strings(struct modelfile *mf, struct err_text *et)
{
    size_t total = 0, used = 0;

    for (int fill = 0; fill < 2; fill++) {
        for (uint32_t i = 0; i < mf->n_keys; i++) {
            struct mf_key *k = &mf->keys[i];
            uint64_t n;

            if (k->is_array || k->type != VALUE_STRING)
                continue;
            n = modelfile_load_u64(k->data);
            if (n > STRING_MAX || memchr(k->data + 8, 0, n))
                continue;
            if (!fill) {
                total += n + 1;
                continue;
            }
            memcpy(mf->strings + used, k->data + 8, n);
            mf->strings[used + n] = '\0';
            k->str = mf->strings + used;
            used += n + 1;
        }
        if (!fill && !(mf->strings = mem_try(total, 1)))
            return file_error(mf, et, ERR_MEMORY, "no memory for %zu bytes of metadata", total);
    }
    CHECK(used == total);
    return ERR_NONE;
}

static enum err read_keys(struct modelfile *mf, struct cursor *c, uint32_t n, struct err_text *et)
{
    enum err e;

    mf->keys = mem_try(n, sizeof *mf->keys);
    if (!mf->keys)
        return file_error(mf, et, ERR_MEMORY, "no memory for %u metadata keys", n);
    for (uint32_t i = 0; i < n; i++) {
        e = read_key(mf, c, i, &mf->keys[i], et);
        if (e)
            return e;
    }
    mf->n_keys = n;
    qsort(mf->keys, n, sizeof *mf->keys, compare_keys);
    for (uint32_t i = 1; i < n; i++)
        if (compare_keys(&mf->keys[i - 1], &mf->keys[i]) == 0)
            return name_error(mf, &mf->keys[i], et, "appears twice");
    return copy_strings(mf, et);
}

/* Keys that decide how the rest of the file is read. */
static enum err apply_keys(struct modelfile *mf, struct err_text *et)
{
    const struct mf_key *k = modelfile_key(mf, "general.alignment");
    uint32_t n_files = 1;
    enum err e;

    mf->alignment = GGUF_DEFAULT_ALIGNMENT;
    if (k) {
        /* gguf.cpp aborts on any other integer type. */
        if (k->is_array || k->type != VALUE_U32)
            return name_error(mf, k, et, "must be a u32");
        mf->alignment = modelfile_load_u32(k->data);
        if (mf->alignment < ALIGNMENT_MIN || mf->alignment > ALIGNMENT_MAX ||
            (mf->alignment & (mf->alignment - 1)) != 0)
            return modelfile_key_error(
                mf, "general.alignment", et, ERR_INPUT, "%llu is not a power of two from %d to %d",
                (unsigned long long)mf->alignment, ALIGNMENT_MIN, ALIGNMENT_MAX);
    }
    e = modelfile_u32_opt(mf, "split.count", &n_files, et);
    if (e)
        return e;
    if (n_files > 1)
        return modelfile_key_error(mf, "split.count", et, ERR_UNSUPPORTED,
                                   "the model is split into %u files; merge them first with "
                                   "llama-gguf-split --merge",
                                   n_files);
    return ERR_NONE;
}

/* --- tensors --- */

static enum err read_shape(const struct modelfile *mf, struct cursor *c, struct mf_tensor *t,
                           struct err_text *et)
{
    uint32_t n_dims;
    uint64_t ne;

    if (!take_u32(c, &n_dims))
        return tensor_error(mf, t, et, "its record ends past the file");
    if (n_dims < 1 || n_dims > 4)
        return tensor_error(mf, t, et, "%u dimensions; 1 to 4 are possible", n_dims);
    t->n_dims = (int)n_dims;
    for (int d = 0; d < 4; d++) {
        t->ne[d] = 1;
        if (d >= t->n_dims)
            continue;
        if (!take_u64(c, &ne))
            return tensor_error(mf, t, et, "its record ends past the file");
        if (ne < 1 || ne > INT64_MAX)
            return tensor_error(mf, t, et, "dimension %d has %llu elements", d,
                                (unsigned long long)ne);
        t->ne[d] = (int64_t)ne;
    }
    return ERR_NONE;
}

/* Type and shape give the bytes. */
static enum err measure(const struct modelfile *mf, struct mf_tensor *t, uint32_t type,
                        struct err_text *et)
{
    int64_t n = t->ne[0], block;
    size_t block_bytes;

    if (type >= GGML_TYPE_COUNT)
        return tensor_error(mf, t, et, "unknown type %u", type);
    t->type = (int)type;
    /* Types that ggml has dropped stay in its table with a size of nothing. */
    block = ggml_blck_size((enum ggml_type)type);
    block_bytes = ggml_type_size((enum ggml_type)type);
    if (block < 1 || block_bytes < 1)
        return tensor_error(mf, t, et, "type %u is no longer supported; convert the model again",
                            type);
    if (n % block != 0)
        return tensor_error(mf, t, et, "rows of %lld elements are no multiple of %s's %lld",
                            (long long)n, ggml_type_name((enum ggml_type)type), (long long)block);
    for (int d = 1; d < 4; d++)
        if (__builtin_mul_overflow(n, t->ne[d], &n))
            return tensor_error(mf, t, et, "more elements than 63 bits can count");
    if (__builtin_mul_overflow((uint64_t)(n / block), (uint64_t)block_bytes, &t->size))
        return tensor_error(mf, t, et, "more bytes than 64 bits can count");
    return ERR_NONE;
}

static enum err read_tensor(const struct modelfile *mf, struct cursor *c, uint32_t i,
                            struct mf_record *r, struct err_text *et)
{
    struct mf_tensor *t = &r->t;
    const uint8_t *name;
    struct mf_shown shown;
    uint32_t type;
    uint64_t n;
    enum err e;

    if (!take_string(c, &name, &n))
        return file_error(mf, et, ERR_INPUT, "tensor %u: its name ends past the file", i);
    if (n < 1 || n >= sizeof r->name || memchr(name, 0, n))
        return file_error(mf, et, ERR_INPUT,
                          "tensor %u: name \"%s\": must be 1 to %zu bytes without NUL", i,
                          modelfile_show(&shown, (const char *)name, n), sizeof r->name - 1);
    memcpy(r->name, name, n);
    t->name = r->name;
    e = read_shape(mf, c, t, et);
    if (e)
        return e;
    if (!take_u32(c, &type) || !take_u64(c, &t->offset))
        return tensor_error(mf, t, et, "its record ends past the file");
    e = measure(mf, t, type, et);
    if (e)
        return e;
    if (t->offset % mf->alignment != 0)
        return tensor_error(mf, t, et, "data at offset %llu is not aligned to %llu",
                            (unsigned long long)t->offset, (unsigned long long)mf->alignment);
    return ERR_NONE;
}

/* Turns offsets into places in the file; they counted from the first aligned byte after the
 * records. */
static enum err place_tensors(struct modelfile *mf, uint64_t records_end, struct err_text *et)
{
    uint64_t start = (records_end + mf->alignment - 1) / mf->alignment * mf->alignment;

    mf->data_start = start;
    for (uint32_t i = 0; i < mf->n_tensors; i++) {
        struct mf_tensor *t = &mf->tensors[i].t;
        uint64_t end;

        if (__builtin_add_overflow(t->offset, start, &t->offset) ||
            __builtin_add_overflow(t->offset, t->size, &end) || end > mf->size)
            return tensor_error(mf, t, et,
                                "data ends past the file (needs %llu bytes at %llu, the file has "
                                "%llu)",
                                (unsigned long long)t->size, (unsigned long long)t->offset,
                                (unsigned long long)mf->size);
    }
    return ERR_NONE;
}

static int compare_names(const void *a, const void *b)
{
    const struct mf_tensor *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

static int compare_places(const void *a, const void *b)
{
    const struct mf_tensor *const *x = a, *const *y = b;

    return ((*x)->offset > (*y)->offset) - ((*x)->offset < (*y)->offset);
}

static enum err sort_tensors(struct modelfile *mf, struct err_text *et)
{
    uint32_t n = mf->n_tensors;

    for (uint32_t i = 0; i < n; i++)
        mf->by_name[i] = mf->by_place[i] = &mf->tensors[i].t;
    qsort(mf->by_name, n, sizeof(void *), compare_names);
    qsort(mf->by_place, n, sizeof(void *), compare_places);
    for (uint32_t i = 1; i < n; i++) {
        const struct mf_tensor *a = mf->by_place[i - 1], *b = mf->by_place[i];

        if (strcmp(mf->by_name[i - 1]->name, mf->by_name[i]->name) == 0)
            return tensor_error(mf, mf->by_name[i], et, "appears twice");
        if (a->offset + a->size > b->offset) {
            struct mf_shown shown;

            return tensor_error(mf, b, et, "its data overlaps that of %s",
                                modelfile_show(&shown, a->name, strlen(a->name)));
        }
    }
    return ERR_NONE;
}

static enum err read_tensors(struct modelfile *mf, struct cursor *c, uint32_t n,
                             struct err_text *et)
{
    enum err e;

    mf->tensors = mem_try(n, sizeof *mf->tensors);
    mf->by_name = mem_try(n, sizeof *mf->by_name);
    mf->by_place = mem_try(n, sizeof *mf->by_place);
    if (!mf->tensors || !mf->by_name || !mf->by_place)
        return file_error(mf, et, ERR_MEMORY, "no memory for %u tensor records", n);
    for (uint32_t i = 0; i < n; i++) {
        e = read_tensor(mf, c, i, &mf->tensors[i], et);
        if (e)
            return e;
    }
    mf->n_tensors = n;
    e = place_tensors(mf, c->at, et);
    return e ? e : sort_tensors(mf, et);
}

/* --- opening --- */

static enum err read_header(struct modelfile *mf, struct err_text *et)
{
    struct cursor c = {mf->bytes, 0, mf->size};
    uint64_t n_tensors = 0, n_keys = 0;
    enum err e;

    e = read_magic(mf, &c, &n_tensors, &n_keys, et);
    if (e)
        return e;
    e = read_keys(mf, &c, (uint32_t)n_keys, et);
    if (e)
        return e;
    e = apply_keys(mf, et);
    if (e)
        return e;
    return read_tensors(mf, &c, (uint32_t)n_tensors, et);
}

static enum err map_file(struct modelfile *mf, const char *path, struct err_text *et)
{
    /* Without O_NONBLOCK a FIFO would keep us waiting for a writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    enum err e = ERR_NONE;
    struct stat st;
    void *p;

    if (fd < 0)
        return err_system(et, "%s", mf->shown);
    if (fstat(fd, &st) != 0) {
        e = err_system(et, "%s", mf->shown);
    } else if (S_ISDIR(st.st_mode)) {
        errno = EISDIR;
        e = err_system(et, "%s", mf->shown);
    } else if (!S_ISREG(st.st_mode)) {
        e = file_error(mf, et, ERR_FILE, "not a regular file");
    } else if (st.st_size > 0) {
        p = (uint64_t)st.st_size > SIZE_MAX
                ? (errno = EFBIG, MAP_FAILED)
                : mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            e = err_system(et, "%s", mf->shown);
        } else {
            mf->bytes = p;
            mf->size = (uint64_t)st.st_size;
            mf->mapped = true;
        }
    }
    close(fd);
    return e;
}

enum err modelfile_open(const char *path, struct modelfile **out, struct err_text *et)
{
    struct modelfile *mf = mem_zalloc(1, sizeof *mf);
    enum err e;

    mf->path = mem_strdup(path);
    mf->shown = shown_path(path);
    e = map_file(mf, path, et);
    if (!e)
        e = read_header(mf, et);
    if (e) {
        modelfile_close(mf);
        return e;
    }
    *out = mf;
    return ERR_NONE;
}

enum err modelfile_open_bytes(const char *path, const void *bytes, size_t size,
                              struct modelfile **out, struct err_text *et)
{
    struct modelfile *mf = mem_zalloc(1, sizeof *mf);
    enum err e;

    mf->path = mem_strdup(path);
    mf->shown = shown_path(path);
    mf->bytes = bytes;
    mf->size = size;
    e = read_header(mf, et);
    if (e) {
        modelfile_close(mf);
        return e;
    }
    *out = mf;
    return ERR_NONE;
}

void modelfile_close(struct modelfile *mf)
{
    if (!mf)
        return;
    if (mf->mapped)
        munmap((void *)mf->bytes, (size_t)mf->size);
    free(mf->by_place);
    free(mf->by_name);
    free(mf->tensors);
    free(mf->strings);
    free(mf->keys);
    free(mf->shown);
    free(mf->path);
    free(mf);
}

/* --- tensors, read --- */

const char *modelfile_path(const struct modelfile *mf)
{
    return mf->path;
}

uint64_t modelfile_size(const struct modelfile *mf)
{
    return mf->size;
}

int modelfile_n_tensors(const struct modelfile *mf)
{
    return (int)mf->n_tensors;
}

const struct mf_tensor *modelfile_tensor(const struct modelfile *mf, int i)
{
    CHECK(i >= 0 && (uint32_t)i < mf->n_tensors);
    return &mf->tensors[i].t;
}

const struct mf_tensor *modelfile_find(const struct modelfile *mf, const char *name)
{
    uint32_t low = 0, high = mf->n_tensors;

    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        int d = strcmp(name, mf->by_name[mid]->name);

        if (d == 0)
            return mf->by_name[mid];
        if (d < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

const void *modelfile_data(const struct modelfile *mf, const struct mf_tensor *t)
{
    CHECK(t->offset <= mf->size && t->size <= mf->size - t->offset);
    return mf->bytes + t->offset;
}

void modelfile_give_back(const struct modelfile *mf, const struct mf_tensor *t)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t first = t ? (t->offset + page - 1) / page * page : 0;
    uint64_t end = t ? (t->offset + t->size) / page * page : mf->size;

    /* A neighbour's bytes on a shared page would only have to be read again, but that is the very
     * read this call is there to save. A refusal costs memory, nothing else. */
    if (mf->mapped && first < end)
        (void)madvise((void *)(mf->bytes + first), (size_t)(end - first), MADV_DONTNEED);
}

/* --- keys, found --- */

const struct mf_key *modelfile_key(const struct modelfile *mf, const char *name)
{
    size_t n = strlen(name);
    uint32_t low = 0, high = mf->n_keys;

    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        const struct mf_key *k = &mf->keys[mid];
        int d = compare_bytes(name, n, k->name, k->name_len);

        if (d == 0)
            return k;
        if (d < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}
