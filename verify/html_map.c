/*
 * html_map.c - the two pictures made of boxes: the treemap of the file's bytes, and maps of a value
 * per tensor, with a row for each kind of matrix and a column for each block.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "verify/html_chart.h"
#include "verify/html_tree.h"

static const char *const role_name[ROLES] = {"attention", "MLP", "embeddings and tables",
                                             "gains, scales, mixes"};

/* Width of a letter, of a wide font: which one a reader has is not known. */
static const double LETTER = 6.9;

/* "blocks.3.attn.c_q.weight": block 3 and "attn.c_q.weight"; *rest is the name itself otherwise. */
static int block_of(const char *name, const char **rest)
{
    char *end;
    *rest = name;
    if (strncmp(name, "blocks.", 7))
        return -1;
    long n = strtol(name + 7, &end, 10);
    if (end == name + 7 || *end != '.' || n < 0 || n > 9999)
        return -1;
    *rest = end + 1;
    return (int)n;
}

/* A name without ".weight". */
static void shorten(char *out, size_t cap, const char *name)
{
    size_t n = strlen(name), k = strlen(".weight");
    if (n > k && !strcmp(name + n - k, ".weight"))
        n -= k;
    snprintf(out, cap, "%.*s", (int)n, name);
}

/* ---- treemap ---- */

static void box(struct html *h, const struct tree_box *b, const char *class, const char *name,
                double bytes, double total)
{
    char n[HTML_NUMBER];
    html_rawf(h, "<rect class=\"%s\" x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\"><title>",
              class, b->x, b->y, b->w, b->h);
    html_text(h, name);
    html_rawf(h, ": %s bytes, %.2f%%</title></rect>", html_count(n, bytes),
              total > 0 ? 100 * bytes / total : 0);
}

/* A label inside a box, cut to the room that there is; a second line too. */
static void box_label(struct html *h, const struct tree_box *b, const char *label, double bytes)
{
    char text[HTML_NUMBER], cut[160];
    size_t room = b->w > 5 ? (size_t)((b->w - 5) / LETTER) : 0, n = strlen(label);
    if (b->h < 13 || (n > room && room < 4))
        return;
    if (n > room)
        snprintf(cut, sizeof cut, "%.*s\xE2\x80\xA6", (int)(room < 100 ? room : 100) - 1, label);
    else
        snprintf(cut, sizeof cut, "%.150s", label);
    chart_text(h, b->x + 3, b->y + 11, "bt", cut);
    html_bytes(text, bytes);
    if (b->h >= 26 && strlen(text) <= room)
        chart_text(h, b->x + 3, b->y + 23, "bt", text);
}

/* The tensors of one role inside its box. */
static void map_role(struct html *h, const struct map_ctx *c, enum page_role role,
                     const struct tree_box *area, double total)
{
    double size[PAGE_TENSORS];
    struct tree_box in[PAGE_TENSORS], left = *area;
    const struct page_tensor *t[PAGE_TENSORS];
    size_t n = 0;
    double all = 0;
    for (size_t i = 0; i < c->p->tensors; i++) /* they are sorted by size */
        if (c->p->tensor[i].role == role) {
            t[n] = &c->p->tensor[i];
            size[n] = t[n]->bytes;
            all += size[n++];
        }
    char title[96], bytes[HTML_NUMBER];
    snprintf(title, sizeof title, "%s %s", role_name[role], html_bytes(bytes, all));
    if (area->h > 44 && area->w > LETTER * (double)strlen(title)) {
        chart_text(h, area->x + 3, area->y + 12, "bh", title);
        left.y += 16;
        left.h -= 16;
    }
    tree_layout(in, size, n, left);
    for (size_t i = 0; i < n; i++) {
        char class[16], label[160], last[128];
        const char *rest;
        int block = block_of(t[i]->name, &rest);
        if (in[i].w < 0.4 || in[i].h < 0.4)
            continue; /* not to be seen; the table has it */
        snprintf(class, sizeof class, "r%d", (int)role);
        box(h, &in[i], class, t[i]->name, t[i]->bytes, total);
        shorten(last, sizeof last, rest);
        const char *dot = strrchr(last, '.');
        if (block >= 0)
            snprintf(label, sizeof label, "%d %s", block, dot ? dot + 1 : last);
        else
            snprintf(label, sizeof label, "%s", last);
        if (block >= 0 && in[i].w < LETTER * (double)strlen(label) + 5)
            snprintf(label, sizeof label, "%d", block);
        box_label(h, &in[i], label, t[i]->bytes);
    }
}

