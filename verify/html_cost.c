/* html_cost.c - see html_cost.h. */
#include "verify/html_cost.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/reader.h"
#include "stub/cm_dec.h"
#include "stub/range_model.h"
#include "stub/weights_dec.h"

/* An arithmetic decoder that adds up what it decodes. It takes a byte whenever the range is below
 * 2^24: codec range behind each symbol and four at first, codec cm before each bit. */
struct tap {
    const uint8_t *in, *end; /* in may run past end: the bytes there are zero */
    uint32_t range, code;
    double bits;
};

static void shift_in(struct tap *d)
{
    d->code = d->code << 8 | (d->in < d->end ? *d->in : 0);
    d->in++;
}

static struct tap tap_init(const uint8_t *in, const uint8_t *end)
{
    struct tap d = {.in = in, .end = end, .range = UINT32_MAX};
    for (int i = 0; i < 4; i++)
        shift_in(&d);
    return d;
}

/* The bits since the last call, as bytes. */
static double tap_take(struct tap *d)
{
    double bytes = d->bits / 8;
    d->bits = 0;
    return bytes;
}

/* ---- range codec ---- */

static unsigned range_code(void *coder, const struct freq *f, unsigned unused)
{
    struct tap *d = coder;
    (void)unused;
    uint32_t unit = d->range >> RANGE_TOTAL_BITS, value = d->code / unit;
    if (value >> RANGE_TOTAL_BITS)
        value = (1u << RANGE_TOTAL_BITS) - 1;
    uint32_t symbol = f->first[value >> 8];
    while (f->below[symbol + 1] <= value)
        symbol++;
    uint32_t share = f->below[symbol + 1] - f->below[symbol];
    d->code -= f->below[symbol] * unit;
    d->range = share * unit;
    d->bits += RANGE_TOTAL_BITS - log2((double)share);
    for (; d->range < 1u << 24; d->range <<= 8)
        shift_in(d);
    return symbol;
}

/* `copy` is a payload of which only the table is believed; its data are decoded again. */
static bool cost_range(const struct blob_section *s, uint8_t *copy, double *cost, void *work)
{
    struct reader r = reader_init(s->data, s->size);
    struct weights_cursor c;
    struct tensor_view t;
    reader_u32(&r);
    reader_take(&r, reader_u32(&r)); /* the table */
    if (r.bad)
        return false;
    struct range_model *m = work;
    struct tap d = tap_init(r.at, r.end);
    range_model_init(m);
    weights_open(&c, copy, s->raw_size);
    for (size_t i = 0; weights_next(&c, &t); i++) {
        range_tensor(m, &t, copy + (t.data - copy), 0, 0, range_code, &d);
        cost[i] = tap_take(&d);
    }
    return !c.bad && d.in == d.end;
}

/* ---- cm codec ---- */

struct cm_coder {
    struct tap tap;
};

static unsigned cm_code(struct cm_coder *coder, uint32_t p, unsigned unused)
{
    struct tap *d = &coder->tap;
    (void)unused;
    for (; d->range < 1u << 24; d->range <<= 8)
        shift_in(d);
    uint32_t bound = (uint32_t)((uint64_t)d->range * p >> 16);
    unsigned bit = d->code < bound;
    if (bit) {
        d->range = bound;
    } else {
        d->range -= bound;
        d->code -= bound;
    }
    d->bits += 16 - log2((double)(bit ? p : 65536 - p));
    return bit;
}

#include "stub/cm_model.h"

_Static_assert(sizeof(struct cm_model) <= WEIGHTS_WORK, "the model needs more workspace");

/* Stream s of f, as cm_stream walks over it; costs of its tensors. */
static bool cost_stream(const struct cm_file *f, size_t s, double *cost, struct cm_model *m)
{
    struct cm_part p = cm_part(f, s);
    struct weights_cursor c;
    struct tensor_view t;
    memset(m, 0, sizeof *m);
    cm_init(m);
    m->coder.tap = (struct tap){.in = p.in, .end = p.end, .range = 1};
    weights_open(&c, f->payload, f->raw_size);
    for (size_t i = 0; weights_next(&c, &t); i++)
        if (cm_tensor(m, f, &p, &t, c.table))
            cost[i] = tap_take(&m->coder.tap);
    return !c.bad;
}

