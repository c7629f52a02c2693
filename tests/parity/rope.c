/* rope.c - fixtures of KIND "rope": tables of cos and sin, as a planned graph has them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/parity/parity.h"

struct table {
    size_t t, dims, train_len; /* train_len 0: never rescaled */
    double tol;
};

/* What the name of a table says about it; the sizes are in the metadata. */
static struct table table_of(const struct check *c, const char *name)
{
    bool ntk = strstr(name, "_ntk") != NULL;
    struct table t = {.tol = 1e-6};
    const char *at;
    t.t = (size_t)meta_num(c, ntk ? "NTK_T" : "T", 0);
    t.train_len = (size_t)meta_num(c, ntk ? "NTK_TRAIN_SEQ_LEN" : "TRAIN_SEQ_LEN", 0);
    t.dims = (size_t)meta_num(c, strstr(name, "partial") ? "ROPE_DIMS_PARTIAL" : "HEAD_DIM", 0);
    if (!strncmp(name, "record_", 7)) {
        t.t = (size_t)meta_num(c, "RECORD_T", 0);
        t.dims = (size_t)meta_num(c, "RECORD_ROPE_DIMS", 0);
        t.train_len = (at = strstr(name, "_train")) ? strtoul(at + 6, NULL, 10) : 0;
        t.tol = 3e-4;
    }
    if (strstr(name, "baseline"))
        t.train_len = 0;
    return t;
}

static void compare_one(struct check *c, struct group *g, const float *table, size_t half,
                        size_t rows, const struct tensor_view *pos, const char *name,
                        const char *which, double tol)
{
    const struct tensor_view *want = need(c, rows * half, "out.%s.%s", name, which);
    float *x = parity_alloc(rows * half, sizeof *x);
    for (size_t i = 0; i < rows; i++)
        memcpy(x + i * half, table + (pos ? (size_t)tensor_at(pos, i) : i) * half,
               half * sizeof *x);
    if (want)
        group_floats(c, g, x, rows * half, want, tol);
    free(x);
}

/* Rows `pos` of a table (NULL: all) out of the smallest graph that has one. */
static void compare_table(struct check *c, struct group *g, const char *name,
                          const struct tensor_view *pos)
{
    struct table t = table_of(c, name);
    struct graph graph;
    struct err e = {0};
    if (!t.t || !t.dims || t.dims % 2 || t.t > 1 << 20) {
        check_fail(c, "%s: no sizes in the metadata", name);
        return;
    }
    for (size_t i = 0; pos && i < tensor_elems(pos); i++)
        if (!(tensor_at(pos, i) >= 0 && tensor_at(pos, i) < (double)t.t)) {
            check_fail(c, "%s[%zu]: no position of %zu", pos->name, i, t.t);
            return;
        }
    graph_init(&graph);
    graph.head_dim = t.dims;
    graph.rope_dims = t.dims;
    graph.rope_base = meta_num(c, "ROPE_BASE", 10000);
    graph.rope_train_len = t.train_len;
    graph_head(&graph, graph_qk(&graph, graph_embed(&graph, 0, 2, t.dims), GRAPH_NONE, 1), 0, 2,
               t.dims, 0);
    if (graph_plan(&graph, c->k, 1, t.t, 0, false, &e)) {
        check_fail(c, "%s", e.msg);
    } else {
        size_t half = t.dims / 2, bytes = t.t * half * sizeof(float);
        size_t rows = pos ? tensor_elems(pos) : t.t;
        float *table = parity_alloc(t.t * half, sizeof *table);
        c->k->download(c->k, table, graph.cos, bytes);
        compare_one(c, g, table, half, rows, pos, name, "cos", t.tol);
        c->k->download(c->k, table, graph.sin, bytes);
        compare_one(c, g, table, half, rows, pos, name, "sin", t.tol);
        free(table);
    }
    graph_free(&graph);
}

void parity_rope(struct check *c)
{
    struct group near = {.what = "tables"}, far = {.what = "record tables"};
    size_t bf16 = 0;
    for (size_t i = 0; i < c->st.count; i++) {
        char name[96];
        if (!name_part(c->st.tensor[i].name, "out.", ".cos", name, sizeof name))
            continue;
        if (strstr(name, "bf16"))
            bf16++;
        else if (!strncmp(name, "record_", 7))
            compare_table(c, &far, name, need(c, 1, "input.record_positions"));
        else
            compare_table(c, &near, name, NULL);
    }
    group_end(c, &near);
    group_end(c, &far);
    if (bf16)
        check_skipped(c, "%zu tables from bf16 frequencies", bf16);
}
