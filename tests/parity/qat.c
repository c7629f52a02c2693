/* qat.c - late QAT: a linear layer that runs on rounded weights, forward and straight-through
 * backward. */
#include <stdlib.h>

#include "tests/parity/parity.h"

enum { LEVELS = 31 }; /* int6 */

/* y = x W^T, dx and dw with w as given; compared with out.WHEN.y and grad.WHEN.*. */
static void run_layer(struct check *c, struct group *g, const char *when, const float *w,
                      const float *x, const float *dy, size_t rows, size_t n_out, size_t n_in)
{
    struct kern *k = c->k;
    const struct tensor_view *want;
    float *y = parity_alloc(rows * n_out, sizeof *y), *dx = parity_alloc(rows * n_in, sizeof *dx);
    float *dw = parity_alloc(n_out * n_in, sizeof *dw);
    k->linear_fwd(k, y, x, w, rows, n_out, n_in);
    k->linear_bwd_x(k, dx, dy, w, rows, n_out, n_in, false);
    k->linear_bwd_w(k, dw, dy, x, rows, n_out, n_in);
    if ((want = need(c, rows * n_out, "out.%s.y", when)))
        group_floats(c, g, y, rows * n_out, want, 5e-5);
    if ((want = find(c, "grad.%s.x", when)))
        group_floats(c, g, dx, rows * n_in, want, 5e-5);
    if ((want = find(c, "grad.%s.weight", when)))
        group_floats(c, g, dw, n_out * n_in, want, 5e-5);
    free(y);
    free(dx);
    free(dw);
}

void parity_qat(struct check *c)
{
    struct group gq = {.what = "rounded weights"}, gl = {.what = "outputs and gradients"};
    const struct tensor_view *w = need(c, 1, "param.weight"), *x = need(c, 1, "input.x");
    const struct tensor_view *dy = need(c, 1, "input.grad_y"), *want;
    if (!w || !x || !dy)
        return;
    size_t n_out = w->shape[0], n_in = w->shape[1], rows = x->shape[0];
    if (w->ndim != 2 || x->ndim != 2 || x->shape[1] != n_in || tensor_elems(dy) != rows * n_out) {
        check_fail(c, "input.x must be [rows][n_in], input.grad_y [rows][n_out]");
        return;
    }
    float *real = tensor_floats(w), *in = tensor_floats(x), *out = tensor_floats(dy);
    float *rounded = parity_alloc(n_out * n_in, sizeof *rounded);
    c->k->fake_quant(c->k, rounded, real, n_out, n_in, LEVELS, 1);
    if ((want = need(c, 1, "out.fake_quant_weight")))
        group_floats(c, &gq, rounded, n_out * n_in, want, 0);
    run_layer(c, &gl, "qat_off", real, in, out, rows, n_out, n_in);
    run_layer(c, &gl, "qat_on", rounded, in, out, rows, n_out, n_in);
    /* The reference validates with the real weights, as the trainer does. */
    run_layer(c, &gl, "qat_on_eval_mode", real, in, out, rows, n_out, n_in);
    group_end(c, &gq);
    group_end(c, &gl);
    free(real);
    free(in);
    free(out);
    free(rounded);
}
