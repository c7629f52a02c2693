/*
 * import_recipe.c - see import_layout.h: the recipe that names and shapes imply.
 *
 * Shapes give every width, and which parameters are there gives most switches. What leaves no trace
 * in the weights (exclusive self attention, rotary dimensions, softcap, recurrence, ...) keeps its
 * default, and that is said, because a model with another value there has another score.
 */
#include <math.h>
#include <string.h>

#include "packer/import_layout.h"

/* X, or X.q when it is quantised; NULL. */
static const struct found *look(const struct import *im, const char *name)
{
    const struct found *f = import_look(im, name, "");
    return f ? f : import_look(im, name, ".q");
}

/* Dimension i of a tensor; 0 when it has no such, or is not there. */
static size_t dim(const struct found *f, size_t i)
{
    return f && i < f->view.ndim ? f->view.shape[i] : 0;
}

/* One more than the highest number behind prefix: "blocks.10.mlp..." makes 11. */
static size_t count_numbered(const struct import *im, const char *prefix)
{
    size_t n = 0, len = strlen(prefix);
    for (size_t i = 0; i < im->count; i++) {
        size_t v = 0, digits = 0;
        const char *at = im->found[i].name;
        if (strncmp(at, prefix, len))
            continue;
        for (at += len; *at >= '0' && *at <= '9' && digits < 6; at++, digits++)
            v = 10 * v + (size_t)(*at - '0');
        if (digits && v + 1 > n)
            n = v + 1;
    }
    return n;
}

static void sizes(struct import *im, const struct found *table)
{
    struct recipe *r = im->r;
    const struct found *gain = look(im, "blocks.0.attn.q_gain"), *up = look(im, "mlp_up_bank");
    const struct found *fc = look(im, "blocks.0.mlp.fc.weight"), *kv = look(im, "kv_bank");
    const struct found *k = look(im, "blocks.0.attn.c_k.weight");
    size_t width = dim(table, 1), layers = count_numbered(im, "blocks.");
    size_t hidden = up ? dim(up, 1) : dim(fc, 0), keys = kv ? dim(kv, 1) : dim(k, 0), heads, head;
    if (dim(up, 0) > layers)
        layers = dim(up, 0);
    r->vocab_size = (int64_t)dim(table, 0);
    r->model_dim = (int64_t)width;
    if (layers)
        r->num_layers = (int64_t)layers;
    heads = dim(gain, 0);
    if (heads)
        r->num_heads = (int64_t)heads;
    else if (width % 64 == 0)
        r->num_heads = (int64_t)(width / 64);
    im->heads_told = heads;
    head = width / (size_t)r->num_heads;
    if (head && keys)
        r->num_kv_heads = (int64_t)(keys / head);
    if (hidden && width) { /* the product must give the width back: recipe_hidden */
        r->mlp_mult = (double)hidden / (double)width;
        while ((size_t)(r->mlp_mult * (double)width) < hidden)
            r->mlp_mult = nextafter(r->mlp_mult, INFINITY);
    }
}

/* Which blocks have them is not in the file; in the records it is the last ones. */
static void value_embeddings(struct import *im)
{
    struct recipe *r = im->r;
    const struct found *ve = look(im, "ve_shared.embed.weight");
    size_t n = count_numbered(im, "ve_layer_scales."), layers = (size_t)r->num_layers, at = 0;
    if (!ve || !n || n > layers)
        return;
    r->ve_enabled = 1;
    r->ve_dim = (int64_t)dim(ve, 1);
    for (size_t l = layers - n; l < layers && at + 8 < sizeof r->ve_layers; l++)
        at += (size_t)snprintf(r->ve_layers + at, sizeof r->ve_layers - at, "%s%zu", at ? "," : "",
                               l);
}

static void switches(struct import *im)
{
    struct recipe *r = im->r;
    const struct found *bigram = look(im, "bigram.embed.weight");
    r->tie_embeddings = !look(im, "lm_head.weight");
    r->unet_skips = r->num_layers < 2 || look(im, "skip_weights");
    r->skip_gates_enabled = look(im, "skip_gates") != NULL;
    r->smear_gate = look(im, "smear.gate") != NULL;
    if (bigram) {
        r->bigram_vocab_size = (int64_t)dim(bigram, 0);
        r->bigram_dim = (int64_t)dim(bigram, 1);
    }
    if (look(im, "lane_merge"))
        strcpy(r->parallel_lanes, "merge");
    else if (look(im, "parallel_post_lambdas"))
        strcpy(r->parallel_lanes, "cross");
    if (strcmp(r->parallel_lanes, "off") && r->parallel_start_layer >= r->num_layers)
        r->parallel_start_layer = r->num_layers / 2;
    value_embeddings(im);
}

