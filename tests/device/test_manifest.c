/* Manifests: made of real files, to bytes and back, and every way such bytes can lie. */
#define _GNU_SOURCE
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cache_rig.h"
#include "model/modelfile.h"
#include "support/tiny_model.h"

static struct err_text et;

struct made {
    struct folder folder;
    char path[128];
    struct manifest *m;
    size_t len;
    uint8_t *bytes; /* the manifest's */
};

static void made_open(struct made *d, enum tiny_variant v)
{
    folder_make(&d->folder);
    snprintf(d->path, sizeof d->path, "%s/tiny.gguf", d->folder.path);
    tiny_write(d->path, v, GGML_TYPE_Q4_0, 7);
    assert_int_equal(manifest_make(d->path, NULL, NULL, &d->m, &et), ERR_NONE);
    d->len = manifest_size(d->m);
    d->bytes = mem_alloc(d->len);
    manifest_encode(d->m, d->bytes);
}

static void made_close(struct made *d)
{
    manifest_free(d->m);
    free(d->bytes);
    folder_remove(&d->folder);
}

static void parts_tile_the_file(void **state)
{
    struct made d;
    struct manifest *back;
    uint8_t *file, sum[32];
    size_t len;
    uint64_t at = 0;

    (void)state;
    made_open(&d, TINY_GEMMA2);
    file = file_read(d.path, &len);
    assert_int_equal(d.m->file_bytes, len);
    for (int i = 0; i < d.m->n_parts; i++) {
        const struct manifest_part *p = &d.m->part[i];

        assert_int_equal(p->offset, at);
        assert_int_equal(EVP_Digest(file + at, p->size, sum, NULL, EVP_sha256(), NULL), 1);
        assert_memory_equal(sum, p->sha256, sizeof sum);
        at += p->size;
    }
    assert_int_equal(at, len);
    assert_int_equal(EVP_Digest(d.bytes, d.len, sum, NULL, EVP_sha256(), NULL), 1);
    assert_memory_equal(sum, d.m->id, sizeof sum);

    assert_int_equal(manifest_decode(d.bytes, d.len, d.m->id, &back, &et), ERR_NONE);
    assert_int_equal(back->n_parts, d.m->n_parts);
    assert_int_equal(back->file_bytes, d.m->file_bytes);
    assert_memory_equal(back->id, d.m->id, sizeof sum);
    for (int i = 0; i < back->n_parts; i++) {
        assert_int_equal(back->part[i].offset, d.m->part[i].offset);
        assert_int_equal(back->part[i].size, d.m->part[i].size);
        assert_memory_equal(back->part[i].sha256, d.m->part[i].sha256, sizeof sum);
    }
    manifest_free(back);
    free(file);
    made_close(&d);
}

static void refused(const uint8_t *bytes, size_t len, const uint8_t *id)
{
    struct manifest *m = (struct manifest *)1;
    uint8_t *exact = mem_alloc(len); /* so that the sanitizer sees an overrun */

    memcpy(exact, bytes, len);
    et.text[0] = '\0';
    assert_int_equal(manifest_decode(exact, len, id, &m, &et), ERR_PROTO);
    assert_null(m);
    assert_true(strlen(et.text) > 0);
    free(exact);
}

static void truncations_are_refused(void **state)
{
    struct made d;
    uint8_t *longer;

    (void)state;
    made_open(&d, TINY_LLAMA);
    for (size_t n = 0; n < d.len; n++)
        refused(d.bytes, n, NULL);
    longer = mem_zalloc(d.len + 40, 1);
    memcpy(longer, d.bytes, d.len);
    refused(longer, d.len + 1, NULL);
    refused(longer, d.len + 40, NULL);
    free(longer);
    made_close(&d);
}

