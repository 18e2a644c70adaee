/* lingua-test-model: writes a random model to disk, for tests and benches that are no C programs.
 *
 *     lingua-test-model NAME[:LAYERS[:TYPE]] FILE
 *
 * NAME is one of tiny_model.h's, or "wide", which has the shape of TinyLlama's 1.1 billion
 * parameters (bench_model.h). LAYERS 0: as many as it usually has. TYPE is ggml's name of one; f32
 * for tiny models and q4_0 for the wide one when left out. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_model.h"
#include "support/tiny_model.h"

static int usage(void)
{
    fprintf(stderr, "usage: lingua-test-model NAME[:LAYERS[:TYPE]] FILE\nNAME: wide");
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

int main(int argc, char **argv)
{
    char name[32], type_name[16] = "";
    enum ggml_type type;
    struct err_text et;
    int layers = 0;

    if (argc != 3 || sscanf(argv[1], "%31[^:]:%d:%15s", name, &layers, type_name) < 1 || layers < 0)
        return usage();
    if (!*type_name)
        strcpy(type_name, strcmp(name, "wide") == 0 ? "q4_0" : "f32");
    if (!find_type(type_name, &type))
        return usage();
    if (strcmp(name, "wide") == 0) {
        if (layers > BENCH_LAYERS)
            return usage();
        if (!bench_model_write_layers(argv[2], type, layers ? layers : BENCH_LAYERS, &et))
            return 0;
        fprintf(stderr, "lingua-test-model: %s\n", et.text);
        return 1;
    }
    for (int i = 0; i < TINY_N_VARIANTS; i++)
        if (strcmp(name, tiny_name((enum tiny_variant)i)) == 0) {
            if (layers)
                tiny_write_layers(argv[2], (enum tiny_variant)i, type, 1, layers);
            else
                tiny_write(argv[2], (enum tiny_variant)i, type, 1);
            return 0;
        }
    return usage();
}
