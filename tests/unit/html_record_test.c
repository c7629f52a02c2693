/*
 * html_record_test - guards against a page about a leaderboard folder that the folder writes on,
 * that leaves out a finding, or that breaks on what an audit may leave open: claims that were not
 * made, logs without result, sizes that nobody knows.
 */
#include "tests/unit/html_sound.h"
#include "verify/html_record.h"

static const char record[] =
    "{\"folder\":\"2026-01-01_Name\",\"track\":\"track_10min_16mb\",\"claimed\":{\"file\":"
    "\"submission."
    "json\",\"val_bpb\":1.1428,\"val_loss\":1.93,\"bytes_total\":15900000,\"seeds\":[\"1\",\"2\"]},"
    "\"from_logs\":{\"per_log\":[{\"path\":\"train_seed1.log\",\"seed\":\"1\",\"headline\":{"
    "\"label\":"
    "\"final_exact\",\"line\":7,\"val_bpb\":1.1426},\"train_ms\":599000,\"steps\":100,\"model_"
    "bytes\":"
    "15800000,\"total_bytes\":15850000,\"implied_val_bytes\":151080363,\"denominator\":\"SP1024\"},"
    "{\"path\":\"a_very_long_name_of_a_log_that_fits_nowhere_seed2.log\",\"seed\":\"2\","
    "\"headline\":"
    "{\"val_bpb\":1.143},\"total_bytes\":16100000},{\"path\":\"other.log\",\"seed\":null,"
    "\"headline\":"
    "null}],\"headline_logs\":[\"train_seed1.log\"],\"aggregate\":{\"n\":3,\"mean_bpb\":1.1428}},"
    "\"size\":"
    "{\"cap\":16000000,\"as_shipped_total\":15965978,\"code_bytes_in_logs\":[1,2]},\"methods\":[{"
    "\"method\":\"sliding\",\"used\":\"yes\",\"conditions\":{\"C1\":{\"state\":\"met\",\"why\":"
    "\"causal\","
    "\"line\":5},\"C2\":{\"state\":\"not met\",\"why\":\"why not\"},\"C3\":{\"state\":\"not "
    "checked\"}}}],"
    "\"claim_basis\":\"mean of seed "
    "logs\",\"statistics\":{\"against\":\"1.16\",\"test\":\"one-sample\","
    "\"BPB\":{\"gain\":0.0172,\"gain_over_0.005\":{\"t\":108.1,\"df\":2,\"p_one_sided\":4e-5},"
    "\"gain_over_0\":{\"t\":152,\"p_one_sided\":2e-5}}},\"claims\":{\"val_bpb\":\"confirmed\","
    "\"std\":"
    "\"not "
    "made\",\"bytes\":\"contradicted\",\"seeds\":\"confirmed\",\"cap\":\"confirmed\"},"
    "\"mismatches\":"
    "[{\"code\":\"a-note\",\"severity\":\"info\",\"detail\":\"detail "
    "one\",\"evidence\":[]},{\"code\":"
    "\"some-fail\",\"severity\":\"fail\",\"detail\":\"detail "
    "two\",\"evidence\":[{\"file\":\"train_seed1."
    "log\",\"line\":7},{\"file\":\"submission.json\",\"line\":null}]}],\"not_checked\":[\"the "
    "weights\"],"
    "\"verdict\":\"contradicted\"}";

static char *render(const char *name, const cJSON *root, size_t *n)
{
    struct html h = {0};
    page_record_render(&h, root);
    if (h.failed)
        fail_msg("%s: failed", name);
    sound(name, h.buf);
    *n = h.n;
    return h.buf;
}

