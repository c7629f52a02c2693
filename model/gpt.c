/*
 * gpt.c - the model, written once: parameters of a recipe and the graph of its forward pass.
 *
 * The mathematics is that of the challenge's baseline and of the records that grew from it. Per
 * block (ls = 1/sqrt(l+1) with LN_SCALE, else 1):
 *
 *   x_in = mix0 * x + mix1 * x0                      resid_mix; x0 is the normed embedding
 *   y    = x_in + attn_scale * Attn(rms(x_in) * ls)
 *   x    = y + mlp_scale * MLP(rms(y) * ls)
 *
 * and over the blocks a U-Net: the first half pushes its outputs, the second half adds them back,
 * last first, each times a vector of its own.
 */
#include "model/gpt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- parameters ---- */

enum { NAME = sizeof((struct gpt_param *)0)->name };

/* "blocks.L.what", or what itself when it belongs to no block. The longest name has 27 characters;
 * written by hand because the runner has no stdio. */
static void param_name(char out[NAME], const struct gpt *m, size_t l, const char *what)
{
    char digits[8];
    size_t n = 0, d = 0;
    if (l < (size_t)m->r.num_layers) {
        memcpy(out, "blocks.", n = 7);
        do
            digits[d++] = (char)('0' + l % 10);
        while (l /= 10);
        while (d)
            out[n++] = digits[--d];
        out[n++] = '.';
    }
    strcpy(out + n, what);
}

/* `l` of a parameter that belongs to no block. */
#define ROOT SIZE_MAX

static void add(struct gpt *m, enum param_class cls, enum param_init init, size_t l,
                const char *what, size_t d0, size_t d1)
{
    struct gpt_param *p = &m->param[m->nparams++];
    param_name(p->name, m, l, what);
    p->cls = cls;
    p->init = init;
    p->ndim = d1 ? 2 : 1;
    p->shape[0] = d0;
    p->shape[1] = d1;
    p->at = m->floats;
    p->size = d0 * (d1 ? d1 : 1);
    m->floats += p->size;
}

static size_t encoder_layers(const struct recipe *r)
{
    return (size_t)r->num_layers / 2;
}

enum err_code gpt_init(struct gpt *m, const struct recipe *r, struct err *e)
{
    size_t layers = (size_t)r->num_layers, dim = (size_t)r->model_dim, kv, hidden;
    enum err_code rc = recipe_check(r, e);
    memset(m, 0, sizeof *m);
    if (rc)
        return rc;
    kv = (size_t)r->num_kv_heads * recipe_head_dim(r); /* not before the check: it divides */
    hidden = recipe_hidden(r);
    m->r = *r;
    m->param = calloc(layers * 10 + 3, sizeof *m->param);
    if (!m->param)
        return err_nomem(e, "parameter table", (layers * 10 + 3) * sizeof *m->param);
    if (r->unet_skips && encoder_layers(r))
        add(m, PARAM_CONTROL, INIT_ONE, ROOT, "skip_weights", encoder_layers(r), dim);
    add(m, PARAM_EMBED, INIT_NORMAL_EMBED, ROOT, "tok_emb.weight", (size_t)r->vocab_size, dim);
    for (size_t l = 0; l < layers; l++) {
        add(m, PARAM_CONTROL, INIT_ONE, l, "attn_scale", dim, 0);
        add(m, PARAM_CONTROL, INIT_ONE, l, "mlp_scale", dim, 0);
        add(m, PARAM_CONTROL, INIT_MIX, l, "resid_mix", 2, dim);
        add(m, PARAM_CONTROL, INIT_QK_GAIN, l, "attn.q_gain", (size_t)r->num_heads, 0);
        add(m, PARAM_MATRIX, INIT_MATRIX, l, "attn.c_q.weight", dim, dim);
        add(m, PARAM_MATRIX, INIT_MATRIX, l, "attn.c_k.weight", kv, dim);
        add(m, PARAM_MATRIX, INIT_MATRIX, l, "attn.c_v.weight", kv, dim);
        add(m, PARAM_MATRIX, INIT_ZERO, l, "attn.proj.weight", dim, dim);
        add(m, PARAM_MATRIX, INIT_MATRIX, l, "mlp.fc.weight", hidden, dim);
        add(m, PARAM_MATRIX, INIT_ZERO, l, "mlp.proj.weight", dim, hidden);
    }
    if (!r->tie_embeddings)
        add(m, PARAM_HEAD, INIT_ZERO, ROOT, "lm_head.weight", (size_t)r->vocab_size, dim);
    return ERR_OK;
}

void gpt_free(struct gpt *m)
{
    free(m->param);
    memset(m, 0, sizeof *m);
}

