/*
 * runner.c - what the loader starts: a complete scoring engine that reads its weights from the
 * submission file it came out of. Static, no dependency. There are two: one with the forward pass
 * only, and a larger one with the gradients that SLOT and test-time training need (docs/design.md).
 *
 * The loader has checked the hash of every section and left the file open; its descriptor stands in
 * the padding of this program's own ELF header (stub/format.h). Sizes and codecs are checked here
 * all the same, because a hash says nothing about intent.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "model/reader.h"
#include "model/score.h"
#include "model/shard.h"
#include "model/text.h"
#include "stub/format.h"
#include "stub/lzma_dec.h"
#include "stub/weights_dec.h"

extern const uint8_t __ehdr_start[];

static const char usage[] =
    "usage: submission --data DIR [--eval MODE] [--max-tokens N] [--threads N] [--nll OUT.npy] "
    "[--json]\n"
    "       submission --info | --extract DIR | --help\n"
    "Scores a token stream with the model inside this file and prints bits per byte.\n"
    "  --data DIR      directory with *_val_*.bin shards, or one shard\n"
    "  --eval MODE     plain, sliding, slot, slot-context or ttt; default: the recipe's\n"
    "  --max-tokens N  score the first N positions only\n"
    "  --threads N     default: all cores; the result does not depend on it\n"
    "  --nll OUT.npy   one float64 per scored token; /dev/fd/N writes to descriptor N\n"
    "  --info          the sections of this file as JSON\n"
    "  --extract DIR   write the decoded sections to files\n"
    "example: ./submission --data fineweb10B_sp1024 --eval sliding --max-tokens 65536\n";

struct section {
    uint32_t kind, codec;
    size_t offset, size, raw_size;
    const uint8_t *data, *params;
};

struct file {
    const uint8_t *data;
    size_t size;
    struct section s[SECTIONS_MAX + 1]; /* by kind */
};

struct options {
    const char *data, *eval, *nll, *extract;
    size_t max_tokens, threads;
    bool json, info;
};

/* ---- output ---- */

static bool write_all(int fd, const void *data, size_t n)
{
    const char *p = data;
    while (n) {
        ssize_t w = write(fd, p, n);
        if (w <= 0)
            return false;
        p += w;
        n -= (size_t)w;
    }
    return true;
}

static void print(int fd, const char *s)
{
    write_all(fd, s, strlen(s));
}

/* ---- the file ---- */

/* A weight is at least a bit or so; nothing that decodes to more than this is a submission. */
enum { RAW_LIMIT = 1 << 30 };

static enum err_code open_file(struct file *f, struct err *e)
{
    int fd = (int)le32(__ehdr_start + RUNNER_FD_AT);
    struct stat st;
    const uint8_t *h;
    void *map = MAP_FAILED;
    size_t loader, count;
    if (fd && !fstat(fd, &st))
        map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED)
        return err_set(e, ERR_USAGE, "this is the runner; start the submission file itself");
    close(fd);
    f->data = map;
    f->size = (size_t)st.st_size;
    /* The loader's program header says how long the loader is, and there the header begins. */
    loader = (size_t)le64(f->data + 64 + 32);
    h = f->data + loader;
    count = le32(h + HDR_COUNT);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *p = h + HDR_ENTRIES + i * SEC_BYTES;
        struct section s = {.kind = (uint32_t)i + 1,
                            .codec = le32(p + SEC_CODEC),
                            .offset = (size_t)le64(p + SEC_OFFSET),
                            .size = (size_t)le64(p + SEC_SIZE),
                            .raw_size = (size_t)le64(p + SEC_RAW_SIZE),
                            .params = p + SEC_PARAMS};
        s.data = f->data + s.offset;
        if (s.raw_size > RAW_LIMIT || (s.codec == CODEC_NONE && s.size != s.raw_size))
            return err_set(e, ERR_INPUT, "section %zu: impossible size", i);
        f->s[i + 1] = s;
    }
    return ERR_OK;
}

