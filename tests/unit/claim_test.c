/*
 * claim_test - guards against a false claim that passes (a figure so coarse that anything agrees, a
 * key in the wrong place, bytes off by one) and a true one that is refused (truncated instead of
 * rounded, written by another program).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "verify/claim.h"

static const struct claim_facts facts = {.bytes_total = 15999533,
                                         .tokens = 45508608,
                                         .bytes = 151074053,
                                         .nll_xxh64 = 0x00c0ffee12345678,
                                         .val_loss = 2.50671234,
                                         .val_bpb = 1.08978974,
                                         .mode = "sliding"};

/* Which key fails; CLAIM_KEYS: none. */
static const struct {
    const char *name, *json;
    enum claim_key fails;
} cases[] = {
    {"all",
     "{\"val_loss\":2.50671234,\"val_bpb\":1.08978974,\"bytes_total\":15999533,"
     "\"tokens\":45508608,\"bytes\":151074053,\"mode\":\"sliding\","
     "\"nll_xxh64\":\"00c0ffee12345678\"}",
     CLAIM_KEYS},
    {"rounded to 4", "{\"val_bpb\":1.0898}", CLAIM_KEYS},
    {"truncated to 4", "{\"val_bpb\":1.0897}", CLAIM_KEYS},
    {"one more at 4", "{\"val_bpb\":1.0899}", CLAIM_VAL_BPB},
    {"one less at 4", "{\"val_bpb\":1.0896}", CLAIM_VAL_BPB},
    {"rounded to 5", "{\"val_bpb\":1.08979}", CLAIM_KEYS},
    {"one more at 5", "{\"val_bpb\":1.08980}", CLAIM_KEYS}, /* the zero is no decimal */
    {"two more at 5", "{\"val_bpb\":1.08981}", CLAIM_VAL_BPB},
    {"rounded to 3", "{\"val_bpb\":1.090}", CLAIM_VAL_BPB}, /* 2.1e-4 off */
    {"rounded to 1", "{\"val_bpb\":1.1}", CLAIM_VAL_BPB},
    {"8th decimal off by one", "{\"val_bpb\":1.08978975}", CLAIM_VAL_BPB},
    {"a full double", "{\"val_bpb\":1.0897897400012345}", CLAIM_KEYS},
    {"better than it is", "{\"val_bpb\":0.9354}", CLAIM_VAL_BPB},
    {"negative", "{\"val_bpb\":-1.08978974}", CLAIM_VAL_BPB},
    {"loss", "{\"val_loss\":2.5068}", CLAIM_KEYS},
    {"loss off", "{\"val_loss\":2.5069}", CLAIM_VAL_LOSS},
    {"one byte less", "{\"bytes_total\":15999532}", CLAIM_BYTES_TOTAL},
    {"other name", "{\"artifact_bytes\":15999533}", CLAIM_KEYS},
    {"other name off", "{\"artifact_bytes\":15999534}", CLAIM_BYTES_TOTAL},
    {"of --info", "{\"total_bytes\":15999533}", CLAIM_KEYS},
    {"one scored byte more", "{\"bytes\":151074054}", CLAIM_BYTES},
    {"fewer tokens", "{\"tokens\":45508607}", CLAIM_TOKENS},
    {"another mode", "{\"mode\":\"slot\",\"tokens\":45508608}", CLAIM_MODE},
    {"one bit", "{\"nll_xxh64\":\"00c0ffee12345679\"}", CLAIM_NLL_XXH64},
    {"an escaped backslash before u0000", "{\"name\":\"\\\\u0000\",\"val_bpb\":1.08979}",
     CLAIM_KEYS},
    {"other letters elsewhere", "{\"na\xc3\xafve\":1,\"val_bpb_\xc3\xb8\":9,\"val_bpb\":1.08979}",
     CLAIM_KEYS},
    {"other keys", "{\"name\":\"x\",\"seed_results\":{\"42\":{\"val_bpb\":9}},\"val_bpb\":1.08979}",
     CLAIM_KEYS},
};

