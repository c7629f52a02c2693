/* isa_portable.c - the kernels in plain C: the definition of correct. */
#include "kernels/cpu/cpu.h"

#ifdef KERN_SMALL
#define V16_ONE
#define LEAF(name) cpu_portable_##name
#define tile_micro cpu_micro_portable
#include "kernels/cpu/leaf.inc.h"

#include "kernels/cpu/elem.inc.h"

void cpu_lse(float *lse, const float *m, const float *s, size_t n)
{
    vec_lse(lse, m, s, n);
}

void cpu_adamw(struct kern *k, const struct kern_adamw *a)
{
    adamw(k, a);
}
#else
#define ISA_TABLE cpu_isa_portable
#define ISA_NAME  "cpu/portable"
#include "kernels/cpu/isa.inc.h"
#endif