struct part {
    int role; /* -1: the frame of the section */
    double bytes;
};

static int by_part(const void *a, const void *b)
{
    const struct part *x = a, *y = b;
    return x->bytes < y->bytes ? 1 : x->bytes > y->bytes ? -1 : x->role - y->role;
}

static void map_weights(struct html *h, const struct map_ctx *c, const struct tree_box *area,
                        double bytes, double total)
{
    struct part part[ROLES + 1];
    double size[ROLES + 1];
    struct tree_box in[ROLES + 1];
    if (!c->p->tensors) {
        box(h, area, "r0", "weights", bytes, total);
        box_label(h, area, "weights", bytes);
        return;
    }
    for (int r = 0; r <= ROLES; r++)
        part[r] = (struct part){r < ROLES ? r : -1, r < ROLES ? 0 : fmax(0, c->p->frame)};
    for (size_t i = 0; i < c->p->tensors; i++)
        part[c->p->tensor[i].role].bytes += c->p->tensor[i].bytes;
    qsort(part, ROLES + 1, sizeof *part, by_part);
    for (int r = 0; r <= ROLES; r++)
        size[r] = part[r].bytes;
    tree_layout(in, size, ROLES + 1, *area);
    for (int r = 0; r <= ROLES; r++) {
        if (in[r].w < 0.4 || in[r].h < 0.4)
            continue;
        if (part[r].role >= 0) {
            map_role(h, c, (enum page_role)part[r].role, &in[r], total);
        } else {
            box(h, &in[r], "r4", "weights: names, shapes, frame of the coder", size[r], total);
            box_label(h, &in[r], "names", size[r]);
        }
        html_rawf(h, "<rect class=\"edge\" x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\"/>",
                  in[r].x, in[r].y, in[r].w, in[r].h);
    }
}

/* The runner by functions; what the list does not name is data, and code without a name. */
static void map_code(struct html *h, const struct page *p, const struct tree_box *area,
                     double bytes, double total)
{
    double size[CODE_FUNCTIONS + 1], all = fmax(p->code.bytes, p->runner);
    struct tree_box in[CODE_FUNCTIONS + 1], left = *area;
    char title[96], number[HTML_NUMBER];
    size_t n = p->code.n;
    for (size_t i = 0; i < n; i++)
        size[i] = p->code.f[i].bytes;
    size[n] = all - p->code.bytes;
    snprintf(title, sizeof title, "runner %s", html_bytes(number, bytes));
    if (area->h > 44 && area->w > LETTER * (double)strlen(title)) {
        chart_text(h, area->x + 3, area->y + 12, "bh", title);
        left.y += 16;
        left.h -= 16;
    }
    tree_layout(in, size, n + 1, left);
    for (size_t i = 0; i <= n; i++) {
        const char *name = i < n ? p->code.f[i].name : "runner: data, and what has no name";
        double share = size[i] / all * bytes;
        if (in[i].w < 0.4 || in[i].h < 0.4)
            continue;
        box(h, &in[i], "r5", name, share, total);
        char label[CODE_NAME];
        snprintf(label, sizeof label, "%.*s", (int)strcspn(name, "."), i < n ? name : "data");
        box_label(h, &in[i], label, share);
    }
}

static int by_section(const void *a, const void *b)
{
    const struct map_section *x = a, *y = b;
    return x->bytes < y->bytes ? 1 : x->bytes > y->bytes ? -1 : strcmp(x->kind, y->kind);
}

