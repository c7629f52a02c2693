/*
 * attn_test.c - exists for the attention that is right at a multiple of its tile and wrong beside
 * it: a key too many at the diagonal, a head read from its neighbour, a query whose bits depend on
 * which other queries were asked for.
 */
#include "tests/unit/kern_ref.h"

struct shape {
    const char *name;
    size_t batch, tq, tk, q0, heads, kv_heads, head_dim;
    bool
        big; /* too slow for the portable kernels under a sanitizer: forward only, fewer backends */
};

static const struct shape cases[] = {
    {"one query, one key", 1, 1, 1, 0, 1, 1, 4, false},
    {"two", 2, 2, 2, 0, 2, 1, 6, false},
    {"below a block", 1, 44, 44, 0, 3, 3, 9, false},
    {"block less one", 1, 63, 63, 0, 2, 2, 16, false},
    {"block", 2, 64, 64, 0, 4, 2, 64, false},
    {"block and one", 1, 65, 65, 0, 4, 1, 16, false},
    {"two blocks and two", 1, 130, 130, 0, 2, 1, 64, false},
    {"wide heads", 1, 70, 70, 0, 2, 1, 128, false},
    {"last queries", 1, 5, 130, 125, 4, 2, 16, false},
    {"middle queries", 2, 37, 130, 50, 2, 1, 9, false},
    {"keys behind the last query", 1, 10, 80, 3, 1, 1, 4, false},
    {"scored end of a window", 1, 64, 1024, 960, 2, 1, 64, true},
    {"a window", 1, 1024, 1024, 0, 1, 1, 64, true},
};

struct data {
    struct kern_attn a;
    size_t nq, nk, nl;
    float *q, *k, *v, *go;
};

static struct data make(const struct shape *s, struct ref_rng *g, double size)
{
    struct data d = {.a = {.batch = s->batch,
                           .tq = s->tq,
                           .tk = s->tk,
                           .q0 = s->q0,
                           .heads = s->heads,
                           .kv_heads = s->kv_heads,
                           .head_dim = s->head_dim}};
    d.nq = s->batch * s->tq * s->heads * s->head_dim;
    d.nk = s->batch * s->tk * s->kv_heads * s->head_dim;
    d.nl = s->batch * s->heads * s->tq;
    d.a.q = d.q = ref_random(g, d.nq, size);
    d.a.k = d.k = ref_random(g, d.nk, size);
    d.a.v = d.v = ref_random(g, d.nk, 1);
    d.a.do_ = d.go = ref_random(g, d.nq, 1);
    d.a.scale = (float)(1 / sqrt((double)s->head_dim));
    return d;
}

static void drop(struct data *d)
{
    free(d->q);
    free(d->k);
    free(d->v);
    free(d->go);
}

static void forward_is_right_everywhere(void **state)
{
    struct ref_rng g = ref_fresh(1);
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const char *name = cases[c].name;
        struct data d = make(&cases[c], &g, 2);
        double *q = ref_double(d.q, d.nq), *k = ref_double(d.k, d.nk), *v = ref_double(d.v, d.nk);
        double *want_o = ref_zeros(d.nq), *want_lse = ref_zeros(d.nl);
        float *first_o = NULL, *first_lse = NULL;
        ref_attn(want_o, want_lse, q, k, v, &d.a);
        for (size_t i = 0; i < REF_BACKENDS; i++) {
            struct kern *kern = cases[c].big && i < 3 ? NULL : ref_backend(i);
            if (!kern)
                continue;
            float *o = d.a.o = ref_poison(d.nq), *lse = d.a.lse = ref_poison(d.nl);
            kern->attn_fwd(kern, &d.a);
            ref_close(name, "o", o, want_o, d.nq, 4e-6);
            ref_close(name, "lse", lse, want_lse, d.nl, 1e-6);
            if (first_o) {
                ref_same(name, "o", o, first_o, d.nq);
                ref_same(name, "lse", lse, first_lse, d.nl);
                free(o);
                free(lse);
            } else {
                first_o = o;
                first_lse = lse;
            }
            kern_free(kern);
        }
        free(first_o);
        free(first_lse);
        free(want_o);
        free(want_lse);
        free(q);
        free(k);
        free(v);
        drop(&d);
    }
}

