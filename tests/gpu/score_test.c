/*
 * score_test WEIGHTS DATA TOKENS [--device cuda|cpu] - exists for a card whose scores are not the
 * CPU's: every mode on both, of the first TOKENS positions, with a model that has been trained.
 *
 * A line per mode. Demanded are 2e-4 bits per byte between the two, of the mode's own value and of
 * the value of record beside it, and the same bits of every score when the card does it twice.
 *
 * DATA holds *_val_*.bin. The byte table lies beside the weights, where trainer leaves it.
 * Exit status: 0, or 1 when a mode is off, or the error's.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "model/file.h"
#include "model/safetensors.h"
#include "model/score.h"
#include "model/shard.h"

/* The modes with what they need beside the settings of the weights: steps that change a little
 * model, chunks that a short stream has several of. */
static const struct {
    const char *name, *settings;
    enum eval_mode mode;
} modes[] = {
    {"plain", "", EVAL_PLAIN},
    {"sliding", "", EVAL_SLIDING},
    {"slot", "SLOT_STEPS=8\n", EVAL_SLOT},
    {"slot-context", "SLOT_STEPS=8\n", EVAL_SLOT_CONTEXT},
    {"slot-context, shared", "SLOT_STEPS=8\nSLOT_SHARED=1\n", EVAL_SLOT_CONTEXT},
    {"ttt", "TTT_CHUNK_TOKENS=1024\nTTT_BATCH_SEQS=4\n", EVAL_TTT},
};
static const double MOST = 2e-4; /* bits per byte */

enum { CPU, CARD, AGAIN, RUNS };

struct run {
    struct score s, record;
    double *nll, seconds;
    size_t n;
};

struct test {
    struct kern *k[2];
    struct st_file weights;
    const char *path;
    struct byte_table bytes;
    uint16_t *tok;
    size_t n;
};

static enum err_code keep(void *ctx, const double *nll, size_t n, struct err *e)
{
    struct run *r = ctx;
    double *more = realloc(r->nll, (r->n + n) * sizeof *more);
    if (!more)
        return err_nomem(e, "the scores", (r->n + n) * sizeof *more);
    r->nll = more;
    memcpy(r->nll + r->n, nll, n * sizeof *nll);
    r->n += n;
    return ERR_OK;
}

static enum err_code model(const struct test *t, const char *settings, struct gpt *m, float **host,
                           struct err *e)
{
    const char *own = st_meta(&t->weights, "recipe");
    struct recipe r;
    enum err_code rc;
    recipe_init(&r);
    if (!own)
        return err_set(e, ERR_INPUT, "%s: no recipe in its metadata", t->path);
    if ((rc = recipe_parse(&r, own, strlen(own), t->path, true, e)) ||
        (rc = recipe_parse(&r, settings, strlen(settings), "mode", false, e)) ||
        (rc = gpt_init(m, &r, e)))
        return rc;
    if (!(*host = malloc(m->floats * sizeof **host)))
        return err_nomem(e, "the weights", m->floats * sizeof **host);
    return gpt_load(m, *host, t->weights.tensor, t->weights.count, t->path, e);
}

static enum err_code run(const struct test *t, struct kern *k, const struct gpt *m,
                         const float *host, enum eval_mode mode, struct run *r, struct err *e)
{
    size_t bytes = m->floats * sizeof *host;
    float *params = k->alloc(k, bytes);
    const struct score_opts o = {.mode = mode, .record = &r->record, .sink = keep, .ctx = r};
    struct timespec a, b;
    if (!params)
        return err_nomem(e, "the weights", bytes);
    k->upload(k, params, host, bytes);
    clock_gettime(CLOCK_MONOTONIC, &a);
    enum err_code rc = score_run(m, k, params, t->tok, t->n, &t->bytes, &o, &r->s, e);
    clock_gettime(CLOCK_MONOTONIC, &b);
    r->seconds = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
    k->free(k, params);
    return rc;
}