void draw_treemap(struct html *h, const void *ctx, double width)
{
    const struct map_ctx *c = ctx;
    struct map_section s[MAP_SECTIONS];
    struct tree_box in[MAP_SECTIONS], area = {1, 1, width - 2, (width < WIDE ? 440 : 460) - 2};
    double size[MAP_SECTIONS], total = 0;
    memcpy(s, c->section, sizeof s);
    qsort(s, c->sections, sizeof *s, by_section);
    for (size_t i = 0; i < c->sections; i++)
        total += size[i] = s[i].bytes;
    tree_layout(in, size, c->sections, area);
    chart_svg(h, width, area.h + 2);
    for (size_t i = 0; i < c->sections; i++) {
        if (in[i].w < 0.4 || in[i].h < 0.4)
            continue;
        if (!strcmp(s[i].kind, "weights")) {
            map_weights(h, c, &in[i], s[i].bytes, total);
        } else if (!strcmp(s[i].kind, "runner") && c->p->code.n) {
            map_code(h, c->p, &in[i], s[i].bytes, total);
        } else {
            box(h, &in[i], !strcmp(s[i].kind, "runner") ? "r5" : "r4", s[i].kind, s[i].bytes,
                total);
            box_label(h, &in[i], s[i].kind, s[i].bytes);
        }
        html_rawf(h, "<rect class=\"edge\" x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\"/>",
                  in[i].x, in[i].y, in[i].w, in[i].h);
    }
    html_raw(h, "</svg>");
}

/* ---- a value per tensor ---- */

enum { HEAT_ROWS = 24, HEAT_COLS = 64, HEAT_STEPS = 8 };

struct heat {
    char row[HEAT_ROWS][128];
    const struct page_tensor *cell[HEAT_ROWS][HEAT_COLS];
    size_t rows, cols;
    const struct page_tensor *other[HEAT_ROWS]; /* outside of blocks */
    size_t others;
};

static bool is_matrix(const struct page_tensor *t)
{
    return t->role != ROLE_SMALL && t->weights >= 64;
}

/* Tensors in file order, since kinds are then in the order of the computation. */
static void heat_fill(struct heat *m, const struct page *p)
{
    *m = (struct heat){.rows = 0};
    for (size_t k = 0; k < p->tensors; k++) {
        const struct page_tensor *t = NULL;
        for (size_t i = 0; i < p->tensors && !t; i++)
            t = p->tensor[i].order == k ? &p->tensor[i] : NULL;
        char kind[128];
        const char *rest;
        size_t r = 0;
        if (!t || !is_matrix(t))
            continue;
        int block = block_of(t->name, &rest);
        if (block < 0 || block >= HEAT_COLS) {
            if (m->others < HEAT_ROWS)
                m->other[m->others++] = t;
            continue;
        }
        shorten(kind, sizeof kind, rest);
        while (r < m->rows && strcmp(m->row[r], kind))
            r++;
        if (r == HEAT_ROWS)
            continue;
        if (r == m->rows)
            strcpy(m->row[m->rows++], kind);
        m->cell[r][block] = t;
        m->cols = (size_t)block + 1 > m->cols ? (size_t)block + 1 : m->cols;
    }
}

static double bits_of(const struct page_tensor *t)
{
    return t->weights > 0 ? 8 * t->bytes / t->weights : NAN;
}

static double percent_of(const struct page_tensor *t)
{
    return 100 * t->rel;
}

/* What a map shows, and the values at the ends of its colours. */
struct scale {
    double (*value)(const struct page_tensor *t);
    const char *unit;
    bool logarithmic; /* errors differ by factors */
    double lo, hi;
};

static struct scale scale_of(const struct page *p, double (*value)(const struct page_tensor *t),
                             const char *unit, bool logarithmic)
{
    struct scale s = {value, unit, logarithmic, logarithmic ? INFINITY : 0, 0};
    for (size_t i = 0; i < p->tensors; i++) {
        double v = value(&p->tensor[i]);
        if (!is_matrix(&p->tensor[i]) || !isfinite(v))
            continue;
        s.hi = fmax(s.hi, v);
        s.lo = v > 0 ? fmin(s.lo, v) : s.lo;
    }
    if (logarithmic) /* one tensor that lost nearly nothing shall not take all the colours */
        s.lo = fmax(s.lo, s.hi / 16);
    return s;
}