static const char *const kind_name[] = {"",        "loader",     "header", "runner",
                                        "weights", "byte_table", "recipe", "source"};
static const char *const codec_name[] = {"none", "lzma", "zstd", "range", "cm"};

/* The decoded bytes of a section: in place, or in fresh memory that lives as long as the program.
 */
static enum err_code decode(const struct section *s, const uint8_t **out, struct err *e)
{
    uint8_t *raw = (uint8_t *)(uintptr_t)s->data;
    bool ok = true;
    if (s->codec != CODEC_NONE) {
        void *work = malloc(WEIGHTS_WORK);
        raw = malloc(s->raw_size);
        if (!raw || !work)
            return err_nomem(e, kind_name[s->kind], s->raw_size);
        if (s->kind == KIND_WEIGHTS) {
            ok = weights_decode(s->codec, s->params, s->data, s->size, raw, s->raw_size, work);
        } else {
            ok = lzma_dec(work, raw, s->raw_size, s->data, s->size, le32(s->params)) == s->size;
            if (ok && s->params[PARAM_FILTER])
                x86_undo(raw, s->raw_size);
        }
        free(work);
    }
    *out = raw;
    return ok ? ERR_OK : err_set(e, ERR_INPUT, "section %s: cannot be decoded", kind_name[s->kind]);
}

static void json_field(struct text *t, const char *name, uint64_t v)
{
    text_str(t, name);
    text_u64(t, v);
}

static void info(const struct file *f)
{
    char buf[2048];
    struct text t = {buf, 0, sizeof buf};
    json_field(&t, "{\"total_bytes\":", f->size);
    text_str(&t, ",\"sections\":[");
    for (const struct section *s = f->s + 1; s <= f->s + SECTIONS_MAX && s->kind; s++) {
        text_str(&t, s->kind > 1 ? ",\n{\"kind\":\"" : "\n{\"kind\":\"");
        text_str(&t, kind_name[s->kind]);
        text_str(&t, "\",\"codec\":\"");
        text_str(&t, s->codec <= CODEC_CM ? codec_name[s->codec] : "unknown");
        json_field(&t, "\",\"offset\":", s->offset);
        json_field(&t, ",\"size\":", s->size);
        json_field(&t, ",\"unpacked_size\":", s->raw_size);
        text_char(&t, '}');
    }
    text_str(&t, "\n]}\n");
    print(1, buf);
}

static enum err_code extract(const struct file *f, const char *dir, struct err *e)
{
    mkdir(dir, 0777);
    for (const struct section *s = f->s + 1; s <= f->s + SECTIONS_MAX && s->kind; s++) {
        char path[1024];
        struct text t = {path, 0, sizeof path};
        const uint8_t *raw;
        enum err_code rc = decode(s, &raw, e);
        int fd;
        if (rc)
            return rc;
        text_str(&t, dir);
        text_char(&t, '/');
        text_str(&t, kind_name[s->kind]);
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
        if (fd < 0 || !write_all(fd, raw, s->raw_size) || close(fd))
            return err_set(e, ERR_RESOURCE, "%s: cannot write", path);
    }
    return ERR_OK;
}

/* ---- the model ---- */

struct engine {
    struct gpt m;
    struct kern *k;
    float *params;
    struct byte_table b;
};

static enum err_code load_weights(struct engine *g, const struct file *f, struct err *e)
{
    const struct section *s = &f->s[KIND_WEIGHTS];
    struct weights_cursor c;
    struct tensor_view *v, t;
    const uint8_t *payload;
    size_t n = 0, cap = 3 * g->m.nparams;
    enum err_code rc = decode(s, &payload, e);
    if (rc)
        return rc;
    g->params = g->k->alloc(g->k, g->m.floats * sizeof(float));
    v = malloc(cap * sizeof *v);
    if (!v || !g->params)
        return err_nomem(e, "weights", g->m.floats * sizeof(float));
    weights_open(&c, payload, s->raw_size);
    while (n < cap && weights_next(&c, &t))
        v[n++] = t;
    if (c.bad)
        return err_set(e, ERR_INPUT, "section weights: damaged");
    rc = gpt_load(&g->m, g->params, v, n, "section weights", e);
    free(v);
    if (s->codec != CODEC_NONE)
        free((void *)(uintptr_t)payload);
    return rc;
}

