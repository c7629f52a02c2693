/*
 * kern_slot_test.c - exists for the shift that reaches the wrong window, the row that is summed
 * twice or not at all at the edge of a block, the soft cap forgotten in a gradient, and for scores
 * that leave the head's bits when nothing is shifted.
 */
#include "tests/unit/kern_ref.h"

struct slot_case {
    const char *name;
    size_t groups, per, rows, step, vocab;
    float cap;
    double size; /* of the logits */
};

static const struct slot_case cases[] = {
    {"smallest", 1, 1, 1, 1, 2, 30, 3},
    {"below a vector", 2, 1, 3, 3, 15, 5, 6},
    {"a vector, no cap", 3, 1, 2, 5, 16, 0, 3},
    {"odd, shared shift", 5, 2, 44, 47, 17, 30, 10},
    {"a block of rows", 2, 1, 64, 64, 37, 30, 10},
    {"a block and one", 3, 3, 65, 70, 513, 4, 6},
    {"three blocks, no cap", 2, 2, 130, 130, 300, 0, 30},
    {"many columns", 2, 1, 3, 3, 1100, 30, 20},
    {"sums in two parts", 3, 2, 1, 1, 1500000, 30, 4},
};

struct data {
    struct kern_slot a;
    size_t nz, nu;
    float *z, *u, *du;
    uint16_t *target;
};

static struct data make(const struct slot_case *s, struct ref_rng *g)
{
    size_t rows = s->groups * s->step, units = (s->groups + s->per - 1) / s->per;
    struct data d = {.a = {.groups = s->groups,
                           .per = s->per,
                           .rows = s->rows,
                           .step = s->step,
                           .vocab = s->vocab,
                           .cap = s->cap,
                           .gscale = 0.37f},
                     .nz = rows * s->vocab,
                     .nu = units * s->vocab};
    d.a.z = d.z = ref_random(g, d.nz, s->size);
    d.a.u = d.u = ref_random(g, d.nu, s->size / 2);
    d.du = ref_random(g, d.nu, 0.1);
    d.a.target = d.target = ref_ids(g, rows, s->vocab < 65536 ? s->vocab : 65536);
    d.target[0] = (uint16_t)(s->vocab - 1);
    return d;
}

static void drop(struct data *d)
{
    free(d->z);
    free(d->u);
    free(d->du);
    free(d->target);
}

/* nll and du as the definition in kernels.h reads. */
static void expect(double *nll, double *du, const struct data *d)
{
    const struct kern_slot *a = &d->a;
    double *l = ref_zeros(a->vocab);
    for (size_t g = 0; g < a->groups; g++)
        for (size_t r = 0; r < a->rows; r++) {
            size_t row = g * a->step + r, at = g / a->per * a->vocab;
            double top = -INFINITY, sum = 0;
            for (size_t v = 0; v < a->vocab; v++) {
                double z = (double)d->z[row * a->vocab + v] + (double)d->u[at + v];
                l[v] = a->cap != 0 ? a->cap * tanh(z / a->cap) : z;
                top = fmax(top, l[v]);
            }
            for (size_t v = 0; v < a->vocab; v++)
                sum += exp(l[v] - top);
            nll[g * a->rows + r] = top + log(sum) - l[d->target[row]];
            for (size_t v = 0; v < a->vocab; v++) {
                double t = a->cap != 0 ? l[v] / a->cap : 0;
                double p = exp(l[v] - top) / sum - (v == d->target[row]);
                du[at + v] += p * (1 - t * t) * (double)a->gscale;
            }
        }
    free(l);
}

static void against_the_definition(void **state)
{
    struct ref_rng g = ref_fresh(71);
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct data d = make(&cases[c], &g);
        size_t rows = d.a.groups * d.a.rows;
        double *nll = ref_zeros(rows), *du = ref_double(d.du, d.nu);
        float *first[2] = {NULL, NULL};
        expect(nll, du, &d);
        for (size_t i = 0; i < REF_BACKENDS; i++) {
            struct kern *k = ref_backend(i);
            if (!k)
                continue;
            float *got[2] = {ref_poison(rows), ref_copy(d.du, d.nu)};
            d.a.nll = got[0];
            d.a.du = got[1];
            k->slot_fwd(k, &d.a);
            k->slot_bwd(k, &d.a);
            ref_close(cases[c].name, "nll", got[0], nll, rows, 5e-6);
            ref_close(cases[c].name, "du", got[1], du, d.nu, 2e-5);
            for (size_t q = 0; q < 2; q++) {
                if (first[q]) {
                    ref_same(cases[c].name, q ? "du" : "nll", got[q], first[q], q ? d.nu : rows);
                    free(got[q]);
                } else {
                    first[q] = got[q];
                }
            }
            kern_free(k);
        }
        free(first[0]);
        free(first[1]);
        free(nll);
        free(du);
        drop(&d);
    }
}

