/*
 * html_chart.h - pictures of a page as inline SVG. Private to verify/html_*.c.
 *
 * Every picture is a function that draws itself into a given width; html_figure calls it twice,
 * for wide windows and for phones, and style sheet shows one of them, so that letters have the
 * same size everywhere. Colours are classes of the style sheet (html_style.c), which has them for
 * light and dark. What a reader may want to know exactly is in <title> elements (shown when
 * pointed at) and in a table behind the picture.
 */
#ifndef VERIFY_HTML_CHART_H
#define VERIFY_HTML_CHART_H

#include <stdbool.h>

#include "verify/html.h"
#include "verify/html_data.h"

/* Widths that pictures are drawn for, in px; heights are the picture's own choice. */
enum { WIDE = 840, NARROW = 342 };

typedef void html_draw(struct html *h, const void *ctx, double width);

/* html_figure - a picture in both widths. `label` says what it is to those who cannot see it; it
 * is plain text of this program. */
void html_figure(struct html *h, const char *label, html_draw *draw, const void *ctx);

/* An open drawing with a plot area and linear axes, or a logarithmic x (base 2). */
struct chart {
    struct html *h;
    double width, height;
    double left, right, top, bottom; /* edges of the plot area */
    double x0, x1, y0, y1;           /* values at the edges; x0 < x1, y0 < y1 */
    bool log_x;
};

/* chart_svg - <svg> with this size; to be closed with html_raw(h, "</svg>"). */
void chart_svg(struct html *h, double width, double height);
double chart_x(const struct chart *c, double v);
double chart_y(const struct chart *c, double v);
/* chart_axes - grid lines, ticks with numbers, and what they are: y above the axis, x below. */
void chart_axes(const struct chart *c, const char *x_name, const char *y_name);
/* chart_text - text at a place; `class` names its style: "t" plain, "d" dim, "b" bold, and
 * "e" right-aligned, "m" centred beside them. */
void chart_text(struct html *h, double x, double y, const char *class, const char *text);
/* chart_ticks - a round step (1, 2 or 5 times a power of ten) that gives at most `most` ticks. */
double chart_step(double lo, double hi, int most);

/* ---- the pictures; ctx is a struct page unless said otherwise ---- */
html_draw draw_treemap, draw_bits, draw_errors, draw_loss, draw_contexts, draw_parts;

/* What the treemap needs beside the page: the sections of the file. */
struct map_section {
    const char *kind; /* from blob_kind_name, or anything else: it is escaped */
    double bytes;
};
enum { MAP_SECTIONS = 16 };
struct map_ctx {
    const struct page *p;
    struct map_section section[MAP_SECTIONS];
    size_t sections;
};

/* Whether there is anything to see. */
bool has_bits(const struct page *p);
bool has_errors(const struct page *p);

/* claimed and measured bits per byte on one scale */
struct claim_ctx {
    double claimed, measured, tolerance;
};
html_draw draw_claim;

/* used and limit, in bytes */
struct budget_ctx {
    double used, limit, weights;
};
html_draw draw_budget;

#endif
