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

struct cm_coder {
    struct range_out *out;
};

static unsigned cm_code(struct cm_coder *coder, uint32_t p, unsigned bit)
{
    struct range_out *c = coder->out;
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

/* The mean of |level in half steps| of the rows from q to x->end, and how much it varies. sums:
 * [rows + columns] workspace. */
static void survey_matrix(uint8_t hint[HINTS], const struct cm_model *x, uint64_t *sums)
{
    size_t n = (size_t)(x->end - x->q), rows = x->cols ? n / x->cols : 0;
    uint64_t *col = sums + rows, total = 0;
    memset(sums, 0, (rows + x->cols) * sizeof *sums);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < x->cols; j++) {
            int half = 2 * x->q[i * x->cols + j] + (hint[HINT_H0] != 0);
            uint64_t size = (uint64_t)(half < 0 ? -half : half);
            sums[i] += size;
            col[j] += size;
            total += size;
        }
    double mean = n ? (double)total / (double)n : 0;
    put_le32(hint + HINT_MEAN, (uint32_t)(CM_UNIT * mean + 0.5) + (CM_UNIT * mean < 0.5));
    if (total) {
        hint[HINT_ROW] = (uint8_t)prior(spread(sums, rows, x->cols, mean));
        hint[HINT_COLUMN] = (uint8_t)prior(spread(col, x->cols, rows, mean));
    }
}

/* The tensor X.SUFFIX that belongs to X.q, if it has that type and size, otherwise NULL. */
static const uint8_t *beside(const uint8_t *payload, size_t n, const char *q, const char *suffix,
                             enum st_dtype dtype, size_t nbytes)
{
    struct weights_cursor c;
    struct tensor_view t;
    size_t base = strlen(q);
    weights_open(&c, payload, n);
    if (base < 2 || strcmp(q + base - 2, ".q"))
        return NULL;
    for (base -= 2; weights_next(&c, &t);)
        if (!strncmp(t.name, q, base) && !strcmp(t.name + base, suffix) && t.dtype == dtype &&
            t.nbytes == nbytes)
            return t.data;
    return NULL;
}

/* The trellis that the tensors beside a matrix describe (stub/trellis.h), if they do and the
 * decoder can reach them: behind all matrices, one right behind the other. */
static void find_trellis(uint8_t hint[HINTS], struct cm_model *x, const uint8_t *payload, size_t n,
                         size_t matrices_end, const struct tensor_view *t)
{
    size_t rows = t->shape[0];
    x->rexp = x->cexp = (const int8_t *)payload;
    const uint8_t *step = beside(payload, n, t->name, ".step", ST_F32, 8),
                  *r = beside(payload, n, t->name, ".rexp", ST_I8, rows),
                  *c = beside(payload, n, t->name, ".cexp", ST_I8, x->cols);
    if (!step || !r || c != r + rows || t->ndim > 2 || r < payload + matrices_end)
        return;
    uint32_t states = le32(step + 4); /* a float: 4 to 256 are exact powers of two */
    for (uint32_t bits = 2; bits <= 8; bits++)
        if (states == (127 + bits) << 23) {
            struct trellis code = trellis_code(1u << bits);
            hint[HINT_H0] = code.h0;
            hint[HINT_H1] = code.h1;
            put_le32(hint + HINT_FLAGS, (uint32_t)(r - payload));
        }
    x->rexp = (const int8_t *)r;
    x->cexp = (const int8_t *)c;
}

/* ---- streams ---- */

/* One stream in the making, with all the memory that it takes: streams are made
 * at the same time. */
struct encoder {
    uint8_t *payload; /* shared; the walk writes what it reads */
    size_t n, from, to, matrices_end;
    bool others;
    struct range_out out;           /* its out is owned, and has `cap` bytes */
    uint8_t *spare;                 /* [out.cap] output of a second try */
    struct cm_model *model, *other; /* other: for a second try */
    uint64_t *sums;                 /* rows and columns of the largest matrix */
};

/* Hints, which the model keeps, and elements. */
static void encode_with(struct cm_model *m, uint8_t hint[HINTS])
{
    cm_bytes(m, hint, HINTS, 1, m->hint);
    memcpy(m->hint, hint, HINTS);
    cm_matrix(m);
}

