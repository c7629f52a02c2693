/*
 * gpt.h - the model: its parameters by name, and the graph of its forward pass.
 *
 * Everything that a recipe can switch in the architecture is decided in gpt.c and nowhere else.
 * Names are the challenge community's state-dict names; the order is their state-dict order,
 * because ties in pruning and the layout of packed files depend on it. With MATRIX_BANKS the
 * matrices of a kind lie side by side in the parameter block (as in the banks of Parallel Muon,
 * #549); names and order of the table stay the same.
 */
#ifndef MODEL_GPT_H
#define MODEL_GPT_H

#include "kernels/err.h"
#include "model/graph.h"
#include "model/recipe.h"
#include "model/tensor.h"

enum param_class {
    PARAM_MATRIX,  /* 2-D weights inside the blocks: Muon, quantised to QUANT_BITS */
    PARAM_PROJ,    /* bigram.proj, ve_shared.proj: Muon or AdamW by PROJ_OPTIMIZER, QUANT_BITS */
    PARAM_EMBED,   /* embedding tables: AdamW with the embedding's rate, QUANT_EMBED_BITS */
    PARAM_HEAD,    /* untied head: AdamW with the head's rate, QUANT_EMBED_BITS */
    PARAM_CONTROL, /* scales, gains, mixes: AdamW with the scalar rate, kept as fp16 */
};

enum param_init {
    INIT_CONST,  /* gpt_param.value */
    INIT_NORMAL, /* mean 0, standard deviation gpt_param.value */
    INIT_MATRIX, /* INIT of the recipe */
    INIT_PROJ,   /* the same, smaller with PROJ_DEPTH_INIT */
    INIT_MIX,    /* resid_mix: first row 1, second 0 */
};

struct gpt_param {
    char name[48];
    enum param_class cls;
    enum param_init init;
    double value;          /* INIT_CONST, INIT_NORMAL */
    size_t ndim, shape[3]; /* a scalar has ndim 0 and shape[0] = 1 */
    size_t at, size;       /* offset and length in floats in the parameter block */
};

struct gpt {
    struct recipe r;
    struct gpt_param *param;
    size_t nparams; /* tensors */
    size_t floats;  /* of the parameter block: the number of parameters */
};

/* gpt_init - lay out the parameters of a recipe. ERR_USAGE for an impossible recipe. */
enum err_code gpt_init(struct gpt *m, const struct recipe *r, struct err *e);
void gpt_free(struct gpt *m); /* accepts a zeroed struct */

/* gpt_find - the parameter called name, or NULL. */
const struct gpt_param *gpt_find(const struct gpt *m, const char *name);

/* gpt_graph - append the whole model to an empty graph; with `recur` the blocks of RECUR_LAYERS run
 * twice (always so when scoring; in training from RECUR_START_STEP on). When memory is short
 * graph_plan says so. */
void gpt_graph(const struct gpt *m, struct graph *g, bool recur);

/* gpt_head - offset of the output head's weight [vocab][dim]: the embedding table when tied. */
size_t gpt_head(const struct gpt *m);

/*
 * gpt_load - fill params (host, m->floats floats) from named tensors: F32, F16 or BF16 as they are,
 * or NAME.q (I8) times NAME.scale (F16, one per row, or one for each of several equal groups of a
 * row's columns, row after row), computed as one fp32 product, or NAME.q with NAME.rexp, NAME.cexp and NAME.step (stub/trellis.h, model/dequant.h). Every parameter must be
 * there exactly once with its shape, and finite; anything missing, misshapen, not finite or
 * not known is ERR_INPUT naming the tensor. `path` names the source in errors.
 */
enum err_code gpt_load(const struct gpt *m, float *params, const struct tensor_view *t,
                       size_t count, const char *path, struct err *e);

#endif
