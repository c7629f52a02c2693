/* gpt_load.c - named tensors into the parameter block. */
#include <string.h>

#include "model/dequant.h"
#include "model/gpt.h"
#include "model/reader.h"

static bool same_shape(const struct gpt_param *p, const struct tensor_view *t)
{
    bool same = p->ndim == t->ndim;
    for (size_t i = 0; same && i < p->ndim; i++)
        same = p->shape[i] == t->shape[i];
    return same;
}

static float element(const struct tensor_view *t, size_t i)
{
    uint32_t u;
    float f;
    if (t->dtype == ST_F16)
        return f16_to_f32(le16(t->data + 2 * i));
    if (t->dtype == ST_BF16)
        return bf16_to_f32(le16(t->data + 2 * i));
    u = le32(t->data + 4 * i);
    memcpy(&f, &u, sizeof f);
    return f;
}

/* NAME followed by suffix, as a lookup. */
static const struct tensor_view *find(const struct tensor_view *t, size_t count, const char *name,
                                      const char *suffix)
{
    char full[64];
    size_t n = strlen(name);
    memcpy(full, name, n);
    strcpy(full + n, suffix);
    return tensor_find(t, count, full);
}

static bool is_vector(const struct tensor_view *t, enum st_dtype dtype, size_t n)
{
    return t && t->dtype == dtype && t->ndim == 1 && t->shape[0] == n;
}

/* The tensors that a parameter may have been stored as; NULL for those that are not there. */
struct stored {
    const struct tensor_view *w, *q, *scale, *rexp, *cexp, *step;
};

static struct stored stored(const struct tensor_view *t, size_t count, const char *name)
{
    return (struct stored){
        find(t, count, name, ""),       find(t, count, name, ".q"),
        find(t, count, name, ".scale"), find(t, count, name, ".rexp"),
        find(t, count, name, ".cexp"),  find(t, count, name, ".step"),
    };
}

/* One scale per row, or one for each of several equal groups of a row's columns. */
static bool scales_sound(const struct tensor_view *t, size_t rows, size_t size)
{
    size_t n = t ? t->shape[0] : 0;
    return n && is_vector(t, ST_F16, n) && n % rows == 0 && size % n == 0;
}

/* X.step holds a number of states that has a code, or 0. */
static bool states_sound(const struct tensor_view *step)
{
    float states = element(step, 1);
    unsigned n = states >= 0 && states <= TRELLIS_STATES_MAX ? (unsigned)states : 1;
    return (float)n == states && (!n || trellis_code(n).h0);
}

/* That exactly one form is there, with the right shapes. */
static enum err_code check(const struct gpt_param *p, const struct stored *s, const char *path,
                           struct err *e)
{
    const struct tensor_view *w = s->w, *q = s->q;
    size_t rows = p->shape[0], cols = p->size / rows;
    if (!w == !q)
        return err_set(e, ERR_INPUT, "%s: tensor %s: %s", path, p->name,
                       w ? "there plain and as .q" : "missing");
    if (s->step && (w || s->scale))
        return err_set(e, ERR_INPUT, "%s: tensor %s: .step beside %s", path, p->name,
                       w ? "plain numbers" : ".scale");
    if (!same_shape(p, w ? w : q))
        return err_set(e, ERR_INPUT,
                       "%s: tensor %s: the recipe's shape is %zu x %zu, the file's is another",
                       path, p->name, rows, cols);
    if (w && w->dtype != ST_F32 && w->dtype != ST_F16 && w->dtype != ST_BF16)
        return err_set(e, ERR_INPUT, "%s: tensor %s: must be F32, F16 or BF16", path, p->name);
    if (s->step &&
        !(q->dtype == ST_I8 && is_vector(s->rexp, ST_I8, rows) && is_vector(s->cexp, ST_I8, cols) &&
          is_vector(s->step, ST_F32, 2) && states_sound(s->step)))
        return err_set(e, ERR_INPUT,
                       "%s: tensor %s: .q must be I8 with .rexp and .cexp I8, one per row and "
                       "column, and .step F32: a factor and 0, 4, 8, ... or %d states",
                       path, p->name, TRELLIS_STATES_MAX);
    if (q && !s->step && (q->dtype != ST_I8 || !scales_sound(s->scale, rows, p->size)))
        return err_set(e, ERR_INPUT,
                       "%s: tensor %s: .q must be I8 with .scale F16, one per row or per group of "
                       "a row",
                       path, p->name);
    return ERR_OK;
}

static enum err_code load_one(const struct gpt *m, const struct gpt_param *p, float *out,
                              const struct tensor_view *t, size_t count, size_t *used,
                              const char *path, struct err *e)
{
    bool bf16 = m->r.embed_bf16 && p->cls == PARAM_EMBED;
    struct stored s = stored(t, count, p->name);
    enum err_code rc = IN_RUNNER ? ERR_OK : check(p, &s, path, e);
    if (rc)
        return rc;
    if (s.step) { /* NAME.q with step exponents (stub/trellis.h), not with scales */
        struct dequant d = {.q = (const int8_t *)s.q->data,
                            .rexp = (const int8_t *)s.rexp->data,
                            .cexp = (const int8_t *)s.cexp->data,
                            .rows = p->shape[0],
                            .cols = p->size / p->shape[0],
                            .c = element(s.step, 0),
                            .states = (unsigned)element(s.step, 1)};
        dequant(out, &d);
    }
    for (size_t i = 0; i < p->size; i++) {
        float v = s.w       ? element(s.w, i)
                  : s.scale ? element(s.scale, s.scale->shape[0] * i / p->size) *
                                  (float)(int8_t)s.q->data[i]
                            : out[i];
        if (bf16)
            v = bf16_to_f32(f32_to_bf16(v));
        if (!IN_RUNNER && !(v - v == 0)) /* NaN and infinity alike */
            return err_set(e, ERR_INPUT, "%s: tensor %s: element %zu is not finite", path, p->name,
                           i);
        out[i] = v;
    }
    if (!IN_RUNNER)
        *used += s.w ? 1 : s.step ? 4 : 2;
    return ERR_OK;
}

#ifndef RUNNER
/* Some tensor is not the model's: name it. */
static enum err_code stranger(const struct gpt *m, const struct tensor_view *t, size_t count,
                              const char *path, struct err *e)
{
    for (size_t i = 0; i < count; i++) {
        const char *n = t[i].name, *dot = strrchr(n, '.');
        const struct gpt_param *p = gpt_find(m, n);
        char base[64];
        if (!p && dot && strstr(" .q .scale .rexp .cexp .step ", dot) &&
            (size_t)(dot - n) < sizeof base) {
            memcpy(base, n, (size_t)(dot - n));
            base[dot - n] = 0;
            p = find(t, count, base, ".q") ? gpt_find(m, base) : NULL;
        }
        if (!p)
            return err_set(e, ERR_INPUT, "%s: tensor %s: the recipe's model has no such parameter",
                           path, n);
    }
    return err_set(e, ERR_INPUT, "%s: tensors do not match the recipe's model", path);
}
#endif

enum err_code gpt_load(const struct gpt *m, float *params, const struct tensor_view *t,
                       size_t count, const char *path, struct err *e)
{
    size_t used = 0;
    for (size_t i = 0; i < m->nparams; i++) {
        enum err_code rc =
            load_one(m, &m->param[i], params + m->param[i].at, t, count, &used, path, e);
        if (rc)
            return rc;
    }
#ifdef RUNNER
    return ERR_OK;
#else
    return used == count ? ERR_OK : stranger(m, t, count, path, e);
#endif
}
