/* html_chart.c - see html_chart.h: drawings, axes, and the charts with lines. */
#include "verify/html_chart.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void html_figure(struct html *h, const char *label, html_draw *draw, const void *ctx)
{
    static const struct {
        const char *class;
        double width;
    } form[] = {{"wide", WIDE}, {"narrow", NARROW}};
    for (size_t i = 0; i < 2; i++) {
        html_rawf(h, "<div class=\"%s\" role=\"img\" aria-label=\"", form[i].class);
        html_text(h, label);
        html_raw(h, "\">");
        draw(h, ctx, form[i].width);
        html_raw(h, "</div>\n");
    }
}

void chart_svg(struct html *h, double width, double height)
{
    html_rawf(h, "<svg viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" height=\"%.0f\">", width, height,
              width, height);
}

void chart_text(struct html *h, double x, double y, const char *class, const char *text)
{
    html_rawf(h, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">", x, y, class);
    html_text(h, text);
    html_raw(h, "</text>");
}

double chart_step(double lo, double hi, int most)
{
    double raw = (hi - lo) / most, unit = pow(10, floor(log10(raw)));
    static const double round[] = {1, 2, 5, 10};
    if (!(raw > 0) || !isfinite(raw))
        return 1;
    for (size_t i = 0; i < 4; i++)
        if (round[i] * unit >= raw * 0.9999)
            return round[i] * unit;
    return 10 * unit;
}

double chart_x(const struct chart *c, double v)
{
    double a = c->log_x ? log2(c->x0) : c->x0, b = c->log_x ? log2(c->x1) : c->x1;
    return c->left + (c->right - c->left) * ((c->log_x ? log2(v) : v) - a) / (b - a);
}

double chart_y(const struct chart *c, double v)
{
    return c->bottom - (c->bottom - c->top) * (v - c->y0) / (c->y1 - c->y0);
}

static void tick_x(const struct chart *c, double v, double step)
{
    char text[HTML_NUMBER];
    double x = chart_x(c, v);
    html_rawf(c->h, "<path class=\"ax\" d=\"M%.1f %.1fv5\"/>", x, c->bottom);
    if (step >= 1)
        html_count(text, v);
    else
        html_number(text, v, 3);
    chart_text(c->h, x, c->bottom + 18, "t m", text);
}

/* Decimals that tell multiples of a step apart. */
static int decimals(double step)
{
    return step >= 1 ? 0 : (int)ceil(-log10(step) - 1e-9);
}

void chart_axes(const struct chart *c, const char *x_name, const char *y_name)
{
    double room = c->right - c->left, high = c->bottom - c->top;
    double step = chart_step(c->y0, c->y1, (int)fmax(2, high / 34));
    for (double v = ceil(c->y0 / step - 1e-6) * step; v <= c->y1 + step * 1e-6; v += step) {
        char text[HTML_NUMBER];
        double y = chart_y(c, v);
        html_rawf(c->h, "<path class=\"grid\" d=\"M%.1f %.1fH%.1f\"/>", c->left, y, c->right);
        snprintf(text, sizeof text, "%.*f", decimals(step), fabs(v) < step / 2 ? 0 : v);
        chart_text(c->h, c->left - 6, y + 4, "t e", text);
    }
    html_rawf(c->h, "<path class=\"ax\" d=\"M%.1f %.1fH%.1f\"/>", c->left, c->bottom, c->right);
    if (c->log_x) {
        double octaves = log2(c->x1 / c->x0), each = fmax(1, ceil(octaves * 36 / room));
        for (double k = 0; k <= octaves + 1e-9; k += each)
            tick_x(c, c->x0 * exp2(k), 1);
    } else {
        step = chart_step(c->x0, c->x1, (int)fmax(2, room / 75));
        for (double v = ceil(c->x0 / step - 1e-6) * step; v <= c->x1 + step * 1e-6; v += step)
            tick_x(c, v, step);
    }
    chart_text(c->h, c->left, c->top - 10, "d", y_name);
    chart_text(c->h, c->right, c->bottom + 34, "d e", x_name);
}

/* ---- loss curve ---- */

enum { CURVE = 300 }; /* points that are drawn: means of as many neighbours as it takes */

struct curve {
    struct log_point at[CURVE];
    size_t n;
};

