/* isa_avx2.c - the kernels for AVX2 and FMA; compiled with -mavx2 -mfma. */
#define V16_AVX2
#ifdef KERN_FORWARD_ONLY
#define LEAF(name) cpu_avx2_##name
#define tile_micro cpu_micro_avx2
#include "kernels/cpu/leaf.inc.h"
#else
#define ISA_TABLE cpu_isa_avx2
#define ISA_NAME  "cpu/avx2"
#include "kernels/cpu/isa.inc.h"
#endif
