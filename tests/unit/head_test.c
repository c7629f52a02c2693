/*
 * head_test.c - exists for the loss that is right on average and wrong at an edge: a target in the
 * last entry of a vocabulary that is no multiple of a vector, a row whose bits depend on its
 * neighbours, a sum of exponentials that overflows without the softcap.
 */
#include "tests/unit/kern_ref.h"

struct shape {
    const char *name;
    size_t rows, dim, vocab;
    float cap;
    double size; /* of h: sets how far apart the logits are */
};

static const struct shape cases[] = {
    {"smallest", 1, 4, 2, 30, 1},
    {"below a vector", 3, 24, 15, 30, 3},
    {"a vector", 2, 36, 16, 0, 1},
    {"odd", 44, 24, 17, 30, 5},
    {"block less one", 65, 36, 511, 5, 3},
    {"block and one", 7, 24, 513, 30, 3},
    {"many blocks", 130, 24, 1100, 30, 8},
    {"no cap, far apart", 33, 36, 1030, 0, 100},
    {"deep", 20, 512, 200, 30, 1},
    {"more than one chunk", 3, 512, 4200, 30, 1},
    {"largest vocabulary", 3, 4, 65536, 30, 8},
    {"more rows than a chunk", 1030, 4, 1026, 15, 2},
};

struct data {
    struct kern_head a;
    size_t nh, nw;
    float *h, *w, *dw;
    uint16_t *target;
};

static struct data make(const struct shape *s, struct ref_rng *g)
{
    struct data d = {
        .a = {.rows = s->rows, .dim = s->dim, .vocab = s->vocab, .cap = s->cap, .gscale = 0.37f},
        .nh = s->rows * s->dim,
        .nw = s->vocab * s->dim};
    d.a.h = d.h = ref_random(g, d.nh, s->size);
    d.a.w = d.w = ref_random(g, d.nw, 1);
    d.dw = ref_random(g, d.nw, 0.1);
    d.a.target = d.target = ref_ids(g, s->rows, s->vocab);
    d.target[0] = (uint16_t)(s->vocab - 1);
    d.target[s->rows - 1] = s->rows > 1 ? 0 : (uint16_t)(s->vocab - 1);
    return d;
}

static void drop(struct data *d)
{
    free(d->h);
    free(d->w);
    free(d->dw);
    free(d->target);
}

/* Compares with the reference, and keeps the first result to compare bits with. */
static void check(const char *name, const char *what, float *got, const double *want, float **first,
                  size_t n, double tol)
{
    ref_close(name, what, got, want, n, tol);
    if (!*first) {
        *first = got;
        return;
    }
    ref_same(name, what, got, *first, n);
    free(got);
}

static void forward_is_right_everywhere(void **state)
{
    struct ref_rng g = ref_fresh(11);
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct data d = make(&cases[c], &g);
        size_t rows = d.a.rows, nl = rows * d.a.vocab;
        double *h = ref_double(d.h, d.nh), *w = ref_double(d.w, d.nw);
        double *l = ref_zeros(nl), *nll = ref_zeros(rows), *lse = ref_zeros(rows);
        float *first[3] = {NULL, NULL, NULL};
        ref_head(nll, lse, l, h, w, &d.a);
        for (size_t i = 0; i < REF_BACKENDS; i++) {
            struct kern *k = ref_backend(i);
            if (!k)
                continue;
            float *got_l = ref_poison(nl);
            d.a.nll = ref_poison(rows);
            d.a.lse = ref_poison(rows);
            k->head_fwd(k, &d.a);
            k->head_logits(k, got_l, d.h, d.w, rows, d.a.dim, d.a.vocab, d.a.cap);
            check(cases[c].name, "nll", d.a.nll, nll, &first[0], rows, 5e-6);
            check(cases[c].name, "lse", d.a.lse, lse, &first[1], rows, 5e-6);
            check(cases[c].name, "logits", got_l, l, &first[2], nl, 5e-6);
            kern_free(k);
        }
        for (size_t i = 0; i < 3; i++)
            free(first[i]);
        free(h);
        free(w);
        free(l);
        free(nll);
        free(lse);
        drop(&d);
    }
}

static void backward_is_right_everywhere(void **state)
{
    struct ref_rng g = ref_fresh(12);
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct data d = make(&cases[c], &g);
        double *h = ref_double(d.h, d.nh), *w = ref_double(d.w, d.nw);
        double *dh = ref_zeros(d.nh), *dw = ref_double(d.dw, d.nw);
        float *first[2] = {NULL, NULL};
        ref_head_bwd(dh, dw, h, w, &d.a);
        for (size_t i = 0; i < REF_BACKENDS; i++) {
            struct kern *k = ref_backend(i);
            if (!k)
                continue;
            d.a.nll = ref_poison(d.a.rows);
            d.a.lse = ref_poison(d.a.rows);
            d.a.dh = ref_poison(d.nh);
            d.a.dw = ref_copy(d.dw, d.nw);
            k->head_fwd(k, &d.a);
            k->head_bwd(k, &d.a);
            check(cases[c].name, "dh", d.a.dh, dh, &first[0], d.nh, 1e-4);
            check(cases[c].name, "dw", d.a.dw, dw, &first[1], d.nw, 1e-4);
            free(d.a.nll);
            free(d.a.lse);
            kern_free(k);
        }
        free(first[0]);
        free(first[1]);
        free(h);
        free(w);
        free(dh);
        free(dw);
        drop(&d);
    }
}

