/* recipe_check.c - which recipes make sense. Shared by every program, the runner included. */
#include "model/recipe.h"

#include <string.h>

/* The runner inside a submission meets recipes that packer has checked: one text serves it. */
#if defined(KERN_FORWARD_ONLY) || defined(KERN_NO_OPTIM)
#define refuse(e, ...)  err_set(e, ERR_USAGE, "section recipe: no such model is possible")
#define RANGE_NAME(key) ""
#else
#define refuse(e, ...)  err_set(e, ERR_USAGE, __VA_ARGS__)
#define RANGE_NAME(key) #key
#endif

size_t recipe_layers(const char *list, size_t layers, size_t *out)
{
    size_t n = 0;
    while (*list) {
        size_t v = 0, digits = 0;
        for (; *list >= '0' && *list <= '9' && v < layers; list++, digits++)
            v = v * 10 + (size_t)(*list - '0');
        for (size_t i = 0; i < n; i++)
            if (out[i] == v)
                return SIZE_MAX;
        if (!digits || v >= layers)
            return SIZE_MAX;
        out[n++] = v; /* distinct and below layers, so it fits */
        if (*list == ',' && list[1])
            list++;
        else if (*list)
            return SIZE_MAX;
    }
    return n;
}

/* The switches of the records: each by itself, then what they need of each other. */
static enum err_code check_switches(const struct recipe *r, struct err *e)
{
    size_t layers = (size_t)r->num_layers, list[RECIPE_LAYERS_MAX];
    bool merge = !strcmp(r->parallel_lanes, "merge"), cross = !strcmp(r->parallel_lanes, "cross");
    size_t ve = recipe_layers(r->ve_layers, layers, list);
    size_t recur = recipe_layers(r->recur_layers, layers, list);
    if (ve == SIZE_MAX)
        return refuse(e, "VE_LAYERS=%s: must be distinct blocks 0 to %zu, as 9,10", r->ve_layers,
                      layers - 1);
    if (recur == SIZE_MAX)
        return refuse(e, "RECUR_LAYERS=%s: must be distinct blocks 0 to %zu, as 4,5",
                      r->recur_layers, layers - 1);
    if (r->ve_enabled && !ve)
        return refuse(e, "VE_ENABLED=1 needs VE_LAYERS");
    if (r->xsa_last_n > r->num_layers)
        return refuse(e, "XSA_LAST_N=%lld: there are %zu blocks", (long long)r->xsa_last_n, layers);
    if (r->bigram_vocab_size == 1)
        return refuse(e, "BIGRAM_VOCAB_SIZE=1: needs at least 2 rows");
    if (r->skip_gates_enabled && !r->unet_skips)
        return refuse(e, "SKIP_GATES_ENABLED=1 needs UNET_SKIPS=1");
    if (!merge && !cross && strcmp(r->parallel_lanes, "off"))
        return refuse(e, "PARALLEL_LANES=%s: must be off, merge or cross", r->parallel_lanes);
    if ((merge || cross) && r->parallel_start_layer >= r->num_layers)
        return refuse(e, "PARALLEL_START_LAYER=%lld: the lanes never begin, there are %zu blocks",
                      (long long)r->parallel_start_layer, layers);
    for (size_t i = 0; i < recur && cross; i++)
        if ((int64_t)list[i] < r->parallel_start_layer &&
            (int64_t)list[recur - 1 - i] >= r->parallel_start_layer)
            return refuse(e,
                          "RECUR_LAYERS=%s: with PARALLEL_LANES=cross a second run cannot go back "
                          "before PARALLEL_START_LAYER=%lld",
                          r->recur_layers, (long long)r->parallel_start_layer);
    return ERR_OK;
}

/* Settings that are whole numbers within limits. */
#define RANGE(key, field, lo, hi)                                                                  \
    {                                                                                              \
        RANGE_NAME(key), offsetof(struct recipe, field), lo, hi                                    \
    }
static const struct {
    char name[sizeof RANGE_NAME(PARALLEL_START_LAYER)];
    uint16_t at;
    int32_t lo, hi;
} range[] = {
    RANGE(VOCAB_SIZE, vocab_size, 1, 65536),
    RANGE(NUM_LAYERS, num_layers, 1, RECIPE_LAYERS_MAX),
    RANGE(MODEL_DIM, model_dim, 1, 65536),
    RANGE(NUM_HEADS, num_heads, 1, 4096),
    RANGE(NUM_KV_HEADS, num_kv_heads, 1, 4096),
    RANGE(TRAIN_SEQ_LEN, train_seq_len, 1, 1 << 20),
    RANGE(EVAL_SEQ_LEN, eval_seq_len, 0, 1 << 20),
    RANGE(EVAL_STRIDE, eval_stride, 1, 1 << 20),
    RANGE(ROPE_DIMS, rope_dims, 0, 65536),
    RANGE(XSA_LAST_N, xsa_last_n, 0, 1024),
    RANGE(BIGRAM_VOCAB_SIZE, bigram_vocab_size, 0, 65536),
    RANGE(BIGRAM_DIM, bigram_dim, 1, 65536),
    RANGE(VE_DIM, ve_dim, 1, 65536),
    RANGE(PARALLEL_START_LAYER, parallel_start_layer, 0, 1024),
};
#undef RANGE

enum err_code recipe_check(const struct recipe *r, struct err *e)
{
    for (size_t i = 0; i < sizeof range / sizeof range[0]; i++) {
        int64_t v, lo = range[i].lo, hi = range[i].hi;
        memcpy(&v, (const char *)r + range[i].at, sizeof v);
        if (v < lo || v > hi)
            return refuse(e, "%s=%lld: must be %lld to %lld", range[i].name, (long long)v,
                          (long long)lo, (long long)hi);
    }
    if (r->model_dim % r->num_heads)
        return refuse(e, "MODEL_DIM=%lld is no multiple of NUM_HEADS=%lld", (long long)r->model_dim,
                      (long long)r->num_heads);
    if (r->num_heads % r->num_kv_heads)
        return refuse(e, "NUM_HEADS=%lld is no multiple of NUM_KV_HEADS=%lld",
                      (long long)r->num_heads, (long long)r->num_kv_heads);
    if (recipe_rope_dims(r) % 2 || recipe_rope_dims(r) > recipe_head_dim(r))
        return refuse(e, "ROPE_DIMS=%zu: must be even and at most the head's %zu",
                      recipe_rope_dims(r), recipe_head_dim(r));
    if (!(r->mlp_mult * (double)r->model_dim >= 1 && r->mlp_mult <= 1024))
        return refuse(e, "MLP_MULT: the hidden width must be at least 1, the factor at most 1024");
    if (r->logit_softcap < 0 || !(r->rope_base > 0) || !(r->rms_eps >= 0))
        return refuse(e, "LOGIT_SOFTCAP, ROPE_BASE and RMS_EPS must not be negative");
    return check_switches(r, e);
}
