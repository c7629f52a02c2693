/* isa_avx512.c - the kernels for AVX-512; compiled with -mavx512f -mavx512vl -mavx512dq -mavx512bw.
 */
#define V16_AVX512
#define ISA_TABLE cpu_isa_avx512
#define ISA_NAME  "cpu/avx512"
#include "kernels/cpu/isa.inc.h"
