/* pack.c - see pack.h. */
#include "packer/pack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/bytes.h"
#include "model/file.h"
#include "model/recipe.h"
#include "model/safetensors.h"
#include "model/score.h"
#include "packer/code.h"
#include "packer/codec.h"
#include "packer/payload.h"
#include "packer/weights.h"
#include "stub/xxh64.h"

/* The weights name their tokeniser by hash; a different one would count different bytes. */
static enum err_code check_tokenizer(const struct pack_job *job, const char *want, struct err *e)
{
    const void *data;
    size_t n;
    char have[17];
    enum err_code rc = file_map(job->tokenizer, &data, &n, e);
    if (rc)
        return rc;
    snprintf(have, sizeof have, "%016llx", (unsigned long long)xxh64(data, n));
    file_unmap(data, n);
    if (want && strcmp(want, have))
        return err_set(e, ERR_INPUT, "%s: has hash %s, but %s was trained with %s", job->tokenizer,
                       have, job->weights, want);
    return ERR_OK;
}

/* The default place of the byte table: beside the weights. */
static enum err_code default_byte_table(char *path, size_t cap, const char *weights, struct err *e)
{
    const char *slash = strrchr(weights, '/');
    int dir = slash ? (int)(slash - weights) + 1 : 0;
    int n = snprintf(path, cap, "%.*sbyte_table.bin", dir, weights);
    if (n < 0 || (size_t)n >= cap)
        return err_set(e, ERR_USAGE, "%s: path too long", weights);
    return ERR_OK;
}

static enum err_code read_byte_table(struct byte_table *t, const struct pack_job *job,
                                     const struct st_file *f, struct err *e)
{
    char path[1024];
    const void *data;
    size_t n;
    enum err_code rc;
    if (job->tokenizer) {
        rc = check_tokenizer(job, st_meta(f, "tokenizer_xxh64"), e);
        return rc ? rc : bytes_from_tokenizer(t, job->tokenizer, e);
    }
    const char *from = job->byte_table;
    if (!from) {
        rc = default_byte_table(path, sizeof path, job->weights, e);
        if (rc)
            return rc;
        from = path;
        if (access(from, F_OK))
            return err_set(e, ERR_INPUT,
                           "%s: not there; --tokenizer names the SentencePiece model that the "
                           "weights were trained with, --byte-table its table",
                           from);
    }
    rc = file_map(from, &data, &n, e);
    if (rc)
        return rc;
    rc = bytes_parse(t, data, n, from, e);
    file_unmap(data, n);
    return rc;
}

static enum err_code code_byte_table(struct coded *c, const struct pack_job *job,
                                     const struct st_file *f, struct err *e)
{
    struct byte_table t = {0};
    enum err_code rc = read_byte_table(&t, job, f, e);
    if (rc)
        return rc;
    size_t n = 4 + 2 * t.vocab;
    uint8_t *raw = malloc(n);
    if (raw) {
        bytes_serialise(&t, raw);
        rc = coded_small(c, raw, n, e);
    } else {
        rc = err_nomem(e, "byte table", n);
    }
    free(raw);
    bytes_free(&t);
    return rc;
}

/* What the runner needs of the recipe: how the model is built and how it is scored. *trains: does
 * its scoring train the weights? */
static enum err_code code_recipe(struct coded *c, bool *trains, const struct pack_job *job,
                                 const struct st_file *f, struct err *e)
{
    struct recipe r;
    char text[16384];
    enum err_code rc = weights_recipe(&r, f, job->weights, e);
    if (rc || (rc = weights_check(&r, f, job->weights, e)))
        return rc;
    *trains = eval_mode_trains(&r, eval_mode_parse(r.eval_mode));
    size_t n = recipe_print(&r, RECIPE_MODEL | RECIPE_EVAL, false, text, sizeof text);
    if (n >= sizeof text)
        return err_set(e, ERR_INPUT, "%s: its recipe has %zu bytes, %zu are allowed", job->weights,
                       n, sizeof text - 1);
    return coded_small(c, text, n, e);
}

static enum err_code code_weights(struct coded *c, const struct pack_job *job, int codec,
                                  const struct st_file *f, struct err *e)
{
    uint8_t *payload;
    size_t n;
    enum err_code rc = payload_new(&payload, &n, f, job->weights, e);
    if (rc)
        return rc;
    if (n > WEIGHTS_RAW_MAX)
        rc = err_set(e, ERR_RESOURCE, "%s: %zu bytes of weights, a submission holds %d",
                     job->weights, n, WEIGHTS_RAW_MAX);
    else
        rc = coded_weights(c, payload, n, codec, e);
    free(payload);
    return rc;
}

static enum err_code check_target(const struct pack_job *job, const struct blob *b, struct err *e)
{
    if (b->size <= job->target_bytes)
        return ERR_OK;
    const struct blob_section *w = blob_find(b, KIND_WEIGHTS);
    return err_set(
        e, ERR_RESOURCE,
        "%s: would be %zu bytes, %zu over the target of %zu; weights %zu, everything else %zu; "
        "packer quantize --target-bytes makes weights that fit",
        job->out, b->size, b->size - job->target_bytes, job->target_bytes, w->size,
        b->size - w->size);
}

