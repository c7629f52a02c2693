/*
 * runtime.cc - the functions of the CUDA runtime. Work in a stream is done as late as it may be:
 * when the host waits for it. Until then the target of a copy to pinned memory holds nonsense, and
 * what a copy from pinned memory takes is what is there at the end. A host that does not wait for
 * what it needs, or does not leave alone what it gave away, gets wrong numbers every time instead
 * of sometimes. EMU_STREAM=eager does everything at once, the other extreme: both are possible on
 * a card, so results must not differ.
 *
 * A graph is the list of what was put into its stream; memory that a graph allocates has one
 * address, and begins without content at each launch.
 */
#include <cuda_runtime.h>
#include <stdlib.h>

#include <deque>
#include <map>
#include <memory>
#include <vector>

typedef std::function<void()> work;

struct emu_graph {
    std::vector<work> nodes;
    cudaStreamCaptureMode mode;
    bool broken;
};

struct emu_graph_exec {
    std::vector<work> nodes;
};

struct emu_event {
    emu::stream *stream;     /* of the last record */
    size_t recorded, done;   /* how often */
    struct emu_graph *graph; /* when that was in a capture */
};

namespace emu
{

struct stream {
    std::deque<work> queue;
    struct emu_graph *capture;
};

} // namespace emu

using emu::stream;

enum { QUEUE = 1024 /* longer ones begin to work: memory of the host is finite too */ };

static cudaError_t last;
static stream null_stream;
static std::map<stream *, int> streams;             /* that are alive */
static std::map<const void *, size_t> shared_asked; /* by cudaFuncSetAttribute */
static std::map<uintptr_t, size_t> pinned;

static cudaError_t failed(cudaError_t e)
{
    if (e != cudaSuccess)
        last = e;
    return e;
}

static stream *of(cudaStream_t s)
{
    if (s && !streams.count(s))
        emu::fault(NULL, "a stream that is not (or no longer) one");
    return s ? s : &null_stream;
}

static void step(stream *s)
{
    work w = std::move(s->queue.front());
    s->queue.pop_front();
    w();
}

static void drain(stream *s)
{
    while (!s->queue.empty())
        step(s);
}

static void drain_all()
{
    for (auto &s : streams)
        drain(s.first);
    drain(&null_stream);
}

/* Bytes of shared memory that a block may ask for. */
static size_t shared_most()
{
    return emu::card() == 80 ? emu::SHARED_MOST_80 : emu::SHARED_MOST;
}

static void put(stream *s, work w)
{
    if (s->capture) {
        s->capture->nodes.push_back(std::move(w));
        return;
    }
    s->queue.push_back(std::move(w));
    if (emu::eager() || s->queue.size() > QUEUE)
        drain(s);
}

bool emu::capturing()
{
    for (auto &s : streams)
        if (s.first->capture)
            return true;
    return false;
}

/* Is any capture going on that forbids calls which could wait (or allocate) behind its back? Such
 * a call fails and spoils the capture. */
static bool forbidden()
{
    bool found = false;
    for (auto &s : streams)
        if (s.first->capture && s.first->capture->mode != cudaStreamCaptureModeRelaxed)
            found = s.first->capture->broken = true;
    return found;
}

const char *cudaGetErrorString(cudaError_t e)
{
    switch (e) {
    case cudaSuccess:
        return "no error";
    case cudaErrorInvalidValue:
        return "invalid argument";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorStreamCaptureUnsupported:
        return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
        return "operation failed due to a previous error during capture";
    case cudaErrorNotReady:
        return "device not ready";
    default:
        return "unrecognized error code";
    }
}

cudaError_t cudaGetLastError()
{
    cudaError_t e = last;
    last = cudaSuccess;
    return e;
}

cudaError_t cudaPeekAtLastError()
{
    return last;
}

/* ---- devices ---- */

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 1;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    return device ? failed(cudaErrorInvalidDevice) : cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    *device = 0;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *prop, int device)
{
    *prop = {};
    strcpy(prop->name, "emulated");
    prop->major = emu::card() / 10;
    prop->multiProcessorCount = 4;
    prop->totalGlobalMem = (size_t)8 << 30;
    prop->sharedMemPerBlockOptin = shared_most();
    prop->l2CacheSize = 1 << 20;
    return cudaSetDevice(device);
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attr, int device)
{
    *value = attr == cudaDevAttrMultiProcessorCount      ? 4
             : attr == cudaDevAttrComputeCapabilityMajor ? emu::card() / 10
             : attr == cudaDevAttrComputeCapabilityMinor ? 0
                                                         : (int)shared_most();
    return cudaSetDevice(device);
}

