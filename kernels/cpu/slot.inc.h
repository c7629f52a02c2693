/*
 * slot.inc.h - SLOT's share of the head: losses of cached logits that are shifted per group, and
 * the gradient of the shift (kern_slot in kernels.h). Included after head.inc.h.
 *
 * slot_fwd is head.inc.h's loss of z + u, block by block of the vocabulary, so with u = 0 it has
 * the bits of head_fwd. slot_bwd needs all of a row at once: tanh and maximum in one pass,
 * exponentials and their sum (16 partials and halving over the row) in a second, dz and the sum
 * over rows in a third; a row of each stays in the cache. Tasks are blocks of KERN_ROW_BLOCK rows,
 * whose sums lie side by side until they are added, ascending, by tasks that own columns.
 */

enum {
    SLOT_SUMS = 1 << 22, /* floats of block sums at a time; at least one group's */
    SLOT_COLS = 256,     /* columns of a task that adds block sums */
};

struct slot_job {
    const struct kern_slot *a;
    struct cpu *cpu;
    float *sums;           /* [groups][blocks][vocab] */
    size_t group0, groups; /* the groups of this call */
    size_t blocks;         /* of rows, in a group */
    float *lse;            /* [groups][rows], or NULL */
    float inv;
};

/* to[0..n) = the logits z[0..n) of group g, before the soft cap, shifted; v is the first entry. */
static void slot_shift(const struct kern_slot *a, float *to, const float *z, size_t g, size_t v,
                       size_t n)
{
    const float *u = a->u ? a->u + g / a->per * a->vocab + v : NULL;
    if (u)
        vec_add(to, z, u, n);
    else
        memcpy(to, z, n * sizeof *to);
}

static void slot_fwd_task(void *ctx, size_t task, size_t thread)
{
    const struct slot_job *j = ctx;
    const struct kern_slot *a = j->a;
    size_t g = task / j->blocks, r0 = task % j->blocks * KERN_ROW_BLOCK;
    size_t rows = cpu_min(KERN_ROW_BLOCK, a->rows - r0), at = g * a->step + r0;
    float *z = cpu_scratch(j->cpu, thread), *m = z + HEAD_BLOCK, *s = m + KERN_ROW_BLOCK;
    const struct kern_head h = {.target = a->target + at, .cap = a->cap};
    struct head_job head = {.a = &h, .m = m, .s = s, .hit = s + KERN_ROW_BLOCK, .inv = j->inv};
    for (size_t r = 0; r < rows; r++) {
        m[r] = -INFINITY;
        s[r] = 0;
        for (size_t v = 0; v < a->vocab; v += HEAD_BLOCK) {
            size_t n = cpu_min(HEAD_BLOCK, a->vocab - v);
            slot_shift(a, z, a->z + (at + r) * a->vocab + v, g, v, n);
            head_row(&head, r, z, v, n);
        }
    }
    vec_lse(m, m, s, rows);
    for (size_t r = 0; r < rows; r++) {
        a->nll[g * a->rows + r0 + r] = m[r] - head.hit[r];
        if (KERN_SAVES && j->lse)
            j->lse[g * a->rows + r0 + r] = m[r];
    }
}

static void slot_loss(struct kern *k, const struct kern_slot *a, float *lse)
{
    struct slot_job j = {.a = a, .cpu = k->impl, .blocks = rows_blocks(a->rows), .lse = lse};
    j.inv = head_inv(a->cap);
    if (cpu_reserve(j.cpu, 0, HEAD_BLOCK + 3 * KERN_ROW_BLOCK))
        cpu_parallel(j.cpu, slot_fwd_task, &j, a->groups * j.blocks);
}

static void slot_fwd(struct kern *k, const struct kern_slot *a)
{
    slot_loss(k, a, NULL);
}

#ifdef KERN_ONCE
/* A small build writes the logits of some rows at a time to memory: then the loss is that of SLOT
 * without a shift. */
