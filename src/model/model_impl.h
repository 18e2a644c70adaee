/* What src/model's own files know of a model beyond model.h. */
#ifndef LINGUA_MODEL_MODEL_IMPL_H
#define LINGUA_MODEL_MODEL_IMPL_H

#include "model/arch.h"
#include "model/model.h"
#include "model/tensors.h"

struct model {
    struct modelfile *file;
    const struct arch *arch;
    struct hparams hp;
    struct bound bound;
    struct model_shape shape;
    struct module_info *modules; /* (n_modules) */
    int n_modules;
    char name[96];
};

/* Module numbers: 0 is embed, 2i+1 attn.i, 2i+2 ffn.i, the last one output. */
static inline int module_attn(int layer)
{
    return 2 * layer + 1;
}

/* The tensor the LM head multiplies by: its own, or the embedding's. */
const struct mf_tensor *model_output_tensor(const struct model *m);

#endif
