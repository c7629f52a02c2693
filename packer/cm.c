/*
 * cm.c - see cm.h: the encoder to stub/cm_dec.c. The bits go through packer/range_out.h.
 */
#include "packer/cm.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/pool.h"
#include "model/reader.h"
#include "packer/code.h"
#include "packer/range_out.h"
#include "stub/cm_dec.h"
#include "stub/weights_dec.h"

static unsigned cm_code(void *coder, uint32_t p, unsigned bit)
{
    struct range_out *c = coder;
    uint32_t bound = (uint32_t)((uint64_t)c->range * p >> 16);
    if (bit) {
        c->range = bound;
    } else {
        c->low += bound;
        c->range -= bound;
    }
    range_normalise(c);
    return bit;
}

#include "stub/cm_model.h"

enum {
    CM_STREAMS = 4, /* of a large payload: more than enough for two cores */
    CM_PRIOR_MAX = 10,
    CM_CLASSES = 8, /* of matrices */
};
_Static_assert((int)CM_STREAMS <= (int)CM_STREAMS_MAX, "more streams than the decoder takes");

/* ---- what the encoder knows about a matrix before it begins ---- */

/* log2 of how many elements weigh as much as the knowledge that factors spread
 * by `variance`: an estimate of a mean |x| from n Gaussian elements has a
 * relative variance of (pi/2 - 1) / n. */
static uint32_t prior(double variance)
{
    uint32_t p = 0;
    while (p < CM_PRIOR_MAX && variance * (double)(1u << p) < 0.57 * 0.7071)
        p++;
    return p;
}

/* Variance of n sums of `each` elements around their mean, relative to it, less
 * what comes from the elements themselves. */
static double spread(const uint64_t *sum, size_t n, size_t each, double mean)
{
    double v = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)sum[i] / (double)each / mean - 1;
        v += d * d;
    }
    return v / (double)n - 0.57 / (double)each;
}

/* The mean of |level in half steps|, how much it varies, and what follows.
 * sums: [rows + cols] workspace. */
static void survey_matrix(struct cm_matrix *x, uint64_t *sums)
{
    uint64_t *col = sums + x->rows, total = 0;
    memset(sums, 0, (x->rows + x->cols) * sizeof *sums);
    for (size_t i = 0; i < x->rows; i++)
        for (size_t j = 0; j < x->cols; j++) {
            int half = 2 * x->q[i * x->cols + j] + (x->hint[HINT_BITS] != 0);
            uint64_t size = (uint64_t)(half < 0 ? -half : half);
            sums[i] += size;
            col[j] += size;
            total += size;
        }
    double mean = (double)total / (double)x->rows / (double)x->cols;
    x->hint[HINT_MEAN] = (uint32_t)(CM_UNIT * mean + 0.5) + (CM_UNIT * mean < 0.5);
    if (total) {
        x->hint[HINT_ROW] = prior(spread(sums, x->rows, x->cols, mean));
        x->hint[HINT_COLUMN] = prior(spread(col, x->cols, x->rows, mean));
    }
    while (x->hint[HINT_SHIFT] < 3 && mean / 2 / (1 << x->hint[HINT_SHIFT]) > 6)
        x->hint[HINT_SHIFT]++;
}

/* The number in the payload of the tensor X.SUFFIX that belongs to X.q, if it
 * has that type and size, otherwise CM_TENSORS; *data is where it is. */
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

/* The trellis that the tensors beside a matrix describe (stub/trellis.h), if
 * they do. */
static void find_trellis(const uint8_t *payload, size_t n, const char *name, struct cm_matrix *x)
{
    const uint8_t *step = NULL, *r = NULL, *c = NULL;
    beside(payload, n, name, ".step", ST_F32, 8, &step);
    x->hint[HINT_FLAGS] = beside(payload, n, name, ".rexp", ST_I8, x->rows, &r);
    uint32_t next = beside(payload, n, name, ".cexp", ST_I8, x->cols, &c);
    if (!step || !r || !c || next != x->hint[HINT_FLAGS] + 1)
        return;
    uint32_t states = le32(step + 4); /* a float: 4 to 256 are exact powers of two */
    for (uint32_t bits = 2; bits <= 8; bits++)
        if (states == (127 + bits) << 23)
            x->hint[HINT_BITS] = bits;
    x->rexp = (const int8_t *)r;
    x->cexp = (const int8_t *)c;
}

