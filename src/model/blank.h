/* A model without its weights: for measuring what its modules cost before any of them is here.
 *
 * The file has no name, the size of the real one, its header, and zeros for weights, which take no
 * room on the disk. What zeros would make cheaper or break is not zero: norms, biases and rotary
 * factors are ones, and the matrices that route to experts are random, so that rows go to different
 * experts as they do in a model that was trained. */
#ifndef LINGUA_MODEL_BLANK_H
#define LINGUA_MODEL_BLANK_H

#include <stdint.h>

#include "base/err.h"
#include "model/model.h"

/* run: (n_modules) 1 for the modules that will be run, the others have nothing but zeros. folder:
 * where the file is to be; free space is needed for the header and what is not zero. ERR_FILE names
 * it. gives *out: model_close. */
MUST_CHECK enum err model_open_blank(const struct model *m, const uint8_t *run, const char *folder,
                                     struct model **out, struct err_text *et);

#endif
