/*
 * graph.h - a static graph of operations on rows of activations: built once from a recipe, planned
 * for a shape, then executed forward and backward without allocating.
 *
 * Activations are values: width floats per row, one row per position of every sequence. A graph is
 * built by appending nodes (graph_embed, graph_linear, ...) in execution order; each call returns
 * the number of the value that it makes. Parameters are offsets, in floats, into one block that the
 * model owns; gradients live at the same offsets of a second block.
 *
 * Planning for scoring drops everything that only the backward needs and reuses memory as soon as a
 * value is dead. It also prunes exactly: when only the last rows of each window are scored, every
 * operation whose result reaches the loss through those rows alone runs on those rows alone (in the
 * last layer: queries, attention, projections, MLP, head; keys and values stay complete).
 * Operations are row-wise and bit-exact per row, so scores keep their bits.
 *
 * Planning for training keeps what the backward reads and gives each activation gradient a place
 * for the time between its first and last use.
 */
#ifndef MODEL_GRAPH_H
#define MODEL_GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

enum graph_op {
    OP_EMBED,
    OP_COMBINE,
    OP_LINEAR,
    OP_LINEAR_ACT,
    OP_QK,
    OP_ATTN,
    OP_SHIFT,
    OP_XSA,
    OP_HEAD,
    OP_TAKE,
};

enum { GRAPH_NONE = -1, GRAPH_INS = 3, GRAPH_OUTS = 3 };

/* Linear nodes that graph_train carries out as one product: q, k, v (graph_join). */
enum graph_join { JOIN_NONE, JOIN_FIRST, JOIN_MIDDLE, JOIN_LAST };

struct graph_value {
    size_t width;   /* floats per row */
    bool saved;     /* exists for the backward only */
    bool tail;      /* planned on the scored rows only */
    bool keep;      /* training: read by the backward */
    int made, last; /* node that makes it, last node that reads it */
    ptrdiff_t at;   /* offset in floats in the activation block, or GRAPH_NONE */
    ptrdiff_t grad; /* the same for its gradient */
#ifndef RUNNER
    bool half, half_grad; /* graph_train stores it as bf16 (kern_linear), its gradient too */
    /* Where that is in rows [q|k|v]: their length, and offsets in the activation block in half
     * values, of the first of its columns and of its gradient's. row is 0 elsewhere. */
    size_t row;
    ptrdiff_t joined, joined_grad;
    bool grad_g; /* result of an activation: what is stored is the gradient before it */
#endif
};

struct graph_node {
    enum graph_op op;
    int in[GRAPH_INS], out[GRAPH_OUTS];
    ptrdiff_t p[2];     /* parameter offsets, coefficient references or GRAPH_NONE */
    size_t n_out, n_in; /* linear: shape; embed, head: vocab, dim; qk, attn, xsa: heads, kv_heads */
    bool hashed;        /* embed: rows by bigram hash instead of token */
    float f;            /* norm gain, slope, soft cap or attention scale */
    bool tail;          /* runs on the scored rows only */
    bool add[GRAPH_INS]; /* backward: the gradient of this input exists already, add to it */
    bool dead;           /* nothing that matters reads its outputs */
#ifndef RUNNER
    bool pair; /* graph_train carries it out in one pass with the node behind it (combine_pair) */
    enum graph_join join;
#endif
};

/* Tokens of one run, backend memory: what embeddings look up, [batch*t] each, the second with a
 * bigram table only; and the targets of the scored rows. */
struct graph_tokens {
    uint16_t *ids, *hashed, *target;
};

/* Coefficient vectors that are computed from parameters (kern_coef) before each run. A combine
 * takes one where it takes a parameter vector: references are numbers below GRAPH_NONE. */
struct graph_coef {
    enum coef_kind kind;
    size_t dim;
    float f;
    ptrdiff_t p0, p1, w; /* parameter offsets or GRAPH_NONE */
    ptrdiff_t c[2];      /* references; c[1] is GRAPH_NONE for COEF_SCALE */
};