static void wrong_sums_are_refused(void **state)
{
    static const struct {
        size_t at;
        uint8_t bytes[8];
        size_t n;
    } lies[] = {
        {0, "LMF2", 4},                                    /* another format */
        {4, {0, 0, 0, 0}, 4},                              /* no part */
        {4, {1, 0, 1, 0}, 4},                              /* more than there may be */
        {4, {255, 255, 255, 255}, 4},                      /* more than there is room for */
        {8, {0, 0, 0, 0, 0, 0, 0, 0}, 8},                  /* an empty file */
        {8, {1, 2, 3}, 8},                                 /* another size */
        {8, {0, 0, 0, 0, 0, 0, 0, 128}, 8},                /* larger than files can be */
        {16, {0, 0, 0, 0, 0, 0, 0, 0}, 8},                 /* an empty part */
        {16, {255, 255, 255, 255, 255, 255, 255, 255}, 8}, /* sums that come round again */
        {56, {255, 255, 255, 255, 255, 255, 255, 255}, 8},
        {56, {1, 0, 0, 0, 0, 0, 0, 0}, 8}, /* a part too small for the rest to add up */
    };
    struct made d;

    (void)state;
    made_open(&d, TINY_LLAMA);
    for (size_t i = 0; i < ARRAY_LEN(lies); i++) {
        uint8_t before[8];

        memcpy(before, d.bytes + lies[i].at, lies[i].n);
        memcpy(d.bytes + lies[i].at, lies[i].bytes, lies[i].n);
        refused(d.bytes, d.len, NULL);
        memcpy(d.bytes + lies[i].at, before, lies[i].n);
    }
    made_close(&d);
}

static void other_ids_are_refused(void **state)
{
    struct made d;
    struct manifest *m;
    uint8_t id[32];

    (void)state;
    made_open(&d, TINY_LLAMA);
    memcpy(id, d.m->id, sizeof id);
    id[31] ^= 1;
    refused(d.bytes, d.len, id);
    d.bytes[30] ^= 1; /* of a hash: as good a manifest, but not this one */
    refused(d.bytes, d.len, d.m->id);
    assert_int_equal(manifest_decode(d.bytes, d.len, NULL, &m, &et), ERR_NONE);
    assert_memory_not_equal(m->id, d.m->id, sizeof id);
    manifest_free(m);
    made_close(&d);
}

struct watched {
    int n, stop_after;
    uint64_t done, total;
};

static bool watch(void *user, uint64_t done, uint64_t total)
{
    struct watched *w = user;

    assert_true(done > w->done && done <= total);
    w->done = done;
    w->total = total;
    return ++w->n != w->stop_after;
}

static void hashing_can_be_watched_and_stopped(void **state)
{
    struct watched w = {0}, stopped = {.stop_after = 2};
    struct made d;
    struct manifest *m;

    (void)state;
    made_open(&d, TINY_LLAMA);
    assert_int_equal(manifest_make(d.path, watch, &w, &m, &et), ERR_NONE);
    assert_int_equal(w.done, d.m->file_bytes);
    assert_int_equal(w.total, d.m->file_bytes);
    manifest_free(m);
    assert_int_equal(manifest_make(d.path, watch, &stopped, &m, &et), ERR_CANCELLED);
    assert_int_equal(stopped.n, 2);
    assert_null(m);
    assert_int_equal(manifest_make("no/such/file", NULL, NULL, &m, &et), ERR_FILE);
    made_close(&d);
}

/* How many times the file was read, a call of progress being a read. */
static int remembered(struct made *d, struct manifest **m)
{
    struct watched w = {0};

    if (manifest_remembered(d->path, d->folder.path, watch, &w, m, &et) != ERR_NONE)
        fail_msg("%s", et.text);
    return w.n;
}

