/*
 * html_tree_test - guards against a treemap that lies: boxes whose areas are not in proportion,
 * that overlap or leave the picture, and shapes so thin that nothing can be read in them.
 */
#include <math.h>

#include "tests/unit/util.h"
#include "verify/html_tree.h"

enum { MOST = 2000 };

static void check(const char *name, const double *size, size_t n, double w, double h)
{
    static struct tree_box box[MOST];
    struct tree_box area = {3, 5, w, h};
    double all = 0, sum = 0;
    for (size_t i = 0; i < n; i++)
        all += size[i];
    tree_layout(box, size, n, area);
    for (size_t i = 0; i < n; i++) {
        double want = all > 0 ? size[i] / all * w * h : 0, got = box[i].w * box[i].h;
        if (!(fabs(got - want) <= 1e-6 * w * h))
            fail_msg("%s: box %zu has area %g, expected %g", name, i, got, want);
        if (!(box[i].x >= 3 - 1e-6 && box[i].y >= 5 - 1e-6 && box[i].w >= 0 && box[i].h >= 0 &&
              box[i].x + box[i].w <= 3 + w + 1e-6 && box[i].y + box[i].h <= 5 + h + 1e-6))
            fail_msg("%s: box %zu leaves the area: %g %g %g %g", name, i, box[i].x, box[i].y,
                     box[i].w, box[i].h);
        sum += got;
    }
    if (all > 0 && !(fabs(sum - w * h) <= 1e-6 * w * h))
        fail_msg("%s: areas add up to %g, expected %g", name, sum, w * h);
    for (size_t i = 0; i < n && n <= 200; i++)
        for (size_t k = 0; k < i; k++) {
            double x = fmin(box[i].x + box[i].w, box[k].x + box[k].w) - fmax(box[i].x, box[k].x);
            double y = fmin(box[i].y + box[i].h, box[k].y + box[k].h) - fmax(box[i].y, box[k].y);
            if (x > 1e-6 && y > 1e-6)
                fail_msg("%s: boxes %zu and %zu overlap", name, k, i);
        }
}

static void areas(void **state)
{
    static const double one[] = {7}, none[] = {0, 0, 0}, two[] = {1, 1},
                        paper[] = {6, 6, 4, 3, 2, 2, 1}, tail[] = {5, 0, 0},
                        far[] = {1e9, 1, 1, 1e-9}, up[] = {1, 2, 3, 4, 5},
                        holes[] = {3, 0, 2, 0, 1};
    static const struct {
        const char *name;
        const double *size;
        size_t n;
        double w, h;
    } cases[] = {
        {"nothing", NULL, 0, 10, 10},      {"one", one, 1, 10, 3},
        {"only zeros", none, 3, 10, 10},   {"two", two, 2, 10, 10},
        {"the paper's", paper, 7, 6, 4},   {"zeros at the end", tail, 3, 5, 5},
        {"nine orders", far, 4, 300, 200}, {"ascending", up, 5, 100, 70},
        {"holes", holes, 5, 100, 70},      {"a strip", paper, 7, 1000, 1},
        {"no width", paper, 7, 0, 10},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        check(cases[i].name, cases[i].size, cases[i].n, cases[i].w, cases[i].h);
}

static int descending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

static void random_sizes(void **state)
{
    static double size[MOST];
    uint64_t seed = 5;
    (void)state;
    for (int round = 0; round < 40; round++) {
        size_t n = 1 + util_below(&seed, round < 30 ? 150 : MOST);
        for (size_t i = 0; i < n; i++)
            size[i] = exp(6 * util_uniform(&seed));
        qsort(size, n, sizeof *size, descending);
        check("random", size, n, 100 + (double)util_below(&seed, 900), 100);
    }
}

/* Equal sizes in a square: what the method is for. */
static void shape(void **state)
{
    double size[60];
    struct tree_box box[60];
    (void)state;
    for (size_t i = 0; i < 60; i++)
        size[i] = 1;
    tree_layout(box, size, 60, (struct tree_box){0, 0, 800, 400});
    for (size_t i = 0; i < 60; i++)
        if (box[i].w / box[i].h > 2.5 || box[i].h / box[i].w > 2.5)
            fail_msg("box %zu is %g by %g", i, box[i].w, box[i].h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(areas),
        cmocka_unit_test(random_sizes),
        cmocka_unit_test(shape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
