/* ref_greedy MODEL N TEXT [f32]: libllama's greedy continuation of the text on stdout, for the
 * tests that compare whole programs. Flash attention off, f16 KV or, when told, f32, one thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/ref_llama.h"

enum { TOKENS_MAX = 4096 };

int main(int argc, char **argv)
{
    static int32_t prompt[TOKENS_MAX], out[TOKENS_MAX];
    struct ref_opts opts = {.n_threads = 1, .n_ctx = 256, .n_seqs = 1, .kv = GGML_TYPE_F16};
    struct ref *r;
    int n;

    if (argc < 4 || argc > 5 || atoi(argv[2]) < 1 || atoi(argv[2]) > TOKENS_MAX) {
        fprintf(stderr, "usage: ref_greedy MODEL N TEXT [f32]\n");
        return 1;
    }
    if (argc == 5 && strcmp(argv[4], "f32") == 0)
        opts.kv = GGML_TYPE_F32;
    r = ref_open(argv[1], &opts);
    n = ref_tokenize(r, argv[3], prompt, TOKENS_MAX);
    n = ref_greedy(r, prompt, n, out, atoi(argv[2]));
    for (int i = 0; i < n; i++) {
        char piece[256];
        int len = ref_piece(r, out[i], piece, sizeof(piece));

        if (len > 0)
            fwrite(piece, 1, (size_t)len, stdout);
    }
    ref_close(r);
    return 0;
}
