/*
 * wgmma.cuh - asynchronous copies into shared memory and the matrix
 * instructions of sm_90a that read it (PTX ISA, "Asynchronous copy" and
 * "Asynchronous Warpgroup Level Matrix Instructions"). tests/gpu/emu stands in
 * for this file where kernels run on the CPU.
 *
 * A warpgroup is four warps whose first is a multiple of four; warp w of it
 * owns rows 16w to 16w + 15 of a 64-row result. Tiles in shared memory are
 * [rows][64] bf16, rows of 128 bytes from an address that is a multiple of
 * 1,024 on, in the swizzle of 128 bytes: the 16 bytes that belong at place c (0
 * to 7) of row r lie at place c ^ (r % 8), which wgmma_place says.
 */
#ifndef KERNELS_CUDA_WGMMA_CUH
#define KERNELS_CUDA_WGMMA_CUH

#include "kernels/cuda/device.cuh"

/* Where the 8 numbers of row r from column 8 * c on begin, in numbers from the
 * tile's start. */
static __host__ __device__ inline int wgmma_place(int r, int c)
{
    return r * 64 + (c ^ r % 8) * 8;
}

/* 2^x to 2 units in the last place, 0 below 2^-126 (ex2.approx.ftz): one
 * instruction, where exp2f has four. */
static __device__ inline float exp2_approx(float x)
{
#ifdef CUDA_EMULATED
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

#ifdef CUDA_EMULATED
#define CUDA_WGMMA
#include "tests/gpu/emu/wgmma.h"
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define CUDA_WGMMA

/* ---- copies: this thread's, in groups that complete in order ---- */

/* 16 bytes from global to shared memory, both on a multiple of 16; zeros when
 * not `there` (nothing is read then, but `from` must be an address that may be
 * formed). */
static __device__ inline void copy16(void *to, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     (unsigned)__cvta_generic_to_shared(to)),
                 "l"(from), "r"(there ? 16 : 0)
                 : "memory");
}

/* Ends a group: the copies since the last. */
static __device__ inline void copy_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Waits until at most N of this thread's groups are under way. The copies of
 * the others are then seen by this thread; by others after a barrier; by wgmma
 * after copy_publish and a barrier. */
template <int N> static __device__ inline void copy_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* What this thread has written to shared memory, by copies that it has waited
 * for or by plain stores, can be read by wgmma behind the next barrier
 * (fence.proxy.async). */
static __device__ inline void copy_publish()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* A barrier of all N threads of a block that, unlike __syncthreads, its warps may come to at
 * different places of the kernel. */
template <int N> static __device__ inline void barrier_anywhere()
{
    asm volatile("bar.sync 1, %0;" ::"n"(N) : "memory");
}

/* ---- products of a warpgroup ---- */

/* What names a tile to wgmma ("Matrix descriptor": address / 16 in bits 0 to
 * 13, bytes between groups of eight rows / 16 in bits 32 to 45, swizzle of 128
 * bytes in bits 62 and 63; the distance in bits 16 to 29 is not read for tiles
 * of one swizzle's width). Its upper half is the same for all; this is the
 * lower. */
typedef unsigned wgmma_tile;
#define WGMMA_UPPER "0x40000040"

static __device__ inline wgmma_tile wgmma_of(const __nv_bfloat16 *tile)
{
    return (unsigned)__cvta_generic_to_shared(tile) >> 4 | 1u << 16;
}

/* The tile's columns from k on (a multiple of 16): of an operand that is summed
 * along its rows. */
static __device__ inline wgmma_tile wgmma_cols(wgmma_tile t, int k)
{
    return t + (wgmma_tile)(k * 2 / 16);
}

/* The tile's rows from r on (a multiple of 8), also of the tiles behind it. */
static __device__ inline wgmma_tile wgmma_rows(wgmma_tile t, int r)
{
    return t + (wgmma_tile)(r * 128 / 16);
}

#define WGMMA_RESULT(d)                                                                            \
    "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]),      \
        "+f"(d[1][2]), "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]),  \
        "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]),  \
        "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]),  \
        "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]), "+f"(d[7][0]), "+f"(d[7][1]),  \
        "+f"(d[7][2]), "+f"(d[7][3])
#define WGMMA_NAMES                                                                                \
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%"                     \
    "20,%21,%22,%23,%24,"                                                                          \
    "%25,%26,%27,%28,%29,%30,%31}"