static enum err_code load_engine(struct engine *g, const struct file *f, size_t threads,
                                 struct err *e)
{
    struct recipe r;
    const uint8_t *recipe, *table;
    enum err_code rc;
    recipe_init(&r);
    if ((rc = decode(&f->s[KIND_RECIPE], &recipe, e)) ||
        (rc = recipe_parse(&r, (const char *)recipe, f->s[KIND_RECIPE].raw_size, "section recipe",
                           true, e)) ||
        (rc = decode(&f->s[KIND_BYTE_TABLE], &table, e)) ||
        (rc = bytes_parse(&g->b, table, f->s[KIND_BYTE_TABLE].raw_size, "section byte_table", e)) ||
        (rc = gpt_init(&g->m, &r, e)) || (rc = kern_cpu(&g->k, threads, e)))
        return rc;
    return load_weights(g, f, e);
}

/* ---- scoring ---- */

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

struct output {
    int nll; /* descriptor or -1 */
    bool tty;
    uint64_t start, shown;
};

static enum err_code write_nll(void *ctx, const double *nll, size_t n, struct err *e)
{
    struct output *o = ctx;
    if (o->nll >= 0 && !write_all(o->nll, nll, n * sizeof *nll))
        return err_set(e, ERR_RESOURCE, "--nll: cannot write");
    return ERR_OK;
}

static void progress(void *ctx, size_t done, size_t all)
{
    struct output *o = ctx;
    uint64_t t = now_ms() - o->start;
    char buf[128];
    struct text x = {buf, 0, sizeof buf};
    if (!o->tty || (t < o->shown + 200 && done < all))
        return;
    o->shown = t;
    text_str(&x, "\rwindow ");
    text_u64(&x, done);
    text_char(&x, '/');
    text_u64(&x, all);
    text_str(&x, ", ");
    text_u64(&x, t * (all - done) / done / 1000);
    text_str(&x, done < all ? " s left   " : " s left   \r\033[K");
    print(2, buf);
}

/* The NumPy 1.0 header of a vector of n float64: 128 bytes, the text padded with spaces. */
static bool npy_header(int fd, size_t n)
{
    char h[129];
    struct text t = {h + 10, 0, sizeof h - 10};
    memcpy(h, "\x93NUMPY\1\0v\0", 10);
    text_str(&t, "{'descr': '<f8', 'fortran_order': False, 'shape': (");
    text_u64(&t, n);
    text_str(&t, ",), }");
    while (t.n < 117)
        text_char(&t, ' ');
    text_char(&t, '\n');
    return write_all(fd, h, 128);
}

static bool small_number(const char *s, size_t *out)
{
    size_t v = 0;
    if (!*s || strlen(s) > 12)
        return false;
    for (; *s; s++) {
        if (*s < '0' || *s > '9')
            return false;
        v = v * 10 + (size_t)(*s - '0');
    }
    *out = v;
    return true;
}

/* /dev/fd/N is used as it is: inside a sandbox nothing may be opened for writing. */
static enum err_code open_nll(const char *path, int *fd, struct err *e)
{
    size_t n;
    if (!strncmp(path, "/dev/fd/", 8) && small_number(path + 8, &n))
        *fd = (int)n;
    else
        *fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    return *fd < 0 ? err_set(e, ERR_RESOURCE, "%s: cannot write", path) : ERR_OK;
}

