/* submit_fuzz - any bytes as a run's train.log (even length) or verify.json (odd length), then
 * judged and written as README.md and submission.json. */
#include <string.h>

#include "packer/submit.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const uint8_t bytes[64];
    static struct submit s;
    const struct submit_job job = {
        .out = "x", .track = "non_record_16mb", .sota = {1.1}, .sotas = 1};
    struct submit_run *r = &s.run[0];
    struct err e = {0};
    void *copy = malloc(n ? n : 1); /* its end is where a sanitizer sees it */
    if (!copy)
        return 0;
    memcpy(copy, data, n);
    memset(&s, 0, sizeof s);
    s.job = &job;
    s.runs = 1;
    r->dir = "run";
    r->blob = (struct blob){.size = 64, .count = SECTIONS_MIN};
    for (uint32_t i = 0; i < SECTIONS_MIN; i++)
        r->blob.section[i] = (struct blob_section){
            .kind = i + 1, .offset = i, .size = 1, .raw_size = 1, .data = bytes};
    recipe_init(&r->scoring);
    recipe_init(&r->recipe);
    if (n & 1) {
        r->report = copy;
        r->report_n = n;
        submit_report_parse(r, "verify.json", &e);
    } else {
        r->log = copy;
        r->log_n = n;
        submit_log_parse(r, "train.log", &e);
    }
    submit_judge(&s);
    char *readme = submit_readme(&s), *json = submit_json(&s);
    if (!readme || !json)
        abort();
    free(readme);
    free(json);
    free(copy);
    return 0;
}
