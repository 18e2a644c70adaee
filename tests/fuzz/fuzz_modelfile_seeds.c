/* Writes the seeds of corpus/modelfile into the folder it is given. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/gguf_bytes.h"

#define KEY(name) "tokenizer.ggml." name

static void save(struct gguf_bytes *b, const char *folder, const char *name)
{
    char path[4096];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    f = fopen(path, "wb");
    if (!f || fwrite(b->data, 1, b->size, f) != b->size || fclose(f) != 0) {
        perror(path);
        exit(1);
    }
    gguf_bytes_free(b);
}

static void tensors(const char *folder)
{
    uint64_t matrix[] = {8, 2}, block[] = {32, 1, 1}, one[] = {1, 1, 1, 1};
    struct gguf_bytes b;

    gguf_bytes_begin(&b, 3);
    gguf_bytes_key_u32(&b, "general.alignment", 16);
    gguf_bytes_tensor(&b, "token_embd.weight", 2, matrix, 0, 0); /* f32 */
    gguf_bytes_tensor(&b, "a", 3, block, 8, 64);                 /* q8_0 */
    gguf_bytes_tensor(&b, "b", 4, one, 24, 112);                 /* i8 */
    gguf_bytes_pad(&b, 16);
    gguf_bytes_fill(&b, 1, 113);
    save(&b, folder, "tensors");
}

static void values(const char *folder)
{
    static const unsigned char zeros[8];
    struct gguf_bytes b;
    char name[32];

    for (uint32_t type = GB_U8; type <= GB_F64; type++) {
        static const size_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 0, 8, 8, 8};

        if (type == GB_ARRAY)
            continue;
        gguf_bytes_begin(&b, 2);
        gguf_bytes_value(&b, "some.value", type, zeros, sizes[type]);
        gguf_bytes_array(&b, "some.list", type, 4);
        for (int i = 0; i < 4; i++)
            gguf_bytes_raw(&b, zeros, sizes[type]);
        snprintf(name, sizeof name, "value_%u", type);
        save(&b, folder, name);
    }
    gguf_bytes_begin(&b, 3);
    gguf_bytes_value(&b, "split.count", GB_U16, "\2", 2);
    save(&b, folder, "split");
}

static void bpe(const char *folder)
{
    struct gguf_bytes b;

    gguf_bytes_begin(&b, 3);
    gguf_bytes_key_string(&b, "general.name", "t");
    gguf_bytes_key_string(&b, KEY("model"), "gpt2");
    gguf_bytes_key_string(&b, KEY("pre"), "gpt-2");
    gguf_bytes_array(&b, KEY("tokens"), GB_STRING, 4);
    gguf_bytes_string(&b, "a");
    gguf_bytes_string(&b, "b");
    gguf_bytes_string(&b, "ab");
    gguf_bytes_string(&b, "");
    gguf_bytes_array(&b, KEY("token_type"), GB_I32, 4);
    for (uint32_t i = 0; i < 4; i++)
        gguf_bytes_u32(&b, i);
    gguf_bytes_array(&b, KEY("merges"), GB_STRING, 1);
    gguf_bytes_string(&b, "a b");
    gguf_bytes_key_u32(&b, KEY("bos_token_id"), 1);
    gguf_bytes_key_u32(&b, KEY("eos_token_id"), 2);
    gguf_bytes_key_bool(&b, KEY("add_bos_token"), 1);
    gguf_bytes_key_string(&b, "tokenizer.chat_template", "{{ x }}");
    gguf_bytes_array(&b, KEY("suppress_tokens"), GB_I32, 1);
    gguf_bytes_u32(&b, 3);
    save(&b, folder, "bpe");
}

/* All single bytes but NUL stand for themselves, to keep it small. */
static void spm(const char *folder)
{
    struct gguf_bytes b;
    unsigned char byte;

    gguf_bytes_begin(&b, 3);
    gguf_bytes_key_string(&b, KEY("model"), "llama");
    gguf_bytes_array(&b, KEY("tokens"), GB_STRING, 257);
    gguf_bytes_string(&b, "<unk>");
    gguf_bytes_string(&b, "<0x00>");
    for (int i = 1; i < 256; i++) {
        byte = (unsigned char)i;
        gguf_bytes_string_n(&b, &byte, 1);
    }
    gguf_bytes_array(&b, KEY("token_type"), GB_I32, 257);
    for (int i = 0; i < 257; i++)
        gguf_bytes_u32(&b, i == 1 ? 6 : 1);
    gguf_bytes_array(&b, KEY("scores"), GB_F32, 257);
    gguf_bytes_fill(&b, 0, 4 * 257);
    save(&b, folder, "spm");
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 1;
    }
    tensors(argv[1]);
    values(argv[1]);
    bpe(argv[1]);
    spm(argv[1]);
    return 0;
}
