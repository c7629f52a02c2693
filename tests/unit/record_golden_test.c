/*
 * record_golden_test - guards against an auditor that reads public records differently from a
 * careful person: every value and every finding of expected.json in ../shared/fixtures/records
 * (RECORDS=DIR for another place). Says so and passes when the fixtures are not there.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

#include "model/file.h"
#include "verify/record_report.h"

static const char *fixtures(void)
{
    const char *dir = getenv("RECORDS");
    return dir ? dir : "../shared/fixtures/records";
}

static cJSON *load(const char *path)
{
    const void *data;
    size_t n;
    struct err e = {0};
    if (file_map(path, &data, &n, &e))
        return NULL;
    cJSON *root = cJSON_ParseWithLength(data, n);
    file_unmap(data, n);
    return root;
}

static const cJSON *at(const cJSON *o, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(o, key);
}

static size_t differences;

static void differ(const char *where, const char *what, const cJSON *got, const cJSON *want)
{
    char *a = got ? cJSON_PrintUnformatted(got) : NULL, *b = cJSON_PrintUnformatted(want);
    print_message("%s %s: got %s, want %s\n", where, what, a ? a : "nothing", b);
    cJSON_free(a);
    cJSON_free(b);
    differences++;
}

/* Numbers up to the eight decimals they are printed with, all else exactly. */
static bool equal(const cJSON *a, const cJSON *b)
{
    if (!a)
        return cJSON_IsNull(b);
    if (cJSON_IsNumber(a) && cJSON_IsNumber(b))
        return fabs(a->valuedouble - b->valuedouble) <= 6e-9 * fmax(1, fabs(b->valuedouble));
    if ((a->type & 0xFF) != (b->type & 0xFF))
        return false;
    if (cJSON_IsString(a))
        return !strcmp(a->valuestring, b->valuestring);
    if (cJSON_IsArray(a)) {
        if (cJSON_GetArraySize(a) != cJSON_GetArraySize(b))
            return false;
        for (int i = 0; i < cJSON_GetArraySize(a); i++)
            if (!equal(cJSON_GetArrayItem(a, i), cJSON_GetArrayItem(b, i)))
                return false;
    }
    return true;
}

/* The named members of two objects. */
static void members(const char *where, const cJSON *got, const cJSON *want, const char *const *keys)
{
    for (; *keys; keys++)
        if (at(want, *keys) && !equal(at(got, *keys), at(want, *keys)))
            differ(where, *keys, at(got, *keys), at(want, *keys));
}

static const cJSON *by_path(const cJSON *list, const char *path)
{
    const cJSON *o;
    cJSON_ArrayForEach(o, list) if (!strcmp(at(o, "path")->valuestring, path)) return o;
    return NULL;
}

static void logs(const char *folder, const cJSON *got, const cJSON *want)
{
    static const char *const keys[] = {"seed",
                                       "seed_printed",
                                       "steps",
                                       "train_ms",
                                       "n_runs_in_file",
                                       "model_bytes",
                                       "code_bytes_counted",
                                       "code_bytes_uncompressed",
                                       "total_bytes",
                                       "val_tokens",
                                       "train_shards",
                                       NULL};
    static const char *const head[] = {"label",    "line",    "val_loss", "val_bpb",
                                       "decimals", "eval_ms", "stride",   NULL};
    static const char *const result[] = {"label", "line", "val_loss", "val_bpb", "eval_ms", NULL};
    static const char *const source[] = {"kind", "bytes", NULL};
    const cJSON *w;
    cJSON_ArrayForEach(w, want)
    {
        const char *path = at(w, "path")->valuestring;
        const cJSON *g = by_path(got, path);
        char where[256];
        snprintf(where, sizeof where, "%.40s %s", folder, path);
        if (!g) {
            differ(where, "log", NULL, at(w, "path"));
            continue;
        }
        members(where, g, w, keys);
        members(where, at(g, "headline"), at(w, "headline"), head);
        int n = cJSON_GetArraySize(at(w, "all_final"));
        if (n != cJSON_GetArraySize(at(g, "all_final")))
            differ(where, "all_final", at(g, "all_final"), at(w, "all_final"));
        for (int i = 0; i < n; i++)
            members(where, cJSON_GetArrayItem(at(g, "all_final"), i),
                    cJSON_GetArrayItem(at(w, "all_final"), i), result);
        if (cJSON_IsNull(at(w, "embedded_source")) != cJSON_IsNull(at(g, "embedded_source")))
            differ(where, "embedded_source", at(g, "embedded_source"), at(w, "embedded_source"));
        else
            members(where, at(g, "embedded_source"), at(w, "embedded_source"), source);
    }
}

/* How often a list of findings has this code with this severity. */
static int count(const cJSON *list, const char *code, const char *severity)
{
    int n = 0;
    const cJSON *m;
    cJSON_ArrayForEach(m, list) n += !strcmp(at(m, "code")->valuestring, code) &&
                                     !strcmp(at(m, "severity")->valuestring, severity);
    return n;
}

