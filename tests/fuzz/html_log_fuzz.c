/* html_log_fuzz - any bytes as a training log: what is understood stays within its limits, in
 * order, and finite. */
#include <math.h>

#include "tests/fuzz/fuzz.h"
#include "verify/html_log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct page_log l = {0};
    struct err e = {0};
    if (page_log_parse(&l, (const char *)data, n, &e))
        abort();
    if (l.ntrain > LOG_POINTS || l.nval > LOG_POINTS || l.figures > LOG_FIGURES ||
        l.rows > LOG_ROWS)
        abort();
    for (size_t i = 0; i < l.ntrain; i++)
        if (!isfinite(l.train[i].loss) || (i && l.train[i].step <= l.train[i - 1].step))
            abort();
    for (size_t i = 0; i < l.nval; i++)
        if (!isfinite(l.val[i].loss) || (i && l.val[i].step <= l.val[i - 1].step))
            abort();
    page_log_free(&l);
    return 0;
}
