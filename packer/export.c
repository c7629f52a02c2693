/* export.c - see export.h. */
#include "packer/export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/file.h"
#include "model/gpt.h"
#include "model/safetensors.h"

static enum err_code read_recipe(struct recipe *r, const struct st_file *f, const char *path,
                                 struct err *e)
{
    const char *text = st_meta(f, "recipe");
    if (!text || !*text)
        return err_set(e, ERR_INPUT, "%s: no recipe in its metadata (key `recipe`)", path);
    recipe_init(r);
    return recipe_parse(r, text, strlen(text), path, true, e);
}

static enum err_code choose(struct ptz_how *how, struct recipe *r, const struct export_job *job,
                            struct err *e)
{
    if (job->compressor) {
        snprintf(r->compressor, sizeof r->compressor, "%s", job->compressor);
        r->compressor_level = 0;
    }
    if (job->level >= 0)
        r->compressor_level = job->level;
    if (job->shuffle >= 0)
        r->byte_shuffle = job->shuffle;
    return ptz_how_of(how, r, e);
}

/* What the file's own loader would refuse is not written. */
static enum err_code check_model(const struct recipe *r, const struct st_file *f, const char *path,
                                 struct err *e)
{
    struct gpt m;
    enum err_code rc = gpt_init(&m, r, e);
    float *params = rc ? NULL : malloc(m.floats * sizeof *params);
    if (!rc && !params)
        rc = err_nomem(e, "weights", m.floats * sizeof *params);
    if (!rc)
        rc = gpt_load(&m, params, f->tensor, f->count, path, e);
    free(params);
    gpt_free(&m);
    return rc;
}

/* The packed file in memory; *data is for the caller to free(). */
static enum err_code make(const struct export_job *job, struct export_report *rep, uint8_t **data,
                          struct err *e)
{
    struct st_file f = {0};
    struct recipe r;
    uint8_t *payload = NULL;
    *data = NULL;
    *rep = (struct export_report){0};
    enum err_code rc = st_open(&f, job->weights, e);
    if (!rc && !(rc = read_recipe(&r, &f, job->weights, e)) &&
        !(rc = check_model(&r, &f, job->weights, e)) && !(rc = choose(&rep->how, &r, job, e)) &&
        !(rc = ptz_payload(&payload, &rep->payload_bytes, &rep->how, f.tensor, f.count, e)))
        rc = ptz_pack(data, &rep->file_bytes, &rep->how, f.tensor, f.count, e);
    free(payload);
    st_close(&f);
    return rc;
}

enum err_code export_record(const struct export_job *job, struct export_report *rep, struct err *e)
{
    uint8_t *data;
    enum err_code rc = make(job, rep, &data, e);
    if (!rc)
        rc = file_write(job->out, data, rep->file_bytes, e);
    free(data);
    return rc;
}

enum err_code export_size(const char *weights, size_t *bytes, struct err *e)
{
    const struct export_job job = {.weights = weights, .level = -1, .shuffle = -1};
    struct export_report rep;
    uint8_t *data;
    enum err_code rc = make(&job, &rep, &data, e);
    *bytes = rep.file_bytes;
    free(data);
    return rc;
}
