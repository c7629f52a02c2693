/*
 * isa.inc.h - all kernels once, and their table. The including file defines ISA_TABLE, ISA_NAME
 * and, for v16.h, the machine; it is compiled with that machine's flags.
 */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/v16.h"

#include "kernels/cpu/tile.inc.h"

#include "kernels/cpu/gemm.inc.h"
#include "kernels/cpu/elem.inc.h"
#include "kernels/cpu/rows.inc.h"
#if __has_include("kernels/cpu/attn.inc.h")
#include "kernels/cpu/attn.inc.h"
#define HAVE_ATTN
#endif
#if __has_include("kernels/cpu/head.inc.h")
#include "kernels/cpu/head.inc.h"
#define HAVE_HEAD
#endif

const struct kern ISA_TABLE = {
    .name = ISA_NAME,
    .embed_fwd = embed_fwd,
    .take = take,
    .combine_fwd = combine_fwd,
    .linear_fwd = linear_fwd,
    .linear_act_fwd = linear_act_fwd,
    .qk_fwd = qk_fwd,
#ifdef HAVE_ATTN
    .attn_fwd = attn_fwd,
#endif
#ifdef HAVE_HEAD
    .head_fwd = head_fwd,
    .head_logits = head_logits,
#endif
#ifndef KERN_FORWARD_ONLY
    .embed_bwd = embed_bwd,
    .combine_bwd = combine_bwd,
    .linear_bwd_x = linear_bwd_x,
    .linear_bwd_w = linear_bwd_w,
    .mul = mul,
    .add = add,
    .qk_bwd = qk_bwd,
#ifdef HAVE_ATTN
    .attn_bwd = attn_bwd,
#endif
#ifdef HAVE_HEAD
    .head_bwd = head_bwd,
#endif
    .gemm = gemm,
    .adamw = adamw,
    .axpby = axpby,
    .sumsq = sumsq,
    .row_normalize = row_normalize,
#endif
};
