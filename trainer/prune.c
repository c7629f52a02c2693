/* prune.c - see prune.h. */
#include "trainer/prune.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { SCALES = 0x8000 }; /* bit patterns of a positive fp16 */

static bool is_one(int8_t q)
{
    return q == 1 || q == -1;
}

static size_t row_ones(const struct prune_tensor *t, size_t r)
{
    size_t ones = 0;
    for (size_t i = r * t->cols; i < (r + 1) * t->cols; i++)
        ones += is_one(t->q[i]);
    return ones;
}

size_t prune_candidates(const struct prune_tensor *t, size_t n)
{
    size_t sum = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t r = 0; r < t[i].rows; r++)
            sum += row_ones(&t[i], r);
    return sum;
}

/* The first at most `left` candidates of a row become 0; returns how many. */
static size_t prune_row(struct prune_tensor *t, size_t r, size_t left)
{
    size_t done = 0;
    for (size_t i = r * t->cols; i < (r + 1) * t->cols && done < left; i++)
        if (is_one(t->q[i])) {
            t->q[i] = 0;
            done++;
        }
    t->pruned += done;
    return done;
}

void prune_apply(struct prune_tensor *t, size_t n, size_t count)
{
    size_t have[SCALES] = {0}, limit = 0;
    for (size_t i = 0; i < n; i++) {
        t[i].pruned = 0;
        for (size_t r = 0; r < t[i].rows; r++)
            have[t[i].scale[r] & (SCALES - 1)] += row_ones(&t[i], r);
    }
    /* Below the scale `limit` all go; at it, the first `count` that remain. */
    for (; limit < SCALES - 1 && count >= have[limit]; limit++)
        count -= have[limit];
    for (size_t i = 0; i < n; i++)
        for (size_t r = 0; r < t[i].rows; r++) {
            if (t[i].scale[r] < limit)
                prune_row(&t[i], r, t[i].cols);
            else if (t[i].scale[r] == limit)
                count -= prune_row(&t[i], r, count);
        }
    assert(count == 0);
}

static size_t integers(const struct prune_tensor *t, size_t n)
{
    size_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += t[i].rows * t[i].cols;
    return sum;
}

/* Copy all integers out to, or back from, `copy`. */
static void move_integers(struct prune_tensor *t, size_t n, int8_t *copy, bool back)
{
    for (size_t i = 0; i < n; i++) {
        size_t cells = t[i].rows * t[i].cols;
        memcpy(back ? t[i].q : copy, back ? copy : t[i].q, cells);
        copy += cells;
    }
}

static enum err_code bisect(struct prune_tensor *t, size_t n, uint64_t target, prune_size *size,
                            void *ctx, struct prune_result *res, struct err *e)
{
    size_t low = 0, high = res->candidates;
    enum err_code rc = ERR_OK;
    int8_t *copy = malloc(integers(t, n) + 1);
    if (!copy)
        return err_nomem(e, "integers before pruning", integers(t, n));
    move_integers(t, n, copy, false);
    while (low < high && !rc) {
        size_t at = low + (high - low) / 2;
        uint64_t bytes = 0;
        move_integers(t, n, copy, true);
        prune_apply(t, n, at);
        rc = size(ctx, &bytes, e);
        if (bytes > target) {
            low = at + 1;
        } else {
            high = at;
            res->after = bytes;
        }
    }
    move_integers(t, n, copy, true);
    prune_apply(t, n, high);
    res->pruned = high;
    if (!rc && high == res->candidates) /* the only number that was never tried */
        rc = size(ctx, &res->after, e);
    free(copy);
    return rc;
}

enum err_code prune_to(struct prune_tensor *t, size_t n, uint64_t target, enum prune_search how,
                       prune_size *size, void *ctx, struct prune_result *res, struct err *e)
{
    *res = (struct prune_result){.candidates = prune_candidates(t, n)};
    enum err_code rc = size(ctx, &res->before, e);
    res->after = res->before;
    if (rc || res->before <= target || !res->candidates)
        return rc;
    if (how == PRUNE_FIT)
        return bisect(t, n, target, size, ctx, res, e);
    uint64_t excess = res->before - target;
    res->pruned = excess > res->candidates / 8 ? res->candidates : (size_t)(8 * excess);
    prune_apply(t, n, res->pruned);
    res->after = 0;
    return ERR_OK;
}