/* ---- streams ---- */

/* One stream in the making, with all the memory that it takes: streams are made
 * at the same time. */
struct encoder {
    uint8_t *payload; /* shared; the walk writes what it reads */
    size_t n, elements;
    unsigned s, streams;
    struct range_out out;           /* its out is owned, and has `cap` bytes */
    uint8_t *spare;                 /* [out.cap] output of a second try */
    struct cm_model *model, *other; /* other: for a second try */
    uint64_t *sums;                 /* rows and columns of the largest matrix */
    uint64_t shape[CM_CLASSES];     /* that each class stands for */
};

/* Matrices of the same shape share a class; shapes beyond the last class share
 * that. */
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
    x.rows = t->nbytes / x.cols;
    find_trellis(c->payload, c->n, t->name, &x);
    survey_matrix(&x, c->sums);
    x.hint[HINT_CLASS] = class_of(c, &x);
    bool try = x.rows > x.cols && x.rows >= 256 && x.cols > CM_CHUNK && x.cols <= CM_WIDE;
    struct range_out before = c->out;
    if (try) {
        memcpy(c->other, c->model, sizeof *c->model);
    }
    cm_hints(c->model, &x);
    cm_matrix(c->model, &x);
    if (!try)
        return;

    /* The same from the state before, with similar rows, behind the same number
     * of bytes. */
    struct range_out plain = c->out;
    struct cm_model *model = c->model;
    size_t size = plain.size - before.size;
    c->out = before;
    c->out.out = c->spare;
    c->model = c->other;
    x.hint[HINT_SIMILAR] = 1;
    cm_hints(c->model, &x);
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

/* Stream 0: everything but the matrices; stream s: the matrices whose middle
 * lies in part s - 1 of `streams` equal parts of all elements. */
static void encode_stream(struct encoder *c)
{
    struct weights_cursor cur;
    struct tensor_view t;
    uint64_t before = 0;
    cm_init(c->model, &c->out);
    weights_open(&cur, c->payload, c->n);
    while (weights_next(&cur, &t)) {
        if (!cm_is_matrix(&t)) {
            if (c->s == 0)
                cm_other(c->model, &t, c->payload + (t.data - c->payload));
            continue;
        }
        if ((before + t.nbytes / 2) * c->streams / c->elements + 1 == c->s)
            encode_matrix(c, &t);
        before += t.nbytes;
    }
    range_finish(&c->out);
}

static void encode_task(void *ctx, size_t task, size_t thread)
{
    (void)thread;
    encode_stream((struct encoder *)ctx + 1 + task);
}

static bool encoder_new(struct encoder *c, unsigned s, size_t bytes, size_t side)
{
    c->s = s;
    c->out = (struct range_out){.cap = 2 * bytes + 4096, .range = UINT32_MAX, .run = 1};
    c->out.out = malloc(c->out.cap);
    c->spare = s ? malloc(c->out.cap) : NULL;
    c->model = malloc(sizeof *c->model);
    c->other = s ? malloc(sizeof *c->other) : NULL;
    c->sums = malloc(side * sizeof *c->sums);
    return c->out.out && c->model && c->sums && (s == 0 || (c->spare && c->other));
}

static void encoder_free(struct encoder *c)
{
    free(c->out.out);
    free(c->spare);
    free(c->model);
    free(c->other);
    free(c->sums);
}

/* ---- whole payloads ---- */

/* A payload on its way. */
struct job {
    uint8_t *payload;
    size_t n, elements, side; /* in matrices; the largest sum of rows and columns */
    unsigned streams;
    struct encoder stream[CM_STREAMS + 1];
    struct pool *pool;
};

/* False when raw is no payload. */
static bool survey(struct job *j, const uint8_t *raw, size_t n, size_t *table_end)
{
    struct weights_cursor cur;
    struct tensor_view t;
    j->n = n;
    j->side = 1;
    weights_open(&cur, raw, n);
    *table_end = cur.table_end;
    while (weights_next(&cur, &t))
        if (cm_is_matrix(&t)) {
            size_t cols = t.shape[t.ndim - 1], sum = cols + t.nbytes / cols;
            j->elements += t.nbytes;
            j->side = sum > j->side ? sum : j->side;
        }
    j->streams = j->elements >= CM_SPLIT ? CM_STREAMS : j->elements > 0;
    return !cur.bad;
}

