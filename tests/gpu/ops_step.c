/*
 * ops_step.c - a step of training by graph_train: is it the CPU's, and is what is played from a
 * tape bit by bit what is queued operation by operation? The parameters lie as in a model: behind
 * single numbers, so that no matrix begins on a multiple of 16 bytes. And what such a step needs
 * besides: uploads whose source changes at once, sums that stay on the device, copies.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/graph.h"
#include "tests/gpu/ops.h"

enum { BATCH = 2, T = 70, DIM = 48, HEADS = 3, KV = 1, HIDDEN = 72, VOCAB = 61, ROWS = BATCH * T };
enum { MICROS = 4, STEPS = 2 };

/* Offsets of the parameters: single numbers first, then vectors and matrices. */
enum {
    SCALE = 0,
    GAIN = SCALE + 2,
    MIX = GAIN + HEADS,
    EMBED = MIX + DIM,
    WQ = EMBED + VOCAB * DIM,
    WK = WQ + DIM * DIM,
    WV = WK + KV * DIM / HEADS * DIM,
    WO = WV + KV * DIM / HEADS * DIM,
    UP = WO + DIM * DIM,
    DOWN = UP + HIDDEN * DIM,
    FLOATS = DOWN + DIM * HIDDEN
};

/* Two blocks of a model with attention and MLP, which share their weights; one with XSA, one with a
 * value embedding. */
static void build(struct graph *g, size_t rope_dims)
{
    int norm, y, q, key, v, e;
    graph_init(g);
    g->head_dim = DIM / HEADS;
    g->rope_dims = rope_dims;
    g->rope_base = 10000;
    g->eps = 1e-6f;
    int x = graph_embed(g, EMBED, VOCAB, DIM);
    struct graph_pair c = graph_coef(g, COEF_SCALE, DIM, 0.7f, SCALE, SCALE + 1, (ptrdiff_t)MIX);
    e = graph_linear(g, x, WV, KV * DIM / HEADS, DIM);
    for (int b = 0; b < 2; b++) {
        x = graph_combine(g, x, b ? (ptrdiff_t)MIX : GRAPH_NONE, GRAPH_NONE, GRAPH_NONE, 1.0f,
                          &norm);
        q = graph_linear(g, norm, WQ, DIM, DIM);
        key = graph_linear(g, norm, WK, KV * DIM / HEADS, DIM);
        v = graph_linear(g, norm, WV, KV * DIM / HEADS, DIM);
        q = graph_qk(g, q, GAIN, HEADS);
        key = graph_qk(g, key, GRAPH_NONE, KV);
        if (b)
            v = graph_combine(g, v, GRAPH_NONE, e, MIX, 1.0f, NULL);
        y = graph_attn(g, q, key, v, HEADS, KV, 0.25f);
        y = graph_linear(g, b ? y : graph_xsa(g, y, v, HEADS, KV), WO, DIM, DIM);
        x = graph_combine(g, x, GRAPH_NONE, y, c.c0, 1.0f, &norm);
        y = graph_linear_act(g, norm, UP, HIDDEN, DIM, 0.5f);
        y = graph_linear(g, y, DOWN, DIM, HIDDEN);
        x = graph_combine(g, x, GRAPH_NONE, y, GRAPH_NONE, 1.0f, &norm);
    }
    graph_head(g, norm, EMBED, VOCAB, DIM, 15.0f);
}

static void nothing(void *ctx, size_t nodes)
{
    (void)ctx;
    (void)nodes;
}

struct side {
    struct kern *k;
    struct graph g;
    float *params, *grads;
    double *loss; /* backend memory, [MICROS] */
};

static void side_open(struct ops *o, struct side *s, struct kern *k, const float *params,
                      size_t rope_dims, bool one_by_one)
{
    struct err e = {0};
    s->k = k;
    build(&s->g, rope_dims);
    s->params = k->alloc(k, FLOATS * sizeof(float));
    s->grads = k->alloc(k, FLOATS * sizeof(float));
    s->loss = k->alloc(k, MICROS * sizeof(double));
    if (graph_plan(&s->g, k, BATCH, T, 0, true, &e) || !s->params || !s->grads || !s->loss) {
        printf("FAILED  %-44s no memory: %s\n", o->what, e.msg);
        exit(ERR_RESOURCE);
    }
    s->g.done = one_by_one ? nothing : NULL;
    k->upload(k, s->params, params, FLOATS * sizeof(float));
}

static void side_close(struct side *s)
{
    graph_free(&s->g);
    s->k->free(s->k, s->params);
    s->k->free(s->k, s->grads);
    s->k->free(s->k, s->loss);
}

/* Two steps; the second with other weights, which whoever remembers the first ones would miss. */
static void side_run(struct side *s, const uint16_t *tok)
{
    struct kern *k = s->k;
    for (int step = 0; step < STEPS; step++) {
        k->zero(k, s->grads, FLOATS * sizeof(float));
        if (k->hold)
            k->hold(k, s->params, FLOATS);
        for (size_t i = 0; i < MICROS; i++) {
            uint16_t mine[ROWS + 1]; /* it may go as soon as graph_train returns */
            memcpy(mine, tok + i * ROWS, sizeof mine);
            graph_train(&s->g, s->params, mine, mine + 1, s->grads, 0.125f, s->loss + i);
            memset(mine, 0xff, sizeof mine);
        }
        if (k->hold)
            k->hold(k, NULL, 0);
        if (step + 1 < STEPS)
            k->axpby(k, s->params, s->params, FLOATS, 0.7f, 0.0f);
    }
}

