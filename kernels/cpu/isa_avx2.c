/* isa_avx2.c - the kernels for AVX2 and FMA; compiled with -mavx2 -mfma. */
#include "kernels/cpu/cpu.h"

#ifdef KERN_SMALL
#define V16_EIGHT
#define LEAF(name) cpu_avx2_##name
#define tile_micro cpu_micro_avx2
#include "kernels/cpu/leaf.inc.h"
#else
#define V16_AVX2
#define ISA_TABLE cpu_isa_avx2
#define ISA_NAME  "cpu/avx2"
#include "kernels/cpu/isa.inc.h"
#endif
