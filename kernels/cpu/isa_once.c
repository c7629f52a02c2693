/* isa_once.c - the kernels for no machine in particular, as the smallest build has them (cpu.h). */
#include "kernels/cpu/cpu.h"

#ifdef KERN_SMALL
#include <math.h>
#include <string.h>

#define KERN_ONCE
#define ISA_TABLE cpu_isa_once
#define ISA_NAME  "cpu"
#include "kernels/cpu/isa.inc.h"
#endif