static void whole(void **state)
{
    static const char *const must[] = {"\xE2\x9C\x97 contradicted",
                                       "detail one",
                                       "detail two",
                                       "some-fail",
                                       "train_seed1.log:7",
                                       "not made",
                                       "SP1024",
                                       "the weights",
                                       "C2 not met: why not",
                                       "C3 not checked<",
                                       "one-sample",
                                       "limit 16,000,000",
                                       "16,100,000",
                                       "above the limit",
                                       "<li>bytes</li>", /* which claim, in the verdict */
                                       "in the logs</th>",
                                       "<td>1.14280000</td>",
                                       "<td>3 logs</td>"};
    cJSON *root = cJSON_Parse(record);
    struct err e = {0};
    size_t n;
    (void)state;
    assert_non_null(root);
    char *page = render("whole", root, &n);
    for (size_t i = 0; i < COUNT(must); i++)
        if (!strstr(page, must[i]))
            fail_msg("nothing says %s", must[i]);
    if (strstr(page, "detail two") > strstr(page, "detail one"))
        fail_msg("an info before a fail");
    free(page);
    assert_int_equal(page_record(util_path("page.html"), root, &e), ERR_OK);
    assert_int_equal(page_record("/nonexistent/x.html", root, &e), ERR_RESOURCE);
    cJSON_Delete(root);
}

static void hostile(void **state)
{
    cJSON *root = cJSON_Parse(record), *list = cJSON_GetObjectItem(root, "mismatches");
    size_t n;
    (void)state;
    for (int i = 0; i < 2000; i++) {
        cJSON *o = cJSON_Duplicate(cJSON_GetArrayItem(list, 1), true);
        cJSON_AddItemToArray(list, o);
    }
    poison(root);
    cJSON *v;
    cJSON_ArrayForEach(v, list) cJSON_SetValuestring(cJSON_GetObjectItem(v, "severity"), "fail");
    cJSON_AddItemToObject(cJSON_GetObjectItem(root, "claims"), evil, cJSON_CreateString(evil));
    char *page = render("hostile", root, &n);
    if (n > 4 << 20)
        fail_msg("a page of %zu bytes", n);
    if (!strstr(page, "more are not shown"))
        fail_msg("findings are left out in silence");
    free(page);
    cJSON_Delete(root);
}

/* Any member missing, or of another kind: for each in turn. */
static void holes(void **state)
{
    static const char *const other[] = {
        "null", "[]", "{}", "7", "\"x\"", "-1e300", "[1,[2],{\"a\":3}]"};
    (void)state;
    for (size_t k = 0; k < COUNT(other); k++) {
        cJSON *all = cJSON_Parse(record);
        int members = cJSON_GetArraySize(all);
        cJSON_Delete(all);
        for (int i = 0; i < members; i++)
            for (int deep = 0; deep < 2; deep++) {
                cJSON *root = cJSON_Parse(record), *at = cJSON_GetArrayItem(root, i), *v;
                size_t n;
                char name[200];
                snprintf(name, sizeof name, "%s is %s", at->string, other[k]);
                if (!deep) {
                    char key[64];
                    snprintf(key, sizeof key, "%s", at->string);
                    cJSON_ReplaceItemInObject(root, key, cJSON_Parse(other[k]));
                } else if (cJSON_IsObject(at)) {
                    size_t count = (size_t)cJSON_GetArraySize(at);
                    for (size_t m = 0; m < count; m++) {
                        char key[64];
                        v = cJSON_GetArrayItem(at, (int)m);
                        snprintf(key, sizeof key, "%s", v->string);
                        cJSON_ReplaceItemInObject(at, key, cJSON_Parse(other[k]));
                    }
                }
                free(render(name, root, &n));
                cJSON_Delete(root);
            }
    }
}

static void trees(void **state)
{
    cJSON *root = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(root, "records"), *o;
    size_t n;
    (void)state;
    for (int i = 0; i < 5000; i++) {
        o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "folder", i % 2 ? evil : "a");
        cJSON_AddStringToObject(o, i % 3 ? "verdict" : "error", i % 3 == 1 ? "contradicted" : evil);
        cJSON_AddItemToArray(list, o);
    }
    cJSON_AddItemToArray(list, cJSON_CreateNull());
    o = cJSON_AddObjectToObject(root, "summary");
    cJSON_AddNumberToObject(o, "records", 5000);
    char *page = render("tree", root, &n);
    if (!strstr(page, "1667 of 5001 contradicted"))
        fail_msg("counts are wrong: %.40s", strstr(page, "<h1>"));
    free(page);
    cJSON_Delete(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(whole), cmocka_unit_test(hostile),
                                       cmocka_unit_test(holes), cmocka_unit_test(trees)};
    return cmocka_run_group_tests(tests, NULL, util_cleanup);
}
