/*
 * html_log_test - guards against a loss curve or a table of errors that is not what the log says:
 * lines of the script taken for results, two runs drawn as one, columns mixed up, numbers that are
 * none, and logs made to exhaust memory.
 */
#include <math.h>

#include "tests/unit/util.h"
#include "verify/html_log.h"

static struct page_log parse(const char *text, size_t n)
{
    struct page_log l = {0};
    struct err e = {0};
    if (page_log_parse(&l, text, n, &e))
        fail_msg("%s", e.msg);
    return l;
}

static void curve(void **state)
{
    static const struct {
        const char *name, *text;
        size_t train, val;
        double last_train, last_val, steps;
    } cases[] = {
        {"none", "hello\n", 0, 0, 0, 0, 0},
        {"plain", "step:1/10 train_loss:6.5 train_time:5ms\nstep:2/10 train_loss:6.25\n", 2, 0,
         6.25, 0, 10},
        {"no newline at the end", "step:1/10 train_loss:6.5", 1, 0, 6.5, 0, 10},
        {"validation",
         "step:0/10 val_loss:7.5 val_bpb:4\nstep:5/10 train_loss:6\nstep:5/10 val_loss:5\n", 1, 2,
         6, 5, 10},
        {"validation before training's line of a step",
         "step:5/10 val_loss:5\nstep:5/10 train_loss:6\n", 1, 1, 6, 5, 10},
        {"a prefix", "[12:30] step:3/9 train_loss:2.5\r\n", 1, 0, 2.5, 0, 9},
        {"an f-string", "f\"step:{step}/{n} train_loss:{loss:.4f}\"\n", 0, 0, 0, 0, 0},
        {"inside a word", "xstep:3/9 train_loss:2.5\n", 0, 0, 0, 0, 0},
        {"not a number", "step:3/9 train_loss:nan\nstep:4/9 train_loss:inf\n", 0, 0, 0, 0, 0},
        {"other lines", "step_avg:3/9 train_loss:1\ntotal step: 3\nstep:/ train_loss:1\n", 0, 0, 0,
         0, 0},
        {"resumed",
         "step:1/9 train_loss:5\nstep:2/9 train_loss:4\nstep:3/9 train_loss:3\nstep:2/9 "
         "train_loss:4.5\n",
         2, 0, 4.5, 0, 9},
        {"a second run", "step:8/9 train_loss:5\nstep:9/9 val_loss:4\nstep:1/5 train_loss:7\n", 1,
         0, 7, 0, 5},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct page_log l = parse(cases[i].text, strlen(cases[i].text));
        double t = l.ntrain ? l.train[l.ntrain - 1].loss : 0,
               v = l.nval ? l.val[l.nval - 1].loss : 0;
        if (l.ntrain != cases[i].train || l.nval != cases[i].val || t != cases[i].last_train ||
            v != cases[i].last_val || l.steps != cases[i].steps)
            fail_msg("%s: %zu train (%g), %zu val (%g), %g steps", cases[i].name, l.ntrain, t,
                     l.nval, v, l.steps);
        page_log_free(&l);
    }
}

static void figures(void **state)
{
    static const char text[] =
        "pre-quantization post-ema val_loss:3.85 val_bpb:2.29 eval_time:4085ms\n"
        "final_int6_roundtrip val_loss:3.9 val_bpb:2.3\n"
        "final_int6_roundtrip val_loss:3.8 val_bpb:2.2\n"
        "    f\"final val_loss:{x} val_bpb:{y}\"\n"
        "print(\"final val_loss:3 val_bpb:4\")\n"
        "val_loss:1 val_bpb:1\n"
        "divergence from the float model: 0.008792 nats per token measured, 0.005389 estimated\n";
    struct page_log l = parse(text, sizeof text - 1);
    (void)state;
    assert_int_equal(l.figures, 2);
    assert_string_equal(l.figure[0].name, "pre-quantization post-ema");
    assert_true(l.figure[0].loss == 3.85 && l.figure[0].bpb == 2.29);
    assert_string_equal(l.figure[1].name, "final_int6_roundtrip");
    assert_true(l.figure[1].loss == 3.8 && l.figure[1].bpb == 2.2);
    assert_true(l.divergence == 0.008792);
    page_log_free(&l);
}