/* The gradient is that of the loss: central differences of slot_fwd. */
static void gradient(void **state)
{
    const struct slot_case s = {"gradient", 4, 2, 9, 11, 23, 3, 2};
    struct ref_rng g = ref_fresh(72);
    struct data d = make(&s, &g);
    struct kern *k = ref_portable();
    float nll[36], *du = calloc(d.nu, sizeof *du);
    double *want = ref_zeros(d.nu);
    (void)state;
    d.a.nll = nll;
    d.a.du = du;
    k->slot_bwd(k, &d.a);
    for (size_t i = 0; i < d.nu; i++)
        for (int sign = -1; sign < 2; sign += 2) {
            const float h = 0x1p-5f;
            float was = d.u[i];
            d.u[i] = was + (float)sign * h;
            k->slot_fwd(k, &d.a);
            d.u[i] = was;
            for (size_t r = 0; r < 36; r++)
                want[i] += sign * (double)nll[r] / (2 * (double)h) * (double)d.a.gscale;
        }
    ref_close(s.name, "du", du, want, d.nu, 1e-3);
    free(want);
    free(du);
    kern_free(k);
    drop(&d);
}

/* A group alone, and a call that goes on with the sums of another, have the bits of one call. */
static void calls_can_be_split(void **state)
{
    const struct slot_case s = {"split", 5, 5, 130, 133, 77, 30, 5};
    struct ref_rng g = ref_fresh(73);
    struct data d = make(&s, &g);
    struct kern *k = ref_backend(1);
    size_t rows = s.groups * s.rows;
    float *nll = ref_poison(rows), *du = ref_copy(d.du, d.nu), *part = ref_poison(rows);
    (void)state;
    d.a.nll = nll;
    d.a.du = du;
    k->slot_fwd(k, &d.a);
    k->slot_bwd(k, &d.a);
    for (size_t i = 0; i < s.groups; i++) {
        struct kern_slot a = d.a;
        a.groups = 1;
        a.z += i * s.step * s.vocab;
        a.target += i * s.step;
        a.nll = part + i * s.rows;
        a.du = d.du;
        k->slot_fwd(k, &a);
        /* Blocks of rows as well: the border lies between two of them. */
        a.rows = KERN_ROW_BLOCK;
        k->slot_bwd(k, &a);
        a.z += a.rows * s.vocab;
        a.target += a.rows;
        a.rows = s.rows - a.rows;
        k->slot_bwd(k, &a);
    }
    ref_same(s.name, "nll", part, nll, rows);
    ref_same(s.name, "du", d.du, du, d.nu);
    free(nll);
    free(du);
    free(part);
    kern_free(k);
    drop(&d);
}

/* Unshifted, these are the head's scores, bit by bit. */
static void the_bits_of_the_head(void **state)
{
    static const struct {
        size_t rows, dim, vocab;
        float cap;
    } heads[] = {{1, 4, 2, 30}, {70, 24, 37, 30}, {65, 36, 513, 0}, {5, 24, 1100, 4}};
    struct ref_rng g = ref_fresh(74);
    (void)state;
    for (size_t c = 0; c < sizeof heads / sizeof *heads; c++) {
        size_t rows = heads[c].rows, dim = heads[c].dim, vocab = heads[c].vocab;
        float *h = ref_random(&g, rows * dim, 2), *w = ref_random(&g, vocab * dim, 1);
        float *z = ref_poison(rows * vocab), *want = ref_poison(rows), *got = ref_poison(rows);
        float *zero = calloc(vocab, sizeof *zero);
        uint16_t *target = ref_ids(&g, rows, vocab);
        struct kern *k = ref_backend(1);
        struct kern_head head = {.nll = want,
                                 .h = h,
                                 .w = w,
                                 .target = target,
                                 .rows = rows,
                                 .dim = dim,
                                 .vocab = vocab,
                                 .cap = heads[c].cap};
        struct kern_slot slot = {.z = z,
                                 .target = target,
                                 .nll = got,
                                 .groups = 1,
                                 .per = 1,
                                 .rows = rows,
                                 .step = rows,
                                 .vocab = vocab,
                                 .cap = heads[c].cap};
        k->head_fwd(k, &head);
        k->linear_fwd(k, z, h, w, rows, vocab, dim);
        k->slot_fwd(k, &slot);
        ref_same("no shift", "nll", got, want, rows);
        slot.u = zero;
        k->slot_fwd(k, &slot);
        ref_same("shift 0", "nll", got, want, rows);
        free(h);
        free(w);
        free(z);
        free(want);
        free(got);
        free(zero);
        free(target);
        kern_free(k);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_the_definition),
        cmocka_unit_test(gradient),
        cmocka_unit_test(calls_can_be_split),
        cmocka_unit_test(the_bits_of_the_head),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
