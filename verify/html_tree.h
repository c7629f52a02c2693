/*
 * html_tree.h - squarified treemaps: areas as rectangles that are as square as can be.
 *
 * After Mark Bruls, Kees Huizing and Jarke van Wijk, "Squarified Treemaps" (Data Visualization
 * 2000): rectangles are laid along the shorter side of what is left of the area, as many in a row
 * as make the worst aspect ratio of the row smaller.
 */
#ifndef VERIFY_HTML_TREE_H
#define VERIFY_HTML_TREE_H

#include <stddef.h>

struct tree_box {
    double x, y, w, h;
};

/*
 * tree_layout - divide a rectangle.
 *
 *   box   [n] out: box[i] has an area proportional to size[i]; together they fill `area`
 *   size  [n] finite, not negative, descending (otherwise shapes are bad, areas still right); when
 *         all are 0 the boxes have no area
 */
void tree_layout(struct tree_box *box, const double *size, size_t n, struct tree_box area);

#endif