static void backward_is_right_everywhere(void **state)
{
    struct ref_rng g = ref_fresh(2);
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const char *name = cases[c].name;
        if (cases[c].big)
            continue;
        struct data d = make(&cases[c], &g, 1);
        double *q = ref_double(d.q, d.nq), *k = ref_double(d.k, d.nk), *v = ref_double(d.v, d.nk);
        double *go = ref_double(d.go, d.nq);
        double *want[3] = {ref_zeros(d.nq), ref_zeros(d.nk), ref_zeros(d.nk)};
        float *first[3] = {NULL, NULL, NULL};
        static const char *const what[3] = {"dq", "dk", "dv"};
        ref_attn_bwd(want[0], want[1], want[2], q, k, v, go, &d.a);
        for (size_t i = 0; i < REF_BACKENDS; i++) {
            struct kern *kern = ref_backend(i);
            if (!kern)
                continue;
            float *o = d.a.o = ref_poison(d.nq), *lse = d.a.lse = ref_poison(d.nl);
            kern->attn_fwd(kern, &d.a);
            float *got[3] = {ref_poison(d.nq), ref_poison(d.nk), ref_poison(d.nk)};
            d.a.dq = got[0];
            d.a.dk = got[1];
            d.a.dv = got[2];
            kern->attn_bwd(kern, &d.a);
            for (size_t t = 0; t < 3; t++) {
                size_t n = t == 0 ? d.nq : d.nk;
                ref_close(name, what[t], got[t], want[t], n, 1e-5);
                if (first[t]) {
                    ref_same(name, what[t], got[t], first[t], n);
                    free(got[t]);
                } else {
                    first[t] = got[t];
                }
            }
            free(o);
            free(lse);
            kern_free(kern);
        }
        for (size_t t = 0; t < 3; t++) {
            free(first[t]);
            free(want[t]);
        }
        free(q);
        free(k);
        free(v);
        free(go);
        drop(&d);
    }
}

/* One sequence of 150; its queries taken from q0 on must have the same bits, whatever q0, and
 * whatever keys follow the last of them. */
static void a_query_does_not_depend_on_the_others(void **state)
{
    static const struct {
        size_t q0, tq, tk;
    } part[] = {{149, 1, 150}, {0, 1, 150},   {50, 33, 83},
                {63, 2, 65},   {64, 86, 150}, {1, 130, 140}};
    const struct shape whole = {"whole", 1, 150, 150, 0, 4, 2, 20, false};
    struct ref_rng g = ref_fresh(3);
    struct data d = make(&whole, &g, 3);
    size_t row = d.a.heads * d.a.head_dim;
    (void)state;
    for (size_t i = 0; i < REF_BACKENDS; i += 3) {
        struct kern *kern = ref_backend(i);
        if (!kern)
            continue;
        float *all = ref_poison(d.nq);
        struct kern_attn a = d.a;
        a.o = all;
        kern->attn_fwd(kern, &a);
        for (size_t p = 0; p < sizeof part / sizeof *part; p++) {
            char name[64];
            snprintf(name, sizeof name, "%s: queries %zu + %zu of %zu keys", kern->name, part[p].q0,
                     part[p].tq, part[p].tk);
            size_t n = part[p].tq * row;
            float *o = ref_poison(n);
            a = d.a;
            a.q = d.q + part[p].q0 * row;
            a.o = o;
            a.q0 = part[p].q0;
            a.tq = part[p].tq;
            a.tk = part[p].tk;
            kern->attn_fwd(kern, &a);
            ref_same(name, "o", o, all + part[p].q0 * row, n);
            free(o);
        }
        free(all);
        kern_free(kern);
    }
    drop(&d);
}

