/* Classes of modules: those that cost the same to run, whoever runs them, because their tensors have
 * the same shapes and types. `embed` and `output` are classes of their own; a model whose layers are
 * all alike has four: embed, attn, ffn, output. */
#ifndef LINGUA_MODEL_CLASSES_H
#define LINGUA_MODEL_CLASSES_H

#include "base/err.h"
#include "model/model.h"

enum { CLASSES_MAX = 64, CLASS_TEXT_MAX = 128 };

struct model_classes {
    int n;
    int *of;                  /* (n_modules) the class of each module, numbered as they come */
    int example[CLASSES_MAX]; /* the first module of each */
    int count[CLASSES_MAX];
    /* A hash (FNV-1a) of all that costs depend on (kinds, shapes, types, attention, KV type), never
     * 0: models with the same id cost the same. A key for what is remembered, no more. */
    uint64_t id;
};
/* ERR_UNSUPPORTED: more than CLASSES_MAX. Free with model_classes_fini. */
MUST_CHECK enum err model_classes(const struct model *m, enum kv_type kv, struct model_classes *out,
                                  struct err_text *et);
void model_classes_fini(struct model_classes *c);
/* "attn q4_K 2048x2560": for people. */
void model_class_text(const struct model *m, int example, char buf[CLASS_TEXT_MAX]);

#endif