/* Sections behind the header, in the order of their kinds. */
enum { RUNNER, WEIGHTS, BYTE_TABLE, RECIPE, SOURCE, CUDA, PARTS };

/* The runner for what a submission needs; `any` and `full` say what. */
static enum err_code code_runner(struct coded *c, const struct pack_job *job, bool any, bool full,
                                 struct err *e)
{
    const uint8_t *image = job->cuda ? job->runner_cuda
                           : any     ? job->runner_any
                           : full    ? job->runner_full
                                     : job->runner;
    size_t n = job->cuda ? job->runner_cuda_n
               : any     ? job->runner_any_n
               : full    ? job->runner_full_n
                         : job->runner_n;
    return coded_code(c, image, n, e);
}

/* All of them but the weights, which are or will be stored with this codec; source and kernels when
 * they are wanted. */
static enum err_code code_rest(struct coded c[PARTS], const struct pack_job *job, uint32_t codec,
                               const struct st_file *f, struct err *e)
{
    enum err_code rc;
    bool full = false, any = codec == CODEC_LZMA || codec == CODEC_RANGE;
    if ((rc = code_recipe(&c[RECIPE], &full, job, f, e)) ||
        (rc = code_byte_table(&c[BYTE_TABLE], job, f, e)) ||
        (rc = code_runner(&c[RUNNER], job, any, full, e)) ||
        (job->cuda && (rc = coded_code(&c[CUDA], job->kernels, job->kernels_n, e))))
        return rc;
    return job->with_source ? coded_code(&c[SOURCE], job->source, job->source_n, e) : ERR_OK;
}

static size_t total(const struct coded c[PARTS])
{
    size_t bytes = 0;
    for (size_t i = 0; i < PARTS; i++)
        bytes += c[i].size;
    return bytes;
}

/* Everything. With CODEC_AUTO the smaller file counts: weights that lzma makes smaller need a
 * runner with its decoder, which is larger. */
static enum err_code code_all(struct coded c[PARTS], const struct pack_job *job,
                              const struct st_file *f, struct err *e)
{
    struct coded cm[PARTS] = {{0}};
    bool choose = job->codec == CODEC_AUTO && job->runner_any;
    int codec = job->codec == CODEC_AUTO && !choose ? CODEC_CM : job->codec;
    enum err_code rc = code_weights(&c[WEIGHTS], job, codec, f, e);
    if (!rc)
        rc = code_rest(c, job, c[WEIGHTS].codec, f, e);
    if (rc || !choose || c[WEIGHTS].codec == CODEC_CM)
        return rc;
    if (!(rc = code_weights(&cm[WEIGHTS], job, CODEC_CM, f, e)) &&
        !(rc = code_rest(cm, job, CODEC_CM, f, e)) && total(cm) < total(c))
        for (size_t i = 0; i < PARTS; i++) {
            struct coded swap = c[i];
            c[i] = cm[i];
            cm[i] = swap;
        }
    for (size_t i = 0; i < PARTS; i++)
        coded_free(&cm[i]);
    return rc;
}

static void layout(struct blob *b, const struct pack_job *job, const struct coded c[PARTS])
{
    const struct coded *part[PARTS];
    for (size_t i = 0; i < PARTS; i++)
        part[i] = (i == SOURCE && !job->with_source) || (i == CUDA && !job->cuda) ? NULL : &c[i];
    blob_layout(b, job->loader, job->loader_n, part, PARTS);
}

enum err_code pack(const struct pack_job *job, struct blob *b, struct err *e)
{
    struct st_file f = {0};
    struct coded c[PARTS] = {{0}};
    memset(b, 0, sizeof *b);
    enum err_code rc = st_open(&f, job->weights, e);
    if (rc)
        return rc;
    if ((rc = code_all(c, job, &f, e)))
        goto out;
    layout(b, job, c);
    rc = check_target(job, b, e);
    if (!rc)
        rc = blob_write(job->out, b, e);
    for (size_t i = 0; i < b->count; i++)
        b->section[i].data = NULL;
out:
    for (size_t i = 0; i < PARTS; i++)
        coded_free(&c[i]);
    st_close(&f);
    return rc;
}

enum err_code pack_rest(const struct pack_job *job, size_t *bytes, struct err *e)
{
    struct st_file f = {0};
    struct coded c[PARTS] = {{0}};
    struct blob b;
    enum err_code rc = st_open(&f, job->weights, e);
    if (!rc && !(rc = code_rest(c, job, (uint32_t)job->codec, &f, e))) {
        layout(&b, job, c);
        *bytes = b.size;
    }
    for (size_t i = 0; i < PARTS; i++)
        coded_free(&c[i]);
    st_close(&f);
    return rc;
}
