/*
 * isa_avx512.c - the kernels for AVX-512; compiled with -mavx512f -mavx512vl -mavx512dq
 * -mavx512bw. A small build has the micro-kernel only (cpu.h).
 */
#include "kernels/cpu/cpu.h"

#define V16_AVX512
#ifdef KERN_SMALL
#define tile_micro cpu_micro_avx512
#include "kernels/cpu/v16.h"

#include "kernels/cpu/tile_micro.inc.h"

#else
#define ISA_TABLE cpu_isa_avx512
#define ISA_NAME  "cpu/avx512"
#include "kernels/cpu/isa.inc.h"
#endif
