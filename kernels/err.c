/* err.c - see err.h. The runner links its own err_set (stub/), which has no need of stdio. */
#include "kernels/err.h"

#include <stdarg.h>
#include <stdio.h>

enum err_code err_set(struct err *e, enum err_code code, const char *fmt, ...)
{
    if (e && e->code == ERR_OK) {
        va_list ap;
        e->code = code;
        va_start(ap, fmt);
        vsnprintf(e->msg, sizeof e->msg, fmt, ap);
        va_end(ap);
        for (char *c = e->msg; *c; c++) /* names from files: one line is promised */
            if (*c >= 0 && *c < ' ')
                *c = '?';
    }
    return code;
}

enum err_code err_nomem(struct err *e, const char *what, unsigned long long n)
{
    return err_set(e, ERR_RESOURCE, "out of memory: %llu bytes for %s", n, what);
}
