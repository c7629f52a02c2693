/* isa_portable.c - the kernels in plain C: the definition of correct. */
#define ISA_TABLE cpu_isa_portable
#define ISA_NAME  "cpu/portable"
#include "kernels/cpu/isa.inc.h"
