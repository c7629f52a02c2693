/*
 * isa.inc.h - all kernels once, and their table. The including file defines ISA_TABLE, ISA_NAME
 * and, for v16.h, the machine; it is compiled with that machine's flags.
 */
#include "kernels/cpu/cpu.h"
#ifndef KERN_ONCE
#include "kernels/cpu/v16.h"
#endif

#include "kernels/cpu/tile.inc.h"
#include "kernels/cpu/vec.inc.h"

#include "kernels/cpu/elem.inc.h"
#ifdef KERN_ONCE
#include "kernels/cpu/gemm_small.inc.h"
#else
#include "kernels/cpu/gemm.inc.h"
#endif
#include "kernels/cpu/rows.inc.h"
#include "kernels/cpu/xsa.inc.h"
#include "kernels/cpu/coef.inc.h"
#include "kernels/cpu/attn.inc.h"
#include "kernels/cpu/head.inc.h"
#include "kernels/cpu/ns.inc.h"
#include "kernels/cpu/slot.inc.h"

const struct kern ISA_TABLE = {
    .name = ISA_NAME,
    .embed_fwd = embed_fwd,
    .take = take,
    .combine_fwd = combine_fwd,
    .linear_fwd = linear_fwd,
    .linear_act_fwd = linear_act_fwd,
    .shift_fwd = shift_fwd,
    .xsa_fwd = xsa_fwd,
    .qk_fwd = qk_fwd,
    .attn_fwd = attn_fwd,
    .head_fwd = head_fwd,
#ifndef KERN_SMALL
    .head_logits = head_logits,
#endif
    .slot_fwd = slot_fwd,
    .slot_bwd = slot_bwd,
    .linear_bwd_x = linear_bwd_x,
#ifdef KERN_ONCE
    .adamw = cpu_adamw,
#else
    .adamw = adamw,
#endif
    .coef_fwd = coef_fwd,
#ifndef KERN_FORWARD_ONLY
    .coef_bwd = coef_bwd,
    .embed_bwd = embed_bwd,
    .combine_bwd = combine_bwd,
    .linear_bwd_w = linear_bwd_w,
    .shift_bwd = shift_bwd,
    .xsa_bwd = xsa_bwd,
    .mul = mul,
    .add = add,
    .qk_bwd = qk_bwd,
    .attn_bwd = attn_bwd,
    .head_bwd = head_bwd,
    .axpby = axpby,
    .sumsq = sumsq,
    .round_bf16 = round_bf16,
#endif
#ifndef KERN_NO_OPTIM
    .gemm = gemm,
    .row_normalize = row_normalize,
    .fake_quant = fake_quant,
    .newton_schulz = newton_schulz,
#endif
};
