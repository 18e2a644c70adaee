/* Rows of hidden states into one embedding, and how it is written. Pure; any thread. */
#ifndef LINGUA_API_VECTOR_H
#define LINGUA_API_VECTOR_H

#include <jansson.h>
#include <stdbool.h>

/* The values of api_opts.pooling and of cluster_facts.pooling. */
enum pooling { POOLING_UNSAID, POOLING_MEAN, POOLING_CLS, POOLING_LAST };

struct vector {
    enum pooling pooling;
    int n_tokens; /* of its text */
    int next;     /* the position whose row is taken next */
    int width;    /* 0 before the first row */
    double *sum;  /* (width) */
};

void vector_init(struct vector *v, enum pooling pooling, int n_tokens);
void vector_fini(struct vector *v); /* zeros are fine */
/* Rows from this position on are wanted. */
int vector_want_from(const struct vector *v);
/* Rows at positions pos..pos+n-1, (n, width) f32. Those seen before are passed over. */
void vector_rows(struct vector *v, const float *rows, int pos, int n, int width);
/* All rows were seen: the mean, if that is wanted, and with unit its length made 1 (a vector of
 * zeros stays one). False: it is not finite. */
bool vector_settle(struct vector *v, bool unit);

json_t *vector_json(const struct vector *v);
/* Little-endian f32, in base64: OpenAI's encoding_format "base64". */
json_t *vector_base64(const struct vector *v);

#endif
