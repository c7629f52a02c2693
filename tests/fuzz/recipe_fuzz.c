/* recipe_fuzz - any bytes as a recipe; what is understood must be printed and understood the same,
 * and a recipe that passes the check has a parameter table. */
#include <string.h>

#include "model/gpt.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    enum { ALL = RECIPE_MODEL | RECIPE_EVAL | RECIPE_TRAIN | RECIPE_QUANT };
    static char text[65536];
    struct recipe r, again;
    struct err e = {0};
    struct gpt m;
    recipe_init(&r);
    recipe_init(&again);
    if (recipe_parse(&r, (const char *)data, n, "fuzz", n & 1, &e))
        return 0;
    size_t len = recipe_print(&r, ALL, false, text, sizeof text);
    if (len >= sizeof text || recipe_parse(&again, text, len, "printed", false, &e) ||
        memcmp(&r, &again, sizeof r))
        abort();
    if (!gpt_init(&m, &r, &e))
        gpt_free(&m);
    return 0;
}