/* A sequence in a batch has the bits that it has alone. */
static void a_sequence_does_not_depend_on_the_batch(void **state)
{
    const struct shape three = {"batch", 3, 70, 70, 0, 2, 1, 16, false};
    struct ref_rng g = ref_fresh(4);
    struct data d = make(&three, &g, 1);
    size_t nq = d.nq / 3, nk = d.nk / 3;
    (void)state;
    for (size_t i = 0; i < REF_BACKENDS; i++) {
        struct kern *kern = ref_backend(i);
        if (!kern)
            continue;
        float *all = ref_poison(d.nq), *one = ref_poison(nq);
        struct kern_attn a = d.a;
        a.o = all;
        kern->attn_fwd(kern, &a);
        a.batch = 1;
        a.q += 2 * nq;
        a.k += 2 * nk;
        a.v += 2 * nk;
        a.o = one;
        kern->attn_fwd(kern, &a);
        ref_same(kern->name, "third sequence", one, all + 2 * nq, nq);
        free(all);
        free(one);
        kern_free(kern);
    }
    drop(&d);
}

/* Scores far apart: probabilities underflow to 0, the running maximum jumps by more than exp can
 * hold, and nothing may become a NaN. */
static void far_scores_stay_finite(void **state)
{
    const struct shape s = {"far", 1, 200, 200, 0, 2, 1, 16, false};
    struct ref_rng g = ref_fresh(5);
    struct data d = make(&s, &g, 40);
    double *q = ref_double(d.q, d.nq), *k = ref_double(d.k, d.nk), *v = ref_double(d.v, d.nk);
    double *want = ref_zeros(d.nq), *lse = ref_zeros(d.nl);
    (void)state;
    ref_attn(want, lse, q, k, v, &d.a);
    for (size_t i = 0; i < REF_BACKENDS; i += 3) {
        struct kern *kern = ref_backend(i);
        if (!kern)
            continue;
        float *o = d.a.o = ref_poison(d.nq);
        kern->attn_fwd(kern, &d.a);
        ref_close(kern->name, "o", o, want, d.nq, 1e-3); /* scores of 1e4 have errors of 1e-3 */
        free(o);
        kern_free(kern);
    }
    free(q);
    free(k);
    free(v);
    free(want);
    free(lse);
    drop(&d);
}

/* NaN and infinity in every input: nothing is promised but an end. */
static void bad_numbers_come_to_an_end(void **state)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f};
    const struct shape s = {"bad", 1, 100, 100, 0, 2, 1, 8, false};
    struct ref_rng g = ref_fresh(6);
    (void)state;
    for (size_t i = 0; i < REF_BACKENDS; i += 3) {
        struct kern *kern = ref_backend(i);
        for (size_t b = 0; kern && b < 4; b++) {
            struct data d = make(&s, &g, 1);
            float *o = d.a.o = ref_poison(d.nq), *lse = d.a.lse = ref_poison(d.nl);
            float *dq = d.a.dq = ref_poison(d.nq), *dk = d.a.dk = ref_poison(d.nk);
            float *dv = d.a.dv = ref_poison(d.nk);
            d.q[50 * 16] = d.k[20 * 8] = d.v[30 * 8] = bad[b];
            kern->attn_fwd(kern, &d.a);
            kern->attn_bwd(kern, &d.a);
            free(o);
            free(lse);
            free(dq);
            free(dk);
            free(dv);
            drop(&d);
        }
        kern_free(kern);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_is_right_everywhere),
        cmocka_unit_test(backward_is_right_everywhere),
        cmocka_unit_test(a_query_does_not_depend_on_the_others),
        cmocka_unit_test(a_sequence_does_not_depend_on_the_batch),
        cmocka_unit_test(far_scores_stay_finite),
        cmocka_unit_test(bad_numbers_come_to_an_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
