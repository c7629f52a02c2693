/*
 * queue.cu - what lets the host run ahead of the device through steps of training: uploads that do
 * not wait, weights that are rounded to bf16 once, tapes.
 *
 * Uploads. From ordinary memory cudaMemcpyAsync may wait until the device gets there. So bytes are
 * copied into a ring of SLOTS pieces of page-locked memory and go from there; an event behind each
 * piece says when it may be written again. The host waits only when it is a whole ring ahead: two
 * million tokens with their targets, or two thirds of that with rows of a bigram table.
 *
 * Tapes are CUDA graphs, captured from the stream. A captured kernel keeps its arguments, so every
 * address in it must stay: weights, activations and gradients do, and temporary memory then comes
 * from one block (struct cuda_room) that is made as large as the operations before have needed, and
 * is not replaced while there is a tape.
 */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.cuh"

enum {
    SLOTS = 8,
    SLOT_BYTES = 1 << 20,
    MATRICES = 512 /* that are remembered; the records have 81 */
};

/* A matrix, or several, and their bf16 form. */
struct matrix {
    struct cuda_weights w;
    bf16 *w16;
};

/* Pointers, here and on the device. */
struct list {
    struct list *next;
    float **at; /* device */
    size_t n;
    float *x[];
};

struct kern_tape {
    cudaGraphExec_t exec;
    struct cuda_span held; /* before it was recorded */
};

struct queue {
    char *ring; /* page-locked, [SLOTS][SLOT_BYTES] */
    cudaEvent_t copied[SLOTS];
    size_t slot, used;     /* the piece that is being filled, and how far */
    struct cuda_span held; /* what was given to hold; w is NULL when nothing is */
    struct matrix matrix[MATRICES];
    size_t matrices, tapes;
    struct list *lists;
    bool recording;
    struct cuda_span began; /* what was held then */
    bool broken;            /* a recording failed: the same would happen again */
};

enum err_code queue_open(struct queue **out, struct err *e)
{
    struct queue *q = (struct queue *)calloc(1, sizeof *q);
    *out = q;
    if (!q || cudaMallocHost((void **)&q->ring, SLOTS * SLOT_BYTES) != cudaSuccess)
        return err_nomem(e, "CUDA: page-locked memory", SLOTS * SLOT_BYTES);
    for (int i = 0; i < SLOTS; i++)
        if (cudaEventCreateWithFlags(&q->copied[i], cudaEventDisableTiming) != cudaSuccess)
            return err_nomem(e, "CUDA: events", SLOTS);
    return ERR_OK;
}

void queue_close(struct queue *q)
{
    if (!q)
        return;
    for (int i = 0; i < SLOTS; i++)
        if (q->copied[i])
            cudaEventDestroy(q->copied[i]);
    if (q->ring)
        cudaFreeHost(q->ring);
    for (size_t i = 0; i < q->matrices; i++)
        cudaFree(q->matrix[i].w16);
    for (struct list *l = q->lists, *next; l; l = next) {
        next = l->next;
        cudaFree(l->at);
        free(l);
    }
    free(q);
}

/* ---- uploads ---- */

static void next_slot(struct cuda *c)
{
    struct queue *q = c->queue;
    cuda_ok(c, cudaEventRecord(q->copied[q->slot], c->stream), "upload");
    q->slot = (q->slot + 1) % SLOTS;
    q->used = 0;
    /* An event that was never recorded counts as over. */
    cuda_ok(c, cudaEventSynchronize(q->copied[q->slot]), "upload");
}

static void upload(struct kern *k, void *dst, const void *src, size_t bytes)
{
    struct cuda *c = cuda_of(k);
    struct queue *q = c->queue;
    for (size_t at = 0, n; at < bytes; at += n) {
        if (q->used == SLOT_BYTES)
            next_slot(c);
        n = bytes - at < SLOT_BYTES - q->used ? bytes - at : SLOT_BYTES - q->used;
        char *from = q->ring + q->slot * SLOT_BYTES + q->used;
        memcpy(from, (const char *)src + at, n);
        q->used += n;
        cuda_ok(c, cudaMemcpyAsync((char *)dst + at, from, n, cudaMemcpyHostToDevice, c->stream),
                "upload");
    }
}

static void copy(struct kern *k, void *dst, const void *src, size_t bytes)
{
    struct cuda *c = cuda_of(k);
    cuda_ok(c, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, c->stream), "copy");
}

/* ---- weights in bf16 ---- */

static bool within(const struct cuda_span *held, const struct cuda_weights *w)
{
    bool in = held->w;
    for (int i = 0; i < CUDA_PARTS; i++)
        in = in && (w->of[i].n == 0 ||
                    (w->of[i].w >= held->w && w->of[i].w + w->of[i].n <= held->w + held->n));
    return in;
}

static bool same(const struct cuda_weights *x, const struct cuda_weights *y)
{
    bool is = true;
    for (int i = 0; i < CUDA_PARTS; i++)
        is = is && x->of[i].n == y->of[i].n && x->of[i].w == y->of[i].w;
    return is;
}

size_t cuda_count(const struct cuda_weights *w)
{
    size_t n = 0;
    for (int i = 0; i < CUDA_PARTS; i++)
        n += w->of[i].n;
    return n;
}

void cuda_round(struct cuda *c, bf16 *y, const struct cuda_weights *w)
{
    for (int i = 0; i < CUDA_PARTS && w->of[i].n; i++) {
        cuda_to_bf16(c, y, w->of[i].w, w->of[i].n);
        y += w->of[i].n;
    }
}

