/*
 * warp.cc - what the lanes of a warp do together. The matrices of mma and ldmatrix are put together
 * from the lanes' registers as the PTX ISA manual defines it (sections "Matrix Fragments for
 * mma.m16n8k16 with floating point type" and "ldmatrix"), not as the kernels think of them.
 */
#include <math.h>
#include <string.h>

#include "tests/gpu/emu/device.h"

namespace emu
{

static void exchange_op(void *lane[WARP], const char *, int)
{
    uint64_t was[WARP] = {};
    for (unsigned i = 0; i < WARP; i++)
        if (lane[i])
            was[i] = ((struct exchange *)lane[i])->value;
    for (unsigned i = 0; i < WARP; i++) {
        struct exchange *x = (struct exchange *)lane[i];
        if (!x)
            continue;
        if (!lane[x->from])
            fault(NULL, "lane %u shuffles with lane %u, which is not in the mask", i, x->from);
        x->value = was[x->from];
    }
}

uint64_t place::exchange(unsigned mask, uint64_t value, unsigned from) const
{
    struct emu::exchange x = {value, from};
    meet(exchange_op, mask, &x, file, line);
    return x.value;
}

static void vote_op(void *lane[WARP], const char *, int)
{
    unsigned votes = 0;
    for (unsigned i = 0; i < WARP; i++)
        votes |= (unsigned)(lane[i] && *(unsigned *)lane[i]) << i;
    for (unsigned i = 0; i < WARP; i++)
        if (lane[i])
            *(unsigned *)lane[i] = votes;
}

unsigned place::ballot(unsigned mask, bool p) const
{
    unsigned x = p;
    meet(vote_op, mask, &x, file, line);
    return x;
}

/* Only a whole warp is known to be in step afterwards. */
static void sync_op(void *lane[WARP], const char *, int)
{
    unsigned there = 0;
    for (unsigned i = 0; i < WARP; i++)
        there += lane[i] != NULL;
    if (there == WARP)
        here.warp_now[lane_thread(0) / WARP]++;
}

void place::syncwarp(unsigned mask) const
{
    char nothing;
    meet(sync_op, mask, &nothing, file, line);
}

/* ---- matrices ---- */

static float half_of(unsigned reg, int i) /* the i-th bf16 of a register: 0 is the lower half */
{
    uint32_t bits = i ? reg & 0xffff0000u : reg << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

struct mma_lane {
    float *c;
    const unsigned *a, b[2];
};

/*
 * "The row and column of a matrix fragment", groupID = lane >> 2, threadID_in_group = lane % 4:
 *   A, a0..a7:  row    groupID for a0 a1 a4 a5, groupID + 8 otherwise
 *               column threadID_in_group * 2 + (i & 1), 8 more for i >= 4
 *   B, b0..b3:  row    threadID_in_group * 2 + (i & 1), 8 more for i >= 2;  column groupID
 *   C, c0..c3:  row    groupID for i < 2, groupID + 8 otherwise
 *               column threadID_in_group * 2 + (i & 1)
 * Register j holds elements 2j (lower half) and 2j + 1.
 */
static void mma_op(void *lane[WARP], const char *, int)
{
    float a[16][16], b[16][8], c[16][8];
    for (unsigned l = 0; l < WARP; l++) {
        const struct mma_lane *m = (const struct mma_lane *)lane[l];
        unsigned group = l >> 2, in_group = l % 4;
        if (!m)
            fault(NULL, "mma needs all lanes of the warp");
        for (int i = 0; i < 8; i++) {
            unsigned row = i < 2 || (i >= 4 && i < 6) ? group : group + 8;
            a[row][in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0)] = half_of(m->a[i / 2], i % 2);
        }
        for (int i = 0; i < 4; i++) {
            b[in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0)][group] = half_of(m->b[i / 2], i % 2);
            c[i < 2 ? group : group + 8][in_group * 2 + (i & 1)] = m->c[i];
        }
    }
    /* The order of the sum is the hardware's own affair. */
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 16; k++)
            for (int j = 0; j < 8; j++)
                c[i][j] += a[i][k] * b[k][j];
    for (unsigned l = 0; l < WARP; l++) {
        const struct mma_lane *m = (const struct mma_lane *)lane[l];
        unsigned group = l >> 2, in_group = l % 4;
        for (int i = 0; i < 4; i++)
            m->c[i] = c[i < 2 ? group : group + 8][in_group * 2 + (i & 1)];
    }
}

void place::multiply(float c[4], const unsigned a[4], unsigned b0, unsigned b1) const
{
    struct mma_lane m = {c, a, {b0, b1}};
    meet(mma_op, ~0u, &m, file, line);
}

struct ldmatrix_lane {
    const uint16_t *row;
    unsigned *out;
    bool trans;
};

/*
 * Matrices 0 to 3; the rows of matrix m are where lanes 8m to 8m + 7 point. A lane gets row
 * lane / 4, elements 2 * (lane % 4) and the next; with .trans the same of the transposed matrix.
 */
static void ldmatrix_op(void *lane[WARP], const char *, int)
{
    uint16_t matrix[4][8][8];
    bool trans = false;
    for (unsigned l = 0; l < WARP; l++) {
        const struct ldmatrix_lane *m = (const struct ldmatrix_lane *)lane[l];
        if (!m)
            fault(NULL, "ldmatrix needs all lanes of the warp");
        here.thread = lane_thread(l);
        if (!mem_in_shared(m->row))
            fault(NULL, "ldmatrix at %p, which is not in shared memory", (const void *)m->row);
        if ((uintptr_t)m->row % 16)
            fault(NULL, "ldmatrix at %p, which is not aligned to 16", (const void *)m->row);
        mem_access_by(lane_thread(l), m->row, 16, READ, NULL);
        memcpy(matrix[l / 8][l % 8], m->row, 16);
        trans = m->trans;
    }
    for (unsigned l = 0; l < WARP; l++) {
        const struct ldmatrix_lane *m = (const struct ldmatrix_lane *)lane[l];
        unsigned row = l / 4, col = 2 * (l % 4);
        for (int i = 0; i < 4; i++) {
            unsigned low = trans ? matrix[i][col][row] : matrix[i][row][col];
            unsigned high = trans ? matrix[i][col + 1][row] : matrix[i][row][col + 1];
            m->out[i] = low | high << 16;
        }
    }
}

void place::load_matrix(unsigned r[4], const void *row, bool trans) const
{
    struct ldmatrix_lane m = {(const uint16_t *)row, r, trans};
    meet(ldmatrix_op, ~0u, &m, file, line);
}

} // namespace emu
