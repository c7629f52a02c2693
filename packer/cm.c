/*
 * cm.c - see cm.h: the encoder to stub/cm_dec.c.
 *
 * The arithmetic coder keeps 32 bits of range; `low` needs one bit more for the carry, which may
 * still change bytes that are decided otherwise: the last such byte is held back, with the 0xFF
 * bytes after it that a carry would run through. After the coder in Igor Pavlov's LZMA SDK (public
 * domain).
 */
#include "packer/cm.h"

#include <stdlib.h>
#include <string.h>

#include "model/reader.h"
#include "stub/cm_dec.h"
#include "stub/weights_dec.h"

struct cm_out {
    uint8_t *out;
    size_t size, cap; /* size may exceed cap: then nothing more is stored */
    uint64_t low;
    uint32_t range;
    uint8_t held;
    size_t run; /* bytes held back: `held` and run - 1 bytes 0xFF */
    bool begun; /* the first byte held is a 0 before the stream, which is left out */
};

static void put(struct cm_out *c, uint8_t byte)
{
    if (c->begun && c->size < c->cap)
        c->out[c->size] = byte;
    c->size += c->begun;
    c->begun = true;
}

static void shift_out(struct cm_out *c)
{
    if (c->low < 0xFF000000u || c->low > UINT32_MAX) {
        uint8_t carry = (uint8_t)(c->low >> 32);
        put(c, (uint8_t)(c->held + carry));
        for (; c->run > 1; c->run--)
            put(c, (uint8_t)(0xFF + carry));
        c->held = (uint8_t)(c->low >> 24);
        c->run = 0;
    }
    c->run++;
    c->low = (c->low & 0x00FFFFFF) << 8;
}

static unsigned cm_code(void *coder, uint32_t p, unsigned bit)
{
    struct cm_out *c = coder;
    uint32_t bound = (uint32_t)((uint64_t)c->range * p >> 16);
    if (bit) {
        c->range = bound;
    } else {
        c->low += bound;
        c->range -= bound;
    }
    for (; c->range < 1u << 24; c->range <<= 8)
        shift_out(c);
    return bit;
}

#include "stub/cm_model.h"

enum { CM_STREAMS = 4 }; /* of a large payload: more than enough for two cores */
_Static_assert((int)CM_STREAMS <= (int)CM_STREAMS_MAX, "more streams than the decoder takes");

/* ---- what the encoder knows about a matrix before it begins ---------------------------------- */

/* log2 of how many elements weigh as much as the knowledge that factors spread by `variance`: an
 * estimate of a mean |x| from n Gaussian elements has a relative variance of (pi/2 - 1) / n. */
static unsigned prior(double variance)
{
    unsigned p = 0;
    while (p < CM_PRIOR_MAX && variance * (double)(1u << p) < 0.57 * 0.7071)
        p++;
    return p;
}

/* Variance of n sums of `each` elements around their mean, relative to it, less what comes from the
 * elements themselves. */
static double spread(const uint64_t *sum, size_t n, size_t each, double mean)
{
    double v = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)sum[i] / (double)each / mean - 1;
        v += d * d;
    }
    return v / (double)n - 0.57 / (double)each;
}

/* The mean of |level in half steps|, how much it varies, and what follows. sums: [rows + cols]
 * workspace. */
static void survey_matrix(struct cm_matrix *x, uint64_t *sums)
{
    uint64_t *col = sums + x->rows, total = 0;
    memset(sums, 0, (x->rows + x->cols) * sizeof *sums);
    for (size_t i = 0; i < x->rows; i++)
        for (size_t j = 0; j < x->cols; j++) {
            int half = 2 * x->q[i * x->cols + j] + (x->bits != 0);
            uint64_t size = (uint64_t)(half < 0 ? -half : half);
            sums[i] += size;
            col[j] += size;
            total += size;
        }
    double mean = (double)total / (double)x->rows / (double)x->cols;
    x->mean = (uint32_t)(CM_UNIT * mean + 0.5);
    x->mean += !x->mean;
    if (total) {
        x->row_prior = prior(spread(sums, x->rows, x->cols, mean));
        x->col_prior = prior(spread(col, x->cols, x->rows, mean));
    }
    while (x->shift < 3 && mean / 2 / (1 << x->shift) > 6)
        x->shift++;
}

/* The number in the payload of the tensor X.SUFFIX that belongs to X.q, if it has that type and
 * size, otherwise CM_TENSORS; *data is where it is. */
