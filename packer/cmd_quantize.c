/* cmd_quantize.c - see commands.h: `packer quantize`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "model/clock.h"
#include "model/file.h"
#include "packer/commands.h"
#include "packer/fit.h"
#include "packer/ptz_write.h"
#include "trainer/quant.h"

const char help_quantize[] =
    "packer quantize MODEL.safetensors -o QUANT.safetensors [KEY=VALUE]...\n"
    "\n"
    "Turns trained weights into small integers with one scale per row, and prints what that cost.\n"
    "trainer does it at the end of a run; this does it again with other settings, applied over "
    "the\n"
    "recipe in the file: QUANT_*, GPTQ_*, MIXED_QUANT, N_INT6_LAYERS, PRUNE_*, COMPRESSOR...\n"
    "\n"
    "  -o FILE       the quantised weights\n"
    "  --target-bytes N  fill a submission of N bytes: QUANTIZER=rd RD_TARGET_BYTES=N\n"
    "  --data DIR    training shards (*_train_*.bin) to calibrate with: QUANT_METHOD=gptq and\n"
    "                MIXED_QUANT=1 need them\n"
    "  --report FILE the table for programs: tensors, bits, errors, what more bytes would buy\n"
    "  --threads N   for calibration and matrices (default: all processors)\n"
    "  --quiet       no progress on stderr\n"
    "\n"
    "Calibration runs the model over GPTQ_CALIB_BATCHES batches of GPTQ_BATCH_TOKENS tokens.\n"
    "PRUNE_TARGET_BYTES zeroes integers of +-1 until the record's own file (COMPRESSOR) and\n"
    "PRUNE_CODE_BYTES fit.\n"
    "\n"
    "QUANTIZER=rd needs --data and byte_table.bin beside the model (or --tokenizer, "
    "--byte-table).\n"
    "\n"
    "Example: packer quantize out/demo/model.safetensors -o five.safetensors QUANT_BITS=5\n"
    "         packer quantize MODEL -o QUANT --data data --target-bytes 15999000\n"
    "         packer quantize MODEL -o QUANT --data data QUANT_METHOD=gptq GPTQ_CALIB_BATCHES=2\n";

/* One line that is redrawn on a terminal; elsewhere a line every half minute. */
struct meter {
    const char *what; /* the work that `began` belongs to */
    double began, shown;
    bool quiet, tty, drawn;
};

static void meter_wipe(struct meter *m)
{
    if (m->drawn && m->tty)
        fputs("\r\033[K", stderr);
    m->drawn = false;
}

static void meter_show(void *ctx, const char *what, size_t done, size_t all)
{
    struct meter *m = ctx;
    double now = seconds_now();
    if (!m->what || strcmp(m->what, what)) {
        m->what = what;
        m->began = now;
        m->shown = m->tty ? 0 : now;
    }
    if (m->quiet || !done || now - m->shown < (m->tty ? 0.2 : 30))
        return;
    unsigned left = (unsigned)((now - m->began) * (double)(all - done) / (double)done + 0.5);
    fprintf(stderr, "%s%s: %zu/%zu (%.1f%%), %u:%02u:%02u left%s", m->tty ? "\r" : "", what, done,
            all, 100.0 * (double)done / (double)all, left / 3600, left / 60 % 60, left % 60,
            m->tty ? "\033[K" : "\n");
    m->shown = now;
    m->drawn = true;
}

struct options {
    const char *in, *out, *report, **setting;
    size_t settings;
    struct quant_tools tools;
    struct meter meter;
    struct fit fit;
    const char *tokenizer, *byte_table;
    char target[64]; /* the setting of --target-bytes */
};

/* The size of the record's file, each trial announced: a slow compressor takes a minute. */
static enum err_code record_size(void *ctx, const struct recipe *r, const struct tensor_view *t,
                                 size_t n, uint64_t *bytes, struct err *e)
{
    struct meter *m = ctx;
    meter_wipe(m);
    if (!m->quiet)
        fprintf(stderr, "measuring the record's file (%s)%s", r->compressor, m->tty ? "\r" : "\n");
    m->drawn = !m->quiet;
    enum err_code rc = ptz_size(r, t, n, bytes, e);
    meter_wipe(m);
    return rc;
}

/* The size of a submission, with a note: encoding takes some seconds. */
static enum err_code submission_size(void *ctx, const struct recipe *r, const struct tensor_view *t,
                                     size_t n, uint64_t *bytes, struct err *e)
{
    struct options *o = ctx;
    meter_wipe(&o->meter);
    enum err_code rc = fit_size(&o->fit, r, t, n, bytes, e);
    if (!rc && t && !o->meter.quiet)
        fprintf(stderr, "a file of %llu bytes%s", (unsigned long long)*bytes,
                o->meter.tty ? "\r" : "\n");
    o->meter.drawn = !o->meter.quiet;
    return rc;
}