/* Bits, compressor and shuffle, so that export writes such a file again. */
static void packing(struct import *im, const struct found *table)
{
    struct recipe *r = im->r;
    size_t fewest = 9, most = 0;
    for (size_t i = 0; i < im->count; i++) {
        const struct found *f = &im->found[i];
        size_t bits = strncmp(f->type, "int", 3) ? 0 : (size_t)(f->type[3] - '0');
        if (!bits || f == table)
            continue;
        if (strcmp(f->name, "lm_head.weight.q") && !strstr(f->name, ".embed.")) {
            fewest = bits < fewest ? bits : fewest;
            most = bits > most ? bits : most;
        }
    }
    if (most)
        r->quant_bits = (int64_t)most;
    if (!strncmp(table->type, "int", 3))
        r->quant_embed_bits = table->type[3] - '0';
    r->mixed_quant = most == 6 && fewest == 5;
    if (im->gptq)
        strcpy(r->quant_method, "gptq");
    if (!strcmp(im->rep->layout, "records") || im->bf16) /* the scripts of both do so */
        r->embed_bf16 = 1;
    if (im->p->layers.codec > PTZ_RAW && im->p->layers.codec < PTZ_CODECS)
        strcpy(r->compressor, ptz_codec_name(im->p->layers.codec));
    r->byte_shuffle = im->p->layers.stride;
}

enum err_code import_derive(struct import *im, struct err *e)
{
    const struct found *table = look(im, "tok_emb.weight");
    if (dim(table, 0) == 0 || dim(table, 1) == 0 || table->view.ndim != 2)
        return err_set(e, ERR_INPUT,
                       "%s: no matrix tok_emb.weight among %zu tensors, so no model of this "
                       "project (each is listed)",
                       im->p->path, im->count);
    sizes(im, table);
    switches(im);
    packing(im, table);
    return ERR_OK;
}

void import_describe(struct import *im)
{
    const struct recipe *r = im->r;
    import_note(im,
                "recipe: VOCAB_SIZE=%lld NUM_LAYERS=%lld MODEL_DIM=%lld NUM_HEADS=%lld "
                "NUM_KV_HEADS=%lld MLP_MULT=%g",
                (long long)r->vocab_size, (long long)r->num_layers, (long long)r->model_dim,
                (long long)r->num_heads, (long long)r->num_kv_heads, r->mlp_mult);
    import_note(im,
                "recipe: TIE_EMBEDDINGS=%lld UNET_SKIPS=%lld SKIP_GATES_ENABLED=%lld "
                "SMEAR_GATE=%lld BIGRAM_VOCAB_SIZE=%lld VE_ENABLED=%lld PARALLEL_LANES=%s",
                (long long)r->tie_embeddings, (long long)r->unet_skips,
                (long long)r->skip_gates_enabled, (long long)r->smear_gate,
                (long long)r->bigram_vocab_size, (long long)r->ve_enabled, r->parallel_lanes);
    import_note(im,
                "not in the file, defaults unless set: XSA_LAST_N=%lld ROPE_DIMS=%lld ROPE_BASE=%g "
                "LN_SCALE=%lld LOGIT_SOFTCAP=%g MLP_SLOPE=%g",
                (long long)r->xsa_last_n, (long long)r->rope_dims, r->rope_base,
                (long long)r->ln_scale, r->logit_softcap, r->mlp_slope);
    import_note(im,
                "not in the file, defaults unless set: RECUR_LAYERS=%.40s TRAIN_SEQ_LEN=%lld "
                "EMBED_BF16=%lld%s",
                *r->recur_layers ? r->recur_layers : "none", (long long)r->train_seq_len,
                (long long)r->embed_bf16, im->heads_told ? "" : " NUM_HEADS (heads of 64)");
    if (r->ve_enabled)
        import_note(im, "not in the file, the last blocks unless set: VE_LAYERS=%.60s",
                    r->ve_layers);
    if (strcmp(r->parallel_lanes, "off"))
        import_note(im, "not in the file, a default unless set: PARALLEL_START_LAYER=%lld",
                    (long long)r->parallel_start_layer);
}
