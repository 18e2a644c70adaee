/* Which tensors a model is made of, and whose they are.
 *
 * One table says for every role its name in the file, its shape in terms of the hyperparameters,
 * the module it belongs to and what types it may have; whether a role is needed follows from the
 * family's row. Binding finds each one in the file and checks it, so that the graph builder can
 * take any role it asks for as given. Pure: any thread. */
#ifndef LINGUA_MODEL_TENSORS_H
#define LINGUA_MODEL_TENSORS_H

#include "base/err.h"
#include "model/arch.h"
#include "model/model.h"
#include "model/modelfile.h"

enum role {
    /* of the whole model */
    T_EMBED,
    T_EMBED_NORM,
    T_EMBED_NORM_B,
    T_POS_EMBED,
    T_ROPE_FREQS,
    T_OUT_NORM,
    T_OUT_NORM_B,
    T_OUTPUT,
    T_OUTPUT_B,
    ROLES_GLOBAL,
    /* of each layer: attention */
    T_ATTN_NORM = ROLES_GLOBAL,
    T_ATTN_NORM_B,
    T_QKV,
    T_QKV_B,
    T_Q,
    T_Q_B,
    T_K,
    T_K_B,
    T_V,
    T_V_B,
    T_Q_NORM,
    T_K_NORM,
    T_ATTN_OUT,
    T_ATTN_OUT_B,
    T_ATTN_POST_NORM,
    T_ROPE_LONG,
    T_ROPE_SHORT,
    /* of each layer: FFN */
    T_FFN_NORM,
    T_FFN_NORM_B,
    T_GATE,
    T_GATE_B,
    T_UP,
    T_UP_B,
    T_DOWN,
    T_DOWN_B,
    T_ROUTER,
    T_GATE_EXPERTS,
    T_UP_EXPERTS,
    T_DOWN_EXPERTS,
    T_FFN_POST_NORM,
    ROLES_END,
    ROLES_LAYER = ROLES_END - ROLES_GLOBAL,
};

/* Found tensors; NULL where a role is absent and may be. Borrowed from the modelfile. */
struct bound {
    const struct mf_tensor *global[ROLES_GLOBAL];
    const struct mf_tensor *(*layer)[ROLES_LAYER]; /* (n_layers) */
};

/* ERR_INPUT naming file and tensor: missing, wrong shape, wrong type, or one that no module of
 * this family knows. */
MUST_CHECK enum err tensors_bind(const struct modelfile *mf, const struct arch *a,
                                 const struct hparams *hp, struct bound *out, struct err_text *et);
void tensors_fini(struct bound *b);

/* Role r of the given layer (ignored for global roles). */
const struct mf_tensor *tensors_get(const struct bound *b, enum role r, int layer);
/* The kind of module a role belongs to. Rotary factors belong to every attn. */
enum module_kind tensors_module(enum role r);
/* Read by mul_mat or mul_mat_id (so it may be repacked), not by get_rows or arithmetic. */
bool tensors_is_matrix(enum role r);
/* A norm, a bias, factors: small, f32. */
bool tensors_is_vector(enum role r);

#endif