/* Before the first product, and before each whose registers (d, or a) something
 * else has written since: all lanes of the warpgroup. */
static __device__ inline void wgmma_begin()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

/* d[64 x 64] = a[64][16] b[64][16]^T, plus d when `add`; both operands tiles
 * summed along rows (wgmma_cols). Result: d[n] is what mma's c is for columns
 * 8n to 8n + 7 (device.cuh), the warp's own 16 rows. Nothing of d may be read
 * or written before wgmma_wait. */
static __device__ inline void wgmma_nt(float d[8][4], wgmma_tile a, wgmma_tile b, bool add)
{
    asm volatile("{.reg .pred p; .reg .b64 a, b; setp.ne.b32 p, %34, 0;\n"
                 "mov.b64 a, {%32, " WGMMA_UPPER "}; mov.b64 b, {%33, " WGMMA_UPPER "};\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " WGMMA_NAMES
                 ", a, b, p, 1, 1, 0, 0;}"
                 : WGMMA_RESULT(d)
                 : "r"(a), "r"(b), "r"((int)add)
                 : "memory");
}

/* The same with a from registers, each warp's 16 x 16 as mma takes it
 * (device.cuh). */
static __device__ inline void wgmma_ntr(float d[8][4], const unsigned a[4], wgmma_tile b, bool add)
{
    asm volatile("{.reg .pred p; .reg .b64 b; setp.ne.b32 p, %37, 0;\n"
                 "mov.b64 b, {%36, " WGMMA_UPPER "};\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " WGMMA_NAMES
                 ", {%32,%33,%34,%35}, b, p, 1, 1, 0;}"
                 : WGMMA_RESULT(d)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "r"((int)add)
                 : "memory");
}

/* d[64 x 64] += a b[16][64]: a from registers, each warp's 16 x 16 as mma takes
 * it (device.cuh); b a tile of 16 rows that are summed over (wgmma_rows). a
 * must not change before wgmma_wait. */
static __device__ inline void wgmma_acc(float d[8][4], const unsigned a[4], wgmma_tile b)
{
    asm volatile("{.reg .b64 b; mov.b64 b, {%36, " WGMMA_UPPER "};\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " WGMMA_NAMES
                 ", {%32,%33,%34,%35}, b, 1, 1, 1, 1;}"
                 : WGMMA_RESULT(d)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b)
                 : "memory");
}

#define WGMMA_FOUR(n) "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])

/* wgmma_nt for d[64 x 128], b a tile of 128 rows. */
static __device__ inline void wgmma_nt128(float d[16][4], wgmma_tile a, wgmma_tile b, bool add)
{
    asm volatile("{.reg .pred p; .reg .b64 a, b; setp.ne.b32 p, %66, 0;\n"
                 "mov.b64 a, {%64, " WGMMA_UPPER "}; mov.b64 b, {%65, " WGMMA_UPPER "};\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
                 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,"
                 "%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,"
                 "%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,"
                 "%62,%63}, a, b, p, 1, 1, 0, 0;}"
                 : WGMMA_FOUR(0), WGMMA_FOUR(1), WGMMA_FOUR(2), WGMMA_FOUR(3), WGMMA_FOUR(4),
                   WGMMA_FOUR(5), WGMMA_FOUR(6), WGMMA_FOUR(7), WGMMA_FOUR(8), WGMMA_FOUR(9),
                   WGMMA_FOUR(10), WGMMA_FOUR(11), WGMMA_FOUR(12), WGMMA_FOUR(13), WGMMA_FOUR(14),
                   WGMMA_FOUR(15)
                 : "r"(a), "r"(b), "r"((int)add)
                 : "memory");
}

/* Ends a group: the products since the last. */
static __device__ inline void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Waits until at most N of the warpgroup's groups are under way. */
template <int N> static __device__ inline void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/* Results of products that were waited for: keeps the compiler from reading d
 * before the wait. */
static __device__ inline void wgmma_done(float d[8][4])
{
#pragma unroll
    for (int i = 0; i < 8; i++)
        asm volatile("" : "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])::"memory");
}

/* The same for a result of wgmma_nt128. */
static __device__ inline void wgmma_done128(float d[16][4])
{
    wgmma_done(d);
    wgmma_done(d + 8);
}
#endif

#endif
