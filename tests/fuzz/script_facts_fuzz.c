/* script_facts_fuzz - any bytes as a script's source; what is told must be printable and have a
 * line that the source has. */
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "verify/pytoken.h"
#include "verify/script_facts.h"

static void one_line(const char *s)
{
    size_t n = strlen(s);
    for (size_t i = 0, len; i < n; i += len)
        if ((unsigned char)s[i] < ' ' || !(len = py_utf8((const uint8_t *)s + i, n - i)))
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const struct script_setting log[] = {{"TTT_ENABLED", "1"}, {"eval_stride", "32"}};
    struct script_facts f;
    struct err e = {0};
    if (script_facts(&f, data, n, log, n % 3, &e))
        abort();
    for (size_t i = 0; i < f.facts; i++) {
        one_line(f.fact[i].text);
        if (f.fact[i].line > f.lines + 1)
            abort();
    }
    for (size_t i = 0; i < f.envs; i++) {
        one_line(f.env[i].name);
        one_line(f.env[i].attr);
        one_line(f.env[i].value);
    }
    for (size_t i = 0; i < f.methods; i++)
        one_line(f.method[i].form);
    script_env(&f, "EVAL_STRIDE");
    script_method(&f, METHOD_TTT);
    script_facts_free(&f);
    return 0;
}
