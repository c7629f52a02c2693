/*
 * faults_test.cc - exists for the day the emulator stops seeing something: each kind of fault that
 * it is there to find is made on purpose, in a process of its own, which must end with the report
 * expected; and the faultless twins of some must end without.
 */
#include <cuda_runtime.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/cuda/device.cuh"

extern "C" {
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
}

enum { N = 64 };

static cudaStream_t stream;
static float *x; /* [N] on the device, written */

/* ---- kernels ---- */

__global__ static void write_at(float *p, long i)
{
    p[i] = 1;
}

__global__ static void read_at(float *p, const float *q, size_t i)
{
    p[threadIdx.x] = q[i];
}

__global__ static void read_wide(float *p, size_t offset)
{
    float4 v = *(const float4 *)(p + offset);
    p[0] = v.x + v.y + v.z + v.w;
}

__global__ static void neighbours(float *p, bool wait)
{
    __shared__ float s[N];
    s[threadIdx.x] = 0;
    __syncthreads();
    s[threadIdx.x] = p[threadIdx.x];
    if (wait)
        __syncthreads();
    p[threadIdx.x] = s[N - 1 - threadIdx.x];
}

__global__ static void neighbours_of_warp(float *p, bool wait)
{
    __shared__ float s[32];
    s[threadIdx.x] = 0;
    __syncwarp();
    s[threadIdx.x] = p[threadIdx.x];
    if (wait)
        __syncwarp();
    p[threadIdx.x] = s[threadIdx.x ^ 1];
}

/* Reads before a barrier what others write before it. */
__global__ static void overwrite(float *p, bool wait)
{
    float v = p[(threadIdx.x + 1) % N];
    if (wait)
        __syncthreads();
    p[threadIdx.x] = v;
}

__global__ static void blocks_share(float *p)
{
    if (threadIdx.x == 0)
        p[0] = (float)blockIdx.x;
}

__global__ static void blocks_read(float *p)
{
    if (blockIdx.x == 0)
        p[threadIdx.x] = 0;
    else
        p[N / 2 + threadIdx.x] = p[threadIdx.x];
}

__global__ static void return_early(float *p)
{
    if (threadIdx.x == 7)
        return;
    __syncthreads();
    p[threadIdx.x] = 0;
}

__global__ static void two_barriers(float *p)
{
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
    p[threadIdx.x] = 0;
}

__global__ static void half_a_warp(float *p)
{
    if (threadIdx.x < 16)
        p[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}

__global__ static void wrong_mask(float *p)
{
    p[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, 1.0f, 1);
}

__global__ static void shared_unwritten(float *p)
{
    __shared__ float s[N];
    if (threadIdx.x)
        s[threadIdx.x] = 1;
    __syncthreads();
    p[threadIdx.x] = s[threadIdx.x];
}

__global__ static void shared_end(float *p)
{
    CUDA_DYNAMIC_SHARED(float, s);
    s[threadIdx.x] = 1;
    __syncthreads();
    p[threadIdx.x] = s[threadIdx.x];
}

__global__ static void matrix_off(float *p)
{
    CUDA_DYNAMIC_SHARED(__nv_bfloat16, s);
    unsigned r[4];
    for (int i = 0; i < 512; i++)
        if (threadIdx.x == 0)
            s[i] = __float2bfloat16_rn(0);
    __syncwarp();
    ldmatrix(r, s + threadIdx.x * 8 + 2);
    p[threadIdx.x] = (float)r[0];
}

/* ---- cases: what the host does ---- */

static void launch_ok(cudaError_t wanted)
{
    if (cudaGetLastError() != wanted) {
        fprintf(stderr, "the launch did not return %d\n", (int)wanted);
        abort();
    }
}

static void sound()
{
    CUDA_LAUNCH(neighbours, 1, N, 0, stream, x, true);
    CUDA_LAUNCH(neighbours_of_warp, 1, 32, 0, stream, x, true);
    CUDA_LAUNCH(overwrite, 1, N, 0, stream, x, true);
    CUDA_LAUNCH(shared_end, 1, N, N * 4, stream, x);
    CUDA_LAUNCH(read_wide, 1, 1, 0, stream, x, 4);
    launch_ok(cudaSuccess);
}

static void limits()
{
    CUDA_LAUNCH(blocks_share, 1, 1025, 0, stream, x);
    launch_ok(cudaErrorInvalidConfiguration);
    CUDA_LAUNCH(blocks_share, dim3(1, 65536), 32, 0, stream, x);
    launch_ok(cudaErrorInvalidConfiguration);
    CUDA_LAUNCH(blocks_share, 0, 32, 0, stream, x);
    launch_ok(cudaErrorInvalidConfiguration);
    CUDA_LAUNCH(blocks_share, 1, 32, 48 * 1024 + 4, stream, x);
    launch_ok(cudaErrorInvalidValue);
    cudaFuncSetAttribute(blocks_share, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 << 10);
    CUDA_LAUNCH(blocks_share, 1, 32, 48 * 1024 + 4, stream, x);
    launch_ok(cudaSuccess);
}

static void after_free()
{
    float *p = x;
    cudaFreeAsync(p, stream);
    CUDA_LAUNCH(write_at, 1, 1, 0, stream, p, 0);
}

static void unwritten()
{
    float *p;
    cudaMallocAsync(&p, N * sizeof *p, stream);
    CUDA_LAUNCH(read_at, 1, 1, 0, stream, x, p, 3);
}

static void unwritten_copy()
{
    float *p, host[N];
    cudaMallocAsync(&p, N * sizeof *p, stream);
    cudaMemcpyAsync(host, p, sizeof host, cudaMemcpyDeviceToHost, stream);
}

static void host_memory()
{
    static float *host = (float *)calloc(N, sizeof *host);
    CUDA_LAUNCH(write_at, 1, 1, 0, stream, host, 0);
}

static void from_host()
{
    cudaStreamSynchronize(stream);
    printf("%g\n", (double)x[0]);
}

/* The graph must see the numbers that are there when it is launched. */
static void graph()
{
    cudaGraph_t g;
    cudaGraphExec_t exec;
    float *pinned, back[2];
    cudaMallocHost(&pinned, sizeof *pinned);
    cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal);
    cudaMemcpyAsync(x, pinned, sizeof *x, cudaMemcpyHostToDevice, stream);
    CUDA_LAUNCH(read_at, 1, 1, 0, stream, x + 1, x, 0);
    if (cudaStreamEndCapture(stream, &g) || cudaGraphInstantiate(&exec, g, 0))
        abort();
    for (int i = 0; i < 3; i++) {
        *pinned = (float)i;
        cudaGraphLaunch(exec, stream);
        cudaMemcpyAsync(back, x, sizeof back, cudaMemcpyDeviceToHost, stream);
        if (back[1] != (float)i)
            abort();
    }
    cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal);
    if (cudaStreamSynchronize(stream) != cudaErrorStreamCaptureUnsupported ||
        cudaStreamEndCapture(stream, &g) != cudaErrorStreamCaptureInvalidated)
        abort();
    cudaGetLastError();
}

