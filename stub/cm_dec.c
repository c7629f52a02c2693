/* cm_dec.c - see cm_dec.h. Included by weights_dec.c, whose decode_head it uses: one object has the
 * decoders of weights, and a program links it or not. */
#include "stub/cm_dec.h"

/* An arithmetic decoder. `in` may run past `end`: the bytes there are zero and never touched. */
struct cm_in {
    const uint8_t *in, *end;
    uint32_t range, code;
};

static void cm_shift_in(struct cm_in *d)
{
    d->code = d->code << 8 | (IN_RUNNER || d->in < d->end ? *d->in : 0);
    d->in++;
}

static unsigned cm_code(void *coder, uint32_t p, unsigned unused)
{
    struct cm_in *d = coder;
    uint32_t bound = (uint32_t)((uint64_t)d->range * p >> 16);
    unsigned bit = d->code < bound;
    (void)unused;
    if (bit) {
        d->range = bound;
    } else {
        d->range -= bound;
        d->code -= bound;
    }
    for (; d->range < 1u << 24; d->range <<= 8)
        cm_shift_in(d);
    return bit;
}

#include "stub/cm_model.h"

_Static_assert(sizeof(struct cm_model) <= CM_WORK && CM_STREAMS_MAX * CM_WORK <= WEIGHTS_WORK,
               "cm_dec.h and weights_dec.h promise enough workspace");

bool cm_stream(const struct cm_file *f, unsigned s, void *work)
{
    struct cm_in d = {.in = f->stream[s].in, .end = f->stream[s].end, .range = UINT32_MAX};
    struct cm_model *m = work;
    struct weights_cursor c;
    struct tensor_view t;
    uint64_t before = 0;
    for (int i = 0; i < 4; i++)
        cm_shift_in(&d);
    cm_init(m, &d);
    weights_open(&c, f->payload, f->raw_size);
    while (weights_next(&c, &t)) {
        if (!cm_is_matrix(&t)) {
            if (s == 0)
                cm_other(m, &t, f->payload + (t.data - f->payload));
            continue;
        }
        if ((before + t.nbytes / 2) * f->streams / f->all + 1 == s)
            cm_tensor(m, f->payload, f->raw_size, &t);
        before += t.nbytes;
    }
    return IN_RUNNER || d.in == d.end;
}

bool cm_open(struct cm_file *f, const uint8_t *params, const uint8_t *in, size_t in_n,
             uint8_t *payload, size_t raw_size, void *work)
{
    struct reader r = reader_init(in, in_n);
    struct weights_cursor c;
    struct tensor_view t;
    if (!decode_head(&r, params, payload, raw_size, work))
        return false;
    *f = (struct cm_file){.payload = payload, .raw_size = raw_size, .streams = reader_u8(&r)};
    weights_open(&c, payload, raw_size);
    while (weights_next(&c, &t))
        f->all += cm_is_matrix(&t) ? t.nbytes : 0;
    if (!IN_RUNNER && (c.bad || f->streams > CM_STREAMS_MAX || (f->all && !f->streams)))
        return false;
    for (unsigned s = 0; s <= f->streams; s++) {
        f->stream[s].in = reader_take(&r, reader_u32(&r));
        f->stream[s].end = r.at;
    }
    return (IN_RUNNER || (!r.bad && r.at == r.end)) && cm_stream(f, 0, work);
}
