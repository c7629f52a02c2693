/* claim_fuzz - any bytes as a claim; what is understood is short, printable and compared without
 * surprises. */
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "verify/claim.h"
#include "verify/report.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const struct claim_facts facts = {.bytes_total = 15999533,
                                      .tokens = 1000,
                                      .bytes = 3000,
                                      .val_loss = 2.5,
                                      .val_bpb = 1.08978974,
                                      .mode = "sliding"};
    struct claim c;
    struct err e = {0};
    if (claim_parse(&c, (const char *)data, n, "fuzz", &e)) {
        char clean[sizeof e.msg];
        strcpy(clean, e.msg);
        if (strpbrk(report_clean(clean), "\n\r\x1b"))
            abort();
        return 0;
    }
    for (int k = 0; k < CLAIM_KEYS; k++) {
        char measured[CLAIM_TEXT];
        claim_holds(&c, (enum claim_key)k, &facts, measured);
        for (const char *p = c.v[k].text; *p; p++)
            if (*p < ' ' || *p > '~')
                abort();
    }
    return 0;
}