static enum err_code record_check(const struct recipe *r, struct err *e)
{
    struct ptz_how how;
    return ptz_how_of(&how, r, e);
}

static enum err_code parse_threads(size_t *n, const char *text, struct err *e)
{
    char *end;
    unsigned long v = strtoul(text, &end, 10);
    if (*end || *text < '0' || *text > '9' || v > 4096)
        return err_set(e, ERR_USAGE, "--threads %s: expected a number, 0 to 4096", text);
    *n = v;
    return ERR_OK;
}

/* --target-bytes: two settings, in the order of the command line as all others. */
static enum err_code set_target(struct options *o, const char *text, struct err *e)
{
    int n = snprintf(o->target, sizeof o->target, "RD_TARGET_BYTES=%s", text);
    if (n < 0 || (size_t)n >= sizeof o->target)
        return err_set(e, ERR_USAGE, "--target-bytes: %s is no number of bytes", text);
    o->setting[o->settings++] = "QUANTIZER=rd";
    o->setting[o->settings++] = o->target;
    return ERR_OK;
}

/* An option with a value. */
static enum err_code set_option(struct options *o, const char *name, const char *value,
                                struct err *e)
{
    if (!strcmp(name, "--threads"))
        return parse_threads(&o->tools.threads, value, e);
    if (!strcmp(name, "--target-bytes"))
        return set_target(o, value, e);
    *(!strcmp(name, "-o")            ? &o->out
      : !strcmp(name, "--data")      ? &o->tools.data
      : !strcmp(name, "--report")    ? &o->report
      : !strcmp(name, "--tokenizer") ? &o->tokenizer
                                     : &o->byte_table) = value;
    return ERR_OK;
}

static bool has_value(const char *option)
{
    static const char *const name[] = {
        "-o",          "--data",       "--report", "--threads", "--target-bytes",
        "--tokenizer", "--byte-table", NULL};
    for (size_t i = 0; name[i]; i++)
        if (!strcmp(option, name[i]))
            return true;
    return false;
}

static enum err_code parse(struct options *o, int argc, char **argv, struct err *e)
{
    for (int i = 0; i < argc; i++) {
        const char *a = argv[i];
        if (has_value(a)) {
            if (++i == argc)
                return err_set(e, ERR_USAGE, "%s needs a value", a);
            enum err_code rc = set_option(o, a, argv[i], e);
            if (rc)
                return rc;
        } else if (!strcmp(a, "--quiet")) {
            o->meter.quiet = true;
        } else if (a[0] == '-' && a[1]) {
            return err_set(e, ERR_USAGE, "unknown option %s (packer quantize --help)", a);
        } else if (strchr(a, '=') && o->in) {
            o->setting[o->settings++] = a;
        } else if (o->in) {
            return err_set(e, ERR_USAGE, "one model at a time: %s and %s", o->in, a);
        } else {
            o->in = a;
        }
    }
    return o->in && o->out
               ? ERR_OK
               : err_set(e, ERR_USAGE,
                         "expected: packer quantize MODEL.safetensors -o QUANT.safetensors");
}

/* The table for programs, into a file that is there whole or not at all. */
static enum err_code write_report(const char *path, const struct quant_report *r, struct err *e)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f)
        return err_nomem(e, path, 4096);
    quant_report_write(r, f);
    enum err_code rc = fclose(f) ? err_nomem(e, path, n) : file_write(path, text, n, e);
    free(text);
    return rc;
}

/* What the work took, for those who plan it. */
static void print_cost(double began)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    double cpu = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
                 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
    printf("%.1f s, %.1f s of processor time, %ld MiB of memory at most\n", seconds_now() - began,
           cpu, u.ru_maxrss / 1024);
}

enum err_code cmd_quantize(int argc, char **argv, struct err *e)
{
    struct options o = {.meter = {.tty = isatty(STDERR_FILENO) == 1}};
    struct quant_report report = {0};
    double began = seconds_now();
    enum err_code rc;
    o.tools.size_check = record_check;
    o.tools.size = record_size;
    o.tools.progress = meter_show;
    o.tools.size_ctx = o.tools.progress_ctx = &o.meter;
    o.tools.fit = submission_size;
    o.tools.fit_ctx = &o;
    if (!(o.setting = malloc(((size_t)argc + 1) * sizeof *o.setting)))
        return err_nomem(e, "settings", (unsigned)argc * sizeof *o.setting);
    rc = parse(&o, argc, argv, e);
    fit_init(&o.fit, o.in);
    o.fit.job.tokenizer = o.tokenizer;
    o.fit.job.byte_table = o.byte_table;
    if (!rc)
        rc = quant_file(o.in, o.out, o.setting, o.settings, &o.tools, &report, e);
    meter_wipe(&o.meter);
    if (!rc) {
        quant_report_print(&report, stdout);
        print_cost(began);
    }
    if (!rc && o.report)
        rc = write_report(o.report, &report, e);
    quant_report_free(&report);
    free(o.setting);
    return rc;
}
