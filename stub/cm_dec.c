/* cm_dec.c - see cm_dec.h. Included by weights_dec.c, whose decode_head it uses: one object has the
 * decoders of weights, and a program links it or not. */
#include "stub/cm_dec.h"

/* An arithmetic decoder. `in` may run past `end`: the bytes there are zero and never touched. */
struct cm_coder {
    const uint8_t *in, *end;
    uint32_t range, code;
};

static unsigned cm_code(struct cm_coder *d, uint32_t p, unsigned unused)
{
    uint32_t range = d->range, code = d->code;
    (void)unused;
    for (; range < 1u << 24; range <<= 8) {
        code = code << 8 | (IN_RUNNER || d->in < d->end ? *d->in : 0);
        d->in++;
    }
    uint32_t bound = (uint32_t)((uint64_t)range * p >> 16);
    unsigned bit = code < bound;
    if (!bit) {
        code -= bound;
        bound = range - bound;
    }
    d->range = bound;
    d->code = code;
    return bit;
}

#include "stub/cm_model.h"

_Static_assert(sizeof(struct cm_model) <= CM_WORK, "cm_dec.h promises enough workspace");

void cm_stream(void *file, size_t s, size_t thread)
{
    struct cm_file *f = file;
    struct cm_part p = cm_part(f, s);
    struct cm_model *m = (void *)(f->work + s * CM_WORK);
    struct weights_cursor c;
    struct tensor_view t;
    (void)thread;
    if (!IN_RUNNER)
        memset(m, 0, sizeof *m);
    cm_init(m);
    m->coder.in = p.in;
    m->coder.range = 1;
    if (!IN_RUNNER)
        m->coder.end = p.end;
    weights_open(&c, f->payload, f->raw_size);
    while (weights_next(&c, &t))
        cm_tensor(m, f, &p, &t, c.table);
    if (IN_RUNNER)
        return;
    cm_code(&m->coder, 1, 0); /* takes the last bytes */
    f->good[s] = m->coder.in == m->coder.end;
}

/* Whether table and streams are as they should be; a runner does not ask. */
static inline bool cm_sound(struct cm_file *f, struct reader r)
{
    struct weights_cursor c;
    struct tensor_view t;
    size_t before = 0, to = 0;
    f->matrices_end = 0;
    weights_open(&c, f->payload, f->raw_size);
    while (weights_next(&c, &t))
        if (cm_is_matrix(&t))
            f->matrices_end = c.data;
    for (size_t s = 0; s <= f->streams; s++, before = to) {
        to = reader_u32(&r);
        reader_take(&r, reader_u32(&r));
        if (to < before)
            return false;
    }
    return !c.bad && !r.bad && r.at == r.end && to == f->raw_size && f->streams <= CM_STREAMS_MAX;
}

bool cm_open(struct cm_file *f, const uint8_t *params, const uint8_t *in, size_t in_n,
             uint8_t *payload, size_t raw_size, void *work)
{
    struct reader r = reader_init(in, in_n);
    if (!decode_head(&r, params, payload, raw_size, work))
        return false;
    f->payload = payload;
    f->raw_size = raw_size;
    f->work = work;
    f->streams = reader_u8(&r);
    f->parts = r.at;
    if (!IN_RUNNER && !cm_sound(f, r))
        return false;
    cm_stream(f, f->streams, 0);
    return IN_RUNNER || f->good[f->streams];
}
