/* recipe_check.c - which recipes make sense. Shared by every program, the runner included. */
#include "model/recipe.h"

#include <string.h>

size_t recipe_layers(const char *list, size_t layers, size_t *out)
{
    size_t n = 0;
    while (*list) {
        size_t v = 0, digits = 0;
        for (; *list >= '0' && (IN_RUNNER || (*list <= '9' && v < layers)); list++, digits++)
            v = v * 10 + (size_t)(*list - '0');
        for (size_t i = 0; i < n && !IN_RUNNER; i++)
            if (out[i] == v)
                return SIZE_MAX;
        if (!IN_RUNNER && (!digits || v >= layers))
            return SIZE_MAX;
        out[n++] = v; /* distinct and below layers, so it fits */
        if (*list == ',' && (IN_RUNNER || list[1]))
            list++;
        else if (!IN_RUNNER && *list)
            return SIZE_MAX;
    }
    return n;
}

enum err_code recipe_ranges(const struct recipe *r, const struct recipe_range *range, size_t n,
                            struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        int64_t v, lo = range[i].lo, hi = range[i].hi;
        memcpy(&v, (const char *)r + range[i].at, sizeof v);
        if (v < lo || v > hi)
            return err_set(e, ERR_USAGE, "%s=%lld: must be %lld to %lld", range[i].name,
                           (long long)v, (long long)lo, (long long)hi);
    }
    return ERR_OK;
}

/* The switches of the records: each by itself, then what they need of each other. */
static enum err_code check_switches(const struct recipe *r, struct err *e)
{
    size_t layers = (size_t)r->num_layers, list[RECIPE_LAYERS_MAX];
    bool merge = !strcmp(r->parallel_lanes, "merge"), cross = !strcmp(r->parallel_lanes, "cross");
    size_t ve = recipe_layers(r->ve_layers, layers, list);
    size_t recur = recipe_layers(r->recur_layers, layers, list), before = 0;
    if (ve == SIZE_MAX)
        return err_set(e, ERR_USAGE, "VE_LAYERS=%s: must be distinct blocks 0 to %zu, as 9,10",
                       r->ve_layers, layers - 1);
    if (recur == SIZE_MAX)
        return err_set(e, ERR_USAGE, "RECUR_LAYERS=%s: must be distinct blocks 0 to %zu, as 4,5",
                       r->recur_layers, layers - 1);
    if (r->ve_enabled && !ve)
        return err_set(e, ERR_USAGE, "VE_ENABLED=1 needs VE_LAYERS");
    if (r->xsa_last_n > r->num_layers)
        return err_set(e, ERR_USAGE, "XSA_LAST_N=%lld: there are %zu blocks",
                       (long long)r->xsa_last_n, layers);
    if (r->bigram_vocab_size == 1)
        return err_set(e, ERR_USAGE, "BIGRAM_VOCAB_SIZE=1: needs at least 2 rows");
    if (r->skip_gates_enabled && !r->unet_skips)
        return err_set(e, ERR_USAGE, "SKIP_GATES_ENABLED=1 needs UNET_SKIPS=1");
    if (!merge && !cross && strcmp(r->parallel_lanes, "off"))
        return err_set(e, ERR_USAGE, "PARALLEL_LANES=%s: must be off, merge or cross",
                       r->parallel_lanes);
    if ((merge || cross) && r->parallel_start_layer >= r->num_layers)
        return err_set(e, ERR_USAGE,
                       "PARALLEL_START_LAYER=%lld: the lanes never begin, there are %zu blocks",
                       (long long)r->parallel_start_layer, layers);
    for (size_t i = 0; i < recur; i++)
        before += (int64_t)list[i] < r->parallel_start_layer;
    if (cross && before && before < recur)
        return err_set(e, ERR_USAGE,
                       "RECUR_LAYERS=%s: with PARALLEL_LANES=cross a second run cannot go back "
                       "before PARALLEL_START_LAYER=%lld",
                       r->recur_layers, (long long)r->parallel_start_layer);
    return ERR_OK;
}

static const struct recipe_range range[] = {
    RECIPE_RANGE(VOCAB_SIZE, vocab_size, 1, 65536),
    RECIPE_RANGE(NUM_LAYERS, num_layers, 1, RECIPE_LAYERS_MAX),
    RECIPE_RANGE(MODEL_DIM, model_dim, 1, 65536),
    RECIPE_RANGE(NUM_HEADS, num_heads, 1, 4096),
    RECIPE_RANGE(NUM_KV_HEADS, num_kv_heads, 1, 4096),
    RECIPE_RANGE(TRAIN_SEQ_LEN, train_seq_len, 1, 1 << 20),
    RECIPE_RANGE(EVAL_SEQ_LEN, eval_seq_len, 0, 1 << 20),
    RECIPE_RANGE(EVAL_STRIDE, eval_stride, 1, 1 << 20),
    RECIPE_RANGE(ROPE_DIMS, rope_dims, 0, 65536),
    RECIPE_RANGE(XSA_LAST_N, xsa_last_n, 0, 1024),
    RECIPE_RANGE(BIGRAM_VOCAB_SIZE, bigram_vocab_size, 0, 65536),
    RECIPE_RANGE(BIGRAM_DIM, bigram_dim, 1, 65536),
    RECIPE_RANGE(VE_DIM, ve_dim, 1, 65536),
    RECIPE_RANGE(PARALLEL_START_LAYER, parallel_start_layer, 0, 1024),
};

enum err_code recipe_check(const struct recipe *r, struct err *e)
{
    enum err_code rc = recipe_ranges(r, range, sizeof range / sizeof range[0], e);
    if (rc)
        return rc;
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
    return check_switches(r, e);
}
