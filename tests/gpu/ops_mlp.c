/*
 * ops_mlp.c - both linear layers of an MLP as a step of training has them: the first with its
 * activation, the second making the gradient in front of that at once (kernels.h, kern_linear,
 * x_f). Beside the CPU, which does it operation by operation from the same rounded numbers.
 */
#include "tests/gpu/ops.h"

static const double BF16 = 5e-3, BF16_TWICE = 1e-2;

static void mlp(struct ops *o, size_t rows, size_t dim, size_t hidden, float slope)
{
    size_t n = rows * dim, wide = rows * hidden, weights = dim * hidden;
    struct arr x = ops_half_input(o, n, 1), dy = ops_half_input(o, n, 1);
    struct arr up = ops_weights(o, weights, 0.1f), down = ops_weights(o, weights, 0.1f);
    struct arr u = ops_half_output(o, wide), y = ops_half_output(o, wide);
    struct arr f = ops_output(o, wide), g = ops_half_output(o, wide);
    struct arr dx = ops_half_output(o, n), more = ops_half_input(o, n, 1);
    struct arr d_up = ops_weights(o, weights, 1), d_down = ops_weights(o, weights, 1);
    BOTH(o, {
        struct kern_linear first = {.x = F(x),
                                    .w = F(up),
                                    .rows = rows,
                                    .n_out = hidden,
                                    .n_in = dim,
                                    .act = true,
                                    .slope = slope,
                                    .y = F(y),
                                    .f = F(u),
                                    .dy = F(g),
                                    .dx = F(dx),
                                    .dw = F(d_up),
                                    .x16 = true,
                                    .y16 = true,
                                    .dy16 = true,
                                    .dx16 = true,
                                    .g_done = true};
        struct kern_linear second = {.x = F(y),
                                     .w = F(down),
                                     .rows = rows,
                                     .n_out = dim,
                                     .n_in = hidden,
                                     .dy = F(dy),
                                     .dx = F(g),
                                     .dw = F(d_down),
                                     .x16 = true,
                                     .dy16 = true,
                                     .dx16 = true,
                                     .x_f = F(u),
                                     .x_slope = slope};
        if (s == TESTED) {
            k->linear_train(k, &first);
            k->linear_bwd(k, &second);
            k->linear_bwd(k, &first);
            first.dx = F(more);
            first.add = true;
            k->linear_bwd(k, &first);
        } else {
            k->linear_fwd(k, F(u), F(x), F(up), rows, hidden, dim);
            k->linear_act_fwd(k, F(y), F(f), F(x), F(up), rows, hidden, dim, slope);
            k->linear_bwd_w(k, F(d_down), F(dy), F(y), rows, dim, hidden);
            k->linear_bwd_x(k, F(g), F(dy), F(down), rows, dim, hidden, false);
            k->mul(k, F(g), F(g), F(f), wide);
            for (int i = 0; i < 2; i++) {
                k->linear_bwd_w(k, F(d_up), F(g), F(x), rows, hidden, dim);
                k->linear_bwd_x(k, i ? F(more) : F(dx), F(g), F(up), rows, hidden, dim, i == 1);
            }
        }
    })
    ops_check(o, "u", u, BF16);
    ops_check(o, "y", y, BF16_TWICE);
    ops_check(o, "g", g, BF16_TWICE);
    ops_check(o, "dx", dx, BF16_TWICE);
    ops_check(o, "dx+", more, BF16_TWICE);
    ops_check(o, "dw", d_up, BF16_TWICE);
    ops_check(o, "dw down", d_down, BF16_TWICE);
}

void ops_mlps(struct ops *o, bool small)
{
    /* Rows that fill blocks of 128, begin a new one, or end in the middle; more of them than a card
     * has processors (the emulated one has four); an even and an odd number of tiles of 128
     * columns, and a single one; widths that no kernel of its own takes. */
    static const struct {
        const char *what;
        size_t rows, small, dim, hidden;
        float slope;
    } cases[] = {
        {"MLP: 512 to 2048", 3001, 20, 512, 2048, 0.5f},
        {"MLP: 512 to 384", 20011, 650, 512, 384, 0.5f},
        {"MLP: 512 to 128", 20000, 1100, 512, 128, 0.5f},
        {"MLP: 256 to 256", 128, 128, 256, 256, 0.3f},
        {"MLP: 256 to 128", 20001, 650, 256, 128, 0},
        {"MLP: 128 to 1024", 200, 200, 128, 1024, 0.5f},
        {"MLP: 128 to 128, one row", 1, 1, 128, 128, 1},
        {"MLP: 128 to 200", 90, 90, 128, 200, 0.5f},
        {"MLP: 36 to 128", 131, 131, 36, 128, 0.3f},
        {"MLP: 13 to 24", 35, 35, 13, 24, 0.3f},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ops_case(o, cases[i].what);
        mlp(o, small ? cases[i].small : cases[i].rows, cases[i].dim, cases[i].hidden,
            cases[i].slope);
    }
}
