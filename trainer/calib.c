/* calib.c - see calib.h. */
#include "trainer/calib.h"

#include <assert.h>
#include <stdlib.h>

enum err_code calib_take(void *ctx, uint16_t *ids, size_t n, struct err *e)
{
    struct loader *l = ctx;
    uint16_t *target = malloc(n * sizeof *target);
    assert(n % l->t == 0);
    if (!target)
        return err_nomem(e, "calibration batch", n * sizeof *target);
    enum err_code rc = loader_share(l, ids, target, n / l->t, e);
    free(target);
    return rc;
}
