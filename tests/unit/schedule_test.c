/*
 * schedule_test.c - exists for the schedule that is off by one step at its corners: where the
 * warmdown begins, at the last step, at the cap, on the first step when no time has passed; and for
 * the switch that is thrown a step early or by the wrong rate.
 */
#include "tests/unit/toy_run.h"
#include "trainer/schedule.h"

static void close_to(const char *name, double got, double want)
{
    double d = got - want;
    if (!(d < 1e-12 && d > -1e-12))
        fail_msg("%s: got %.15g, expected %.15g", name, got, want);
}

static void learning_rate(void **state)
{
    static const struct {
        const char *name, *set[4];
        size_t step;
        double ms, want;
    } cases[] = {
        {"flat", {"WARMDOWN_ITERS=0"}, 5, 1e6, 1},
        {"steps: before", {"ITERATIONS=100", "WARMDOWN_ITERS=20"}, 79, 0, 1},
        {"steps: first", {"ITERATIONS=100", "WARMDOWN_ITERS=20"}, 80, 0, 1},
        {"steps: second", {"ITERATIONS=100", "WARMDOWN_ITERS=20"}, 81, 0, 0.95},
        {"steps: last", {"ITERATIONS=100", "WARMDOWN_ITERS=20"}, 99, 0, 0.05},
        {"steps: behind the end", {"ITERATIONS=100", "WARMDOWN_ITERS=20"}, 100, 0, 1},
        {"steps: longer than the run", {"ITERATIONS=10", "WARMDOWN_ITERS=20"}, 0, 0, 0.5},
        {"steps: floor", {"ITERATIONS=100", "WARMDOWN_ITERS=20", "MIN_LR=0.1"}, 99, 0, 0.1},
        {"clock: no time yet", {"MAX_WALLCLOCK_SECONDS=10", "WARMDOWN_ITERS=20"}, 0, 0, 1},
        {"clock: before", {"MAX_WALLCLOCK_SECONDS=10", "WARMDOWN_ITERS=20"}, 50, 5000, 1},
        {"clock: falling", {"MAX_WALLCLOCK_SECONDS=10", "WARMDOWN_ITERS=20"}, 90, 9000, 0.5},
        {"clock: at the cap", {"MAX_WALLCLOCK_SECONDS=10", "WARMDOWN_ITERS=20"}, 100, 10000, 0},
        {"clock: beyond", {"MAX_WALLCLOCK_SECONDS=10", "WARMDOWN_ITERS=20"}, 100, 11000, 0},
        {"clock: floor",
         {"MAX_WALLCLOCK_SECONDS=10", "WARMDOWN_ITERS=20", "MIN_LR=0.25"},
         98,
         9800,
         0.25},
        {"frac, steps: before", {"ITERATIONS=100", "WARMDOWN_FRAC=0.5"}, 49, 0, 1},
        {"frac, steps: middle", {"ITERATIONS=100", "WARMDOWN_FRAC=0.5"}, 75, 0, 0.5},
        {"frac, clock", {"MAX_WALLCLOCK_SECONDS=10", "WARMDOWN_FRAC=0.5"}, 1, 7500, 0.5},
        {"frac, clock: beyond", {"MAX_WALLCLOCK_SECONDS=10", "WARMDOWN_FRAC=0.5"}, 1, 10100, 0},
        {"frac, clock with a reserve",
         {"MAX_WALLCLOCK_SECONDS=600", "GPTQ_RESERVE_SECONDS=10", "WARMDOWN_FRAC=0.5"},
         1,
         0.75 * 590e3,
         0.5},
        {"clock with a reserve: falling",
         {"MAX_WALLCLOCK_SECONDS=12", "GPTQ_RESERVE_SECONDS=2", "WARMDOWN_ITERS=20"},
         90,
         9000,
         0.5},
        {"reserve of no cap",
         {"ITERATIONS=100", "WARMDOWN_FRAC=0.5", "GPTQ_RESERVE_SECONDS=10"},
         75,
         0,
         0.5},
        {"frac wins over iters",
         {"ITERATIONS=100", "WARMDOWN_FRAC=0.5", "WARMDOWN_ITERS=1"},
         75,
         0,
         0.5},
        {"warmup: first", {"WARMDOWN_ITERS=0", "LR_WARMUP_STEPS=4"}, 0, 0, 0.25},
        {"warmup: last", {"WARMDOWN_ITERS=0", "LR_WARMUP_STEPS=4"}, 3, 0, 1},
        {"warmup: over", {"WARMDOWN_ITERS=0", "LR_WARMUP_STEPS=4"}, 4, 0, 1},
        {"warmup in the warmdown",
         {"ITERATIONS=10", "WARMDOWN_ITERS=20", "LR_WARMUP_STEPS=2"},
         0,
         0,
         0.25},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct recipe r;
        recipe_init(&r);
        toy_set(&r, "MAX_WALLCLOCK_SECONDS=0");
        for (size_t j = 0; j < 4 && cases[i].set[j]; j++)
            toy_set(&r, cases[i].set[j]);
        close_to(cases[i].name, schedule_lr(&r, cases[i].step, cases[i].ms), cases[i].want);
    }
}

