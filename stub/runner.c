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

#include "kernels/cpu/cpu.h"
#include "model/reader.h"
#include "model/score.h"
#include "model/shard.h"
#include "model/text.h"
#include "stub/code_dec.h"
#include "stub/cuda.h"
#include "stub/format.h"
#include "stub/weights_dec.h"

extern const uint8_t __ehdr_start[];

/* Short: it is in every submission. docs/scoring.md has more. */
static const char usage[] =
    "usage: submission --data DIR [--eval MODE] [--max-tokens N] [--threads N] [--nll OUT.npy] "
    "[--json]\n"
    "       submission --info | --extract DIR\n"
    "MODE: " EVAL_MODE_NAMES "\n" CUDA_USAGE;

struct file {
    const uint8_t *data, *header;
    size_t size, count; /* bytes, sections */
};

struct options {
    const char *data, *eval, *nll, *extract;
    size_t max_tokens, threads;
    bool json, info;
};

/* ---- output ---- */

static int create(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd < 0)
        err_exit(ERR_RESOURCE, "%s: cannot write", path);
    return fd;
}

static void write_all(int fd, const void *data, size_t n, const char *name)
{
    const char *p = data;
    while (n) {
        ssize_t w = write(fd, p, n);
        if (w <= 0)
            err_exit(ERR_RESOURCE, "%s: cannot write", name);
        p += w;
        n -= (size_t)w;
    }
}

static void print(int fd, const char *s)
{
    write_all(fd, s, strlen(s), "output");
}

/* ---- the file ---- */

/* The submission begins with the loader, and that with the decoder of everything but weights. */
static const uint8_t *loader_code;
typedef ptrdiff_t code_decoder(void *work, uint8_t *out, size_t out_n, const uint8_t *in,
                               size_t in_n);

bool code_unpack(uint8_t *out, size_t out_n, const uint8_t *in, size_t in_n)
{
    code_decoder *dec = (code_decoder *)(uintptr_t)(loader_code + LOADER_DECODER_AT);
    void *work = malloc(CODE_WORK); /* all zero: runner_rt.c */
    bool good = dec(work, out, out_n, in, in_n) == 0;
    free(work);
    return good;
}

/* A field of the entry of a section. */
static size_t field(const struct file *f, uint32_t kind, size_t at)
{
    return (size_t)le64(f->header + HDR_ENTRIES + (kind - 1) * SEC_BYTES + at);
}

static void open_file(struct file *f)
{
    int fd = (int)le32(__ehdr_start + RUNNER_FD_AT);
    struct stat st;
    void *map;
    if (!fd || fstat(fd, &st))
        err_exit(ERR_USAGE, "start the submission");
    map = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED)
        err_memory();
    if (!HAS_CUDA) /* which may have to start again */
        close(fd);
    f->data = loader_code = map;
    f->size = (size_t)st.st_size;
    /* The loader's program header says how long the loader is, and there the header begins. */
    f->header = f->data + le64(f->data + 64 + 32);
    f->count = le32(f->header + HDR_COUNT);
}

/* By kind, and by codec. */
static const char *const kind_name[] = {"",        "loader",     "header", "runner",
                                        "weights", "byte_table", "recipe", "source" CUDA_KIND};
static const char *const codec_name[] = {"none", "lzma", "zstd", "range", "cm", "code"};

/* The kind of entry number i, from 1: that number, where source is the only optional section. */
static uint32_t kind_of(const struct file *f, uint32_t i)
{
    return HAS_CUDA ? (uint32_t)field(f, i, SEC_KIND) : i;
}

/* The decoded bytes of a section: in place, or in fresh memory. pool: for weights, or NULL. */
static const uint8_t *decode(const struct file *f, uint32_t kind, struct pool *pool)
{
    const uint8_t *data = f->data + field(f, kind, SEC_OFFSET);
    size_t size = field(f, kind, SEC_SIZE), raw_size = field(f, kind, SEC_RAW_SIZE);
    uint32_t codec = (uint32_t)field(f, kind, SEC_CODEC);
    uint8_t *raw;
    if (codec == CODEC_NONE)
        return data;
    raw = malloc(raw_size);
    if (codec == CODEC_CODE
            ? !code_unpack(raw, raw_size, data, size)
            : !weights_decode_on(pool, codec,
                                 f->header + HDR_ENTRIES + (kind - 1) * SEC_BYTES + SEC_PARAMS,
                                 data, size, raw, raw_size, malloc(WEIGHTS_WORK)))
        err_damaged();
    return raw;
}

