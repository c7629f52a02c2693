/* html_tree.c - see html_tree.h. */
#include "verify/html_tree.h"

#include <math.h>

/* The worst aspect ratio in a row of total area `sum` along a side, whose smallest and largest
 * boxes have areas lo and hi. */
static double worst(double sum, double lo, double hi, double side)
{
    double thick = sum / side;
    double a = hi / (thick * thick), b = thick * thick / lo;
    return fmax(fmax(a, 1 / a), fmax(b, 1 / b));
}

/* Put size[0..n), of total `sum`, side by side along the shorter side of *left, and take them off
 * it. `scale` turns sizes into areas. */
static void row(struct tree_box *box, const double *size, size_t n, double sum, double scale,
                struct tree_box *left)
{
    double side = fmin(left->w, left->h), thick = side > 0 ? sum * scale / side : 0, at = 0;
    int tall = left->h <= left->w; /* the row is a column at the left edge */
    thick = fmin(thick, tall ? left->w : left->h);
    for (size_t i = 0; i < n; i++) {
        double along = sum > 0 ? side * size[i] / sum : 0;
        box[i] = tall ? (struct tree_box){left->x, left->y + at, thick, along}
                      : (struct tree_box){left->x + at, left->y, along, thick};
        at += along;
    }
    if (tall) {
        left->x += thick;
        left->w = fmax(0, left->w - thick);
    } else {
        left->y += thick;
        left->h = fmax(0, left->h - thick);
    }
}

void tree_layout(struct tree_box *box, const double *size, size_t n, struct tree_box area)
{
    struct tree_box left = area;
    double all = 0;
    for (size_t i = 0; i < n; i++)
        all += size[i];
    double scale = all > 0 ? area.w * area.h / all : 0;

    for (size_t i = 0; i < n;) {
        double side = fmin(left.w, left.h), sum = size[i], lo = size[i], hi = size[i];
        size_t k = i + 1;
        for (; k < n && size[k] > 0 && side > 0 && scale > 0; k++) {
            double more = sum + size[k], least = fmin(lo, size[k]), most = fmax(hi, size[k]);
            if (worst(more * scale, least * scale, most * scale, side) >
                worst(sum * scale, lo * scale, hi * scale, side))
                break;
            sum = more;
            lo = least;
            hi = most;
        }
        row(box + i, size + i, k - i, sum, scale, &left);
        i = k;
    }
}