cudaError_t cudaDeviceSynchronize()
{
    if (forbidden())
        return failed(cudaErrorStreamCaptureUnsupported);
    drain_all();
    return cudaSuccess;
}

cudaError_t emu_func_shared(const void *kernel, int bytes)
{
    if (bytes < 0 || (size_t)bytes > shared_most())
        return failed(cudaErrorInvalidValue);
    shared_asked[kernel] = (size_t)bytes;
    return cudaSuccess;
}

/* ---- launches ---- */

void emu::enqueue(stream *s, const struct launch &l, void *args, void (*drop)(void *))
{
    std::shared_ptr<void> kept(args, drop);
    size_t threads = (size_t)l.block.x * l.block.y * l.block.z, most = SHARED_PLAIN;
    auto asked = shared_asked.find(l.kernel);
    if (asked != shared_asked.end() && asked->second > most)
        most = asked->second;
    if (threads == 0 || threads > MAX_THREADS || l.block.z > 64 || l.grid.x == 0 ||
        l.grid.x > INT32_MAX || l.grid.y == 0 || l.grid.y > 65535 || l.grid.z == 0 ||
        l.grid.z > 65535) {
        failed(cudaErrorInvalidConfiguration);
        return;
    }
    if (l.shared > most) {
        failed(cudaErrorInvalidValue);
        return;
    }
    put(of(s), [l, kept] { run(l, kept.get()); });
}

void emu::enqueue(stream *s, work w)
{
    put(of(s), std::move(w));
}

/* ---- streams and events ---- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    *s = new stream();
    streams[*s] = 1;
    return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *s)
{
    return cudaStreamCreateWithFlags(s, 0);
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    drain(of(s));
    streams.erase(s);
    delete s;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    if (of(s)->capture) {
        of(s)->capture->broken = true;
        return failed(cudaErrorStreamCaptureUnsupported);
    }
    drain(of(s));
    return cudaSuccess;
}

/* A host that asks again and again gets there. */
cudaError_t cudaStreamQuery(cudaStream_t s)
{
    if (of(s)->queue.empty())
        return cudaSuccess;
    step(of(s));
    return failed(cudaErrorNotReady); /* CUDA remembers this one too */
}

static void reach(struct emu_event *e, size_t count)
{
    while (e->done < count && !e->stream->queue.empty())
        step(e->stream);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned)
{
    stream *to = of(s);
    if (e->graph) { /* the other stream becomes part of the capture, or is so already */
        if (to->capture && to->capture != e->graph)
            return failed(cudaErrorInvalidValue);
        to->capture = e->graph;
        return cudaSuccess;
    }
    if (to->capture)
        return failed(cudaErrorInvalidValue); /* a capture depends on nothing outside of it */
    size_t count = e->recorded;
    put(to, [e, count] { reach(e, count); });
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    *e = new emu_event();
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *e)
{
    return cudaEventCreateWithFlags(e, 0);
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    reach(e, e->recorded);
    delete e;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    stream *from = of(s);
    e->graph = from->capture;
    if (from->capture)
        return cudaSuccess;
    e->stream = from;
    size_t count = ++e->recorded;
    put(from, [e, count] { e->done = count; });
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    if (e->graph)
        return failed(cudaErrorStreamCaptureUnsupported);
    reach(e, e->recorded);
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t e)
{
    if (e->done == e->recorded)
        return cudaSuccess;
    step(e->stream);
    return failed(cudaErrorNotReady);
}

/* ---- graphs ---- */

cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode)
{
    if (!s || of(s)->capture)
        return failed(s ? cudaErrorIllegalState : cudaErrorStreamCaptureUnsupported);
    s->capture = new emu_graph{{}, mode, false};
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph)
{
    struct emu_graph *g = of(s)->capture;
    *graph = NULL;
    if (!g)
        return failed(cudaErrorIllegalState);
    for (auto &other : streams)
        if (other.first->capture == g)
            other.first->capture = NULL;
    if (g->broken) {
        delete g;
        return failed(cudaErrorStreamCaptureInvalidated);
    }
    *graph = g;
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t s, cudaStreamCaptureStatus *status)
{
    const struct emu_graph *g = of(s)->capture;
    *status = !g          ? cudaStreamCaptureStatusNone
              : g->broken ? cudaStreamCaptureStatusInvalidated
                          : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    *exec = new emu_graph_exec{graph->nodes};
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph,
                                          unsigned long long flags)
{
    return cudaGraphInstantiate(exec, graph, flags);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s)
{
    if (of(s)->capture)
        return failed(cudaErrorStreamCaptureUnsupported);
    put(of(s), [exec] {
        for (const work &w : exec->nodes)
            w();
    });
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t)
{
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    drain_all();
    delete exec;
    return cudaSuccess;
}

/* ---- memory ---- */