/* A host that does not wait gets nonsense, every time. */
static void impatient()
{
    float *pinned;
    cudaMallocHost(&pinned, sizeof *pinned);
    cudaMemcpyAsync(pinned, x, sizeof *x, cudaMemcpyDeviceToHost, stream);
    bool early = *pinned == *pinned;
    cudaStreamSynchronize(stream);
    if (early || *pinned != *pinned)
        abort();
}

#define ONE(kernel, threads, shared, ...)                                                          \
    [] { CUDA_LAUNCH(kernel, 1, threads, shared, stream, x, ##__VA_ARGS__); }

static const struct {
    const char *name;
    void (*make)();
    const char *report; /* NULL: there must be none */
} cases[] = {
    {"what is right", sound, NULL},
    {"limits of a launch", limits, NULL},
    {"a graph", graph, NULL},
    {"a host that does not wait", impatient, NULL},
    {"behind the end", ONE(write_at, 1, 0, N), "write of 4 bytes at byte 256 of an allocation"},
    {"before the beginning", ONE(write_at, 1, 0, -1), "where nothing is allocated"},
    {"after free", after_free, "of a freed allocation"},
    {"never written", unwritten, "device memory that nobody has written"},
    {"never written, copied", unwritten_copy, "copy to the host: byte 0 of 256 has never"},
    {"memory of the host", host_memory, "is not the device's memory"},
    {"the host itself", from_host, "the host reads device memory"},
    {"not aligned", ONE(read_wide, 1, 0, 1), "misaligned address"},
    {"no barrier", ONE(neighbours, N, 0, false), "race: write of shared memory"},
    {"no barrier in a warp", ONE(neighbours_of_warp, 32, 0, false), "race: write of shared memory"},
    {"write after read", ONE(overwrite, N, 0, false), "race: "},
    {"two blocks write", [] { CUDA_LAUNCH(blocks_share, 2, 32, 0, stream, x); },
     "another block of this launch has written"},
    {"a block reads another's", [] { CUDA_LAUNCH(blocks_read, 2, 32, 0, stream, x); },
     "another block of this launch has written"},
    {"returns before a barrier", ONE(return_early, N, 0), "for threads that have returned"},
    {"two barriers", ONE(two_barriers, N, 0), "at different barriers"},
    {"half a warp", ONE(half_a_warp, 32, 0), "a mask names a lane that has returned"},
    {"not in the mask", ONE(wrong_mask, 32, 0), "not in the mask"},
    {"shared, not written", ONE(shared_unwritten, N, 0), "shared memory that nobody has written"},
    {"shared, behind the end", ONE(shared_end, N, 4 * (N - 1)), "dynamic shared memory"},
    {"ldmatrix off", ONE(matrix_off, 32, 1024), "ldmatrix at"},
};

static void child(void (*make)(), int out)
{
    static float zero[N];
    dup2(out, STDERR_FILENO);
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    cudaMallocAsync(&x, sizeof zero, stream);
    cudaMemcpyAsync(x, zero, sizeof zero, cudaMemcpyHostToDevice, stream);
    make();
    cudaStreamSynchronize(stream);
    _exit(0);
}

static void all_found(void **)
{
    for (const auto &c : cases) {
        int ends[2], status;
        static char report[65536];
        size_t n = 0;
        fflush(stdout);
        assert_int_equal(pipe(ends), 0);
        pid_t pid = fork();
        if (pid == 0)
            child(c.make, ends[1]);
        close(ends[1]);
        for (ssize_t got;
             n < sizeof report - 1 && (got = read(ends[0], report + n, sizeof report - 1 - n)) > 0;)
            n += (size_t)got;
        report[n] = 0;
        close(ends[0]);
        waitpid(pid, &status, 0);
        bool ended = WIFEXITED(status) && WEXITSTATUS(status) == 0;
        if (c.report ? ended || !strstr(report, c.report) : !ended || n)
            fail_msg("%s: expected %s, got (status %d):\n%s", c.name,
                     c.report ? c.report : "no report", status, report);
    }
}

int main()
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_found)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