static void encode_matrix(struct encoder *c, const struct tensor_view *t)
{
    struct cm_model *x = c->model;
    uint8_t hint[HINTS] = {0};
    x->q = (int8_t *)c->payload + (t->data - c->payload);
    x->end = x->q + t->nbytes;
    x->cols = t->shape[t->ndim - 1];
    size_t rows = x->cols ? t->nbytes / x->cols : 0, cols = x->cols;
    find_trellis(hint, x, c->payload, c->n, c->matrices_end, t);
    survey_matrix(hint, x, c->sums);
    bool try = rows > cols && rows >= 256 && cols > CM_CHUNK && cols <= CM_WIDE;
    struct range_out before = c->out;
    if (try)
        memcpy(c->other, c->model, sizeof *c->model);
    encode_with(c->model, hint);
    if (!try)
        return;

    /* The same from the state before, with similar rows, behind the same number of bytes. */
    struct range_out plain = c->out;
    struct cm_model *model = c->model;
    size_t size = plain.size - before.size;
    c->out = before;
    c->out.out = c->spare;
    c->model = c->other;
    hint[HINT_SIMILAR] = 1;
    encode_with(c->model, hint);
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

static void encode_stream(struct encoder *c)
{
    struct weights_cursor cur;
    struct tensor_view t;
    memset(c->model, 0, sizeof *c->model);
    cm_init(c->model);
    c->model->coder.out = &c->out;
    weights_open(&cur, c->payload, c->n);
    while (weights_next(&cur, &t)) {
        size_t at = (size_t)(t.data - c->payload);
        if (!cm_is_matrix(&t)) {
            if (c->others)
                cm_other(c->model, c->payload, &t, cur.table);
        } else if (at - c->from < c->to - c->from) {
            encode_matrix(c, &t);
        }
    }
    range_finish(&c->out);
}

static void encode_task(void *ctx, size_t task, size_t thread)
{
    (void)thread;
    encode_stream((struct encoder *)ctx + task);
}

static bool encoder_new(struct encoder *c, size_t bytes, size_t side)
{
    c->out = (struct range_out){.cap = 2 * bytes + 4096, .range = 1u << 24, .run = 1};
    c->out.out = malloc(c->out.cap);
    c->spare = c->others ? NULL : malloc(c->out.cap);
    c->model = malloc(sizeof *c->model);
    c->other = c->others ? NULL : malloc(sizeof *c->other);
    c->sums = malloc(side * sizeof *c->sums);
    return c->out.out && c->model && c->sums && (c->others || (c->spare && c->other));
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
    size_t matrices_end;      /* in the payload */
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
            size_t cols = t.shape[t.ndim - 1], sum = cols + (cols ? t.nbytes / cols : 0);
            j->elements += t.nbytes;
            j->side = sum > j->side ? sum : j->side;
            j->matrices_end = cur.data;
        }
    j->streams = j->elements >= CM_SPLIT ? CM_STREAMS : j->elements > 0;
    return !cur.bad;
}

/* Which matrices each stream has: those whose middle lies in its equal share of all elements. */
static void share_out(struct job *j, const uint8_t *raw)
{
    struct weights_cursor cur;
    struct tensor_view t;
    uint64_t before = 0;
    unsigned s = 0;
    weights_open(&cur, raw, j->n);
    while (weights_next(&cur, &t))
        if (cm_is_matrix(&t)) {
            for (; j->elements && s < (before + t.nbytes / 2) * j->streams / j->elements; s++)
                j->stream[s].to = (size_t)(t.data - raw);
            before += t.nbytes;
        }
    for (; s <= j->streams; s++)
        j->stream[s].to = j->n;
    for (s = 1; s <= j->streams; s++)
        j->stream[s].from = j->stream[s - 1].to;
}

static bool job_memory(struct job *j, const uint8_t *raw)
{
    bool good = (j->payload = calloc(j->n, 1)) != NULL;
    share_out(j, raw);
    for (unsigned s = 0; good && s <= j->streams; s++) {
        struct encoder *c = &j->stream[s];
        c->payload = j->payload;
        c->n = j->n;
        c->matrices_end = j->matrices_end;
        c->others = s == j->streams;
        good = encoder_new(c, c->others ? j->n - j->elements : c->to - c->from, j->side);
    }
    return good;
}

/* The payload without or with its matrices. */
static void fill(struct job *j, const uint8_t *raw, size_t table_end, bool matrices)
{
    struct weights_cursor cur;
    struct tensor_view t;
    memcpy(j->payload, raw, table_end);
    weights_open(&cur, raw, j->n);
    while (weights_next(&cur, &t))
        if (cm_is_matrix(&t) == matrices)
            memcpy(j->payload + (t.data - raw), t.data, t.nbytes);
}

/* Head and streams in their stored form; false without memory. The first byte of a stream comes of
 * the 2^24 that its range begins with: it is 0 and left out. */
static bool assemble(struct coded *c, const struct job *j, const struct coded *head)
{
    size_t size = 9 + head->size;
    for (unsigned s = 0; s <= j->streams; s++)
        size += 8 + j->stream[s].out.size - 1;
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
        size_t n = o->size - 1;
        put_le32(at, (uint32_t)j->stream[s].to);
        put_le32(at + 4, (uint32_t)n);
        memcpy(at + 8, o->out + 1, o->size <= o->cap ? n : o->cap - 1);
        at += 8 + n;
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
    fill(&j, raw, table_end, false);
    encode_stream(&j.stream[j.streams]); /* alone: the others read what it writes */
    fill(&j, raw, table_end, true);
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