cudaError_t emu_malloc(void **p, size_t bytes)
{
    if (forbidden())
        return failed(cudaErrorStreamCaptureUnsupported);
    *p = emu::mem_alloc(bytes);
    return *p ? cudaSuccess : failed(cudaErrorMemoryAllocation);
}

cudaError_t emu_malloc_async(void **p, size_t bytes, cudaStream_t s)
{
    stream *to = of(s);
    *p = emu::mem_alloc(bytes);
    if (!*p)
        return failed(cudaErrorMemoryAllocation);
    if (to->capture) {
        void *at = *p;
        emu::mem_free(at);
        put(to, [at, bytes] {
            if (!emu::mem_again(at, bytes))
                emu::fault(NULL, "a graph allocates again what it has not freed");
        });
    }
    return cudaSuccess;
}

cudaError_t emu_malloc_host(void **p, size_t bytes)
{
    *p = calloc(1, bytes ? bytes : 1);
    if (!*p)
        return failed(cudaErrorMemoryAllocation);
    pinned[(uintptr_t)*p] = bytes;
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    if (forbidden())
        return failed(cudaErrorStreamCaptureUnsupported);
    drain_all();
    return !p || emu::mem_free(p) ? cudaSuccess : failed(cudaErrorInvalidValue);
}

cudaError_t cudaFreeAsync(void *p, cudaStream_t s)
{
    put(of(s), [p] {
        if (p && !emu::mem_free(p))
            emu::fault(NULL, "cudaFreeAsync of %p, which is not allocated", p);
    });
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *p)
{
    drain_all();
    pinned.erase((uintptr_t)p);
    free(p);
    return cudaSuccess;
}

static bool is_pinned(const void *p)
{
    auto next = pinned.upper_bound((uintptr_t)p);
    if (next == pinned.begin())
        return false;
    --next;
    return (uintptr_t)p - next->first < next->second;
}

static void copy(void *dst, const void *src, size_t bytes)
{
    bool from = emu::mem_is_device(src), to = emu::mem_is_device(dst);
    emu::here.now++;
    if (from)
        emu::mem_need(src, bytes, "copy from the device");
    if (to)
        emu::mem_need(dst, bytes, "copy to the device");
    if (from && to)
        emu::mem_copied(dst, src, bytes);
    else if (to)
        emu::mem_written(dst, bytes);
    else if (from)
        emu::mem_need_init(src, bytes, "copy to the host");
    if (!emu::sample() || bytes <= emu::SAMPLE_WHOLE)
        memmove(dst, src, bytes);
}

static bool fits(const void *dst, const void *src, cudaMemcpyKind kind)
{
    bool from = emu::mem_is_device(src), to = emu::mem_is_device(dst);
    return kind == cudaMemcpyDefault ||
           (from == (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice) &&
            to == (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice));
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t s)
{
    stream *in = of(s);
    if (bytes == 0)
        return cudaSuccess;
    if (!fits(dst, src, kind))
        return failed(cudaErrorInvalidValue);
    bool from_host = !emu::mem_is_device(src), to_host = !emu::mem_is_device(dst);
    if (!in->capture && from_host && !is_pinned(src)) {
        /* Pageable memory has been copied when the call returns. */
        std::shared_ptr<char> staged((char *)malloc(bytes), free);
        memcpy(staged.get(), src, bytes);
        put(in, [=] { copy(dst, staged.get(), bytes); });
        return cudaSuccess;
    }
    if (!in->capture && to_host && is_pinned(dst) && !emu::eager())
        memset(dst, 0xff, bytes);
    put(in, [=] { copy(dst, src, bytes); });
    if (!in->capture && to_host && !is_pinned(dst))
        drain(in);
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind)
{
    if (forbidden())
        return failed(cudaErrorStreamCaptureUnsupported);
    if (!fits(dst, src, kind))
        return failed(cudaErrorInvalidValue);
    drain(&null_stream);
    copy(dst, src, bytes);
    return cudaSuccess;
}

static void fill(void *p, int value, size_t bytes)
{
    emu::here.now++;
    emu::mem_need(p, bytes, "cudaMemset");
    if (!emu::sample() || bytes <= emu::SAMPLE_WHOLE)
        memset(p, value, bytes);
    emu::mem_written(p, bytes);
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s)
{
    if (bytes)
        put(of(s), [=] { fill(p, value, bytes); });
    return cudaSuccess;
}

cudaError_t cudaMemset(void *p, int value, size_t bytes)
{
    drain(&null_stream);
    fill(p, value, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    *free_bytes = *total = (size_t)8 << 30;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *pool, int device)
{
    *pool = NULL;
    return cudaSetDevice(device);
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void *)
{
    return cudaSuccess;
}
