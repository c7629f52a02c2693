/* needs_fuzz - any bytes as a program; the names that it needs are printable and end. */
#include "tests/fuzz/fuzz.h"
#include "verify/needs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct needs list;
    struct err e = {0};
    if (needs_list(&list, data, n, "fuzz", &e))
        return 0;
    if (list.count > NEEDS_MAX)
        abort();
    for (size_t i = 0; i < list.count; i++)
        for (const char *p = list.name[i]; *p; p++)
            if (*p < ' ' || *p > '~')
                abort();
    return 0;
}
