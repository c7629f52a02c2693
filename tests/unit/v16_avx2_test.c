/*
 * v16_avx2_test.c - v16_body.h on AVX2, which the whole file is compiled for whatever the build's
 * flags are. Passes unrun where the processor lacks it.
 */
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define V16_AVX2
#include "tests/unit/v16_body.h"

int main(void)
{
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return 0;
    return run_v16_tests();
}

#ifdef __clang__
#pragma clang attribute pop
#endif
