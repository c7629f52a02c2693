/*
 * parity [--device cuda] DIR - compare the project with every fixture in DIR, a line each.
 *
 * The fault it exists for: code that trains and scores smoothly but computes something other than
 * the challenge's reference scripts do.
 *
 *   ok          everything that the file asks for was compared and agrees
 *   ok in part  what was compared agrees; the line says what the project cannot do yet
 *   FAIL        tensor, index, value and expected value of the first disagreement
 *   not yet     nothing could be compared; the line says what is missing
 *
 * Exit status: 0 when nothing fails, 1 when something does, 3 when DIR cannot be read, holds no
 * fixture, or a fixture is damaged. Worst errors are printed beside the tolerance they were held
 * to.
 *
 * --device cuda: what is computed on the card, each tensor held to a share of its norm and each
 * single number to a share of the largest, because a card multiplies numbers of 8 bits (kinds
 * below). Of gradients it is 5 %, of those of q_gain, whose terms nearly cancel, 20 %; of an update
 * by Newton-Schulz 8 %.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/file.h"
#include "tests/parity/parity.h"

/* The shares are those of check.loose and check.single; 0: nothing of it is done on the card. */
static const struct {
    const char *kind;
    void (*run)(struct check *c);
    double loose, single;
} kinds[] = {
    {"model", parity_model, 0.02, 0.001}, {"train", parity_train, 0.05, 0.01},
    {"rope", parity_rope, 0.001, 0.001},  {"optimizer", parity_optimizer, 0.001, 5e-5},
    {"schedule", parity_schedule, 0, 0},  {"quant", parity_quant, 0, 0},
    {"pack", parity_pack, 0, 0},          {"eval", parity_eval, 0.02, 0.03},
};

static void run_safetensors(struct check *c)
{
    const char *kind = st_meta(&c->st, "KIND");
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (kind && !strcmp(kind, kinds[i].kind)) {
            if (c->loose > 0 && !(kinds[i].loose > 0)) {
                check_missing(c, "%s: not the card's", kind);
                return;
            }
            c->loose = c->loose > 0 ? kinds[i].loose : 0;
            c->single = kinds[i].single;
            kinds[i].run(c);
            return;
        }
    check_missing(c, "unknown kind: %s", kind ? kind : "the metadata name none");
}

static enum err_code run_json(struct check *c, struct err *e)
{
    const void *text;
    size_t n;
    enum err_code rc = file_map(c->path, &text, &n, e);
    if (rc)
        return rc;
    rc = parity_tokenizer(c, text, n, e);
    file_unmap(text, n);
    return rc;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n > m && !strcmp(s + n - m, end);
}

static int is_fixture(const struct dirent *d)
{
    return ends_with(d->d_name, ".safetensors") || ends_with(d->d_name, ".json") ||
           ends_with(d->d_name, ".ptz");
}

static void print_line(const struct check *c, const char *name)
{
    const char *verdict = c->fails        ? "FAIL"
                          : !c->compared  ? "not yet"
                          : c->missing[0] ? "ok in part"
                                          : "ok";
    printf("%-20s  %s", name, verdict);
    const char *gap = "  ";
    if (c->fails)
        printf("%s%zu wrong: %s", gap, c->fails, c->fail), gap = "; ";
    if (c->missing[0])
        printf("%s%s%s", gap, c->compared || c->fails ? "not yet: " : "", c->missing), gap = "; ";
    if (c->notes[0])
        printf("%s%s", gap, c->notes), gap = "; ";
    if (c->skipped[0])
        printf("%snot compared: %s", gap, c->skipped);
    printf("\n");
    fflush(stdout);
}

/* One file. The verdict goes to *tally; only a file that cannot be read is an error. */
static enum err_code run_file(struct check *c, const char *name, size_t tally[3], struct err *e)
{
    enum err_code rc = ERR_OK;
    if (ends_with(name, ".safetensors")) {
        rc = st_open(&c->st, c->path, e);
        if (!rc)
            run_safetensors(c);
    } else if (ends_with(name, ".json")) {
        rc = run_json(c, e);
    } else {
        parity_ptz(c);
    }
    if (!rc) {
        char stem[256];
        const char *end = strstr(name, ".safetensors");
        snprintf(stem, sizeof stem, "%.*s", (int)(end ? end - name : (long)strlen(name)), name);
        print_line(c, stem);
        tally[c->fails ? 1 : c->compared ? 0 : 2]++;
    }
    st_close(&c->st);
    return rc;
}

int main(int argc, char **argv)
{
    bool cuda = argc == 4 && !strcmp(argv[1], "--device") && !strcmp(argv[2], "cuda");
    const char *dir = argv[argc - 1];
    if ((argc != 2 && !cuda) || dir[0] == '-') {
        fprintf(stderr, "usage: parity [--device cuda] DIR   (compares the project with every "
                        "fixture in DIR)\n");
        return argc == 2 && !strcmp(argv[1], "--help") ? ERR_OK : ERR_USAGE;
    }
    struct dirent **entry = NULL;
    int n = scandir(dir, &entry, is_fixture, alphasort);
    if (n < 1) {
        fprintf(stderr, "parity: %s: %s\n", dir,
                n < 0 ? "cannot read the directory" : "no .safetensors, .json or .ptz in it");
        free(entry);
        return ERR_INPUT;
    }
    struct err err = {0};
    struct kern *k = NULL;
    if (cuda ? kern_cuda(&k, 0, &err) : kern_cpu(&k, 0, &err)) {
        fprintf(stderr, "parity: %s\n", err.msg);
        return (int)err.code;
    }
    size_t tally[3] = {0}, damaged = 0;
    for (int i = 0; i < n; i++) {
        char path[4096];
        struct err e = {0};
        struct check *c = parity_alloc(1, sizeof *c);
        snprintf(path, sizeof path, "%s/%s", dir, entry[i]->d_name);
        c->k = k;
        c->loose = cuda; /* the kind says how much */
        c->dir = dir;
        c->path = path;
        if (run_file(c, entry[i]->d_name, tally, &e)) {
            fprintf(stderr, "parity: %s\n", e.msg);
            damaged++;
        }
        free(c);
        free(entry[i]);
    }
    free(entry);
    kern_free(k);
    printf("%zu passed, %zu failed, %zu not known yet%s", tally[0], tally[1], tally[2],
           damaged ? "" : "\n");
    if (damaged)
        printf(", %zu could not be read\n", damaged);
    return tally[1] ? ERR_CLAIM : damaged ? ERR_INPUT : ERR_OK;
}