/* Matrices are found out when they are first used, and rounded with every hold from then on. They
 * have places of their own, because in the block they lie on no multiple of 16 bytes. */
const bf16 *cuda_held_all(struct cuda *c, const struct cuda_weights *w)
{
    struct queue *q = c->queue;
    void *p = NULL;
    if (!within(&q->held, w))
        return NULL;
    for (size_t i = 0; i < q->matrices; i++)
        if (same(&q->matrix[i].w, w))
            return q->matrix[i].w16;
    if (q->recording || q->matrices == MATRICES ||
        !cuda_tried(cudaMallocAsync(&p, cuda_count(w) * sizeof(bf16), c->stream)))
        return NULL; /* the product rounds for itself */
    q->matrix[q->matrices++] = (struct matrix){*w, (bf16 *)p};
    cuda_round(c, (bf16 *)p, w);
    return (bf16 *)p;
}

static void hold(struct kern *k, const float *w, size_t n)
{
    struct cuda *c = cuda_of(k);
    struct queue *q = c->queue;
    q->held = (struct cuda_span){w, n};
    for (size_t i = 0; i < q->matrices; i++)
        if (within(&q->held, &q->matrix[i].w))
            cuda_round(c, q->matrix[i].w16, &q->matrix[i].w);
}

/* ---- lists of pointers ---- */

float *const *cuda_list(struct kern *k, float *const *x, size_t n)
{
    struct cuda *c = cuda_of(k);
    struct queue *q = c->queue;
    for (const struct list *l = q->lists; l; l = l->next)
        if (l->n == n && !memcmp(l->x, x, n * sizeof *x))
            return l->at;
    if (q->recording) {
        cuda_ok(c, cudaErrorStreamCaptureUnsupported, "list of pointers");
        return NULL;
    }
    struct list *l = (struct list *)malloc(sizeof *l + n * sizeof *x);
    void *at = NULL;
    if (!l || !cuda_ok(c, cudaMallocAsync(&at, n * sizeof *x, c->stream), "list of pointers")) {
        if (!l)
            cuda_ok(c, cudaErrorMemoryAllocation, "list of pointers");
        free(l);
        return NULL;
    }
    l->next = q->lists;
    l->at = (float **)at;
    l->n = n;
    memcpy(l->x, x, n * sizeof *x);
    q->lists = l;
    k->upload(k, at, x, n * sizeof *x);
    return l->at;
}

/* ---- tapes ---- */

/* Makes the block of temporary memory as large as was ever needed, unless a tape uses it. */
static bool room_fits(struct cuda *c)
{
    struct cuda_room *r = &c->room;
    if (r->most <= r->size)
        return true;
    if (c->queue->tapes || r->live)
        return false;
    if (r->base)
        cuda_ok(c, cudaFreeAsync(r->base, c->stream), "temporary memory");
    void *p = NULL;
    bool there = cuda_tried(cudaMallocAsync(&p, r->most, c->stream));
    r->base = there ? (char *)p : NULL;
    r->size = there ? r->most : 0;
    return there;
}

/* Relaxed: only this stream is recorded, and cuBLASLt may call what it likes meanwhile. */
static bool record(struct kern *k)
{
    struct cuda *c = cuda_of(k);
    if (c->queue->broken || c->failed.code != ERR_OK || !room_fits(c))
        return false;
    c->queue->recording =
        cuda_tried(cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeRelaxed));
    c->queue->broken = !c->queue->recording;
    c->queue->began = c->queue->held;
    return c->queue->recording;
}

static struct kern_tape *recorded(struct kern *k)
{
    struct cuda *c = cuda_of(k);
    struct kern_tape *t = (struct kern_tape *)calloc(1, sizeof *t);
    cudaGraph_t graph = NULL;
    c->queue->recording = false;
    bool ok = cudaStreamEndCapture(c->stream, &graph) == cudaSuccess && t &&
              c->failed.code == ERR_OK &&
              cudaGraphInstantiateWithFlags(&t->exec, graph, 0) == cudaSuccess;
    if (graph)
        cudaGraphDestroy(graph);
    if (ok) {
        t->held = c->queue->began;
        c->queue->tapes++;
        return t;
    }
    /* Nothing was carried out, so nothing has failed: the caller queues the operations as usual,
     * and if one of them is at fault it says so then. */
    free(t);
    memset(&c->failed, 0, sizeof c->failed);
    (void)cudaGetLastError();
    c->queue->broken = true;
    return NULL;
}

static bool play(struct kern *k, const struct kern_tape *tape)
{
    struct cuda *c = cuda_of(k);
    const struct cuda_span *held = &c->queue->held;
    if (tape->held.w != held->w || tape->held.n != held->n)
        return false;
    cuda_ok(c, cudaGraphLaunch(tape->exec, c->stream), "play");
    return true;
}

static void forget(struct kern *k, struct kern_tape *tape)
{
    struct cuda *c = cuda_of(k);
    if (!tape)
        return;
    cuda_ok(c, cudaStreamSynchronize(c->stream), "forget"); /* it may be playing */
    cuda_ok(c, cudaGraphExecDestroy(tape->exec), "forget");
    free(tape);
    c->queue->tapes--;
}

void cuda_fill_queue(struct kern *k)
{
    k->upload = upload;
    k->copy = copy;
    k->hold = hold;
    k->record = record;
    k->recorded = recorded;
    k->play = play;
    k->forget = forget;
}
