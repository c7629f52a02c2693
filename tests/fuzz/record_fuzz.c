/*
 * record_fuzz - any bytes as the files of a record, audited and reported in all forms. A byte 0xFF
 * ends a file; the files are metadata, log, script, README, second log, helper, leaderboard.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "verify/record_report.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const path[] = {"submission.json", "train_seed1.log",      "train_gpt.py",
                                       "README.md",       "logs/train_seed2.txt", "helper.py"};
    static const struct record_sota sota = {
        .v = {1.1, 1.2}, .n = 2, .name = "x", .bytes_per_token = 2.43};
    static struct record *r;
    static FILE *out;
    struct err e = {0};
    if (!r) {
        r = malloc(sizeof *r);
        out = fopen("/dev/null", "w");
        if (!r || !out)
            abort();
    }
    memset(r, 0, sizeof *r);
    if (!(r->folder.name = strdup("folder")))
        abort();
    for (size_t i = 0, at = 0; at < n && i < sizeof path / sizeof *path; i++) {
        const uint8_t *end = memchr(data + at, 0xFF, n - at);
        size_t len = end ? (size_t)(end - data) - at : n - at;
        if (record_folder_add(&r->folder, path[i], data + at, len, &e))
            abort();
        at += len + 1;
    }
    if (!record_audit_files(r, NULL, RECORD_TRACK_UNKNOWN, &e)) {
        record_text(out, r, &sota);
        record_line(out, r);
        cJSON *json = record_json(r, &sota);
        char *text = cJSON_PrintUnformatted(json);
        assert(text);
        cJSON_free(text);
        cJSON_Delete(json);
        board_parse(&r->board, "README.md", (const char *)data, n);
    }
    record_free(r);
    return 0;
}