/* Rows taken in pieces, as pruned scoring does, have the bits that they have together. */
static void a_row_does_not_depend_on_the_others(void **state)
{
    static const size_t from[] = {0, 1, 17, 64, 149, 150};
    const struct shape s = {"whole", 150, 36, 700, 30, 4};
    struct ref_rng g = ref_fresh(13);
    struct data d = make(&s, &g);
    (void)state;
    for (size_t i = 0; i < REF_BACKENDS; i++) {
        struct kern *k = ref_backend(i);
        if (!k)
            continue;
        float *all = d.a.nll = ref_poison(150), *part = ref_poison(150);
        d.a.lse = NULL;
        k->head_fwd(k, &d.a);
        for (size_t p = 0; p + 1 < sizeof from / sizeof *from; p++) {
            struct kern_head a = d.a;
            a.h += from[p] * a.dim;
            a.target += from[p];
            a.nll = part + from[p];
            a.rows = from[p + 1] - from[p];
            k->head_fwd(k, &a);
        }
        ref_same(k->name, "nll", part, all, 150);
        free(all);
        free(part);
        kern_free(k);
    }
    drop(&d);
}

/* Only one gradient wanted: the other pointer is NULL and the wanted one is the same. */
static void either_gradient_alone(void **state)
{
    const struct shape s = {"either", 40, 24, 100, 30, 4};
    struct ref_rng g = ref_fresh(14);
    struct data d = make(&s, &g);
    struct kern *k = ref_backend(1);
    (void)state;
    float *dh = ref_poison(d.nh), *dw = ref_copy(d.dw, d.nw);
    float *dh1 = ref_poison(d.nh), *dw1 = ref_copy(d.dw, d.nw);
    d.a.nll = ref_poison(d.a.rows);
    d.a.lse = ref_poison(d.a.rows);
    k->head_fwd(k, &d.a);
    d.a.dh = dh;
    d.a.dw = dw;
    k->head_bwd(k, &d.a);
    d.a.dh = dh1;
    d.a.dw = NULL;
    k->head_bwd(k, &d.a);
    d.a.dh = NULL;
    d.a.dw = dw1;
    k->head_bwd(k, &d.a);
    ref_same(s.name, "dh", dh1, dh, d.nh);
    ref_same(s.name, "dw", dw1, dw, d.nw);
    free(dh);
    free(dw);
    free(dh1);
    free(dw1);
    free(d.a.nll);
    free(d.a.lse);
    kern_free(k);
    drop(&d);
}

static void *no_memory(struct kern *k, size_t bytes)
{
    (void)k;
    (void)bytes;
    return NULL;
}

/* The backward allocates its room for logits: without memory it does nothing, and sync says so. */
static void no_memory_is_reported(void **state)
{
    const struct shape s = {"no memory", 3, 4, 5, 30, 1};
    struct ref_rng g = ref_fresh(16);
    struct data d = make(&s, &g);
    struct kern *k = ref_backend(0);
    struct err e = {0};
    (void)state;
    float *dw = ref_copy(d.dw, d.nw);
    d.a.nll = ref_poison(d.a.rows);
    d.a.lse = ref_poison(d.a.rows);
    d.a.dw = dw;
    k->head_fwd(k, &d.a);
    assert_int_equal(k->sync(k, &e), ERR_OK);
    k->alloc = no_memory;
    k->head_bwd(k, &d.a);
    ref_same(s.name, "dw", dw, d.dw, d.nw);
    assert_int_equal(k->sync(k, &e), ERR_RESOURCE);
    free(dw);
    free(d.a.nll);
    free(d.a.lse);
    kern_free(k);
    drop(&d);
}

static void bad_numbers_come_to_an_end(void **state)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f};
    const struct shape s = {"bad", 30, 24, 600, 30, 1};
    struct ref_rng g = ref_fresh(15);
    (void)state;
    for (size_t b = 0; b < 4; b++) {
        struct data d = make(&s, &g);
        d.h[100] = d.w[50] = bad[b];
        struct kern *k = ref_backend(1);
        d.a.nll = ref_poison(d.a.rows);
        d.a.lse = ref_poison(d.a.rows);
        d.a.dh = ref_poison(d.nh);
        d.a.dw = d.dw;
        for (int cap = 0; cap < 2; cap++) {
            d.a.cap = cap ? 30.0f : 0.0f;
            k->head_fwd(k, &d.a);
            k->head_bwd(k, &d.a);
        }
        if (b == 0)
            assert_true(isnan(d.a.nll[100 / 24]));
        free(d.a.nll);
        free(d.a.lse);
        free(d.a.dh);
        kern_free(k);
        drop(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_is_right_everywhere),
        cmocka_unit_test(backward_is_right_everywhere),
        cmocka_unit_test(a_row_does_not_depend_on_the_others),
        cmocka_unit_test(either_gradient_alone),
        cmocka_unit_test(no_memory_is_reported),
        cmocka_unit_test(bad_numbers_come_to_an_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