/* Prints the line; is it good? */
static bool compare(const char *name, const struct run *r, bool adapts)
{
    double off = fabs(r[CARD].s.val_bpb - r[CPU].s.val_bpb), most = off;
    if (adapts)
        most = fmax(off, fabs(r[CARD].record.val_bpb - r[CPU].record.val_bpb));
    bool same = r[CARD].n == r[AGAIN].n &&
                !memcmp(r[CARD].nll, r[AGAIN].nll, r[CARD].n * sizeof *r[CARD].nll);
    bool good = most <= MOST && same && r[CARD].n == r[CPU].n;
    printf("%s  %-20s %zu scores, CPU %.8f, card %.8f bits per byte, %.1e apart", /* */
           good ? "ok    " : "FAILED", name, r[CARD].n, r[CPU].s.val_bpb, r[CARD].s.val_bpb, off);
    if (adapts)
        printf(" (sliding: %.1e)", fabs(r[CARD].record.val_bpb - r[CPU].record.val_bpb));
    printf(", %s twice; %.1f s, %.1f s\n", same ? "the same bits" : "OTHER BITS", r[CPU].seconds,
           r[CARD].seconds);
    fflush(stdout);
    return good;
}

static enum err_code one_mode(const struct test *t, size_t i, bool *good, struct err *e)
{
    struct run r[RUNS] = {0};
    struct gpt m = {0};
    float *host = NULL;
    enum err_code rc = model(t, modes[i].settings, &m, &host, e);
    for (size_t j = 0; j < RUNS && !rc; j++)
        rc = run(t, t->k[j != CPU], &m, host, modes[i].mode, &r[j], e);
    if (!rc)
        *good &= compare(modes[i].name, r, eval_mode_adapts(modes[i].mode));
    for (size_t j = 0; j < RUNS; j++)
        free(r[j].nll);
    free(host);
    gpt_free(&m);
    return rc;
}

/* WEIGHTS is DIR/model.safetensors; DIR/byte_table.bin. */
static enum err_code open_bytes(struct test *t, struct err *e)
{
    char path[4096];
    const char *slash = strrchr(t->path, '/');
    const void *data;
    size_t n;
    snprintf(path, sizeof path, "%.*sbyte_table.bin", (int)(slash ? slash + 1 - t->path : 0),
             t->path);
    enum err_code rc = file_map(path, &data, &n, e);
    if (rc)
        return rc;
    rc = bytes_parse(&t->bytes, data, n, path, e);
    file_unmap(data, n);
    return rc;
}

static enum err_code all_modes(struct test *t, const char *data, size_t tokens, bool cpu,
                               bool *good, struct err *e)
{
    enum err_code rc;
    if ((rc = st_open(&t->weights, t->path, e)) || (rc = open_bytes(t, e)) ||
        (rc = shard_load(&t->tok, &t->n, data, "val", t->bytes.vocab, tokens + 1, e)) ||
        (rc = kern_cpu(&t->k[0], 0, e)) ||
        (rc = cpu ? kern_cpu(&t->k[1], 1, e) : kern_cuda(&t->k[1], 0, e)))
        return rc;
    for (size_t i = 0; i < sizeof modes / sizeof *modes && !rc; i++)
        rc = one_mode(t, i, good, e);
    return rc;
}

int main(int argc, char **argv)
{
    struct test t = {.path = argc > 1 ? argv[1] : ""};
    struct err e = {0};
    bool good = true, cpu = argc == 6 && !strcmp(argv[4], "--device") && !strcmp(argv[5], "cpu");
    bool cuda = argc == 6 && !strcmp(argv[4], "--device") && !strcmp(argv[5], "cuda");
    size_t tokens = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;
    if ((argc != 4 && !cpu && !cuda) || !tokens)
        return fprintf(stderr, "usage: score_test WEIGHTS DATA TOKENS [--device cuda|cpu]\n"),
               ERR_USAGE;
    enum err_code rc = all_modes(&t, argv[2], tokens, cpu, &good, &e);
    if (rc)
        fprintf(stderr, "score_test: %s\n", e.msg);
    for (size_t i = 0; i < 2; i++)
        if (t.k[i])
            kern_free(t.k[i]);
    bytes_free(&t.bytes);
    free(t.tok);
    st_close(&t.weights);
    return (int)(rc ? rc : good ? ERR_OK : ERR_CLAIM);
}