static void momentum(void **state)
{
    static const struct {
        const char *name;
        size_t step;
        double want;
    } cases[] = {
        {"start", 0, 0.85}, {"half", 250, 0.9}, {"full", 500, 0.95}, {"after", 9999, 0.95}};
    struct recipe r;
    (void)state;
    recipe_init(&r);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        close_to(cases[i].name, schedule_momentum(&r, cases[i].step), cases[i].want);
    toy_set(&r, "MUON_MOMENTUM_WARMUP_STEPS=0");
    close_to("no warmup", schedule_momentum(&r, 0), 0.95);
}

static void cap(void **state)
{
    struct recipe r;
    (void)state;
    recipe_init(&r);
    toy_set(&r, "GPTQ_RESERVE_SECONDS=10");
    close_to("with reserve", schedule_cap_ms(&r), 590e3);
    toy_set(&r, "MAX_WALLCLOCK_SECONDS=0");
    close_to("no cap", schedule_cap_ms(&r), 0);
}

enum which { RECUR, QAT, SWA };

/* The switches at their corners. `at`: the step for RECUR, the steps taken for SWA. */
static void switches(void **state)
{
    static const struct {
        enum which which;
        const char *set[3];
        size_t at;
        double warmdown;
        bool want;
    } cases[] = {
        {RECUR, {"RECUR_LAYERS=4,5"}, 0, 1, true},
        {RECUR, {"RECUR_LAYERS=4,5", "RECUR_START_STEP=3000"}, 2999, 1, false},
        {RECUR, {"RECUR_LAYERS=4,5", "RECUR_START_STEP=3000"}, 3000, 1, true},
        {RECUR, {"RECUR_START_STEP=0"}, 5, 1, false},
        {QAT, {"LATE_QAT_THRESHOLD=0.15"}, 0, 0.15, false},
        {QAT, {"LATE_QAT_THRESHOLD=0.15"}, 0, 0.1499, true},
        {QAT, {"LATE_QAT_THRESHOLD=0.15", "LATE_QAT_SCOPE=none"}, 0, 0, false},
        {QAT, {"LATE_QAT_THRESHOLD=0"}, 0, 0, false},
        {QAT, {"LATE_QAT_THRESHOLD=2"}, 0, 1, true},
        {SWA, {"SWA_ENABLED=0"}, 100, 0.1, false},
        {SWA, {"SWA_ENABLED=1"}, 100, 0.1, true},
        {SWA, {"SWA_ENABLED=1"}, 99, 0.1, false},
        {SWA, {"SWA_ENABLED=1"}, 100, 0.2, false},
        {SWA, {"SWA_ENABLED=1", "SWA_EVERY=1"}, 1, 0.19, true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct recipe r;
        recipe_init(&r);
        for (size_t j = 0; j < 3 && cases[i].set[j]; j++)
            toy_set(&r, cases[i].set[j]);
        bool got = cases[i].which == RECUR ? schedule_recur(&r, cases[i].at)
                   : cases[i].which == QAT ? schedule_qat(&r, cases[i].warmdown)
                                           : schedule_swa(&r, cases[i].at, cases[i].warmdown);
        if (got != cases[i].want)
            fail_msg("case %zu (%s), at %zu, warmdown %g: %s", i, cases[i].set[0], cases[i].at,
                     cases[i].warmdown, got ? "on" : "off");
    }
}

/* A ramp at the start is no warmdown: it must not set off what waits for a low rate. */
static void ramp(void **state)
{
    struct recipe r;
    (void)state;
    recipe_init(&r);
    toy_set(&r, "MAX_WALLCLOCK_SECONDS=0");
    toy_set(&r, "WARMDOWN_FRAC=0.5");
    toy_set(&r, "LR_WARMUP_STEPS=100");
    close_to("rate", schedule_lr(&r, 0, 0), 0.01);
    close_to("warmdown", schedule_warmdown(&r, 0, 0), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(learning_rate), cmocka_unit_test(momentum),
                                       cmocka_unit_test(cap), cmocka_unit_test(switches),
                                       cmocka_unit_test(ramp)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
