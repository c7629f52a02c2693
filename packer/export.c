/* export.c - see export.h. */
#include "packer/export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/file.h"
#include "model/safetensors.h"
#include "packer/weights.h"

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

/* The public scripts multiply each row by one scale. */
static enum err_code check_scales(const struct st_file *f, const char *path, struct err *e)
{
    for (size_t i = 0; i + 1 < f->count; i++) {
        const struct tensor_view *q = &f->tensor[i], *s = &f->tensor[i + 1];
        size_t n = strlen(q->name), m = strlen(s->name);
        if (n > 2 && m > 6 && !strcmp(q->name + n - 2, ".q") &&
            !strcmp(s->name + m - 6, ".scale") && q->ndim && s->ndim == 1 &&
            s->shape[0] > q->shape[0])
            return err_set(e, ERR_INPUT,
                           "%s: tensor %s: %zu scales for %zu rows: the records' scripts have one "
                           "per row",
                           path, s->name, s->shape[0], q->shape[0]);
    }
    return ERR_OK;
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
    if (!rc && !(rc = weights_recipe(&r, &f, job->weights, e)) &&
        !(rc = weights_check(&r, &f, job->weights, e)) &&
        !(rc = check_scales(&f, job->weights, e)) && !(rc = choose(&rep->how, &r, job, e)) &&
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
