/* manifest_decode and the mirror's state file: bytes of a peer, and of a disk that may be damaged.
 *
 * Input: a manifest, and behind it (when it is one) a state file of its parts; so both are decoded
 * with every input. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "device/mirror_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HEAD_BYTES = 16, PART_BYTES = 40, NOW = 1700000000 };

/* A manifest's length as its own head tells it, no more than there is. */
static size_t manifest_len(const uint8_t *data, size_t size)
{
    uint64_t n;

    if (size < HEAD_BYTES)
        return size;
    n = data[4] | (uint64_t)data[5] << 8 | (uint64_t)data[6] << 16 | (uint64_t)data[7] << 24;
    return n <= (size - HEAD_BYTES) / PART_BYTES ? HEAD_BYTES + n * PART_BYTES : size;
}

/* A copy of exactly that size, as a sanitizer wants it. */
static uint8_t *copy(const uint8_t *data, size_t size)
{
    uint8_t *p = malloc(size ? size : 1);

    CHECK(p != NULL);
    if (size)
        memcpy(p, data, size);
    return p;
}

static void try_state(const struct manifest *m, const uint8_t *data, size_t size)
{
    uint8_t *bytes = copy(data, size), again[STATE_RECORD_BYTES];
    struct part_state *part = mem_zalloc((size_t)m->n_parts, sizeof *part);
    int n_bad = state_decode(m, bytes, size, NOW, part), n_empty = 0;

    for (int i = 0; i < m->n_parts; i++) {
        CHECK(part[i].used <= NOW);
        CHECK(part[i].checked ? part[i].received == m->part[i].size
                              : part[i].received < m->part[i].size);
        n_empty += part[i].received == 0;
        /* What was believed is what stands there. */
        if (part[i].received > 0 || part[i].used > 0) {
            state_encode(&part[i], again);
            CHECK(memcmp(again, bytes + (size_t)i * STATE_RECORD_BYTES, 8) == 0);
            CHECK(memcmp(again + 16, bytes + (size_t)i * STATE_RECORD_BYTES + 16, 8) == 0);
        }
    }
    CHECK(n_bad <= n_empty);
    CHECK(size == (size_t)m->n_parts * STATE_RECORD_BYTES || n_bad == m->n_parts);
    free(part);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t len = manifest_len(data, size);
    uint8_t *bytes = copy(data, len), *again;
    struct manifest *m, *m2;
    struct err_text et = {""};
    uint64_t at = 0;

    if (manifest_decode(bytes, len, NULL, &m, &et) == ERR_NONE) {
        CHECK(m->n_parts >= 1 && m->n_parts <= WIRE_PARTS_MAX && manifest_size(m) == len);
        for (int i = 0; i < m->n_parts; i++) {
            CHECK(m->part[i].size > 0 && m->part[i].offset == at);
            at += m->part[i].size;
        }
        CHECK(at == m->file_bytes);
        again = mem_alloc(len);
        manifest_encode(m, again);
        CHECK(memcmp(again, bytes, len) == 0);
        CHECK(manifest_decode(again, len, m->id, &m2, &et) == ERR_NONE);
        manifest_free(m2);
        free(again);
        try_state(m, data + len, size - len);
        manifest_free(m);
    } else {
        CHECK(m == NULL && et.text[0] != '\0');
    }
    free(bytes);
    return 0;
}