static void verdicts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct claim c;
        struct err e = {0};
        if (claim_parse(&c, cases[i].json, strlen(cases[i].json), "c.json", &e))
            fail_msg("%s: %s", cases[i].name, e.msg);
        for (int k = 0; k < CLAIM_KEYS; k++) {
            char measured[CLAIM_TEXT];
            bool holds = claim_holds(&c, (enum claim_key)k, &facts, measured);
            if (holds != (k != (int)cases[i].fails))
                fail_msg("%s: %s claimed %s, measured %s: %s", cases[i].name,
                         claim_key_name((enum claim_key)k), c.v[k].text, measured,
                         holds ? "confirmed" : "not confirmed");
        }
    }
}

static void refused(void **state)
{
    static const struct {
        const char *name, *json, *says;
    } bad[] = {
        {"empty object", "{}", "claims nothing"},
        {"only a name", "{\"name\":\"x\"}", "claims nothing"},
        {"hidden deeper", "{\"a\":{\"val_bpb\":1.1}}", "claims nothing"},
        {"an array", "[1.1]", "not a JSON object"},
        {"no JSON", "val_bpb: 1.1", "not JSON"},
        {"cut off", "{\"val_bpb\":1.1", "not JSON"},
        {"two objects", "{\"val_bpb\":1.1} {}", "more behind"},
        {"text for a number", "{\"val_bpb\":\"1.1\"}", "val_bpb is not a number"},
        {"infinite", "{\"val_bpb\":1e999}", "val_bpb is not a number"},
        {"null", "{\"val_bpb\":null}", "val_bpb is not a number"},
        {"half a byte", "{\"bytes_total\":1.5}", "not a whole number"},
        {"negative bytes", "{\"bytes\":-1}", "not a whole number"},
        {"huge", "{\"tokens\":1e300}", "not a whole number"},
        {"short hash", "{\"nll_xxh64\":\"12\"}", "16 hexadecimal digits"},
        {"capital hash", "{\"nll_xxh64\":\"00C0FFEE12345678\"}", "16 hexadecimal digits"},
        {"long mode", "{\"mode\":\"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz\"}",
         "short text"},
        {"a key twice", "{\"val_bpb\":1.08979,\"val_bpb\":0.9}", "val_bpb occurs twice"},
        {"a key twice, one escaped", "{\"val_bpb\":1.08979,\"val\\u005fbpb\":0.9}", "occurs twice"},
        {"a Cyrillic letter",
         "{\"val_bpb\":1.08979,\"val_b\xd1\x80"
         "b\":0.9}",
         "looks like val_bpb"},
        {"two Cyrillic letters, escaped", "{\"v\\u0430l_b\\u0440b\":0.9,\"tokens\":1}",
         "looks like val_bpb"},
        {"a space without width",
         "{\"val_\xe2\x80\x8b"
         "bpb\":0.9,\"tokens\":1}",
         "looks like val_bpb"},
        {"a NUL behind a key", "{\"val_bpb\\u0000old\":0.9}", "escaped NUL"},
        {"a NUL in a value", "{\"mode\":\"sliding\\u0000\",\"val_bpb\":1}", "escaped NUL"},
        {"a line in a mode", "{\"mode\":\"x\\nverified\"}", "printable"},
        {"an escape in a mode", "{\"mode\":\"\\u001b[2Kverified\"}", "printable"},
        {"two sizes", "{\"bytes_total\":5,\"artifact_bytes\":6}", "artifact_bytes is 6"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct claim c;
        struct err e = {0};
        enum err_code rc = claim_parse(&c, bad[i].json, strlen(bad[i].json), "c.json", &e);
        if (rc != ERR_INPUT || !strstr(e.msg, bad[i].says) || strncmp(e.msg, "c.json: ", 8))
            fail_msg("%s: status %d, \"%s\"", bad[i].name, rc, e.msg);
    }
}

/* Every beginning of a claim is refused, in memory that ends where it ends. */
static void truncated(void **state)
{
    const char *json = cases[0].json;
    size_t n = strlen(json);
    (void)state;
    for (size_t have = 0; have < n; have++) {
        char *part = malloc(have ? have : 1);
        struct claim c;
        struct err e = {0};
        memcpy(part, json, have);
        if (claim_parse(&c, part, have, "c.json", &e) != ERR_INPUT)
            fail_msg("the first %zu bytes pass", have);
        free(part);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verdicts),
        cmocka_unit_test(refused),
        cmocka_unit_test(truncated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