static bool cost_cm(const struct blob_section *s, uint8_t *copy, double *cost, void *work)
{
    struct cm_file f;
    bool good = cm_open(&f, s->params, s->data, s->size, copy, s->raw_size, work);
    good = good && cost_stream(&f, f.streams, cost, work); /* before there are matrices */
    for (size_t i = 0; good && i < f.streams; i++)
        good = cost_stream(&f, i, cost, work);
    return good;
}

/* ---- other codecs ---- */

/* Order-0 entropy of each of the element's bytes, in bytes; what a coder without contexts needs. */
static double entropy(const struct tensor_view *t)
{
    size_t esize = st_dtype_size(t->dtype), n = t->nbytes / esize;
    double bits = 0;
    for (size_t b = 0; b < esize; b++) {
        size_t seen[256] = {0};
        for (size_t i = 0; i < n; i++)
            seen[t->data[i * esize + b]]++;
        for (int v = 0; v < 256; v++)
            if (seen[v])
                bits -= (double)seen[v] * log2((double)seen[v] / (double)n);
    }
    return bits / 8;
}

static void estimate_all(const struct blob_section *s, const uint8_t *payload, double *cost)
{
    struct weights_cursor c;
    struct tensor_view t;
    double all = 0;
    size_t n = 0;
    weights_open(&c, payload, s->raw_size);
    for (; weights_next(&c, &t); n++) {
        cost[n] = entropy(&t);
        all += cost[n];
    }
    for (size_t i = 0; i < n; i++)
        cost[i] = all > 0 ? cost[i] / all * (double)s->size : 0;
}

static size_t tensors(const uint8_t *payload, size_t raw_size, bool *sound)
{
    struct weights_cursor c;
    struct tensor_view t;
    size_t n = 0;
    weights_open(&c, payload, raw_size);
    while (weights_next(&c, &t))
        n++;
    *sound = !c.bad;
    return n;
}

static void stored(const uint8_t *payload, size_t raw_size, double *cost)
{
    struct weights_cursor c;
    struct tensor_view t;
    weights_open(&c, payload, raw_size);
    for (size_t i = 0; weights_next(&c, &t); i++)
        cost[i] = (double)t.nbytes;
}

enum err_code cost_tensors(const struct blob_section *s, const uint8_t *payload, double **cost,
                           size_t *count, bool *estimate, struct err *e)
{
    bool sound, known = false;
    size_t n = tensors(payload, s->raw_size, &sound), raw = s->raw_size;
    if (!sound)
        return err_set(e, ERR_INPUT, "weights: table of tensors is damaged");
    double *out = calloc(n + 1, sizeof *out), sum = 0;
    uint8_t *copy = malloc(raw ? raw : 1);
    void *work = malloc(WEIGHTS_WORK);
    enum err_code rc = ERR_OK;
    if (!out || !copy || !work) {
        rc = err_nomem(e, "costs of tensors", raw);
        goto out;
    }
    memcpy(copy, payload, raw);
    if (s->codec == CODEC_NONE) {
        stored(payload, raw, out);
        known = true;
    } else if (s->codec == CODEC_RANGE || s->codec == CODEC_CM) {
        known =
            s->codec == CODEC_RANGE ? cost_range(s, copy, out, work) : cost_cm(s, copy, out, work);
        /* The same bytes came out, so these are the probabilities that the file was made with. */
        known = known && !memcmp(copy, payload, raw);
    }
    if (!known)
        estimate_all(s, payload, out);
    for (size_t i = 0; i < n; i++)
        sum += out[i];
    for (size_t i = 0; i < n && sum > (double)s->size; i++)
        out[i] *= (double)s->size / sum;
    *estimate = !known;
    *count = n;
    *cost = out;
    out = NULL;
out:
    free(out);
    free(copy);
    free(work);
    return rc;
}