static void mismatches(const char *folder, const cJSON *got, const cJSON *want)
{
    for (int side = 0; side < 2; side++) {
        const cJSON *m;
        cJSON_ArrayForEach(m, (side ? got : want))
        {
            const char *code = at(m, "code")->valuestring, *s = at(m, "severity")->valuestring;
            if (count(got, code, s) != count(want, code, s)) {
                print_message("%s: %s %s, %d times, want %d\n", folder, s, code,
                              count(got, code, s), count(want, code, s));
                differences++;
            }
        }
    }
}

/* A leaderboard with the rows of the fixtures: the folders do not bring the one they stood on. */
static void board(const char *path, const cJSON *folders)
{
    char text[1 << 16];
    const cJSON *f;
    struct err e = {0};
    int n = snprintf(text, sizeof text, "| Run | Score | Info |\n|---|---|---|\n");
    cJSON_ArrayForEach(f, folders) if (cJSON_IsObject(at(f, "leaderboard"))) n += snprintf(
        text + n, sizeof text - (size_t)n, "| %s | %.10g | [info](records/%s/README.md) |\n",
        at(at(f, "leaderboard"), "run")->valuestring,
        at(at(f, "leaderboard"), "score")->valuedouble, at(f, "folder")->valuestring);
    assert_int_equal(file_write(path, text, (size_t)n, &e), ERR_OK);
}

static void folders_as_expected(void **state)
{
    static const char *const keys[] = {"track", "claim_basis", "std_convention", NULL};
    static const char *const claimed[] = {
        "val_bpb",    "val_bpb_key", "val_loss", "val_bpb_std", "bytes_total", "bytes_total_key",
        "bytes_code", "step_stop",   "seeds",    "author",      "github_id",   "name",
        "date",       "track",       "hardware", "file",        "valid_json",  NULL};
    static const char *const aggregate[] = {
        "n",         "seeds",          "mean_bpb",           "min_bpb", "max_bpb",
        "mean_loss", "sample_std_bpb", "population_std_bpb", NULL};
    static const char *const headline[] = {"headline_logs", NULL};
    static const char *const size[] = {"cap",
                                       "script_bytes_in_git",
                                       "effective_code_bytes",
                                       "imported_sibling_bytes",
                                       "code_bytes_in_logs",
                                       "code_bytes_uncompressed_in_logs",
                                       "max_model_bytes",
                                       "max_total_in_logs",
                                       "as_shipped_total",
                                       "as_shipped_total_with_siblings",
                                       "headroom_claimed",
                                       NULL};
    static const char *const code[] = {"main", "bytes", "parses_py311", "imported_siblings", NULL};
    static const struct record_sota none = {.bytes_per_token = NAN};
    char path[512], table[] = "/tmp/record_golden_XXXXXX";
    const cJSON *f;
    struct record *r = malloc(sizeof *r);
    (void)state;
    snprintf(path, sizeof path, "%s/expected.json", fixtures());
    cJSON *expected = load(path);
    if (!expected) {
        print_message("no fixtures at %s, skipped\n", fixtures());
        free(r);
        return;
    }
    int fd = mkstemp(table);
    assert_true(fd >= 0);
    close(fd);
    board(table, at(expected, "folders"));
    cJSON_ArrayForEach(f, at(expected, "folders"))
    {
        const char *name = at(f, "folder")->valuestring;
        struct err e = {0};
        snprintf(path, sizeof path, "%s/%s", fixtures(), name);
        if (record_audit(r, path, table, RECORD_TRACK_UNKNOWN, &e)) {
            print_message("%s: %s\n", name, e.msg);
            differences++;
            record_free(r);
            continue;
        }
        /* Through text, as a reader gets it: some numbers are raw text in the tree. */
        cJSON *tree = record_json(r, &none);
        char *json = cJSON_PrintUnformatted(tree);
        cJSON *got = json ? cJSON_Parse(json) : NULL;
        cJSON_free(json);
        cJSON_Delete(tree);
        assert_non_null(got);
        members(name, got, f, keys);
        if (cJSON_IsNull(at(f, "claimed")) != cJSON_IsNull(at(got, "claimed")))
            differ(name, "claimed", at(got, "claimed"), at(f, "claimed"));
        members(name, at(got, "claimed"), at(f, "claimed"), claimed);
        members(name, at(at(got, "from_logs"), "aggregate"), at(at(f, "from_logs"), "aggregate"),
                aggregate);
        members(name, at(got, "from_logs"), at(f, "from_logs"), headline);
        members(name, at(got, "size"), at(f, "size"), size);
        members(name, at(got, "code"), at(f, "code"), code);
        logs(name, at(at(got, "from_logs"), "per_log"), at(at(f, "from_logs"), "per_log"));
        mismatches(name, at(got, "mismatches"), at(f, "mismatches"));
        cJSON_Delete(got);
        record_free(r);
    }
    unlink(table);
    cJSON_Delete(expected);
    free(r);
    assert_int_equal(differences, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(folders_as_expected)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
