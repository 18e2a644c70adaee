/* lingua-test-model: writes a random model to disk, for tests and benches that are no C programs.
 *
 *     lingua-test-model NAME[:LAYERS[:TYPE]] FILE [TEMPLATE]
 *
 * NAME is one of tiny_model.h's, or "wide" or "slim" (bench_model.h). LAYERS 0: as many as it
 * usually has. TYPE is ggml's name of one; f32 for tiny models, q4_0 for the wide and q2_0 for the
 * slim one when left out. With TEMPLATE, a file, a tiny model (with
 * its usual layers) can chat: it has that chat template and tiny_vocab.h's vocabulary. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "bench_model.h"
#include "support/tiny_model.h"
#include "support/tiny_vocab.h"

static int usage(void)
{
    fprintf(stderr,
            "usage: lingua-test-model NAME[:LAYERS[:TYPE]] FILE [TEMPLATE]\nNAME: wide slim");
    for (int i = 0; i < TINY_N_VARIANTS; i++)
        fprintf(stderr, " %s", tiny_name((enum tiny_variant)i));
    fprintf(stderr, "\n");
    return 2;
}

static bool find_type(const char *name, enum ggml_type *type)
{
    for (int i = 0; i < GGML_TYPE_COUNT; i++)
        if (ggml_type_name((enum ggml_type)i) &&
            strcmp(ggml_type_name((enum ggml_type)i), name) == 0) {
            *type = (enum ggml_type)i;
            return true;
        }
    return false;
}

static void put_chat(struct gguf_context *gguf, int n_vocab, const void *chat_template)
{
    tiny_vocab_put(gguf, &(struct tiny_vocab){.chat_template = chat_template, .n_vocab = n_vocab});
}

/* The template of the file; NULL when it cannot be read, or is longer than a model may have. */
static char *template_of(const char *path)
{
    enum { CAP = 256 << 10 };
    char *text = mem_zalloc(CAP + 1, 1);
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, CAP + 1, f) : 0;

    if (f)
        fclose(f);
    if (n > 0 && n <= CAP)
        return text;
    fprintf(stderr, "lingua-test-model: %s: cannot be read, empty or too long\n", path);
    free(text);
    return NULL;
}

static int write_tiny(const char *path, enum tiny_variant v, enum ggml_type type, int layers,
                      const char *template_path)
{
    enum { N_VOCAB = 512 };
    char *text;

    if (!template_path) {
        if (layers)
            tiny_write_layers(path, v, type, 1, layers);
        else
            tiny_write(path, v, type, 1);
        return 0;
    }
    text = template_of(template_path);
    if (!text)
        return 1;
    tiny_write_vocab(path, v, type, N_VOCAB, put_chat, text);
    free(text);
    return 0;
}

int main(int argc, char **argv)
{
    char name[32], type_name[16] = "";
    enum bench_shape shape;
    enum ggml_type type;
    struct err_text et;
    bool benched;
    int layers = 0;

    if (argc < 3 || argc > 4 || sscanf(argv[1], "%31[^:]:%d:%15s", name, &layers, type_name) < 1 ||
        layers < 0)
        return usage();
    benched = bench_shape_find(name, &shape);
    if (!*type_name)
        strcpy(type_name, !benched ? "f32" : shape == BENCH_WIDE ? "q4_0" : "q2_0");
    if (!find_type(type_name, &type))
        return usage();
    if (benched) {
        if (layers > BENCH_LAYERS_MAX)
            return usage();
        if (!bench_model_write_shape(argv[2], shape, type, layers, &et))
            return 0;
        fprintf(stderr, "lingua-test-model: %s\n", et.text);
        return 1;
    }
    for (int i = 0; i < TINY_N_VARIANTS; i++)
        if (strcmp(name, tiny_name((enum tiny_variant)i)) == 0)
            return write_tiny(argv[2], (enum tiny_variant)i, type, layers, argv[3]);
    return usage();
}
