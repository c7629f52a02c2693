/* html_log.c - see html_log.h. */
#include "verify/html_log.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/file.h"

enum { LINE = 1024, WORDS = 24 };

void page_log_free(struct page_log *l)
{
    free(l->train);
    free(l->val);
    free(l->row);
    *l = (struct page_log){0};
}

/* A number at s that ends at a blank, at the end, or at one of `ends`; finite. */
static bool number(const char *s, const char *ends, double *v)
{
    char *end;
    if (!strchr("+-.0123456789", *s) || !*s) /* neither blanks nor "inf", "nan" */
        return false;
    *v = strtod(s, &end);
    return end > s && isfinite(*v) && (!*end || *end == ' ' || *end == '\t' || strchr(ends, *end));
}

/* The number behind `key` ("val_loss:") in a line, at the start of a word. */
static bool field(const char *line, const char *key, double *v)
{
    for (const char *at = line; (at = strstr(at, key)); at++)
        if ((at == line || at[-1] == ' ' || at[-1] == '\t') && number(at + strlen(key), "", v))
            return true;
    return false;
}

/* ---- loss curve ---- */

static enum err_code add_point(struct log_point **p, size_t *n, double step, double loss,
                               struct err *e)
{
    if (*n == LOG_POINTS)
        return ERR_OK;
    if (!(*n & (*n - 1))) { /* 0 or a power of two: full */
        size_t cap = *n ? 2 * *n : 1;
        struct log_point *grown = realloc(*p, cap * sizeof **p);
        if (!grown)
            return err_nomem(e, "the loss curve", cap * sizeof **p);
        *p = grown;
    }
    (*p)[(*n)++] = (struct log_point){step, loss};
    return ERR_OK;
}

static size_t before(const struct log_point *p, size_t n, double step)
{
    while (n && p[n - 1].step >= step)
        n--;
    return n;
}

static enum err_code point(struct page_log *l, const char *line, bool *was, struct err *e)
{
    double step, steps, loss;
    const char *at = line;
    while ((at = strstr(at, "step:")) && at != line && at[-1] != ' ')
        at++;
    *was = at && number(at + 5, "/", &step) && (at = strchr(at, '/')) &&
           number(at + 1, "", &steps) && step >= 0 && steps > 0;
    if (!*was)
        return ERR_OK;
    bool train = field(at, "train_loss:", &loss);
    if (!train && !field(at, "val_loss:", &loss))
        return ERR_OK;
    l->steps = steps;
    l->ntrain = before(l->train, l->ntrain, train ? step : step + 0.5);
    l->nval = before(l->val, l->nval, train ? step + 0.5 : step);
    return train ? add_point(&l->train, &l->ntrain, step, loss, e)
                 : add_point(&l->val, &l->nval, step, loss, e);
}

/* ---- figures ---- */

static void figure(struct page_log *l, const char *line)
{
    const char *at = strstr(line, "val_loss:");
    struct log_figure f = {.bpb = NAN};
    if (!at || at == line || !field(line, "val_loss:", &f.loss))
        return;
    field(line, "val_bpb:", &f.bpb);
    size_t n = (size_t)(at - line);
    while (n && line[n - 1] == ' ')
        n--;
    if (!n || n >= sizeof f.name || memchr(line, '{', n) || memchr(line, '"', n))
        return; /* a line of the script, not of the run */
    memcpy(f.name, line, n);
    size_t i = 0;
    while (i < l->figures && strcmp(l->figure[i].name, f.name))
        i++;
    if (i == LOG_FIGURES)
        return;
    l->figure[i] = f; /* the last of its name counts */
    l->figures += i == l->figures;
}

/* ---- the quantiser's table ---- */

/* Where the columns are; -1: there is none. */
struct columns {
    int words, bits, relative, damage;
};

