/*
 * kl.c - divergence and loss of quantised models beside the float model, on a validation shard.
 *
 *     build/bench/kl SHARD TOKENS MODEL.safetensors [QUANTISED.safetensors]...
 *
 * prints a line for each file: KL(model || file) in nats per token (trainer/kl.h) over the first
 * TOKENS tokens in plain windows of TRAIN_SEQ_LEN, the file's own loss over the same, and how much
 * higher that is than the model's, in nats per token and, where byte_table.bin lies beside the
 * model, in bits per byte.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/bytes.h"
#include "model/file.h"
#include "model/safetensors.h"
#include "model/shard.h"
#include "trainer/kl.h"

struct stream {
    const uint16_t *tok;
    size_t n;
};

static enum err_code take(void *ctx, uint16_t *ids, size_t n, struct err *e)
{
    const struct stream *s = ctx;
    if (n >= s->n)
        return err_set(e, ERR_INPUT, "the shard has only %zu tokens", s->n);
    memcpy(ids, s->tok, n * sizeof *ids);
    return ERR_OK;
}

/* A model file into params, which are allocated. */
static enum err_code load(const char *path, struct gpt *m, float **params, struct err *e)
{
    struct st_file f = {0};
    struct recipe r;
    recipe_init(&r);
    *params = NULL;
    enum err_code rc = st_open(&f, path, e);
    const char *text = rc ? NULL : st_meta(&f, "recipe");
    if (!rc && !text)
        rc = err_set(e, ERR_INPUT, "%s: no recipe", path);
    if (!rc && !(rc = recipe_parse(&r, text, strlen(text), path, true, e)) &&
        !(rc = gpt_init(m, &r, e)) && (*params = malloc(m->floats * sizeof **params)))
        rc = gpt_load(m, *params, f.tensor, f.count, path, e);
    st_close(&f);
    return rc;
}

/* Mean loss over the windows of l. */
static enum err_code loss(struct kl *l, const float *params, const struct stream *s, double *mean,
                          struct err *e)
{
    size_t t = l->g.t, per = l->per * t;
    float *nll = malloc(per * sizeof *nll);
    enum err_code rc = nll ? ERR_OK : err_nomem(e, "losses", per * sizeof *nll);
    *mean = 0;
    if (nll)
        l->k->upload(l->k, l->params, params, l->m->floats * sizeof *params);
    for (size_t i = 0; i < l->seqs * t && !rc; i += per) {
        rc = graph_forward(&l->g, l->params, s->tok + i, s->tok + i + 1, nll, e);
        for (size_t j = 0; j < per && !rc; j++)
            *mean += (double)nll[j] / (double)(l->seqs * t);
    }
    free(nll);
    return rc;
}

/* Bytes that the targets of the first n positions stand for; 0 without a byte table. */
static double text_bytes(const char *model, const struct stream *s, size_t n, struct err *e)
{
    const char *slash = strrchr(model, '/');
    char path[1024];
    const void *data;
    size_t size;
    struct byte_table b = {0};
    struct err missing = {0};
    double sum = 0;
    snprintf(path, sizeof path, "%.*sbyte_table.bin", slash ? (int)(slash - model) + 1 : 0, model);
    if (file_map(path, &data, &size, &missing))
        return 0;
    if (!bytes_parse(&b, data, size, path, e))
        for (size_t i = 0; i < n; i++)
            sum += bytes_of(&b, s->tok[i], s->tok[i + 1]);
    file_unmap(data, size);
    bytes_free(&b);
    return sum;
}

static enum err_code run(int argc, char **argv, struct err *e)
{
    struct shard sh = {0};
    struct kern *k = NULL;
    struct gpt m = {0}, other = {0};
    struct kl l = {0};
    float *params = NULL, *copy = NULL;
    double base = 0, bits = 0; /* bits per byte of a nat per token */
    enum err_code rc = shard_open(&sh, argv[1], 0, e);
    struct stream s = {sh.tok, sh.n};
    struct calib c = {.take = take, .ctx = &s};
    if (rc || (rc = kern_cpu(&k, 0, e)) || (rc = load(argv[3], &m, &params, e)))
        goto out;
    c.k = k;
    if ((rc = kl_open(&l, &m, params, (size_t)strtoul(argv[2], NULL, 10), &c, e)) ||
        (rc = loss(&l, params, &s, &base, e)))
        goto out;
    bits = text_bytes(argv[3], &s, l.seqs * l.g.t, e);
    if ((rc = e->code))
        goto out;
    bits = bits > 0 ? (double)(l.seqs * l.g.t) / bits / 0x1.62e42fefa39efp-1 : 0;
    printf("%-40s kl %.6f loss %.6f lost %+.6f bpb %.6f bpb_lost %+.6f\n", argv[3], 0.0, base, 0.0,
           bits * base, 0.0);
    for (int i = 4; i < argc && !rc; i++) {
        double d = 0, x = 0;
        if (!(rc = load(argv[i], &other, &copy, e)) && !(rc = kl_measure(&l, copy, &d, e)) &&
            !(rc = loss(&l, copy, &s, &x, e)))
            printf("%-40s kl %.6f loss %.6f lost %+.6f bpb %.6f bpb_lost %+.6f\n", argv[i], d, x,
                   x - base, bits * x, bits * (x - base));
        free(copy);
        copy = NULL;
        gpt_free(&other);
    }
out:
    free(params);
    kl_close(&l);
    gpt_free(&m);
    kern_free(k);
    shard_close(&sh);
    return rc;
}

int main(int argc, char **argv)
{
    struct err e = {0};
    if (argc < 4) {
        fputs("usage: kl SHARD TOKENS MODEL.safetensors [QUANTISED.safetensors]...\n", stderr);
        return ERR_USAGE;
    }
    if (run(argc, argv, &e))
        fprintf(stderr, "kl: %s\n", e.msg);
    return (int)e.code;
}
