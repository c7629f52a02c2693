/*
 * leaf.inc.h - the leaves of the smallest build (cpu.h) for one instruction set. The including file
 * defines the machine for v16.h, and LEAF(name) as the name that a leaf has.
 */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/v16.h"

#include "kernels/cpu/tile_micro.inc.h"

#define vec_exp     LEAF(exp)
#define vec_max     LEAF(max)
#define vec_softcap LEAF(softcap)
#define vec_act     LEAF(act)
#define vec_dot     LEAF(dot)
#define vec_fma     LEAF(fma)
#include "kernels/cpu/vec.inc.h"