static void thin(struct curve *c, const struct log_point *p, size_t n)
{
    size_t each = (n + CURVE - 1) / CURVE;
    c->n = 0;
    for (size_t i = 0; i < n; i += each) {
        size_t k = n - i < each ? n - i : each;
        double step = 0, loss = 0;
        for (size_t j = i; j < i + k; j++) {
            step += p[j].step;
            loss += p[j].loss;
        }
        c->at[c->n++] = (struct log_point){step / (double)k, loss / (double)k};
    }
}

/* Lowest loss, and highest once the first twentieth of the steps is over: the steep beginning would
 * flatten all the rest. */
static void range(const struct curve *c, double steps, double *lo, double *hi)
{
    for (size_t i = 0; i < c->n; i++) {
        *lo = fmin(*lo, c->at[i].loss);
        if (c->at[i].step >= steps / 20 || c->n < 8)
            *hi = fmax(*hi, c->at[i].loss);
    }
}

static void line(const struct chart *c, const struct curve *v, const char *class, bool dots)
{
    struct html *h = c->h;
    if (v->n > 1) {
        html_rawf(h, "<path class=\"%s\" d=\"", class);
        for (size_t i = 0; i < v->n; i++) /* far above is far enough: the area is clipped */
            html_rawf(h, "%c%.1f %.1f", i ? 'L' : 'M', chart_x(c, v->at[i].step),
                      fmax(chart_y(c, v->at[i].loss), c->top - 200));
        html_raw(h, "\"/>");
    }
    for (size_t i = 0; (dots || v->n == 1) && i < v->n; i++)
        html_rawf(h,
                  "<circle class=\"%s dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"><title>step %.0f: "
                  "%.4f</title></circle>",
                  class, chart_x(c, v->at[i].step), fmax(chart_y(c, v->at[i].loss), c->top - 200),
                  v->at[i].step, v->at[i].loss);
}

/* The last value beside the end of a line. */
static void end_label(const struct chart *c, const struct curve *v, const char *name,
                      const char *class, double y)
{
    char text[96];
    if (!v->n)
        return;
    chart_text(c->h, c->right + 6, y - 2, class, name);
    snprintf(text, sizeof text, "%.4f", v->at[v->n - 1].loss);
    chart_text(c->h, c->right + 6, y + 11, class, text);
}

void draw_loss(struct html *h, const void *ctx, double width)
{
    const struct page *p = ctx;
    static const char *const id[] = {"lw", "ln"};
    const char *clip = id[width < WIDE];
    struct curve train, val;
    struct chart c = {.h = h, .width = width, .height = width < WIDE ? 260 : 320};
    thin(&train, p->log.train, p->log.ntrain);
    thin(&val, p->log.val, p->log.nval);
    /* Not the steps that were planned: many runs end with their time. */
    c.x1 =
        fmax(1, fmax(train.n ? train.at[train.n - 1].step : 0, val.n ? val.at[val.n - 1].step : 0));
    double lo = INFINITY, hi = -INFINITY;
    range(&train, c.x1, &lo, &hi);
    range(&val, c.x1, &lo, &hi);
    if (!(hi > lo))
        hi = lo + 1;
    double step = chart_step(lo, hi, 6);
    c.y0 = floor(lo / step) * step;
    c.y1 = ceil(hi / step + 0.05) * step;
    c.left = 40;
    c.right = width - 72;
    c.top = 30;
    c.bottom = c.height - 42;
    chart_svg(h, c.width, c.height);
    chart_axes(&c, "step", "loss, nats per token");
    html_rawf(h,
              "<clipPath id=\"%s\"><rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>"
              "</clipPath><g clip-path=\"url(#%s)\">",
              clip, c.left - 4, c.top - 4, c.right - c.left + 8, c.bottom - c.top + 4, clip);
    line(&c, &train, "l1", false);
    line(&c, &val, "l2", true);
    html_raw(h, "</g>");
    double yt = train.n ? chart_y(&c, train.at[train.n - 1].loss) : 0;
    double yv = val.n ? chart_y(&c, val.at[val.n - 1].loss) : 0;
    if (train.n && val.n && fabs(yt - yv) < 30) { /* both need two lines of letters */
        double middle = (yt + yv) / 2, away = yt > yv ? 15 : -15;
        yt = middle + away;
        yv = middle - away;
    }
    double most = c.bottom - 12;
    if (fmax(yt, yv) > most) {
        double up = fmax(yt, yv) - most;
        yt -= up;
        yv -= up;
    }
    end_label(&c, &train, "train", "f1", yt);
    end_label(&c, &val, "validation", "f2", yv);
    html_raw(h, "</svg>");
}

