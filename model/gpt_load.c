/* gpt_load.c - named tensors into the parameter block. */
#include <string.h>

#include "model/dequant.h"
#include "model/gpt.h"
#include "model/reader.h"

/* The runner inside a submission meets weights that packer has checked: one text serves it. */
#if defined(KERN_FORWARD_ONLY) || defined(KERN_NO_OPTIM)
#define refuse(e, what, path, ...) err_set(e, ERR_INPUT, "%s: tensor %s: damaged", path, p->name)
#else
#define refuse(e, ...) err_set(e, ERR_INPUT, __VA_ARGS__)
#endif

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

/* NAME.q with step exponents (stub/trellis.h) instead of a scale. */
static enum err_code load_rd(const struct gpt_param *p, float *out, const struct tensor_view *q,
                             const struct tensor_view *t, size_t count, const char *path,
                             struct err *e)
{
    struct dequant d = {.q = (const int8_t *)q->data, .rows = p->shape[0]};
    const struct tensor_view *rexp = find(t, count, p->name, ".rexp");
    const struct tensor_view *cexp = find(t, count, p->name, ".cexp");
    const struct tensor_view *step = find(t, count, p->name, ".step");
    float states = -1;
    d.cols = p->size / d.rows;
    bool ok = q->dtype == ST_I8 && is_vector(rexp, ST_I8, d.rows) &&
              is_vector(cexp, ST_I8, d.cols) && is_vector(step, ST_F32, 2);
    if (ok) {
        d.rexp = (const int8_t *)rexp->data;
        d.cexp = (const int8_t *)cexp->data;
        d.c = element(step, 0);
        states = element(step, 1);
        d.states = states >= 0 && states <= TRELLIS_STATES_MAX ? (unsigned)states : 1;
        ok = (float)d.states == states && (!d.states || trellis_code(d.states).h0);
    }
    if (!ok)
        return refuse(e,
                      "%s: tensor %s: .q must be I8 with .rexp and .cexp I8, one per row and "
                      "column, and .step F32: a factor and 0, 4, 8, ... or %d states",
                      path, p->name, TRELLIS_STATES_MAX);
    dequant(out, &d);
    return ERR_OK;
}

static enum err_code load_one(const struct gpt *m, const struct gpt_param *p, float *out,
                              const struct tensor_view *t, size_t count, size_t *used,
                              const char *path, struct err *e)
{
    bool bf16 = m->r.embed_bf16 && p->cls == PARAM_EMBED;
    const struct tensor_view *w = find(t, count, p->name, ""), *q = find(t, count, p->name, ".q");
    const struct tensor_view *s = find(t, count, p->name, ".scale");
    bool rd = q && !s && find(t, count, p->name, ".step");
    size_t cols = p->size / p->shape[0];
    if (!w == !q)
        return refuse(e, "%s: tensor %s: %s", path, p->name,
                      w ? "there plain and as .q" : "missing");
    if (!same_shape(p, w ? w : q))
        return refuse(e, "%s: tensor %s: the recipe's shape is %zu x %zu, the file's is another",
                      path, p->name, p->shape[0], cols);
    if (w && w->dtype != ST_F32 && w->dtype != ST_F16 && w->dtype != ST_BF16)
        return refuse(e, "%s: tensor %s: must be F32, F16 or BF16", path, p->name);
    if (q && !rd &&
        (q->dtype != ST_I8 || !s || s->dtype != ST_F16 || s->ndim != 1 ||
         s->shape[0] != p->shape[0]))
        return refuse(e, "%s: tensor %s: .q must be I8 with .scale F16, one per row", path,
                      p->name);
    if (rd) {
        enum err_code rc = load_rd(p, out, q, t, count, path, e);
        if (rc)
            return rc;
    }
    for (size_t i = 0; i < p->size; i++) {
        float v = w    ? element(w, i)
                  : rd ? out[i]
                       : (float)(int8_t)q->data[i] * element(s, i / cols);
        if (bf16)
            v = bf16_to_f32(f32_to_bf16(v));
        if (!(v - v == 0)) /* NaN and infinity alike */
            return refuse(e, "%s: tensor %s: element %zu is not finite", path, p->name, i);
        out[i] = v;
    }
    *used += w ? 1 : rd ? 4 : 2;
    return ERR_OK;
}

#if !defined(KERN_FORWARD_ONLY) && !defined(KERN_NO_OPTIM)
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
    if (used == count)
        return ERR_OK;
#if defined(KERN_FORWARD_ONLY) || defined(KERN_NO_OPTIM)
    return err_set(e, ERR_INPUT, "%s: tensors do not match the recipe's model", path);
#else
    return stranger(m, t, count, path, e);
#endif
}