static uint32_t beside(const uint8_t *payload, size_t n, const char *q, const char *suffix,
                       enum st_dtype dtype, size_t nbytes, const uint8_t **data)
{
    struct weights_cursor c;
    struct tensor_view t;
    size_t base = strlen(q);
    uint32_t number = 0;
    weights_open(&c, payload, n);
    if (base < 2 || strcmp(q + base - 2, ".q") || c.left > CM_TENSORS)
        return CM_TENSORS;
    for (base -= 2; weights_next(&c, &t); number++)
        if (!strncmp(t.name, q, base) && !strcmp(t.name + base, suffix) && t.dtype == dtype &&
            t.nbytes == nbytes) {
            *data = t.data;
            return number;
        }
    return CM_TENSORS;
}

/* The trellis that the tensors beside a matrix describe (stub/trellis.h), if they do. */
static void find_trellis(const uint8_t *payload, size_t n, const char *name, struct cm_matrix *x,
                         uint32_t *rexp, uint32_t *cexp)
{
    const uint8_t *step = NULL, *r = NULL, *c = NULL;
    beside(payload, n, name, ".step", ST_F32, 8, &step);
    *rexp = beside(payload, n, name, ".rexp", ST_I8, x->rows, &r);
    *cexp = beside(payload, n, name, ".cexp", ST_I8, x->cols, &c);
    if (!step || !r || !c)
        return;
    uint32_t states = le32(step + 4); /* a float: 4 to 256 are exact powers of two */
    for (uint32_t bits = 2; bits <= 8; bits++)
        if (states == (127 + bits) << 23)
            x->bits = bits;
    x->rexp = (const int8_t *)r;
    x->cexp = (const int8_t *)c;
}

/* ---- streams --------------------------------------------------------------------------------- */

struct encoder {
    uint8_t *payload; /* a copy: the walk writes what it reads */
    size_t n;
    struct cm_out out;
    uint8_t *spare;                 /* [out.cap] output of a second try */
    struct cm_model *model, *other; /* other: for a second try */
    uint64_t *sums;                 /* rows and columns of the largest matrix */
    uint64_t shape[CM_CLASSES];     /* that each class stands for */
};

static void begin(struct encoder *c)
{
    c->out = (struct cm_out){
        .out = c->out.out, .size = c->out.size, .cap = c->out.cap, .range = UINT32_MAX, .run = 1};
    cm_init(c->model, &c->out);
}

static void end(struct encoder *c)
{
    for (int i = 0; i < 5; i++)
        shift_out(&c->out);
}

/* Matrices of the same shape share a class; shapes beyond the last class share that. */
static unsigned class_of(struct encoder *c, const struct cm_matrix *x)
{
    uint64_t shape = (uint64_t)x->rows << 32 | x->cols;
    unsigned i = 0;
    while (i < CM_CLASSES - 1 && c->shape[i] && c->shape[i] != shape)
        i++;
    if (!c->shape[i])
        c->shape[i] = shape;
    return i;
}

static void encode_matrix(struct encoder *c, const struct tensor_view *t)
{
    struct cm_matrix x = {.q = (int8_t *)c->payload + (t->data - c->payload),
                          .cols = t->shape[t->ndim - 1]};
    uint32_t rexp, cexp;
    x.rows = t->nbytes / x.cols;
    find_trellis(c->payload, c->n, t->name, &x, &rexp, &cexp);
    survey_matrix(&x, c->sums);
    x.class = class_of(c, &x);
    bool try = x.rows > x.cols && x.rows >= 256 && x.cols > CM_CHUNK && x.cols <= CM_WIDE;
    struct cm_out before = c->out;
    if (try)
        memcpy(c->other, c->model, sizeof *c->model);
    cm_hints(c->model, &x, &rexp, &cexp);
    cm_matrix(c->model, &x);
    if (!try)
        return;

    /* The same from the state before, with similar rows, behind the same number of bytes. */
    struct cm_out plain = c->out;
    struct cm_model *model = c->model;
    size_t size = plain.size - before.size;
    c->out = before;
    c->out.out = c->spare;
    c->model = c->other;
    x.similar = 1;
    cm_hints(c->model, &x, &rexp, &cexp);
    cm_matrix(c->model, &x);
    c->out.out = before.out;
    if (c->out.size - before.size + size / 300 < size && c->out.size <= c->out.cap) {
        memcpy(c->out.out + before.size, c->spare + before.size, c->out.size - before.size);
        c->other = model;
    } else {
        c->out = plain;
        c->other = c->model;
        c->model = model;
    }
}

/* Everything but the matrices. */
static void encode_small(struct encoder *c)
{
    struct weights_cursor cur;
    struct tensor_view t;
    begin(c);
    weights_open(&cur, c->payload, c->n);
    while (weights_next(&cur, &t))
        if (!cm_is_matrix(&t))
            cm_bytes(c->model, c->payload + (t.data - c->payload), t.nbytes,
                     st_dtype_size(t.dtype));
    end(c);
}

