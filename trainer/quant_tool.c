/* quant_tool.c - see quant.h: the whole of `packer quantize`, from file to file. */
#include <stdlib.h>
#include <string.h>

#include "model/safetensors.h"
#include "trainer/calib.h"
#include "trainer/rd.h"

/* Is this a key of quantisation? */
static bool is_quant_key(const char *setting)
{
    static const char *const keys[] = {
#define KEY(type, key, field, def, help) #key "=",
        RECIPE_QUANT_KEYS(KEY)
#undef KEY
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (!strncmp(setting, keys[i], strlen(keys[i])))
            return true;
    return !strncmp(setting, "QUANT_", 6); /* misspelt: recipe_set knows the nearest key */
}

/* The recipe in a file's metadata with settings over it. */
static enum err_code read_recipe(struct recipe *r, const struct st_file *f, const char *path,
                                 const char *const *settings, size_t n, struct err *e)
{
    const char *text = st_meta(f, "recipe");
    if (!text)
        return err_set(e, ERR_INPUT, "%s: its metadata hold no recipe", path);
    recipe_init(r);
    enum err_code rc = recipe_parse(r, text, strlen(text), path, true, e);
    for (size_t i = 0; i < n && !rc; i++) {
        if (!is_quant_key(settings[i]))
            rc = err_set(e, ERR_USAGE,
                         "%s: only settings of quantisation can change here (QUANT_*, GPTQ_*, "
                         "MIXED_QUANT, PRUNE_*, COMPRESSOR, ...)",
                         settings[i]);
        else
            rc = recipe_set(r, settings[i], "command line", e);
    }
    return rc;
}

/* quant_write with what the tools offer: training data are opened only when they are needed. */
static enum err_code write_with(const struct gpt *m, const float *params, const struct recipe *r,
                                const char *const *meta, size_t nmeta, const char *out,
                                const struct quant_tools *tools, struct quant_report *rep,
                                struct err *e)
{
    struct loader l = {0};
    struct calib c = {.take = calib_take, .ctx = &l};
    struct quant_with with = {0};
    enum err_code rc = quant_check(r, e);
    if (tools) {
        with.size = tools->size;
        with.size_ctx = tools->size_ctx;
        c.progress = tools->progress;
        c.progress_ctx = tools->progress_ctx;
    }
    if (!rc && with.size && r->prune_target_bytes > 0 && !rd_wanted(r))
        rc = tools->size_check(r, e);
    if (!rc && tools && tools->data && quant_needs_data(r)) {
        if (!(rc = kern_cpu(&c.k, tools->threads, e)) && !(rc = loader_open(&l, r, tools->data, e)))
            with.calib = &c;
    }
    struct rd_with rd = {.calib = with.calib};
    if (tools) {
        rd.threads = tools->threads;
        rd.size = tools->fit;
        rd.size_ctx = tools->fit_ctx;
    }
    if (!rc && rd_wanted(r) && rd.size && rd.calib)
        rc = rd.size(rd.size_ctx, r, NULL, 0, NULL, e);
    if (!rc && rd_wanted(r))
        rc = rd_write(m, params, r, meta, nmeta, out, &rd, rep, e);
    else if (!rc)
        rc = quant_write(m, params, r, meta, nmeta, out, &with, rep, e);
    loader_close(&l);
    kern_free(c.k);
    return rc;
}

/* quant_file once the input is open. */
static enum err_code convert(const struct st_file *f, const char *in, const char *out,
                             const struct recipe *r, const struct quant_tools *tools,
                             struct quant_report *rep, struct err *e)
{
    const unsigned groups = RECIPE_MODEL | RECIPE_EVAL | RECIPE_TRAIN | RECIPE_QUANT;
    struct gpt m = {0};
    float *params = NULL;
    char *text = NULL;
    const char **meta = NULL;
    size_t len = recipe_print(r, groups, false, NULL, 0);
    enum err_code rc = gpt_init(&m, r, e);
    if (rc)
        goto out;
    params = malloc(m.floats * sizeof *params);
    text = malloc(len + 1);
    meta = malloc((2 * f->nmeta + 1) * sizeof *meta);
    if (!params || !text || !meta) {
        rc = err_nomem(e, "weights", m.floats * sizeof *params);
        goto out;
    }
    recipe_print(r, groups, false, text, len + 1);
    for (size_t i = 0; i < f->nmeta; i++) {
        meta[2 * i] = f->meta[2 * i];
        meta[2 * i + 1] = strcmp(f->meta[2 * i], "recipe") ? f->meta[2 * i + 1] : text;
    }
    rc = gpt_load(&m, params, f->tensor, f->count, in, e);
    if (!rc)
        rc = write_with(&m, params, r, meta, f->nmeta, out, tools, rep, e);
out:
    free(meta);
    free(text);
    free(params);
    gpt_free(&m);
    return rc;
}

enum err_code quant_file(const char *in, const char *out, const char *const *settings, size_t n,
                         const struct quant_tools *tools, struct quant_report *rep, struct err *e)
{
    struct st_file f = {0};
    struct recipe r;
    enum err_code rc = st_open(&f, in, e);
    if (!rc)
        rc = read_recipe(&r, &f, in, settings, n, e);
    if (!rc)
        rc = convert(&f, in, out, &r, tools, rep, e);
    st_close(&f);
    return rc;
}