/* Bytes that are somewhere else than they should be would be seen: 251 is prime. */
static void uploads(struct ops *o)
{
    static const size_t sizes[] = {1, 3, 1000, (1 << 20) - 1, 1 << 20, (9 << 20) + 5};
    enum { MOST = (9 << 20) + 5 };
    struct kern *k = o->k[TESTED];
    uint8_t *host = malloc(2 * MOST), *back = host + MOST;
    void *there[2] = {k->alloc(k, MOST), k->alloc(k, MOST)};
    bool good = true;
    if (!host || !there[0] || !there[1])
        exit(ERR_RESOURCE);
    for (size_t c = 0; c < sizeof sizes / sizeof sizes[0]; c++) {
        size_t n = sizes[c];
        for (size_t i = 0; i < n; i++)
            host[i] = (uint8_t)((i + c) % 251);
        k->upload(k, there[0], host, n);
        memset(host, 0xee, n);
        k->copy(k, there[1], there[0], n);
        k->download(k, back, there[1], n);
        for (size_t i = 0; i < n; i++)
            good &= back[i] == (i + c) % 251;
    }
    ops_verdict(o, "arrive as they were when upload was called", good);
    k->free(k, there[0]);
    k->free(k, there[1]);
    free(host);
}

static void sums(struct ops *o)
{
    static const size_t sizes[] = {0, 1, 31, 257, 300001};
    bool good = true;
    for (size_t c = 0; c < sizeof sizes / sizeof sizes[0]; c++) {
        struct arr x = ops_input(o, sizes[c], 1);
        double sum[SIDES][2];
        BOTH(o, {
            double *there = k->alloc(k, sizeof sum[s]);
            k->sum_into(k, there, F(x), x.n);
            k->sumsq_into(k, there + 1, F(x), x.n);
            k->download(k, sum[s], there, sizeof sum[s]);
            k->free(k, there);
        })
        for (int i = 0; i < 2; i++)
            good &= fabs(sum[TESTED][i] - sum[REFERENCE][i]) <= 1e-12 * sum[REFERENCE][1];
    }
    ops_verdict(o, "the CPU's to 1e-12 of the sum of squares", good);
}

static void steps(struct ops *o, size_t rope_dims)
{
    struct side s[3]; /* the CPU, the device by tape, the device one by one */
    uint16_t tok[MICROS * ROWS + 1];
    float *host = malloc(3 * FLOATS * sizeof *host);
    double loss[3][MICROS];
    if (!host)
        exit(ERR_RESOURCE);
    struct arr w = ops_input(o, FLOATS, 0.3f), ids = ops_ids(o, MICROS * ROWS + 1, VOCAB);
    struct arr grads = {.n = FLOATS};
    struct kern *cpu = o->k[REFERENCE];
    cpu->download(cpu, host, w.p[REFERENCE], FLOATS * sizeof(float));
    cpu->download(cpu, tok, ids.p[REFERENCE], sizeof tok);
    for (int i = 0; i < 3; i++) {
        side_open(o, &s[i], o->k[i ? TESTED : REFERENCE], host, rope_dims, i == 2);
        side_run(&s[i], tok);
        s[i].k->download(s[i].k, loss[i], s[i].loss, sizeof loss[i]);
    }
    grads.p[REFERENCE] = s[0].grads;
    grads.p[TESTED] = s[1].grads;
    ops_check(o, "grads", grads, 3e-2);
    double most = 0;
    for (int i = 0; i < MICROS; i++)
        most = fmax(most, fabs(loss[1][i] / loss[0][i] - 1));
    ops_verdict(o, "losses are the CPU's to 0.3 %", most < 3e-3);
    for (int i = 1; i < 3; i++)
        s[i].k->download(s[i].k, host + i * FLOATS, s[i].grads, FLOATS * sizeof(float));
    ops_verdict(o, "played and one by one: the same bits",
                !memcmp(host + FLOATS, host + 2 * FLOATS, FLOATS * sizeof(float)) &&
                    !memcmp(loss[1], loss[2], sizeof loss[1]));
    size_t joins = 0;
    for (size_t i = 0; i < s[1].g.nodes; i++)
        joins += s[1].g.node[i].join == JOIN_FIRST;
    ops_verdict(o, "one product for q, k, v where there is no value embedding",
                joins == (o->k[TESTED]->joins && rope_dims == 16));
    if (o->k[TESTED]->record)
        ops_verdict(o, "all but the first were played",
                    s[1].g.played == STEPS * MICROS - 1 && s[2].g.played == 0);
    for (int i = 0; i < 3; i++)
        side_close(&s[i]);
    free(host);
}

void ops_step(struct ops *o)
{
    ops_case(o, "uploads");
    uploads(o);
    ops_case(o, "sums that stay on the device");
    sums(o);
    ops_case(o, "two steps by graph_train");
    steps(o, 16);
    ops_case(o, "two steps, heads that are no half values");
    steps(o, 8);
}