static void number(struct text *t, const char *name, size_t v)
{
    text_str(t, name);
    text_u64(t, v);
}

static void info(const struct file *f)
{
    char buf[2048];
    struct text t = {buf, 0, sizeof buf};
    number(&t, "{\"total_bytes\":", f->size);
    for (uint32_t kind = 1; kind <= f->count; kind++) {
        text_str(&t, kind > 1 ? "},\n{\"kind\":\"" : ",\"sections\":[\n{\"kind\":\"");
        text_str(&t, kind_name[kind_of(f, kind)]);
        text_str(&t, "\",\"codec\":\"");
        text_str(&t, codec_name[(uint32_t)field(f, kind, SEC_CODEC)]);
        number(&t, "\",\"offset\":", field(f, kind, SEC_OFFSET));
        number(&t, ",\"size\":", field(f, kind, SEC_SIZE));
        number(&t, ",\"unpacked_size\":", field(f, kind, SEC_RAW_SIZE));
    }
    text_str(&t, "}\n]}\n");
    print(1, buf);
}

static void extract(const struct file *f, const char *dir)
{
    mkdir(dir, 0777);
    for (uint32_t kind = 1; kind <= f->count; kind++) {
        char path[1024];
        struct text t = {path, 0, sizeof path};
        const uint8_t *raw = decode(f, kind, NULL);
        text_str(&t, dir);
        text_char(&t, '/');
        text_str(&t, kind_name[kind_of(f, kind)]);
        write_all(create(path), raw, field(f, kind, SEC_RAW_SIZE), path);
    }
}

/* ---- the model ---- */

struct engine {
    struct gpt m;
    struct kern *k;
    float *params;
    struct byte_table b;
};

static void load_engine(struct engine *g, const struct file *f, size_t threads)
{
    struct recipe r;
    struct weights_cursor c;
    const uint8_t *payload;
    size_t n = 0;
    recipe_init(&r);
    recipe_parse(&r, (const char *)decode(f, KIND_RECIPE, NULL),
                 field(f, KIND_RECIPE, SEC_RAW_SIZE), "", true, NULL);
    bytes_parse(&g->b, decode(f, KIND_BYTE_TABLE, NULL), field(f, KIND_BYTE_TABLE, SEC_RAW_SIZE),
                "", NULL);
    gpt_init(&g->m, &r, NULL);
    kern_cpu(&g->k, threads, NULL);
    g->params = g->k->alloc(g->k, g->m.floats * sizeof(float));

    payload = decode(f, KIND_WEIGHTS, ((struct cpu *)g->k->impl)->pool);
    weights_open(&c, payload, field(f, KIND_WEIGHTS, SEC_RAW_SIZE));
    struct tensor_view *v = malloc(c.left * sizeof *v);
    while (weights_next(&c, &v[n]))
        n++;
    gpt_load(&g->m, g->params, v, n, "", NULL);
    free(v);
    if (field(f, KIND_WEIGHTS, SEC_CODEC) << 32) /* it is not in place */
        free((void *)(uintptr_t)payload);
    if (cuda_on) /* its section is the last one */
        cuda_engine(&g->k, &g->params, &g->m, (const char *)decode(f, (uint32_t)f->count, NULL));
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
    const char *name;
    bool tty;
    uint64_t start, shown;
};

static enum err_code write_nll(void *ctx, const double *nll, size_t n, struct err *e)
{
    struct output *o = ctx;
    (void)e;
    if (o->nll >= 0) {
        if (cuda_on)
            cuda_written();
        write_all(o->nll, nll, n * sizeof *nll, o->name);
    }
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
    number(&x, "\r", 100 * done / all);
    text_str(&x, done < all ? " %" : " %\r\033[K");
    print(2, buf);
}

/* The NumPy 1.0 header of a vector of n float64: 128 bytes, the text padded with spaces. */
static void npy_header(const struct output *o, size_t n)
{
    char h[129] = "\x93NUMPY\1\0v";
    struct text t = {h + 10, 0, sizeof h - 10};
    number(&t, "{'descr': '<f8', 'fortran_order': False, 'shape': (", n);
    text_str(&t, ",), }");
    while (t.n < 117)
        text_char(&t, ' ');
    text_char(&t, '\n');
    write_all(o->nll, h, 128, o->name);
}

