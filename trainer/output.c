/* output.c - see output.h. */
#include "trainer/output.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "model/file.h"
#include "model/safetensors.h"

const char *output_path(const struct output *o, const char *name, char *buf)
{
    snprintf(buf, OUTPUT_PATH, "%s/%s", o->dir, name);
    return buf;
}

enum err_code output_open(struct output *o, const char *dir, unsigned long long need, struct err *e)
{
    struct statvfs fs;
    struct atomic_file probe;
    char path[OUTPUT_PATH];
    enum err_code rc;
    if (strlen(dir) >= sizeof o->dir)
        return err_set(e, ERR_USAGE, "%s: path too long", dir);
    strcpy(o->dir, dir);
    if ((rc = dir_make(dir, e)) ||
        (rc = atomic_open(&probe, output_path(o, "model.safetensors", path), e)))
        return rc;
    atomic_abort(&probe);
    if (statvfs(dir, &fs) == 0) {
        unsigned long long have = (unsigned long long)fs.f_bavail * fs.f_frsize;
        if (have < need)
            return err_set(e, ERR_RESOURCE, "%s: %llu bytes free, the run writes %llu", dir, have,
                           need);
    }
    return ERR_OK;
}

/* The metadata of both weight files; the pairs point into the buffers behind them. */
struct metadata {
    const char *pair[2 * OUTPUT_METAS];
    char seed[32], step[32], train_ms[32], val_loss[32], val_bpb[32];
    char recipe[OUTPUT_RECIPE];
};

static void describe(struct metadata *d, const struct gpt *m, const struct output_facts *f)
{
    const char *const pair[2 * OUTPUT_METAS] = {
        "format",   "pt",        "recipe",  d->recipe,  "tokenizer_xxh64", f->c->tokenizer_xxh64,
        "seed",     d->seed,     "step",    d->step,    "train_ms",        d->train_ms,
        "val_loss", d->val_loss, "val_bpb", d->val_bpb,
    };
    memcpy(d->pair, pair, sizeof pair);
    recipe_print(&m->r, RECIPE_MODEL | RECIPE_EVAL | RECIPE_TRAIN | RECIPE_QUANT, false, d->recipe,
                 sizeof d->recipe);
    snprintf(d->seed, sizeof d->seed, "%lld", (long long)m->r.seed);
    snprintf(d->step, sizeof d->step, "%zu", f->step);
    snprintf(d->train_ms, sizeof d->train_ms, "%.0f", f->train_ms);
    snprintf(d->val_loss, sizeof d->val_loss, "%.8f", f->val_loss);
    snprintf(d->val_bpb, sizeof d->val_bpb, "%.8f", f->val_bpb);
}

static enum err_code write_model(const char *path, const struct gpt *m, const float *params,
                                 const struct metadata *d, struct err *e)
{
    struct tensor_view *t = calloc(m->nparams, sizeof *t);
    enum err_code rc;
    if (!t)
        return err_nomem(e, "tensor table", m->nparams * sizeof *t);
    for (size_t i = 0; i < m->nparams; i++) {
        const struct gpt_param *p = &m->param[i];
        t[i] = (struct tensor_view){.name = p->name,
                                    .dtype = ST_F32,
                                    .ndim = p->ndim,
                                    .data = (const uint8_t *)(params + p->at),
                                    .nbytes = p->size * sizeof *params};
        memcpy(t[i].shape, p->shape, p->ndim * sizeof p->shape[0]);
    }
    rc = st_write(path, t, m->nparams, d->pair, OUTPUT_METAS, e);
    free(t);
    return rc;
}

static enum err_code write_bytes(const char *path, const struct byte_table *b, struct err *e)
{
    size_t n = 4 + 2 * b->vocab;
    uint8_t *data = malloc(n);
    enum err_code rc;
    if (!data)
        return err_nomem(e, "byte table", n);
    bytes_serialise(b, data);
    rc = file_write(path, data, n, e);
    free(data);
    return rc;
}

enum err_code output_weights(const struct output *o, const struct gpt *m, const float *params,
                             const struct output_facts *facts, struct quant_report *q,
                             struct err *e)
{
    struct metadata *d = malloc(sizeof *d);
    char path[OUTPUT_PATH];
    enum err_code rc;
    if (!d)
        return err_nomem(e, "metadata", sizeof *d);
    describe(d, m, facts);
    if (!(rc = write_bytes(output_path(o, "byte_table.bin", path), &facts->c->bytes, e)) &&
        !(rc = write_model(output_path(o, "model.safetensors", path), m, params, d, e)))
        rc = quant_write(m, params, &m->r, d->pair, OUTPUT_METAS,
                         output_path(o, "model.quant.safetensors", path), facts->with, q, e);
    free(d);
    return rc;
}

enum err_code output_reload(const struct output *o, const struct gpt *m, float *params,
                            struct err *e)
{
    struct st_file f;
    char path[OUTPUT_PATH];
    enum err_code rc = st_open(&f, output_path(o, "model.quant.safetensors", path), e);
    if (rc)
        return rc;
    rc = gpt_load(m, params, f.tensor, f.count, path, e);
    st_close(&f);
    return rc;
}

unsigned long long output_size(const struct output *o, const char *name)
{
    char path[OUTPUT_PATH];
    struct stat st;
    return stat(output_path(o, name, path), &st) == 0 ? (unsigned long long)st.st_size : 0;
}