struct graph {
    struct graph_node *node;
    struct graph_value *value;
    struct graph_coef *coef;
    size_t nodes, values, coefs, node_cap, value_cap, coef_cap;
    size_t coef_floats;
    size_t hash_rows; /* rows of the bigram table, 0: none */
    size_t head_dim, rope_dims;
    double rope_base;      /* before any rescaling */
    size_t rope_train_len; /* beyond it the base is rescaled; 0: never */
    float eps;
    bool failed; /* out of memory while building: graph_plan reports it */
    /* plan */
    bool training;
    size_t batch, t, from;
    size_t floats; /* size of the activation block */
    struct kern *k;
    float *block, *cos, *sin;
    float *coef_val, *coef_grad;     /* [coef_floats] each; the second when training */
    uint16_t *ids, *hashed, *target; /* backend memory: [batch*t] twice, [batch*(t-from)] */
    uint16_t *host_hashed;           /* [batch*t] */
    int nll;                         /* value of the loss per scored row */
    /* Called in graph_backward for every linear node before its own gradients: dy [rows][n_out] is
     * the gradient of x W^T, w the weight's offset. For quantisers that weigh output rows. */
    void (*tap)(void *ctx, ptrdiff_t w, const float *dy, size_t rows, size_t n_out);
    void *tap_ctx;
#ifndef RUNNER /* which does not train this way */
    /* Called in graph_backward behind every node with the number of nodes that it has passed, the
     * last of the list being number 1: what only those write to grads is complete then. What
     * coefficients write is complete when graph_backward is. */
    void (*done)(void *ctx, size_t nodes);
    void *done_ctx;
    struct graph_tape {
        struct kern_tape *tape; /* of graph_train with these arguments, or NULL */
        const float *params;    /* of its last call */
        float *grads, gscale;
    } tape;
    size_t trained,
        played;       /* calls of graph_train and graph_train_staged; those played from the tape */
    double forward_s; /* wall time of the forward of the last call, 0 when it was played */
    bool lean;        /* a scoring plan with half values: k has them */
    bool whole; /* graph_train is at work: with half values, the head forward and backward at once.
                   Or graph_forward of a lean plan */
#endif
};

void graph_init(struct graph *g);
void graph_free(struct graph *g); /* the plan's memory as well; accepts a zeroed graph */

/* Builders, one per operation (kernels.h defines the mathematics). Parameters are offsets in
 * floats. */
int graph_embed(struct graph *g, ptrdiff_t table, size_t vocab, size_t dim);
/* graph_bigram - as graph_embed, rows chosen by a hash of token and previous token: position 0 of a
 * sequence takes row vocab-1, the others (36313*x_t XOR 27191*x_{t-1}) mod (vocab-1) in 32-bit
 * arithmetic (BigramHash, #549). One table per graph. */
int graph_bigram(struct graph *g, ptrdiff_t table, size_t vocab, size_t dim);
/* graph_coef - references to the vectors of a kern_coef, for graph_combine. p0, p1, w: parameter
 * offsets or GRAPH_NONE. c1 of the result is GRAPH_NONE for COEF_SCALE. */
struct graph_pair {
    ptrdiff_t c0, c1;
};
struct graph_pair graph_coef(struct graph *g, enum coef_kind kind, size_t dim, float f,
                             ptrdiff_t p0, ptrdiff_t p1, ptrdiff_t w);
/* graph_shift - the row before, zeros at position 0. */
int graph_shift(struct graph *g, int x);
/* graph_xsa - attention output o without its component along v. */
int graph_xsa(struct graph *g, int o, int v, size_t heads, size_t kv_heads);
/* y = c0*x0 + c1*x1 and, when norm is not NULL, *norm = gain * rms(y). x1, c0, c1 may be
 * GRAPH_NONE. */
int graph_combine(struct graph *g, int x0, ptrdiff_t c0, int x1, ptrdiff_t c1, float gain,
                  int *norm);
int graph_linear(struct graph *g, int x, ptrdiff_t w, size_t n_out, size_t n_in);
int graph_linear_act(struct graph *g, int x, ptrdiff_t w, size_t n_out, size_t n_in, float slope);
int graph_qk(struct graph *g, int x, ptrdiff_t gain, size_t heads);
int graph_attn(struct graph *g, int q, int k, int v, size_t heads, size_t kv_heads, float scale);
void graph_head(struct graph *g, int h, ptrdiff_t w, size_t vocab, size_t dim, float cap);

/*
 * graph_plan - fix a shape, lay out memory and allocate it from k.
 *
 *   batch     sequences per run
 *   t         positions per sequence
 *   from      first scored position of each sequence (0 when training)
 *   training  plan for graph_backward as well
 *
 * A graph is planned once; build another one for another shape. ERR_RESOURCE when memory is short,
 * with the size in it; graph_free then releases what was allocated.
 */
enum err_code graph_plan(struct graph *g, struct kern *k, size_t batch, size_t t, size_t from,
                         bool training, struct err *e);

/*
 * graph_forward - nll of the scored rows.
 *
 *   params  backend memory, the whole parameter block
 *   ids     host, [batch][t]; target host, [batch][t - from]: targets of the scored positions
 *   nll     host, [batch][t - from], nats; NULL leaves them in the graph
 *
 * With target NULL the head is left out, and nll must be NULL: see graph_hidden.
 * Fails only for device reasons. Waits for the result when nll is not NULL.
 */