static void files_are_hashed_once(void **state)
{
    struct made d;
    struct manifest *m;
    char memory[256], command[512];

    (void)state;
    made_open(&d, TINY_LLAMA);
    assert_true(remembered(&d, &m) > 0);
    assert_memory_equal(m->id, d.m->id, 32);
    manifest_free(m);
    assert_int_equal(remembered(&d, &m), 0);
    assert_memory_equal(m->id, d.m->id, 32);
    manifest_free(m);

    /* What is remembered is damaged, at any place: the file is read again. */
    snprintf(command, sizeof command, "ls %s/manifest-*", d.folder.path);
    FILE *f = popen(command, "r");
    assert_non_null(fgets(memory, sizeof memory, f));
    pclose(f);
    memory[strcspn(memory, "\n")] = '\0';
    for (uint64_t at = 0; at < 64 + 16 + 40; at += 9) {
        file_flip(memory, at);
        assert_true(remembered(&d, &m) > 0);
        assert_memory_equal(m->id, d.m->id, 32);
        manifest_free(m);
        assert_int_equal(remembered(&d, &m), 0);
        manifest_free(m);
    }
    assert_int_equal(truncate(memory, 100), 0);
    assert_true(remembered(&d, &m) > 0);
    manifest_free(m);

    /* The file is another one now. */
    tiny_write(d.path, TINY_LLAMA, GGML_TYPE_Q4_0, 8);
    assert_true(remembered(&d, &m) > 0);
    assert_memory_not_equal(m->id, d.m->id, 32);
    manifest_free(m);
    made_close(&d);
}

static int part_named(const struct made *d, const struct model *m, const char *name)
{
    char buf[MANIFEST_PART_MAX_SHOWN + 16];

    for (int i = 0; i < d->m->n_parts; i++) {
        manifest_part_name(d->m, m, i, buf);
        if (strcmp(buf, name) == 0)
            return i;
    }
    fail_msg("no part is called %s", name);
    return -1;
}

static void needs_are_those_of_the_modules(void **state)
{
    struct made d, other;
    struct model *m;
    struct plan p;
    uint8_t need[3][256], bad[256];
    uint64_t bytes, sum;
    char buf[MANIFEST_PART_MAX_SHOWN + 16];
    int freqs, embd, norm;

    (void)state;
    made_open(&d, TINY_LLAMA_FREQS); /* tied, and with factors that all layers share */
    made_open(&other, TINY_GEMMA3);
    assert_int_equal(model_open(d.path, &m, &et), ERR_NONE);
    p = plan_in_three(model_n_modules(m), false);
    for (int dev = 0; dev < 3; dev++) {
        assert_int_equal(manifest_needs(d.m, m, &p, dev, need[dev], &bytes, &et), ERR_NONE);
        sum = 0;
        for (int i = 0; i < d.m->n_parts; i++)
            sum += need[dev][i] ? d.m->part[i].size : 0;
        assert_int_equal(sum, bytes);
        assert_true(bytes < d.m->file_bytes);
        assert_int_equal(need[dev][0], 1);
    }
    freqs = part_named(&d, m, "tensor rope_freqs.weight");
    embd = part_named(&d, m, "tensor token_embd.weight");
    norm = part_named(&d, m, "tensor output_norm.weight");
    for (int i = 1; i < d.m->n_parts; i++) {
        int n = need[0][i] + need[1][i] + need[2][i];

        assert_int_equal(n, i == freqs ? 3 : i == embd ? 2 : 1);
    }
    assert_true(need[0][embd] && need[2][embd] && need[2][norm]);
    assert_true(need[1][part_named(&d, m, "tensor blk.1.attn_q.weight")]);
    manifest_part_name(d.m, m, 0, buf);
    assert_string_equal(buf, "header");
    manifest_part_name(d.m, NULL, 7, buf);
    assert_string_equal(buf, "part 7");

    assert_int_equal(manifest_needs(other.m, m, &p, 0, bad, &bytes, &et), ERR_INPUT);
    assert_int_equal(manifest_needs(d.m, m, &p, 3, bad, &bytes, &et), ERR_INPUT);
    p.stage[2].end--;
    assert_int_equal(manifest_needs(d.m, m, &p, 0, bad, &bytes, &et), ERR_INPUT);
    model_close(m);
    made_close(&d);
    made_close(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_tile_the_file),
        cmocka_unit_test(truncations_are_refused),
        cmocka_unit_test(wrong_sums_are_refused),
        cmocka_unit_test(other_ids_are_refused),
        cmocka_unit_test(hashing_can_be_watched_and_stopped),
        cmocka_unit_test(files_are_hashed_once),
        cmocka_unit_test(needs_are_those_of_the_modules),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
