/*
 * v16_avx512_test.c - v16_body.h on AVX-512, which the whole file is compiled for whatever the
 * build's flags are. Passes unrun where the processor lacks it.
 */
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,fma"))),    \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,fma")
#endif
#define V16_AVX512
#include "tests/unit/v16_body.h"

int main(void)
{
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512vl") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("fma"))
        return 0;
    return run_v16_tests();
}

#ifdef __clang__
#pragma clang attribute pop
#endif
