/*
 * redteam.h - what the red team's tests share: one honest submission with a stream to score, and
 * the means to make a dishonest one of it whose hashes are right.
 */
#ifndef TESTS_UNIT_REDTEAM_H
#define TESTS_UNIT_REDTEAM_H

#include "tests/unit/toy_run.h"

#include "model/gpt.h"
#include "model/safetensors.h"
#include "packer/code.h"
#include "packer/pack.h"
#include "stub/embed.h"
#include "stub/xxh64.h"
#include "verify/commands.h"

struct redteam {
    char dir[TOY_PATH], weights[TOY_PATH], sound[TOY_PATH], made[TOY_PATH];
    uint8_t *file; /* the honest submission, with its source inside */
    size_t file_n;
    struct blob parts; /* of it */
};

/* A score of a report; they are kept as the text that is printed. */
static inline double red_number(const cJSON *o, const char *key)
{
    return strtod(cJSON_GetObjectItem(o, key)->valuestring, NULL);
}

/* What an audit came to: status, and all reasons joined. */
struct finding {
    enum err_code status;
    char why[2000];
};

static inline struct finding red_audit(const struct redteam *t, const struct options *more)
{
    struct options o = {.command = COMMAND_BLOB,
                        .file = t->made,
                        .data = t->dir,
                        .threads = 1,
                        .timeout = 20,
                        .memory = 2048,
                        .json = true,
                        .quiet = true};
    struct finding f = {0};
    struct report r;
    struct err e = {0};
    if (more) {
        o.execute = more->execute;
        o.claim = more->claim;
        o.eval = more->eval;
        o.timeout = more->timeout ? more->timeout : o.timeout;
        o.file = more->file ? more->file : o.file;
    }
    assert_int_equal(report_init(&r, true, true, &e), ERR_OK);
    f.status = verify_blob(&o, &r, &e);
    snprintf(f.why, sizeof f.why, "%s", e.msg);
    const cJSON *why;
    cJSON_ArrayForEach(why, r.reasons)
    {
        size_t n = strlen(f.why);
        f.status = f.status ? f.status : ERR_CLAIM;
        snprintf(f.why + n, sizeof f.why - n, "%s%s", n ? "; " : "", why->valuestring);
    }
    report_free(&r);
    return f;
}

/* The honest submission with one section exchanged, everything else made right; with->data may
 * be anything. */
static inline void red_exchange(const struct redteam *t, enum kind kind, const struct coded *with)
{
    struct coded part[SECTIONS_MAX];
    const struct coded *list[SECTIONS_MAX];
    size_t n = 0;
    struct blob b;
    struct err e = {0};
    for (size_t i = KIND_RUNNER - 1; i < t->parts.count; i++, n++) {
        const struct blob_section *s = &t->parts.section[i];
        part[n] = (struct coded){.codec = s->codec,
                                 .data = (uint8_t *)(uintptr_t)s->data,
                                 .size = s->size,
                                 .raw_size = s->raw_size};
        memcpy(part[n].params, s->params, sizeof s->params);
        if (i + 1 == kind)
            part[n] = *with;
        list[n] = &part[n];
    }
    blob_layout(&b, stub_loader, (size_t)(stub_loader_end - stub_loader), list, n);
    if (blob_write(t->made, &b, &e))
        fail_msg("%s", e.msg);
}

static inline void red_store(const struct redteam *t, enum kind kind, const void *raw, size_t n)
{
    const struct coded c = {
        .codec = CODEC_NONE, .size = n, .raw_size = n, .data = (uint8_t *)(uintptr_t)raw};
    red_exchange(t, kind, &c);
}

/* The unpacked bytes of a section of the honest submission; for the caller to free. */
static inline uint8_t *red_section(const struct redteam *t, enum kind kind, size_t *n)
{
    const struct blob_section *s = blob_find(&t->parts, kind);
    struct err e = {0};
    uint8_t *raw;
    *n = s->raw_size;
    if (blob_decode(&raw, s, t->sound, &e))
        fail_msg("%s", e.msg);
    return raw;
}

/* Header hash anew, in a whole file whose header was changed. */
static inline void red_seal(uint8_t *file, const struct blob *b)
{
    const struct blob_section *h = blob_find(b, KIND_HEADER);
    put_le64(file + h->offset + h->size - HDR_TAIL, xxh64(file + h->offset, h->size - HDR_TAIL));
}

/* ---- the honest one ---- */

static inline void red_weights(const struct redteam *t, const struct recipe *r)
{
    struct gpt m;
    struct err e = {0};
    char text[1 << 14];
    const char *const meta[] = {"recipe", text};
    uint32_t x = 1;
    assert_int_equal(gpt_init(&m, r, &e), ERR_OK);
    float *p = malloc(m.floats * sizeof *p);
    struct tensor_view *v = calloc(m.nparams, sizeof *v);
    for (size_t i = 0; i < m.floats; i++) {
        x = x * 1664525u + 1013904223u;
        p[i] = ((float)(x >> 8) / 0x1p23f - 1) * 0.2f;
    }
    for (size_t i = 0; i < m.nparams; i++) {
        const struct gpt_param *q = &m.param[i];
        v[i] = (struct tensor_view){.name = q->name,
                                    .dtype = ST_F32,
                                    .ndim = q->ndim,
                                    .data = (const uint8_t *)(p + q->at),
                                    .nbytes = q->size * sizeof *p};
        memcpy(v[i].shape, q->shape, sizeof q->shape);
    }
    recipe_print(r, RECIPE_MODEL | RECIPE_EVAL, false, text, sizeof text);
    if (st_write(t->weights, v, m.nparams, meta, 1, &e))
        fail_msg("%s", e.msg);
    free(v);
    free(p);
    gpt_free(&m);
}

/* Returns 0, or -1 when the honest submission cannot be made. */
static inline int red_open(struct redteam *t)
{
    struct recipe r;
    struct blob b;
    struct err e = {0};
    toy_corpus(t->dir);
    snprintf(t->weights, sizeof t->weights, "%s", toy_path(t->dir, "model.safetensors"));
    snprintf(t->sound, sizeof t->sound, "%s", toy_path(t->dir, "sound"));
    snprintf(t->made, sizeof t->made, "%s", toy_path(t->dir, "made"));
    toy_recipe(&r, t->dir);
    toy_set(&r, "EVAL_STRIDE=4");
    toy_set(&r, "SLOT_LR=0.1");
    red_weights(t, &r);
    static const uint8_t source[] = "int main(void) { return 0; }\n";
    const struct pack_job job = {.weights = t->weights,
                                 .out = t->sound,
                                 .tokenizer = toy_path(t->dir, "toy.model"),
                                 .target_bytes = 16000000,
                                 .codec = CODEC_CM,
                                 .with_source = true,
                                 .source = source,
                                 .source_n = sizeof source - 1,
                                 .loader = stub_loader,
                                 .runner = stub_runner,
                                 .loader_n = (size_t)(stub_loader_end - stub_loader),
                                 .runner_n = (size_t)(stub_runner_end - stub_runner)};
    enum err_code rc = pack(&job, &b, &e);
    if (!rc) {
        t->file = toy_read(t->sound, &t->file_n);
        rc = blob_parse(&t->parts, t->file, t->file_n, t->sound, NULL, 0, &e);
    }
    if (rc)
        printf("%s\n", e.msg);
    return rc ? -1 : 0;
}

static inline void red_close(struct redteam *t)
{
    free(t->file);
    toy_remove(t->dir);
}

#endif