/* ---- scores ---- */

/* Range of means with their errors, and the mean of all. */
static double spans(const struct page_bin *b, size_t n, double *lo, double *hi)
{
    double sum = 0, all = 0;
    *lo = INFINITY;
    *hi = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        double e = isnan(b[i].error) ? 0 : fmin(2 * b[i].error, 1.5);
        *lo = fmin(*lo, b[i].mean - e);
        *hi = fmax(*hi, b[i].mean + e);
        sum += b[i].mean * b[i].n;
        all += b[i].n;
    }
    if (!(*hi > *lo))
        *hi = *lo + 1;
    *lo = fmax(0, *lo - 0.05 * (*hi - *lo));
    *hi += 0.05 * (*hi - *lo);
    return all > 0 ? sum / all : 0;
}

static void mean_line(const struct chart *c, double mean)
{
    char text[96];
    double y = chart_y(c, mean);
    html_rawf(c->h, "<path class=\"mean\" d=\"M%.1f %.1fH%.1f\"/>", c->left, y, c->right);
    html_rawf(c->h, "<path class=\"mean\" d=\"M%.1f %.1fh24\"/>", c->right - 116, c->top - 14);
    snprintf(text, sizeof text, "mean %.4f", mean);
    chart_text(c->h, c->right, c->top - 10, "b e", text);
}