/* A number of at most 12 digits; SIZE_MAX when it is none. */
static size_t small_number(const char *s)
{
    size_t v = 0, n = 0;
    for (; s[n]; n++) {
        if (s[n] < '0' || s[n] > '9' || n == 12)
            return SIZE_MAX;
        v = v * 10 + (size_t)(s[n] - '0');
    }
    return n ? v : SIZE_MAX;
}

/* /dev/fd/N is used as it is: inside a sandbox nothing may be opened for writing. */
static int open_nll(const char *path)
{
    size_t n = strncmp(path, "/dev/fd/", 8) ? SIZE_MAX : small_number(path + 8);
    return n == SIZE_MAX ? create(path) : (int)n;
}

static void score(const struct file *f, const struct options *o)
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
    load_engine(&g, f, o->threads);
    const char *mode = o->eval ? o->eval : g.m.r.eval_mode;
    so.mode = eval_mode_parse(mode);
    if (so.mode == EVAL_MODES)
        err_exit(ERR_USAGE, "%s: see --help", mode);
    if (cuda_on)
        so.batch = CUDA_ROWS / recipe_eval_len(&g.m.r);
    shard_load(&tok, &n, o->data, "val", (size_t)g.m.r.vocab_size,
               o->max_tokens ? o->max_tokens + 1 : 0, NULL);
    score_windows(&g.m, n, &so, &l, NULL);
    if (o->nll) {
        out.name = o->nll;
        out.nll = open_nll(o->nll);
        npy_header(&out, window_scored(&l));
    }
    score_run(&g.m, g.k, g.params, tok, n, &g.b, &so, &s, NULL);
    if (out.nll >= 0 && close(out.nll))
        err_exit(ERR_RESOURCE, "%s: cannot write", o->nll);
    score_report(&t, &g.m.r, so.mode, &s, &record, now_ms() - out.start, o->json);
    text_char(&t, '\n');
    print(1, line);
}

/* ---- command line ---- */

/* Options in the order of the words; those from FLAGS on have no value. */
enum {
    DATA,
    EVAL,
    NLL,
    EXTRACT,
    MAX_TOKENS,
    THREADS,
    DEVICE,
    FLAGS = DEVICE + HAS_CUDA,
    JSON = FLAGS,
    INFO,
    OPTIONS
};
static const char words[] =
    "data\0eval\0nll\0extract\0max-tokens\0threads\0" CUDA_WORD "json\0info\0";

static void parse_args(struct options *o, char **argv)
{
    static const char wrong[] = "%s: see --help"; /* one text for all: every byte counts */
    const char *value[OPTIONS] = {0};
    size_t number[2] = {0};
    while (*++argv) {
        const char *name = *argv, *word = words;
        int i = 0;
        if (!strcmp(name, "--help")) {
            print(1, usage);
            exit(0);
        }
        for (; i < OPTIONS && (strncmp(name, "--", 2) || strcmp(name + 2, word)); i++)
            word += strlen(word) + 1;
        if (i == OPTIONS || (i < FLAGS && !*++argv) ||
            ((i == MAX_TOKENS || i == THREADS) &&
             (number[i - MAX_TOKENS] = small_number(*argv)) == SIZE_MAX))
            err_exit(ERR_USAGE, wrong, name);
        value[i] = *argv;
    }
    *o = (struct options){.data = value[DATA],
                          .eval = value[EVAL],
                          .nll = value[NLL],
                          .extract = value[EXTRACT],
                          .max_tokens = number[0],
                          .threads = number[1],
                          .json = value[JSON],
                          .info = value[INFO]};
    if (HAS_CUDA)
        cuda_device = value[DEVICE];
    if (!o->info && !o->extract && !o->data)
        err_exit(ERR_USAGE, wrong, "--data");
}

int main(int argc, char **argv)
{
    struct options o;
    struct file f;
    (void)argc;
    parse_args(&o, argv);
    open_file(&f);
    if (o.info)
        info(&f);
    else if (o.extract)
        extract(&f, o.extract);
    else {
        if (HAS_CUDA)
            cuda_begin(argv);
        score(&f, &o);
    }
    return 0;
}