/* The matrices whose middle lies in part s - 1 of `streams` equal parts of all `elements`. */
static void encode_stream(struct encoder *c, unsigned s, unsigned streams, uint64_t elements)
{
    struct weights_cursor cur;
    struct tensor_view t;
    uint64_t before = 0;
    begin(c);
    weights_open(&cur, c->payload, c->n);
    while (weights_next(&cur, &t)) {
        if (!cm_is_matrix(&t))
            continue;
        if ((before + t.nbytes / 2) * streams / elements + 1 == s)
            encode_matrix(c, &t);
        before += t.nbytes;
    }
    end(c);
}

/* ---- whole payloads -------------------------------------------------------------------------- */

static void free_encoder(struct encoder *c)
{
    free(c->payload);
    free(c->out.out);
    free(c->spare);
    free(c->model);
    free(c->other);
    free(c->sums);
}

/* Elements in matrices, and the largest sum of rows and columns; SIZE_MAX for no payload. */
static size_t survey(const uint8_t *payload, size_t n, size_t *side)
{
    struct weights_cursor cur;
    struct tensor_view t;
    size_t elements = 0;
    *side = 1;
    weights_open(&cur, payload, n);
    while (weights_next(&cur, &t))
        if (cm_is_matrix(&t)) {
            size_t cols = t.shape[t.ndim - 1], sum = cols + t.nbytes / cols;
            elements += t.nbytes;
            *side = sum > *side ? sum : *side;
        }
    return cur.bad ? SIZE_MAX : elements;
}

/* Head and streams into c->out. */
static void encode(struct encoder *c, const struct coded *head, size_t elements)
{
    struct cm_out *o = &c->out;
    unsigned streams = elements ? 1 : 0;
    if (elements >= CM_SPLIT)
        streams = CM_STREAMS;
    put_le32(o->out, (uint32_t)head->raw_size);
    put_le32(o->out + 4, (uint32_t)head->size);
    memcpy(o->out + 8, head->data, head->size);
    o->size = 8 + head->size;
    o->out[o->size++] = (uint8_t)streams;
    for (unsigned s = 0; s <= streams; s++) {
        size_t at = o->size;
        o->size += 4;
        if (s == 0)
            encode_small(c);
        else
            encode_stream(c, s, streams, elements);
        if (o->size <= o->cap)
            put_le32(o->out + at, (uint32_t)(o->size - at - 4));
    }
}

static enum err_code make(struct coded *c, const void *raw, size_t n, bool prove, struct err *e)
{
    enum err_code rc = ERR_OK;
    struct coded head = {0};
    struct encoder enc = {.n = n};
    struct weights_cursor cur;
    size_t side, elements = survey(raw, n, &side);
    memset(c, 0, sizeof *c);
    if (elements == SIZE_MAX)
        return err_set(e, ERR_INPUT, "codec cm: this is no weight payload");
    weights_open(&cur, raw, n);
    rc = coded_lzma(&head, raw, cur.table_end, LZMA_SEARCH, false, e);
    if (rc)
        return rc;
    enc.out.cap = head.size + 2 * n + 4096;
    enc.payload = malloc(n);
    enc.out.out = malloc(enc.out.cap);
    enc.spare = malloc(enc.out.cap);
    enc.model = malloc(WEIGHTS_WORK);
    enc.other = malloc(WEIGHTS_WORK);
    enc.sums = malloc(side * sizeof *enc.sums);
    if (!enc.payload || !enc.out.out || !enc.spare || !enc.model || !enc.other || !enc.sums) {
        rc = err_nomem(e, "codec cm", n);
        goto out;
    }
    memcpy(enc.payload, raw, n);
    encode(&enc, &head, elements);
    memcpy(c->params, head.params, sizeof c->params);
    c->codec = CODEC_CM;
    c->size = enc.out.size;
    c->raw_size = n;
    if (enc.out.size > enc.out.cap ||
        (prove && (!weights_decode(CODEC_CM, c->params, enc.out.out, enc.out.size, enc.payload, n,
                                   enc.model) ||
                   memcmp(enc.payload, raw, n)))) {
        rc = err_set(e, ERR_INPUT, "codec cm: the payload does not survive the round trip");
        goto out;
    }
    c->data = enc.out.out;
    enc.out.out = NULL;
out:
    coded_free(&head);
    free_encoder(&enc);
    return rc;
}

enum err_code coded_cm(struct coded *c, const void *raw, size_t n, struct err *e)
{
    return make(c, raw, n, true, e);
}

enum err_code cm_size(size_t *size, const void *raw, size_t n, struct err *e)
{
    struct coded c;
    enum err_code rc = make(&c, raw, n, false, e);
    *size = c.size;
    coded_free(&c);
    return rc;
}