/* A mean with two standard errors to both sides. */
static void dot(const struct chart *c, const struct page_bin *b, double x, double r)
{
    double y = chart_y(c, b->mean);
    html_raw(c->h, "<g>");
    if (!isnan(b->error)) {
        double e = 2 * b->error;
        html_rawf(c->h, "<path class=\"err\" d=\"M%.1f %.1fV%.1f\"/>", x,
                  fmin(chart_y(c, b->mean - e), c->bottom), fmax(chart_y(c, b->mean + e), c->top));
    }
    html_rawf(c->h, "<circle class=\"l1 dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"/>", x, y, r);
    html_rawf(c->h, "<title>%.0f to %.0f: %.4f", b->lo, b->hi, b->mean);
    if (!isnan(b->error))
        html_rawf(c->h, " ± %.4f", b->error);
    html_rawf(c->h, " nats per token, %.0f tokens</title></g>", b->n);
}

void draw_contexts(struct html *h, const void *ctx, double width)
{
    const struct page *p = ctx;
    struct chart c = {.h = h, .width = width, .height = width < WIDE ? 250 : 300, .log_x = true};
    double most = 0, mean = spans(p->bin, p->bins, &c.y0, &c.y1);
    c.x0 = 1;
    c.x1 = fmax(2, (double)p->window);
    c.left = 40;
    c.right = width - 12;
    c.top = 30;
    c.bottom = c.height - 42;
    chart_svg(h, c.width, c.height);
    chart_axes(&c, "tokens of context (position in the window)", "nats per token");
    for (size_t i = 0; i < p->bins; i++)
        most = fmax(most, p->bin[i].n);
    mean_line(&c, mean);
    for (size_t i = 0; i < p->bins; i++)
        dot(&c, &p->bin[i], chart_x(&c, sqrt(p->bin[i].lo * p->bin[i].hi)),
            3 + 2.5 * sqrt(p->bin[i].n / most));
    html_raw(h, "</svg>");
}

void draw_parts(struct html *h, const void *ctx, double width)
{
    const struct page *p = ctx;
    struct chart c = {.h = h, .width = width, .height = width < WIDE ? 230 : 260};
    double mean = spans(p->part, p->parts, &c.y0, &c.y1);
    c.x1 = p->part[p->parts - 1].hi + 1;
    c.left = 40;
    c.right = width - 12;
    c.top = 30;
    c.bottom = c.height - 42;
    chart_svg(h, c.width, c.height);
    chart_axes(&c, "scored tokens, in order", "nats per token");
    mean_line(&c, mean);
    for (size_t i = 0; i < p->parts; i++)
        dot(&c, &p->part[i], chart_x(&c, (p->part[i].lo + p->part[i].hi + 1) / 2), 3);
    html_raw(h, "</svg>");
}

/* ---- claim and budget ---- */

void draw_claim(struct html *h, const void *ctx, double width)
{
    const struct claim_ctx *v = ctx;
    char text[96];
    double middle = (v->claimed + v->measured) / 2;
    double half = fmax(0.75 * fabs(v->claimed - v->measured), 2.5 * v->tolerance);
    struct chart c = {.h = h, .width = width, .height = 118, .left = 16, .right = width - 16};
    c.x0 = middle - half;
    c.x1 = middle + half;
    chart_svg(h, c.width, c.height);
    double a = chart_x(&c, fmax(c.x0, v->claimed - v->tolerance));
    double b = chart_x(&c, fmin(c.x1, v->claimed + v->tolerance));
    html_rawf(h,
              "<rect class=\"band\" x=\"%.1f\" y=\"44\" width=\"%.1f\" height=\"30\"><title>%g "
              "around the claim</title></rect>",
              a, fmax(1, b - a), v->tolerance);
    html_rawf(h, "<path class=\"ax\" d=\"M%.1f 74H%.1f\"/>", c.left, c.right);
    double step = chart_step(c.x0, c.x1, (int)(width / 95));
    for (double x = ceil(c.x0 / step) * step; x <= c.x1; x += step) {
        double at = chart_x(&c, x);
        html_rawf(h, "<path class=\"ax\" d=\"M%.1f 74v5\"/>", at);
        snprintf(text, sizeof text, "%.*f", decimals(step), x);
        chart_text(h, fmin(fmax(at, c.left + 18), c.right - 18), 92, "t m", text);
    }
    chart_text(h, c.right, 110, "d e", "bits per byte");
    double x = chart_x(&c, v->claimed), y = chart_x(&c, v->measured);
    html_rawf(h, "<path class=\"l2 mark\" d=\"M%.1f 74l-6 -11h12z\"/>", x);
    html_rawf(h, "<path class=\"l1 mark\" d=\"M%.1f 46l-6 -11h12z\"/>", y);
    html_rawf(h, "<path class=\"l1\" d=\"M%.1f 46V74\"/>", y);
    snprintf(text, sizeof text, "claimed %.5f", v->claimed);
    const char *side = x > width * 0.55 ? "f2 e" : "f2";
    chart_text(h, x > width * 0.55 ? x - 9 : x + 9, 66, side, text);
    snprintf(text, sizeof text, "measured %.5f", v->measured);
    side = y > width * 0.55 ? "f1 e" : "f1";
    chart_text(h, y > width * 0.55 ? y - 2 : y + 2, 28, side, text);
    html_raw(h, "</svg>");
}

void draw_budget(struct html *h, const void *ctx, double width)
{
    const struct budget_ctx *v = ctx;
    char text[96], n[HTML_NUMBER];
    double all = fmax(v->used, v->limit), scale = (width - 2) / all;
    chart_svg(h, width, 60);
    html_rawf(h, "<rect class=\"free\" x=\"1\" y=\"20\" width=\"%.1f\" height=\"20\"/>",
              v->limit * scale);
    html_rawf(h, "<rect class=\"%s\" x=\"1\" y=\"20\" width=\"%.1f\" height=\"20\"/>",
              v->used > v->limit ? "over" : "used", v->used * scale);
    html_rawf(h, "<path class=\"ax\" d=\"M%.1f 14v32\"/>", 1 + v->limit * scale);
    snprintf(text, sizeof text, "%s bytes used", html_count(n, v->used));
    chart_text(h, 1, 13, "b", text);
    snprintf(text, sizeof text, "limit %s", html_count(n, v->limit));
    chart_text(h, fmin(width - 1, 1 + v->limit * scale), 56, "t e", text);
    snprintf(text, sizeof text, "%s %s", html_count(n, fabs(v->limit - v->used)),
             v->used > v->limit ? "too many" : "free");
    chart_text(h, width - 1, 13, v->used > v->limit ? "b e" : "t e", text);
    html_raw(h, "</svg>");
}