/* Split a copy of the line in place. "at edge" and "next KB" are one column each. */
static int split(char *line, char *word[WORDS])
{
    int n = 0;
    char *save = NULL;
    for (char *w = strtok_r(line, " \t", &save); w; w = strtok_r(NULL, " \t", &save)) {
        if (n && ((!strcmp(word[n - 1], "at") && !strcmp(w, "edge")) ||
                  (!strcmp(word[n - 1], "next") && !strcmp(w, "KB"))))
            continue;
        if (n == WORDS)
            return 0;
        word[n++] = w;
    }
    return n;
}

static int column(char *const word[WORDS], int n, const char *name)
{
    for (int i = 1; i < n; i++)
        if (!strcmp(word[i], name))
            return i;
    return -1;
}

static double cell(char *const word[WORDS], int at)
{
    double v;
    return at > 0 && number(word[at], "%", &v) ? v : NAN;
}

static enum err_code table(struct page_log *l, const char *line, struct columns *c, struct err *e)
{
    char copy[LINE], *word[WORDS] = {0};
    snprintf(copy, sizeof copy, "%s", line);
    int n = split(copy, word);
    if (n > 2 && !strcmp(word[0], "tensor") && column(word, n, "relative") > 0) {
        *c = (struct columns){n, column(word, n, "entropy"), column(word, n, "relative"),
                              column(word, n, "damage")};
        c->bits = c->bits < 0 ? column(word, n, "bits") : c->bits;
        l->rows = 0;
        return ERR_OK;
    }
    if (!c->words)
        return ERR_OK;
    if (n != c->words || l->rows == LOG_ROWS || strlen(word[0]) >= LOG_NAME) {
        c->words = 0; /* the table is over */
        return ERR_OK;
    }
    if (!(l->rows & (l->rows - 1))) {
        size_t cap = l->rows ? 2 * l->rows : 1;
        struct log_row *grown = realloc(l->row, cap * sizeof *grown);
        if (!grown)
            return err_nomem(e, "the quantiser's table", cap * sizeof *grown);
        l->row = grown;
    }
    struct log_row *r = &l->row[l->rows++];
    *r = (struct log_row){.bits = cell(word, c->bits),
                          .relative = cell(word, c->relative),
                          .damage = cell(word, c->damage)};
    snprintf(r->name, sizeof r->name, "%s", word[0]);
    return ERR_OK;
}

enum err_code page_log_parse(struct page_log *l, const char *text, size_t n, struct err *e)
{
    static const char divergence[] = "divergence from the float model:";
    struct columns c = {0};
    while (n) {
        const char *end = memchr(text, '\n', n);
        size_t len = end ? (size_t)(end - text) : n, keep = len;
        char line[LINE];
        if (keep && text[keep - 1] == '\r')
            keep--;
        if (keep < sizeof line && !memchr(text, 0, keep)) { /* longer lines are no log's */
            bool step;
            memcpy(line, text, keep);
            line[keep] = 0;
            enum err_code rc = point(l, line, &step, e);
            if (!rc && !step)
                rc = table(l, line, &c, e);
            if (rc)
                return rc;
            if (!step && !c.words)
                figure(l, line);
            if (!strncmp(line, divergence, sizeof divergence - 1)) {
                const char *at = line + sizeof divergence - 1;
                at += strspn(at, " ");
                if (!number(at, "", &l->divergence) || l->divergence < 0)
                    l->divergence = 0;
            }
        }
        text += len + (end != NULL);
        n -= len + (end != NULL);
    }
    return ERR_OK;
}

enum err_code page_log_read(struct page_log *l, const char *path, struct err *e)
{
    const void *map;
    size_t n;
    enum err_code rc = file_map(path, &map, &n, e);
    if (rc)
        return rc;
    rc = n > LOG_BYTES ? err_set(e, ERR_INPUT, "%s: %zu bytes are too many for a log", path, n)
         : n           ? page_log_parse(l, map, n, e)
                       : ERR_OK;
    file_unmap(map, n);
    return rc;
}

const struct log_row *page_log_row(const struct page_log *l, const char *name)
{
    for (size_t i = 0; i < l->rows; i++)
        if (!strcmp(l->row[i].name, name))
            return &l->row[i];
    return NULL;
}