static int colour(const struct scale *s, double v)
{
    double at =
        s->logarithmic ? log(v / s->lo) / log(s->hi / s->lo) : (v - s->lo) / (s->hi - s->lo);
    return at > 0 ? (int)fmin(HEAT_STEPS - 1, HEAT_STEPS * at) : 0; /* NAN is 0 as well */
}

static void heat_cell(struct html *h, const struct page_tensor *t, const struct scale *s, double x,
                      double y, double w, double high)
{
    char text[HTML_NUMBER], class[24];
    double v = s->value(t);
    if (!isfinite(v))
        return;
    int step = colour(s, v);
    html_raw(h, "<g><title>");
    html_textf(h, "%s: %.3f%s", t->name, v, s->unit);
    html_rawf(h,
              "</title><rect class=\"h%d\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>",
              step, x, y, w - 1, high - 1);
    snprintf(text, sizeof text, "%.*f", v < 9.95 ? 1 : 0, v);
    /* Digits have 7 px, the point half of that; smaller ones where three digits would not fit. */
    double wide = 7 * (double)strlen(text) - (v < 9.95 ? 3.5 : 0);
    snprintf(class, sizeof class, "k%d m%s", step, wide > w - 1 ? " s" : "");
    if (w > wide * 0.82)
        chart_text(h, x + (w - 1) / 2, y + high / 2 + 3.5, class, text);
    html_raw(h, "</g>");
}

static void heat_draw(struct html *h, const struct page *p, const struct scale *s, double width)
{
    struct heat *m = malloc(sizeof *m);
    if (!m) {
        h->failed = true;
        return;
    }
    heat_fill(m, p);
    double letters = 0, high = 22;
    char name[128];
    for (size_t r = 0; r < m->rows; r++)
        letters = fmax(letters, (double)strlen(m->row[r]));
    for (size_t r = 0; r < m->others; r++) {
        shorten(name, sizeof name, m->other[r]->name);
        letters = fmax(letters, (double)strlen(name));
    }
    double left = fmin(LETTER * letters + 8, width * 0.36);
    double w = m->cols ? fmin(64, (width - left) / (double)m->cols) : 64;
    double y = m->rows ? 20 : 0, gap = m->rows && m->others ? 10 : 0;
    chart_svg(h, width, y + high * (double)(m->rows + m->others) + gap + 2);
    size_t each = (size_t)ceil(20 / w); /* numbers of blocks, as many as there is room for */
    for (size_t b = 0; m->rows && b < m->cols; b += each) {
        snprintf(name, sizeof name, "%zu", b);
        chart_text(h, left + w * ((double)b + 0.5), 13, "t m", name);
    }
    if (m->rows)
        chart_text(h, left - 8, 13, "d e", "block");
    for (size_t r = 0; r < m->rows; r++, y += high) {
        chart_text(h, left - 8, y + high / 2 + 4, "t e", m->row[r]);
        for (size_t b = 0; b < m->cols; b++)
            if (m->cell[r][b])
                heat_cell(h, m->cell[r][b], s, left + w * (double)b, y, w, high);
    }
    y += gap;
    for (size_t r = 0; r < m->others; r++, y += high) {
        shorten(name, sizeof name, m->other[r]->name);
        chart_text(h, left - 8, y + high / 2 + 4, "t e", name);
        heat_cell(h, m->other[r], s, left, y, fmax(w, 40), high);
    }
    html_raw(h, "</svg>");
    free(m);
}

static struct scale bits_scale(const struct page *p)
{
    return scale_of(p, bits_of, " bits per weight", false);
}

static struct scale error_scale(const struct page *p)
{
    return scale_of(p, percent_of, "%", true);
}

bool has_bits(const struct page *p)
{
    return bits_scale(p).hi > 0;
}

bool has_errors(const struct page *p)
{
    return error_scale(p).hi > 0;
}

void draw_bits(struct html *h, const void *ctx, double width)
{
    const struct scale s = bits_scale(ctx);
    heat_draw(h, ctx, &s, width);
}

void draw_errors(struct html *h, const void *ctx, double width)
{
    const struct scale s = error_scale(ctx);
    heat_draw(h, ctx, &s, width);
}
