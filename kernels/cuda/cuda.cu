/* cuda.cu - the device: choosing it, memory, errors, and the table of kernels.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.cuh"

bool cuda_ok(struct cuda *c, cudaError_t status, const char *what)
{
    if (cuda_tried(status))
        return true;
    err_set(&c->failed, ERR_RESOURCE, "CUDA device %d: %s: %s", c->device, what,
            cudaGetErrorString(status));
    return false;
}

void *cuda_temp_bytes(struct cuda *c, size_t bytes, const char *what)
{
    struct cuda_room *r = &c->room;
    size_t size = bytes ? (bytes + 255) / 256 * 256 : 256;
    void *p = NULL;
    if (size <= r->size - r->used && r->base) {
        p = r->base + r->used;
        r->used += size;
    } else if (!cuda_ok(c, cudaMallocAsync(&p, bytes ? bytes : 1, c->stream), what)) {
        return NULL;
    }
    r->live++;
    r->want += size;
    r->most = r->want > r->most ? r->want : r->most;
    return p;
}

void cuda_done(struct cuda *c, void *temp)
{
    struct cuda_room *r = &c->room;
    if (!temp)
        return;
    if (!r->base || (char *)temp < r->base || (char *)temp >= r->base + r->size)
        cuda_ok(c, cudaFreeAsync(temp, c->stream), "temporary memory");
    if (--r->live == 0)
        r->used = r->want = 0;
}

static void *cuda_alloc(struct kern *k, size_t bytes)
{
    struct cuda *c = cuda_of(k);
    void *p = NULL;
    if (!cuda_tried(cudaMallocAsync(&p, bytes ? bytes : 1, c->stream)))
        return NULL;
    cuda_ok(c, cudaMemsetAsync(p, 0, bytes, c->stream), "alloc");
    return p;
}

static void cuda_free(struct kern *k, void *p)
{
    struct cuda *c = cuda_of(k);
    if (p)
        cuda_ok(c, cudaFreeAsync(p, c->stream), "free");
}

/* The source may change as soon as this returns: from pageable memory the driver has then copied
 * it. */
static void cuda_upload(struct kern *k, void *dst, const void *src, size_t bytes)
{
    struct cuda *c = cuda_of(k);
    cuda_ok(c, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, c->stream), "upload");
}

static void cuda_download(struct kern *k, void *dst, const void *src, size_t bytes)
{
    struct cuda *c = cuda_of(k);
    cuda_ok(c, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, c->stream), "download");
    cuda_ok(c, cudaStreamSynchronize(c->stream), "download");
}

static void cuda_zero(struct kern *k, void *dst, size_t bytes)
{
    struct cuda *c = cuda_of(k);
    cuda_ok(c, cudaMemsetAsync(dst, 0, bytes, c->stream), "zero");
}

static enum err_code cuda_sync(struct kern *k, struct err *e)
{
    struct cuda *c = cuda_of(k);
    cuda_ok(c, cudaStreamSynchronize(c->stream), "sync");
    struct err failed = c->failed;
    memset(&c->failed, 0, sizeof c->failed);
    return failed.code == ERR_OK ? ERR_OK : err_set(e, failed.code, "%s", failed.msg);
}

static void cuda_close(struct kern *k)
{
    struct cuda *c = cuda_of(k);
    if (c->stream)
        cudaStreamSynchronize(c->stream);
    lt_close(c->lt);
#ifndef RUNNER
    queue_close(c->queue);
#endif
    if (c->room.base)
        cudaFree(c->room.base);
    if (c->stream)
        cudaStreamDestroy(c->stream);
    free((char *)(uintptr_t)k->name);
    free(c);
    free(k);
}

/* Memory that was given back is kept for the next request instead of going to the driver. */
static cudaError_t keep_pool(int device)
{
    cudaMemPool_t pool;
    uint64_t all = UINT64_MAX;
    cudaError_t status = cudaDeviceGetDefaultMemPool(&pool, device);
    return status != cudaSuccess
               ? status
               : cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all);
}

enum { NAME = 64 /* bytes of k->name */ };

static enum err_code open_device(struct kern *k, struct cuda *c, struct err *e)
{
    cudaDeviceProp prop;
    int count = 0;
    cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess)
        return err_set(e, ERR_RESOURCE, "CUDA: %s", cudaGetErrorString(status));
    if (count == 1)
        c->device = 0; /* each process of a job has been given one card to see */
    if (c->device >= count)
        return err_set(e, ERR_RESOURCE, "CUDA device %d: there are %d", c->device, count);
    if ((status = cudaSetDevice(c->device)) != cudaSuccess ||
        (status = cudaGetDeviceProperties(&prop, c->device)) != cudaSuccess ||
        (status = keep_pool(c->device)) != cudaSuccess ||
        (status = cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking)) != cudaSuccess)
        return err_set(e, ERR_RESOURCE, "CUDA device %d: %s", c->device,
                       cudaGetErrorString(status));
    if (prop.major < 8)
        return err_set(e, ERR_RESOURCE, "CUDA device %d: %s is sm_%d%d, bf16 needs sm_80",
                       c->device, prop.name, prop.major, prop.minor);
    char *name = (char *)malloc(NAME);
    if (!name)
        return err_nomem(e, "name", NAME);
    snprintf(name, NAME, "cuda sm_%d%d", prop.major, prop.minor);
    k->name = name;
#ifndef RUNNER
    k->memory = prop.totalGlobalMem;
    enum err_code rc = queue_open(&c->queue, e);
    if (rc != ERR_OK)
        return rc;
#endif
    return lt_open(&c->lt, e);
}

#ifndef RUNNER
extern "C" void *kern_cuda_stream(struct kern *k)
{
    return cuda_of(k)->stream;
}
#endif

extern "C" enum err_code kern_cuda(struct kern **out, int device, struct err *e)
{
    struct kern *k = (struct kern *)calloc(1, sizeof *k);
    struct cuda *c = (struct cuda *)calloc(1, sizeof *c);
    *out = NULL;
    if (!k || !c) {
        free(k);
        free(c);
        return err_nomem(e, "CUDA", sizeof *c);
    }
    k->impl = c;
    c->device = device;
    k->close = cuda_close;
    enum err_code rc = open_device(k, c, e);
    if (rc != ERR_OK) {
        cuda_close(k);
        return rc;
    }
    k->alloc = cuda_alloc;
    k->free = cuda_free;
    k->upload = cuda_upload;
    k->download = cuda_download;
    k->zero = cuda_zero;
    k->sync = cuda_sync;
    cuda_fill_rows(k);
    cuda_fill_elem(k);
    cuda_fill_linear(k);
    cuda_fill_attn(k);
    cuda_fill_head(k);
    cuda_fill_slot(k);
    cuda_fill_optim(k);
#ifndef RUNNER
    cuda_fill_queue(k);
    cuda_fill_train(k);
    cuda_fill_update(k);
    cuda_fill_combine(k);
    cuda_fill_heads(k);
    if (cuda_attn90_open(k))
        strcat((char *)(uintptr_t)k->name, ", attention by wgmma");
    if (cuda_mlp90_open(k))
        strcat((char *)(uintptr_t)k->name, ", MLP by wgmma");
    if (!c->lt)
        strcat((char *)(uintptr_t)k->name, ", no cuBLASLt");
#endif
    *out = k;
    return ERR_OK;
}