/* Both tables, as trainer/quant_report.c and trainer/rd_report.c print them. */
static void tables(void **state)
{
    static const char record[] =
        "tensor                           bits    weights        mse relative  entropy  at edge by "
        "  "
        "       clip      trace\n"
        "skip_weights                       16        640  2.196e-08  0.00017        -        - -  "
        "   "
        "         -          -\n"
        "blocks.0.attn.c_q.weight            6      16384  1.244e-04  0.11386    3.657    0.00% "
        "gptq  "
        "      99.9 1.0486e+06\n"
        "all quantised                            2146304  1.479e-04  0.11480    3.476    0.01%\n"
        "blocks.9.attn.c_q.weight            6      16384  1.244e-04  0.11386    3.657    0.00% "
        "gptq  "
        "      99.9 1.0486e+06\n";
    static const char rd[] = "tensor                              weights   bits relative     "
                             "damage  sensitive       step "
                             " tuned   plain    next KB\n"
                             "tok_emb.weight                       262144  5.020  0.39271  "
                             "3.923e-04  8.706e+01  7.896e-02 "
                             "  0.59   20.1%  1.660e-05\n"
                             "3801088 weights at 1.935 bits, 6936 as fp16\n";
    struct page_log l = parse(record, sizeof record - 1);
    struct err e = {0};
    (void)state;
    assert_int_equal(l.rows, 2);
    assert_true(l.row[0].relative == 0.00017 && isnan(l.row[0].bits) && isnan(l.row[0].damage));
    assert_true(l.row[1].relative == 0.11386 && l.row[1].bits == 3.657);
    assert_ptr_equal(page_log_row(&l, "blocks.0.attn.c_q.weight"), &l.row[1]);
    assert_null(page_log_row(&l, "blocks.0"));
    assert_int_equal(page_log_parse(&l, rd, sizeof rd - 1, &e), ERR_OK);
    assert_int_equal(l.rows, 1);
    assert_true(l.row[0].bits == 5.02 && l.row[0].relative == 0.39271 &&
                l.row[0].damage == 3.923e-04);
    page_log_free(&l);
}

/* Long lines, NULs, a million steps, thousands of names: bounded, and no crash. */
static void hostile(void **state)
{
    enum { BIG = 1 << 21 };
    char *text = malloc(BIG);
    size_t n = 0;
    (void)state;
    memset(text, 'a', 5000);
    memcpy(text + 2000, " step:1/2 train_loss:3", 22);
    text[5000] = '\n';
    memcpy(text + 5001, "step:1/2\0train_loss:3\nstep:1/2 train_loss:4\n", 44);
    struct page_log l = parse(text, 5045);
    assert_int_equal(l.ntrain, 1);
    assert_true(l.train[0].loss == 4);
    page_log_free(&l);

    while (n < BIG - 100)
        n += (size_t)sprintf(text + n, "step:%zu/9 train_loss:3\nn%zu val_loss:3\n", n + 1, n);
    l = parse(text, n);
    assert_true(l.ntrain <= LOG_POINTS && l.figures <= LOG_FIGURES);
    page_log_free(&l);

    n = (size_t)sprintf(text, "tensor relative bits\n");
    while (n < BIG - 100)
        n += (size_t)sprintf(text + n, "t%zu 0.5 3\n", n);
    l = parse(text, n);
    assert_true(l.rows == LOG_ROWS);
    page_log_free(&l);

    n = (size_t)sprintf(text, "tensor relative\n");
    memset(text + n, 'x', 300);
    strcpy(text + n + 300, " 0.5\n");
    l = parse(text, strlen(text));
    assert_int_equal(l.rows, 0);
    page_log_free(&l);
    free(text);

    uint64_t seed = 3;
    static const char bits[] =
        "step:/1 train_loss:.5e-9\nval_loss:tensor relative bits at edge\n%\"{";
    for (int round = 0; round < 3000; round++) {
        char small[200];
        size_t k = util_below(&seed, sizeof small);
        for (size_t i = 0; i < k; i++)
            small[i] = bits[util_below(&seed, sizeof bits)];
        l = parse(small, k);
        page_log_free(&l);
    }
}

static void files(void **state)
{
    struct page_log l = {0};
    struct err e = {0};
    const char *path = util_path("train.log");
    FILE *f = fopen(path, "w");
    (void)state;
    assert_non_null(f);
    fclose(f);
    assert_int_equal(page_log_read(&l, path, &e), ERR_OK); /* empty */
    assert_int_equal(page_log_read(&l, util_path("none"), &e), ERR_INPUT);
    page_log_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(curve),   cmocka_unit_test(figures), cmocka_unit_test(tables),
        cmocka_unit_test(hostile), cmocka_unit_test(files),
    };
    return cmocka_run_group_tests(tests, NULL, util_cleanup);
}
