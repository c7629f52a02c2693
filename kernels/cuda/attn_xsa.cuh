/*
 * attn_xsa.cuh - XSA behind attention (kern_attn_xsa): what both attentions do with their results
 * before they store them.
 */
#ifndef KERNELS_CUDA_ATTN_XSA_CUH
#define KERNELS_CUDA_ATTN_XSA_CUH

#include "kernels/cuda/cuda.cuh"

/* Is v, of which this is |v|^2, shorter than 1e-12? And 1 / max(|v|, 1e-12); a NaN stays one. */
static __device__ inline bool xsa_short(float ss)
{
    return ss < 1e-24f;
}

static __device__ inline float xsa_inverse(float ss)
{
    return 1.0f / sqrtf(xsa_short(ss) ? 1e-24f : ss);
}

/*
 * Of a lane's two rows of results, 8 N numbers shared by four lanes (those of mma and wgmma: two
 * side by side of each 8): o = o * by without its component along v, and that component. own(i, n)
 * are the same two of row i of v, in eight n.
 */
template <int N, typename Own>
static __device__ inline void xsa_leave(float o[N][4], const float by[2], float s[2], Own own)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float ss = 0, dot = 0;
#pragma unroll
        for (int n = 0; n < N; n++) {
            const float2 v = own(i, n);
            ss = fmaf(v.x, v.x, fmaf(v.y, v.y, ss));
            dot = fmaf(o[n][2 * i], v.x, fmaf(o[n][2 * i + 1], v.y, dot));
        }
        const float inverse = xsa_inverse(quad_sum(ss));
        s[i] = quad_sum(dot) * by[i] * inverse;
        const float c = -s[i] * inverse;
#pragma unroll
        for (int n = 0; n < N; n++) {
            const float2 v = own(i, n);
            o[n][2 * i] = fmaf(c, v.x, o[n][2 * i] * by[i]);
            o[n][2 * i + 1] = fmaf(c, v.y, o[n][2 * i + 1] * by[i]);
        }
    }
}

#endif