const struct gpt_param *gpt_find(const struct gpt *m, const char *name)
{
    for (size_t i = 0; i < m->nparams; i++)
        if (!strcmp(m->param[i].name, name))
            return &m->param[i];
    return NULL;
}

/* ---- graph ---- */

/* Offset of a parameter of block l (or ROOT); GRAPH_NONE when the recipe has no such parameter. */
static ptrdiff_t at(const struct gpt *m, size_t l, const char *what)
{
    char name[NAME];
    const struct gpt_param *p;
    param_name(name, m, l, what);
    p = gpt_find(m, name);
    return p ? (ptrdiff_t)p->at : GRAPH_NONE;
}

static float rsqrt(double x)
{
    return (float)(1 / sqrt(x));
}

static int attention(const struct gpt *m, struct graph *g, size_t l, int xn)
{
    size_t dim = (size_t)m->r.model_dim, heads = (size_t)m->r.num_heads;
    size_t kv_heads = (size_t)m->r.num_kv_heads, kv = kv_heads * g->head_dim;
    int q = graph_linear(g, xn, at(m, l, "attn.c_q.weight"), dim, dim);
    int k = graph_linear(g, xn, at(m, l, "attn.c_k.weight"), kv, dim);
    int v = graph_linear(g, xn, at(m, l, "attn.c_v.weight"), kv, dim);
    q = graph_qk(g, q, at(m, l, "attn.q_gain"), heads);
    k = graph_qk(g, k, GRAPH_NONE, kv_heads);
    q = graph_attn(g, q, k, v, heads, kv_heads, rsqrt((double)g->head_dim));
    return graph_linear(g, q, at(m, l, "attn.proj.weight"), dim, dim);
}

static int mlp(const struct gpt *m, struct graph *g, size_t l, int yn)
{
    size_t dim = (size_t)m->r.model_dim, hidden = recipe_hidden(&m->r);
    int h = graph_linear_act(g, yn, at(m, l, "mlp.fc.weight"), hidden, dim, (float)m->r.mlp_slope);
    return graph_linear(g, h, at(m, l, "mlp.proj.weight"), dim, hidden);
}

static int block(const struct gpt *m, struct graph *g, size_t l, int x, int x0)
{
    ptrdiff_t mix = at(m, l, "resid_mix");
    float ls = m->r.ln_scale ? rsqrt((double)(l + 1)) : 1;
    int xn, yn;
    x = graph_combine(g, x, mix, x0, mix + (ptrdiff_t)m->r.model_dim, ls, &xn);
    x = graph_combine(g, x, GRAPH_NONE, attention(m, g, l, xn), at(m, l, "attn_scale"), ls, &yn);
    return graph_combine(g, x, GRAPH_NONE, mlp(m, g, l, yn), at(m, l, "mlp_scale"), 1, NULL);
}

enum err_code gpt_graph(const struct gpt *m, struct graph *g, struct err *e)
{
    const struct recipe *r = &m->r;
    size_t layers = (size_t)r->num_layers, dim = (size_t)r->model_dim,
           vocab = (size_t)r->vocab_size;
    size_t encoder = encoder_layers(r), top = 0;
    ptrdiff_t skip = at(m, ROOT, "skip_weights");
    int *pushed = malloc((encoder + 1) * sizeof *pushed);
    int x, x0, h;
    if (!pushed)
        return err_nomem(e, "graph", encoder * sizeof *pushed);
    g->head_dim = recipe_head_dim(r);
    g->rope_dims = recipe_rope_dims(r);
    g->rope_base = r->rope_base;
    g->rope_train_len = r->rope_train_len < 0 ? 0
                        : r->rope_train_len   ? (size_t)r->rope_train_len
                                              : (size_t)r->train_seq_len;
    g->eps = (float)r->rms_eps;

    x = graph_embed(g, at(m, ROOT, "tok_emb.weight"), vocab, dim);
    graph_combine(g, x, GRAPH_NONE, GRAPH_NONE, GRAPH_NONE, 1, &x0);
    x = x0;
    for (size_t l = 0; l < layers; l++) {
        if (l >= encoder && top && r->unet_skips) {
            size_t row = l - encoder;
            x = graph_combine(g, x, GRAPH_NONE, pushed[--top], skip + (ptrdiff_t)(row * dim), 1,
                              NULL);
        }
        x = block(m, g, l, x, x0);
        if (l < encoder)
            pushed[top++] = x;
    }
    graph_combine(g, x, GRAPH_NONE, GRAPH_NONE, GRAPH_NONE, 1, &h);
    graph_head(g, h, at(m, ROOT, r->tie_embeddings ? "tok_emb.weight" : "lm_head.weight"), vocab,
               dim, (float)r->logit_softcap);
    free(pushed);
    return ERR_OK;
}
