/* submit_run.c - see submit_run.h. */
#include "packer/submit_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/file.h"
#include "packer/payload.h"
#include "packer/weights.h"

/* A log or a report beyond this is none; a submission is about as large as the challenge's limit.
 */
enum { TEXT_MAX = 64 << 20, FILE_MAX = 1 << 30 };

/* DIR/name as a copy in memory, so that what was checked is what is written later. */
static enum err_code slurp(void **data, size_t *n, const char *path, size_t max, struct err *e)
{
    const void *map;
    enum err_code rc = file_map(path, &map, n, e);
    if (rc)
        return rc;
    if (*n > max)
        rc = err_set(e, ERR_INPUT, "%s: %zu bytes, at most %zu are read", path, *n, max);
    else if (!(*data = malloc(*n ? *n : 1)))
        rc = err_nomem(e, path, *n);
    else if (*n)
        memcpy(*data, map, *n);
    file_unmap(map, *n);
    return rc;
}

static const char *in(char path[SUBMIT_PATH], const char *dir, const char *name)
{
    snprintf(path, SUBMIT_PATH, "%s/%s", dir, name);
    return path;
}

static enum err_code read_log(struct submit_run *r, struct err *e)
{
    char path[SUBMIT_PATH];
    enum err_code rc = slurp(&r->log, &r->log_n, in(path, r->dir, "train.log"), TEXT_MAX, e);
    if (rc || (rc = submit_log_parse(r, path, e)))
        return rc;
    snprintf(r->label, sizeof r->label, r->has_seed ? "seed %lld" : "seed unknown", r->seed);
    return ERR_OK;
}

static enum err_code read_scoring(struct submit_run *r, const char *path, struct err *e)
{
    const struct blob_section *s = blob_find(&r->blob, KIND_RECIPE);
    char where[SUBMIT_PATH + 16];
    uint8_t *text;
    enum err_code rc = blob_decode(&text, s, path, e);
    if (rc)
        return rc;
    snprintf(where, sizeof where, "%s: recipe", path);
    recipe_init(&r->scoring);
    rc = recipe_parse(&r->scoring, (const char *)text, s->raw_size, where, true, e);
    if (rc == ERR_USAGE)
        rc = e->code = ERR_INPUT;
    free(text);
    return rc;
}

/* The weights that the run left and those in the file must be the same tensors, byte for byte. */
static enum err_code compare_weights(struct submit_run *r, const char *submission, struct err *e)
{
    const struct blob_section *s = blob_find(&r->blob, KIND_WEIGHTS);
    char path[SUBMIT_PATH];
    struct st_file f = {0};
    uint8_t *have = NULL, *packed = NULL;
    size_t n;
    if (access(in(path, r->dir, "model.quant.safetensors"), F_OK))
        return ERR_OK;
    r->has_weights = true;
    enum err_code rc = st_open(&f, path, e);
    if (!rc && !(rc = payload_new(&have, &n, &f, path, e)) &&
        !(rc = blob_decode(&packed, s, submission, e)))
        r->same_weights = n == s->raw_size && !memcmp(have, packed, n);
    free(have);
    free(packed);
    st_close(&f);
    return rc;
}

static enum err_code read_submission(struct submit_run *r, struct err *e)
{
    char path[SUBMIT_PATH];
    size_t n;
    enum err_code rc = slurp(&r->file, &n, in(path, r->dir, "submission"), FILE_MAX, e);
    if (rc || (rc = blob_parse(&r->blob, r->file, n, path, NULL, 0, e)))
        return rc;
    digest_sha256(r->sha256, r->file, n);
    rc = read_scoring(r, path, e);
    return rc ? rc : compare_weights(r, path, e);
}

static enum err_code read_report(struct submit_run *r, struct err *e)
{
    char path[SUBMIT_PATH];
    if (access(in(path, r->dir, "verify.json"), F_OK)) {
        snprintf(r->why_report, sizeof r->why_report, "is not there");
        return ERR_OK;
    }
    enum err_code rc = slurp(&r->report, &r->report_n, path, TEXT_MAX, e);
    return rc ? rc : submit_report_parse(r, path, e);
}

enum err_code submit_run_read(struct submit_run *r, const char *dir, struct err *e)
{
    *r = (struct submit_run){.dir = dir};
    enum err_code rc = ERR_OK;
    if (strlen(dir) + 64 > SUBMIT_PATH)
        return err_set(e, ERR_USAGE, "path too long: %s", dir);
    if ((rc = read_log(r, e)) || (rc = read_submission(r, e)) || (rc = read_report(r, e)))
        submit_run_free(r);
    return rc;
}

void submit_run_free(struct submit_run *r)
{
    free(r->log);
    free(r->file);
    free(r->report);
    *r = (struct submit_run){0};
}