enum err_code graph_forward(struct graph *g, const float *params, const uint16_t *ids,
                            const uint16_t *target, float *nll, struct err *e);

/* graph_backward - after graph_forward with the same params: grads += gscale * d(sum of nll)/d
 * params. */
void graph_backward(struct graph *g, const float *params, float *grads, float gscale);

#ifndef RUNNER
/*
 * graph_train - graph_forward, graph_backward and the sum of the losses, without waiting.
 *
 *   ids, target  host, as for graph_forward; free for other use on return
 *   grads        += gscale * d(sum of nll)/d params
 *   loss         backend memory: becomes the sum of nll in double (kern sum_into)
 *
 * What fails is reported by the next k->sync. Where the backend has tapes (kernels.h), the second
 * call with the same params, grads and gscale is recorded and every further one played, unless tap
 * or done want to look on. The results are the same.
 *
 * A backend may keep values as bf16 (graph_halves), unless tap looks on; graph_read and graph_input
 * are for values of graph_forward.
 */
void graph_train(struct graph *g, const float *params, const uint16_t *ids, const uint16_t *target,
                 float *grads, float gscale, double *loss);
#endif

#ifndef RUNNER
/* graph_stage - tokens for graph_train_staged, from the host. `to` is the caller's. */
void graph_stage(struct graph *g, const struct graph_tokens *to, const uint16_t *ids,
                 const uint16_t *target);
/* graph_train_staged - graph_train with tokens that are in backend memory, always operation by
 * operation: a caller may put it on a tape of its own. */
void graph_train_staged(struct graph *g, const float *params, const struct graph_tokens *from,
                        float *grads, float gscale, double *loss);

/* For graph_train.c: the tokens of a run to where the graph has them; and forward and backward,
 * with half values unless tap looks on, operation by operation. */
void graph_tokens_in(struct graph *g, const uint16_t *ids, const uint16_t *target);
void graph_carry_out(struct graph *g, const float *params, float *grads, float gscale);
#endif

#ifndef RUNNER
/*
 * graph_pairs - which combines graph_train carries out two at a time, if the backend can: part of
 * the plan of a training run. graph_forward and graph_backward run them one by one.
 *
 * graph_halves - which values graph_train, or graph_forward of a scoring plan, stores as bf16, if
 * the backend has half values: norms and the hidden layers of MLPs, what linear layers add to the
 * stream, and what is between the linear layers of an attention layer; in training also the
 * residual stream with the embedding that it begins with and what the head reads, and the gradients
 * of all these, unless they are added to more than twice. What a shift reads or makes is fp32.
 * And which results of an activation one linear layer alone reads: that one's backward makes what
 * the activation's needs (kern_linear, x_f). Called by the first graph_train, and by graph_plan for
 * scoring.
 */
void graph_pairs(struct graph *g);
void graph_halves(struct graph *g);

/*
 * One product for q, k and v of an attention layer in graph_train (graph_join.c), where the backend
 * `joins`: x is read once for all, and so is what comes back; dx is written once instead of being
 * added to twice. The result is a value of rows [q|k|v], and so is its gradient.
 *
 * graph_join_plan - which nodes it may concern: three linear nodes that follow one another and read
 * the same rows. Their values get places side by side, so that rows of all three fit there, and as
 * many of gradients. Part of graph_plan.
 * graph_join - behind graph_halves: which of these it does concern, because q, k and v are half
 * values, with their gradients, that only norms and attention (XSA too) read.
 * graph_join_args - what the product of three, the first of which is n, has beside that node's own
 * arguments: its width, and the other weights, with grads also where their gradients are.
 */
void graph_join_plan(struct graph *g);
void graph_join(struct graph *g);
void graph_join_args(const struct graph *g, const struct graph_node *n, const float *params,
                     float *grads, struct kern_linear *a);
#endif

/* graph_hidden - what the head of the last forward read: the final norm at the scored rows,
 * [batch*(t-from)][dim] in backend memory. Valid until the next graph_forward. */
const float *graph_hidden(const struct graph *g);

/*
 * graph_input - input rows of a linear node in the last forward of a training plan (GPTQ's
 * Hessians). False for other nodes. Several nodes share w when blocks run twice, and x when they
 * read the same value.
 */
struct graph_input {
    ptrdiff_t w;    /* offset of the weight in the parameter block */
    const float *x; /* [rows][n_in], backend memory */
    size_t rows, n_in;
};
bool graph_input(const struct graph *g, size_t node, struct graph_input *in);

/* graph_read - copy a value's rows of the last forward to the host (tests, probes). */
void graph_read(struct graph *g, int value, float *out);

#endif
