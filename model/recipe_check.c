/* recipe_check.c - which recipes make sense. Shared by every program, the runner included. */
#include "model/recipe.h"

enum err_code recipe_check(const struct recipe *r, struct err *e)
{
    const struct {
        const char *name;
        int64_t v, lo, hi;
    } range[] = {
        {"VOCAB_SIZE", r->vocab_size, 1, 65536},
        {"NUM_LAYERS", r->num_layers, 1, 1024},
        {"MODEL_DIM", r->model_dim, 1, 65536},
        {"NUM_HEADS", r->num_heads, 1, 4096},
        {"NUM_KV_HEADS", r->num_kv_heads, 1, 4096},
        {"TRAIN_SEQ_LEN", r->train_seq_len, 1, 1 << 20},
        {"EVAL_SEQ_LEN", r->eval_seq_len, 0, 1 << 20},
        {"EVAL_STRIDE", r->eval_stride, 1, 1 << 20},
        {"ROPE_DIMS", r->rope_dims, 0, 65536},
    };
    for (size_t i = 0; i < sizeof range / sizeof range[0]; i++)
        if (range[i].v < range[i].lo || range[i].v > range[i].hi)
            return err_set(e, ERR_USAGE, "%s=%lld: must be %lld to %lld", range[i].name,
                           (long long)range[i].v, (long long)range[i].lo, (long long)range[i].hi);
    if (r->model_dim % r->num_heads)
        return err_set(e, ERR_USAGE, "MODEL_DIM=%lld is no multiple of NUM_HEADS=%lld",
                       (long long)r->model_dim, (long long)r->num_heads);
    if (r->num_heads % r->num_kv_heads)
        return err_set(e, ERR_USAGE, "NUM_HEADS=%lld is no multiple of NUM_KV_HEADS=%lld",
                       (long long)r->num_heads, (long long)r->num_kv_heads);
    if (recipe_rope_dims(r) % 2 || recipe_rope_dims(r) > recipe_head_dim(r))
        return err_set(e, ERR_USAGE, "ROPE_DIMS=%zu: must be even and at most the head's %zu",
                       recipe_rope_dims(r), recipe_head_dim(r));
    if (!(r->mlp_mult * (double)r->model_dim >= 1 && r->mlp_mult <= 1024))
        return err_set(e, ERR_USAGE,
                       "MLP_MULT: the hidden width must be at least 1, the factor at most 1024");
    if (r->logit_softcap < 0 || !(r->rope_base > 0) || !(r->rms_eps >= 0))
        return err_set(e, ERR_USAGE, "LOGIT_SOFTCAP, ROPE_BASE and RMS_EPS must not be negative");
    return ERR_OK;
}