static enum err_code score(const struct file *f, const struct options *o, struct err *e)
{
    struct engine g = {0};
    struct output out = {.nll = -1, .tty = isatty(2), .start = now_ms()};
    struct score s, record;
    struct score_opts so = {.max_tokens = o->max_tokens,
                            .record = &record,
                            .sink = write_nll,
                            .progress = progress,
                            .ctx = &out};
    struct window_list l;
    uint16_t *tok;
    size_t n;
    char line[640];
    struct text t = {line, 0, sizeof line};
    enum err_code rc = load_engine(&g, f, o->threads, e);
    if (rc)
        return rc;
    so.mode = eval_mode_parse(o->eval ? o->eval : g.m.r.eval_mode);
    if (so.mode == EVAL_MODES)
        return err_set(e, ERR_USAGE, "--eval %s: must be " EVAL_MODE_NAMES,
                       o->eval ? o->eval : g.m.r.eval_mode);
    if ((rc = shard_load(&tok, &n, o->data, "val", (size_t)g.m.r.vocab_size,
                         o->max_tokens ? o->max_tokens + 1 : 0, e)) ||
        (rc = score_windows(&g.m, n, &so, &l, e)))
        return rc;
    if (o->nll && ((rc = open_nll(o->nll, &out.nll, e)) || !npy_header(out.nll, window_scored(&l))))
        return err_set(e, ERR_RESOURCE, "%s: cannot write", o->nll);
    if ((rc = score_run(&g.m, g.k, g.params, tok, n, &g.b, &so, &s, e)))
        return rc;
    if (out.nll >= 0 && close(out.nll))
        return err_set(e, ERR_RESOURCE, "%s: cannot write", o->nll);
    score_report(&t, &g.m.r, so.mode, &s, &record, now_ms() - out.start, o->json);
    text_char(&t, '\n');
    print(1, line);
    return ERR_OK;
}

/* ---- command line ---- */

static enum err_code parse_args(struct options *o, char **argv, struct err *e)
{
    const struct {
        const char *name;
        const char **str;
        size_t *num;
        bool *flag;
    } opt[] = {
        {"--data", &o->data, NULL, NULL},
        {"--eval", &o->eval, NULL, NULL},
        {"--nll", &o->nll, NULL, NULL},
        {"--extract", &o->extract, NULL, NULL},
        {"--max-tokens", NULL, &o->max_tokens, NULL},
        {"--threads", NULL, &o->threads, NULL},
        {"--json", NULL, NULL, &o->json},
        {"--info", NULL, NULL, &o->info},
    };
    for (char **a = argv + 1; *a; a++) {
        size_t i = 0;
        while (i < sizeof opt / sizeof opt[0] && strcmp(*a, opt[i].name))
            i++;
        if (i == sizeof opt / sizeof opt[0])
            return err_set(e, ERR_USAGE, "%s: unknown option; try --help", *a);
        if (opt[i].flag) {
            *opt[i].flag = true;
            continue;
        }
        if (!*++a)
            return err_set(e, ERR_USAGE, "%s: needs a value", a[-1]);
        if (opt[i].str)
            *opt[i].str = *a;
        else if (!small_number(*a, opt[i].num))
            return err_set(e, ERR_USAGE, "%s %s: not a number", a[-1], *a);
    }
    if (!o->info && !o->extract && !o->data)
        return err_set(e, ERR_USAGE, "say --data DIR; try --help");
    return ERR_OK;
}

static enum err_code run(char **argv, struct err *e)
{
    struct options o = {0};
    struct file f = {0};
    enum err_code rc;
    if (argv[0] && argv[1] && !strcmp(argv[1], "--help")) {
        print(1, usage);
        return ERR_OK;
    }
    if ((rc = parse_args(&o, argv, e)) || (rc = open_file(&f, e)))
        return rc;
    if (o.info)
        info(&f);
    else if (o.extract)
        rc = extract(&f, o.extract, e);
    else
        rc = score(&f, &o, e);
    return rc;
}

int main(int argc, char **argv)
{
    struct err e = {0};
    enum err_code rc = run(argv, &e);
    (void)argc;
    if (rc) {
        print(2, "submission: ");
        print(2, e.msg);
        print(2, "\n");
    }
    return (int)rc;
}
