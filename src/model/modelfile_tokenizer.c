#include "model/modelfile.h"

enum err modelfile_check_tokenizer(const struct modelfile *mf, uint32_t *n_tokens,
                                   struct err_text *et)
{
    uint64_t n = 0;
    enum err e = modelfile_arr_len(mf, "tokenizer.ggml.tokens", &n, et);

    *n_tokens = (uint32_t)n;
    return e;
}