/* How many bytes belong to each stream; stream 0 has what is left. */
static void shares(const struct job *j, const uint8_t *raw, size_t bytes[CM_STREAMS + 1])
{
    struct weights_cursor cur;
    struct tensor_view t;
    uint64_t before = 0;
    memset(bytes, 0, (CM_STREAMS + 1) * sizeof *bytes);
    weights_open(&cur, raw, j->n);
    while (weights_next(&cur, &t)) {
        if (!cm_is_matrix(&t)) {
            bytes[0] += t.nbytes;
            continue;
        }
        bytes[(before + t.nbytes / 2) * j->streams / j->elements + 1] += t.nbytes;
        before += t.nbytes;
    }
}

static bool job_memory(struct job *j, const uint8_t *raw)
{
    size_t bytes[CM_STREAMS + 1];
    bool good = (j->payload = malloc(j->n)) != NULL;
    shares(j, raw, bytes);
    for (unsigned s = 0; good && s <= j->streams; s++) {
        j->stream[s] = (struct encoder){
            .payload = j->payload, .n = j->n, .elements = j->elements, .streams = j->streams};
        good = encoder_new(&j->stream[s], s, bytes[s], j->side);
    }
    if (good)
        memcpy(j->payload, raw, j->n);
    return good;
}

/* Head and streams in their stored form; false without memory. */
static bool assemble(struct coded *c, const struct job *j, const struct coded *head)
{
    size_t size = 9 + head->size;
    for (unsigned s = 0; s <= j->streams; s++)
        size += 4 + j->stream[s].out.size;
    uint8_t *at = c->data = malloc(size);
    c->codec = CODEC_CM;
    c->raw_size = j->n;
    c->size = size;
    if (!at)
        return false;
    put_le32(at, (uint32_t)head->raw_size);
    put_le32(at + 4, (uint32_t)head->size);
    memcpy(at + 8, head->data, head->size);
    at += 8 + head->size;
    *at++ = (uint8_t)j->streams;
    for (unsigned s = 0; s <= j->streams; s++) {
        const struct range_out *o = &j->stream[s].out;
        put_le32(at, (uint32_t)o->size);
        memcpy(at + 4, o->out, o->size < o->cap ? o->size : o->cap);
        at += 4 + o->size;
    }
    return true;
}

static bool proved(const struct coded *c, const struct job *j, const uint8_t *raw, struct err *e)
{
    void *work = malloc(WEIGHTS_WORK);
    uint8_t *copy = j->payload;
    bool good = work != NULL;
    if (!good)
        err_nomem(e, "codec cm", WEIGHTS_WORK);
    for (unsigned s = 0; s <= j->streams; s++)
        good = good && j->stream[s].out.size <= j->stream[s].out.cap;
    if (good) {
        memset(copy, 0xAA, j->n);
        good =
            weights_decode_on(j->pool, c->codec, c->params, c->data, c->size, copy, j->n, work) &&
            !memcmp(copy, raw, j->n);
    }
    free(work);
    if (!good)
        err_set(e, ERR_RESOURCE, "codec cm: the payload does not survive the round trip");
    return good;
}

static enum err_code make(struct coded *c, const void *raw, size_t n, bool prove, struct err *e)
{
    struct coded head = {0};
    struct job j = {0};
    size_t table_end;
    memset(c, 0, sizeof *c);
    if (!survey(&j, raw, n, &table_end))
        return err_set(e, ERR_INPUT, "codec cm: this is no weight payload");
    enum err_code rc = coded_code(&head, raw, table_end, e);
    if (rc)
        return rc;
    if (!job_memory(&j, raw)) {
        rc = err_nomem(e, "codec cm", n);
        goto out;
    }
    j.pool = pool_for(j.streams);
    encode_stream(&j.stream[0]); /* alone: the others read it */
    if (j.pool)
        pool_run(j.pool, encode_task, j.stream, j.streams);
    else
        for (unsigned s = 0; s < j.streams; s++)
            encode_task(j.stream, s, 0);
    if (!assemble(c, &j, &head))
        rc = err_nomem(e, "codec cm", c->size);
    else if (prove && !proved(c, &j, raw, e))
        rc = ERR_RESOURCE;
    if (rc)
        coded_free(c);
out:
    pool_free(j.pool);
    coded_free(&head);
    free(j.payload);
    for (unsigned s = 0; s <= CM_STREAMS; s++)
        encoder_free(&j.stream[s]);
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