static void head_fwd(struct kern *k, const struct kern_head *a)
{
    size_t most = cpu_min(HEAD_Z_ROWS, a->rows);
    float *z = k->alloc(k, most * a->vocab * sizeof *z);
    for (size_t r = 0; r < a->rows; r += most) {
        struct kern_slot s = {.z = z,
                              .target = a->target + r,
                              .nll = a->nll + r,
                              .groups = 1,
                              .rows = cpu_min(most, a->rows - r),
                              .vocab = a->vocab,
                              .cap = a->cap};
        linear_fwd(k, z, a->h + r * a->dim, a->w, s.rows, a->vocab, a->dim);
        slot_loss(k, &s, KERN_SAVES && a->lse ? a->lse + r : NULL);
    }
    k->free(k, z);
}
#endif

/* sum[0..vocab) += dz of one row; e and t are rows of scratch. */
static void slot_row(const struct slot_job *j, float *sum, float *e, float *t, size_t g, size_t row)
{
    const struct kern_slot *a = j->a;
    size_t n = a->vocab, vectors = cpu_ceil_div(n, 16);
    _Alignas(64) float top[16], part[16] = {0};
    float minus[ROWS_CHUNK], scale = a->gscale;
    slot_shift(a, e, a->z + row * n, g, 0, n);
    head_softcap(e, t, n, a->cap, j->inv);
    head_pad(e, n);
    for (size_t i = 0; i < 16; i++)
        top[i] = -INFINITY;
    for (size_t i = 0; i < ROWS_CHUNK; i++)
        minus[i] = -1;
    vec_max(e, 16, vectors, 1, NULL, top);
    vec_max16(top);
    vec_exp(e, 16, vectors, top, part, 1);
    vec_scale(e, e, 1.0f / vec_sum16(part), n);
    e[a->target[row]] -= 1;
    if (a->cap != 0.0f) { /* 1 - t*t with the sign turned, and turned again by the scale */
        scale = -scale;
        for (size_t i = 0; i < n; i += ROWS_CHUNK)
            vec_fma(t + i, t + i, t + i, minus, cpu_min(ROWS_CHUNK, n - i), false);
        vec_mul(e, e, t, n);
    }
    vec_fma(sum, e, &scale, sum, n, true);
}

static void slot_bwd_task(void *ctx, size_t task, size_t thread)
{
    const struct slot_job *j = ctx;
    const struct kern_slot *a = j->a;
    size_t g = j->group0 + task / j->blocks, r0 = task % j->blocks * KERN_ROW_BLOCK;
    size_t rows = cpu_min(KERN_ROW_BLOCK, a->rows - r0), padded = cpu_ceil_div(a->vocab, 16) * 16;
    float *sum = j->sums + task * a->vocab, *e = cpu_scratch(j->cpu, thread);
    memset(sum, 0, a->vocab * sizeof *sum);
    for (size_t r = 0; r < rows; r++)
        slot_row(j, sum, e, e + padded, g, g * a->step + r0 + r);
}

/* The block sums of all groups, in order, for some columns. */
static void slot_add_task(void *ctx, size_t task, size_t thread)
{
    const struct slot_job *j = ctx;
    size_t n = j->a->vocab, from = task * SLOT_COLS, to = cpu_min(from + SLOT_COLS, n);
    (void)thread;
    for (size_t b = 0; b < j->groups * j->blocks; b++) {
        float *du = j->a->du + (j->group0 + b / j->blocks) / j->a->per * n;
        const float *sum = j->sums + b * n;
        vec_add(du + from, du + from, sum + from, to - from);
    }
}

static void slot_bwd(struct kern *k, const struct kern_slot *a)
{
    struct slot_job j = {.a = a, .cpu = k->impl, .blocks = rows_blocks(a->rows)};
    size_t group = j.blocks * a->vocab, most = group ? SLOT_SUMS / group : 0;
    most = cpu_min(most ? most : 1, a->groups);
    j.inv = head_inv(a->cap);
    if (!group || !cpu_reserve(j.cpu, most * group, 2 * cpu_ceil_div(a->vocab, 16) * 16))
        return;
    j.sums = cpu_shared(j.cpu);
    for (; j.group0 < a->groups; j.group0 += most) {
        j.groups = cpu_min(most, a->groups - j.group0);
        cpu_parallel(j.cpu, slot_bwd_task, &j, j.groups * j.blocks);
        cpu_parallel(j.cpu, slot_add_task, &j, cpu_ceil_div(a->vocab, SLOT_COLS));
    }
}
