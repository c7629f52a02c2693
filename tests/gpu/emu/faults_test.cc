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

#include "kernels/cuda/wgmma.cuh"

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

/* All threads meet, at two places, or ask for half of them. */
__global__ static void meet_anywhere(float *p, bool half)
{
    __shared__ float s[N];
    s[threadIdx.x] = 1;
    if (half)
        barrier_anywhere<N / 2>();
    else if (threadIdx.x < 32)
        barrier_anywhere<N>();
    else
        barrier_anywhere<N>();
    p[threadIdx.x] = s[N - 1 - threadIdx.x];
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

/* ---- copies and products that are under way ---- */

enum { SIDE = 64, TILE = SIDE * SIDE /* numbers */, ZERO_ROWS = 3 };

/* What `slips` leaves out or does too early. */
enum slip {
    NONE,
    NO_COPY_WAIT,
    NO_COMMIT,
    READ_COPY,
    COPY_OFF,
    NO_PUBLISH,
    PUBLISH_LATE,
    NO_BARRIER,
    NO_BEGIN,
    D_CHANGED,
    A_CHANGED,
    A_UNDER_WAY,
    D_UNDER_WAY,
    D_EARLY,
    TILE_UNDER_WAY,
    TILE_COPIED_OVER,
    NO_WAIT,
    NO_DONE,
    NO_SECOND_BEGIN,
    PRODUCT_LEFT,
    COPY_LEFT,
    OTHER_TILE,
    OTHER_LINE,
    THREE_WARPS,
    TILE_OFF,
    ROW_OFF,
    COLUMN_OFF,
    TILE_FAR,
    HALF_A_GROUP,
    HALF_A_TILE, /* of 128 rows */
    LEFT_HELD,   /* not wrong: x from registers also without acc */
};

/* out[64][64] = x[64][64] y^T, or x y with x from registers (acc); x's last rows count as zeros. */
__global__ static void slips(float *out, const __nv_bfloat16 *x, const __nv_bfloat16 *y, bool acc,
                             enum slip slip)
{
    CUDA_DYNAMIC_SHARED(char, raw);
    __nv_bfloat16 *s = (__nv_bfloat16 *)(((uintptr_t)raw + 1023) / 1024 * 1024), *t = s + TILE;
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, r0 = warp % 4 * 16 + lane / 4;
    for (int i = (int)threadIdx.x; i < TILE / 8; i += (int)blockDim.x) {
        int at = wgmma_place(i / 8, i % 8);
        copy16(s + at, x + 8 * i, i / 8 < SIDE - ZERO_ROWS);
        copy_commit();
        copy16(t + at + (slip == COPY_OFF), y + 8 * i, true);
        if (slip != NO_COMMIT)
            copy_commit();
    }
    if (slip == READ_COPY)
        out[threadIdx.x] = __bfloat162float(s[wgmma_place((int)threadIdx.x / 8, lane % 8)]);
    if (slip != NO_COPY_WAIT)
        copy_wait<0>();
    if (slip != NO_PUBLISH && !(slip == PUBLISH_LATE && warp == 0))
        copy_publish();
    if (slip != NO_BARRIER)
        __syncthreads();
    if (slip == PUBLISH_LATE && warp == 0)
        copy_publish();
    if (slip == THREE_WARPS && warp == 3)
        return;

    float d[8][4] = {};
    unsigned a[4][4];
    for (int k = 0; k < 4; k++)
        for (int i = 0; i < 4; i++) {
            int r = r0 + i % 2 * 8, c = k * 16 + lane % 4 * 2 + i / 2 * 8;
            unsigned low = x[r * SIDE + c].bits, high = x[r * SIDE + c + 1].bits;
            a[k][i] = r < SIDE - ZERO_ROWS ? low | high << 16 : 0;
        }
    if (slip != NO_BEGIN)
        wgmma_begin();
    if (slip == D_CHANGED)
        d[0][0] = 1;
    if (slip == A_CHANGED)
        a[0][0]++;
    wgmma_tile left = wgmma_of(s + (slip == TILE_OFF) * 8), right = wgmma_of(t);
    if (slip == ROW_OFF)
        left = wgmma_cols(left, SIDE);
    if (slip == COLUMN_OFF)
        left = wgmma_cols(left, 8);
    if (slip == TILE_FAR)
        right = wgmma_rows(right, 2048);
    if (slip == OTHER_TILE && warp == 2)
        right = left;
    if (slip == OTHER_LINE && warp == 1)
        wgmma_begin();
    for (int k = 0; k < 4; k++) {
        if (acc)
            wgmma_acc(d, a[k], wgmma_rows(right, 16 * k));
        else if (slip == LEFT_HELD)
            wgmma_ntr(d, a[k], wgmma_cols(right, 16 * k), k > 0);
        else
            wgmma_nt(d, wgmma_cols(left, slip == COLUMN_OFF ? 48 : 16 * k),
                     wgmma_cols(right, 16 * k), k > 0);
        if (k % 2)
            wgmma_commit();
    }
    if (slip == A_UNDER_WAY)
        a[3][0]++;
    if (slip == D_UNDER_WAY)
        d[7][3] = 0;
    wgmma_wait<1>();
    if (slip == D_EARLY)
        wgmma_done(d);
    if (slip == TILE_UNDER_WAY)
        t[wgmma_place(0, 7) + (int)threadIdx.x % 8] = x[0];
    if (slip == TILE_COPIED_OVER)
        copy16(t + TILE / 2 + threadIdx.x * 8, x, true);
    if (slip == PRODUCT_LEFT)
        return;
    if (slip == COPY_LEFT && threadIdx.x == 0)
        copy16(t + TILE, x, true);
    if (slip != NO_WAIT)
        wgmma_wait<0>();
    if (slip != NO_DONE)
        wgmma_done(d);
    if (slip == NO_SECOND_BEGIN)
        wgmma_nt(d, left, right, false);
    for (int n = 0; n < 8 && warp < 4; n++)
        for (int i = 0; i < 4; i++)
            out[(r0 + i / 2 * 8) * SIDE + 8 * n + lane % 4 * 2 + i % 2] = d[n][i];
}

/* out[64][128] = x[64][64] (y, more)^T, the two a tile of 128 rows. */
__global__ static void slips_wide(float *out, const __nv_bfloat16 *x, const __nv_bfloat16 *y,
                                  const __nv_bfloat16 *more, enum slip slip)
{
    CUDA_DYNAMIC_SHARED(char, raw);
    __nv_bfloat16 *s = (__nv_bfloat16 *)(((uintptr_t)raw + 1023) / 1024 * 1024), *t = s + TILE;
    int lane = (int)threadIdx.x % 32, r0 = (int)threadIdx.x / 32 * 16 + lane / 4;
    for (int i = (int)threadIdx.x; i < TILE / 8; i += (int)blockDim.x) {
        int at = wgmma_place(i / 8, i % 8);
        copy16(s + at, x + 8 * i, true);
        copy16(t + at, y + 8 * i, true);
        if (slip != HALF_A_TILE)
            copy16(t + TILE + at, more + 8 * i, true);
        copy_commit();
    }
    copy_wait<0>();
    copy_publish();
    __syncthreads();
    float d[16][4];
    wgmma_begin();
    for (int k = 0; k < SIDE; k += 16)
        wgmma_nt128(d, wgmma_cols(wgmma_of(s), k), wgmma_cols(wgmma_of(t), k), k > 0);
    wgmma_commit();
    if (slip == D_UNDER_WAY)
        d[15][3] = 0;
    if (slip == TILE_UNDER_WAY)
        t[wgmma_place(127, 7) + (int)threadIdx.x % 8] = x[0];
    if (slip != NO_WAIT)
        wgmma_wait<0>();
    if (slip != NO_DONE)
        wgmma_done128(d);
    for (int n = 0; n < 16; n++)
        for (int i = 0; i < 4; i++)
            out[(r0 + i / 2 * 8) * 2 * SIDE + 8 * n + lane % 4 * 2 + i % 2] = d[n][i];
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
    CUDA_LAUNCH(meet_anywhere, 1, N, 0, stream, x, false);
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

/* Random numbers from -1 to 1 on the device; host[TILE] gets them too. */
static __nv_bfloat16 *random_tile(float *host)
{
    static __nv_bfloat16 half[TILE];
    __nv_bfloat16 *p;
    for (int i = 0; i < TILE; i++) {
        half[i] = __float2bfloat16_rn((float)rand() / (float)RAND_MAX * 2 - 1);
        host[i] = __bfloat162float(half[i]);
    }
    cudaMalloc(&p, sizeof half);
    cudaMemcpy(p, half, sizeof half, cudaMemcpyHostToDevice);
    return p;
}

static void slipping(bool acc, enum slip slip)
{
    static float a[TILE], b[TILE], c[TILE];
    float *out;
    cudaFuncSetAttribute(slips, cudaFuncAttributeMaxDynamicSharedMemorySize, 5 * TILE);
    cudaMalloc(&out, sizeof c);
    CUDA_LAUNCH(slips, 1, slip == HALF_A_GROUP ? 64 : 256, 5 * TILE, stream, out, random_tile(a),
                random_tile(b), acc, slip);
    launch_ok(cudaSuccess);
    cudaStreamSynchronize(stream);
    cudaMemcpy(c, out, sizeof c, cudaMemcpyDeviceToHost);
    for (int i = 0; i < TILE; i++) {
        double sum = 0;
        for (int k = 0; k < SIDE && i < (SIDE - ZERO_ROWS) * SIDE; k++)
            sum += (double)a[i / SIDE * SIDE + k] *
                   (double)(acc ? b[k * SIDE + i % SIDE] : b[i % SIDE * SIDE + k]);
        if (!(fabs(sum - (double)c[i]) <= 1e-4)) {
            fprintf(stderr, "%s, row %d, column %d: %g instead of %g\n", acc ? "acc" : "nt",
                    i / SIDE, i % SIDE, (double)c[i], sum);
            abort();
        }
    }
}

static void slipping_wide(enum slip slip)
{
    static float a[TILE], b[2 * TILE], c[2 * TILE];
    float *out;
    cudaFuncSetAttribute(slips_wide, cudaFuncAttributeMaxDynamicSharedMemorySize, 7 * TILE);
    cudaMalloc(&out, sizeof c);
    CUDA_LAUNCH(slips_wide, 1, 128, 7 * TILE, stream, out, random_tile(a), random_tile(b),
                random_tile(b + TILE), slip);
    launch_ok(cudaSuccess);
    cudaStreamSynchronize(stream);
    cudaMemcpy(c, out, sizeof c, cudaMemcpyDeviceToHost);
    for (int i = 0; i < 2 * TILE; i++) {
        double sum = 0;
        for (int k = 0; k < SIDE; k++)
            sum += (double)a[i / 128 * SIDE + k] * (double)b[i % 128 * SIDE + k];
        if (!(fabs(sum - (double)c[i]) <= 1e-4)) {
            fprintf(stderr, "nt128, row %d, column %d: %g instead of %g\n", i / 128, i % 128,
                    (double)c[i], sum);
            abort();
        }
    }
}

static void products()
{
    for (int how = 0; how < 12; how++) {
        setenv("EMU_ORDER", how & 1 ? "down" : "up", 1);
        setenv("EMU_STREAM", how & 2 ? "eager" : "late", 1);
        slipping(how & 4, how & 8 ? LEFT_HELD : NONE);
        slipping_wide(NONE);
    }
}

static void old_card()
{
    setenv("EMU_CARD", "80", 1);
    slipping(false, NONE);
}

#define SLIP(acc, slip) [] { slipping(acc, slip); }
#define WIDE(slip)      [] { slipping_wide(slip); }

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
    {"a barrier for half the block", ONE(meet_anywhere, N, 0, true), "for all threads of a block"},
    {"half a warp", ONE(half_a_warp, 32, 0), "a mask names a lane that has returned"},
    {"not in the mask", ONE(wrong_mask, 32, 0), "not in the mask"},
    {"shared, not written", ONE(shared_unwritten, N, 0), "shared memory that nobody has written"},
    {"shared, behind the end", ONE(shared_end, N, 4 * (N - 1)), "dynamic shared memory"},
    {"ldmatrix off", ONE(matrix_off, 32, 1024), "ldmatrix at"},
    {"products", products, NULL},
    {"a copy, not waited for", SLIP(false, NO_COPY_WAIT), "to which a copy of thread"},
    {"a copy in no group", SLIP(false, NO_COMMIT), "to which a copy of thread"},
    {"a copy, read early", SLIP(false, READ_COPY), "race: read of shared memory"},
    {"a copy off", SLIP(false, COPY_OFF), "not both aligned to 16"},
    {"not published", SLIP(true, NO_PUBLISH), "without copy_publish since"},
    {"published too late", SLIP(false, PUBLISH_LATE), "without a barrier since"},
    {"copies without a barrier", SLIP(false, NO_BARRIER), "race: read of shared memory"},
    {"no wgmma_begin", SLIP(false, NO_BEGIN), "before the first wgmma_begin"},
    {"d changed", SLIP(false, D_CHANGED), "d of a product has changed since wgmma_begin"},
    {"a changed", SLIP(true, A_CHANGED), "a of a product has changed since wgmma_begin"},
    {"a changed too early", SLIP(true, A_UNDER_WAY), "a has changed while a product"},
    {"d changed too early", SLIP(true, D_UNDER_WAY), "d has changed before wgmma_wait"},
    {"d wanted too early", SLIP(true, D_EARLY), "wgmma_done before wgmma_wait"},
    {"a tile changed too early", SLIP(false, TILE_UNDER_WAY), "which a product under way reads"},
    {"a tile copied over", SLIP(true, TILE_COPIED_OVER), "which a product under way reads"},
    {"products not waited for", SLIP(true, NO_WAIT), "wgmma_done before wgmma_wait"},
    {"no wgmma_done", SLIP(true, NO_DONE), "nan instead of"},
    {"no second wgmma_begin", SLIP(false, NO_SECOND_BEGIN), "without wgmma_begin since"},
    {"products left behind", SLIP(true, PRODUCT_LEFT), "has not waited for its products"},
    {"copies left behind", SLIP(false, COPY_LEFT), "has not waited for its copies"},
    {"warps with other tiles", SLIP(true, OTHER_TILE), "operands differ between warps"},
    {"warps apart", SLIP(true, OTHER_LINE), "comes to wgmma_begin where another"},
    {"three warps", SLIP(false, THREE_WARPS), "has not come to wgmma_begin"},
    {"a tile off", SLIP(false, TILE_OFF), "is not on a multiple of 1024"},
    {"a row off", SLIP(false, ROW_OFF), "first row is 128 bytes behind"},
    {"columns off", SLIP(false, COLUMN_OFF), "begin at column 56"},
    {"a tile beyond shared memory", SLIP(true, TILE_FAR), "bits that mean nothing"},
    {"half a wide tile", WIDE(HALF_A_TILE), "shared memory that nobody has written"},
    {"a wide d, changed too early", WIDE(D_UNDER_WAY), "d has changed before wgmma_wait"},
    {"a wide tile, changed too early", WIDE(TILE_UNDER_WAY), "which a product under way reads"},
    {"a wide product, not waited for", WIDE(NO_WAIT), "wgmma_done before wgmma_wait"},
    {"no wgmma_done of a wide d", WIDE(NO_DONE), "nan instead of"},
    {"half a warpgroup", SLIP(true, HALF_A_GROUP), "a warpgroup of less than four warps"},
    {"an older card", old_card, "on a card of compute capability 8.0"},
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
