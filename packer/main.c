/* main.c - the command line of packer. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/near.h"
#include "model/version.h"
#include "packer/commands.h"
#include "packer/export.h"
#include "packer/import.h"
#include "packer/pack.h"
#include "stub/embed.h"

enum { CHALLENGE_BYTES = 16000000 };

static const char help_all[] =
    "packer - make one executable file of weights and code\n"
    "\n"
    "  packer quantize MODEL.safetensors -o QUANT.safetensors    few bits per weight\n"
    "  packer pack QUANT.safetensors -o FILE                     write a submission\n"
    "  packer import RECORD -o FILE                              read a record's packed weights\n"
    "  packer export QUANT.safetensors -o RECORD.ptz             write them as the record would\n"
    "  packer submit RUN_DIR... -o FOLDER                        the leaderboard folder of runs\n"
    "\n"
    "packer COMMAND --help explains a command. Exit status: 0 done, 1 a rule is broken (submit),\n"
    "2 wrong use, 3 bad input, 4 out of resources (budget, disk, memory).\n";

static const char help_pack[] =
    "packer pack WEIGHTS.safetensors -o FILE [option]...\n"
    "\n"
    "Writes a submission: one executable that scores text with these (quantised) weights.\n"
    "Prints where every byte of it went.\n"
    "\n"
    "  -o FILE             the submission\n"
    "  --target-bytes N    refuse to write more than N bytes (default 16000000)\n"
    "  --codec CODEC       how weights are stored: auto (default), cm, range, lzma, none, zstd\n"
    "                      (zstd is for comparison: the runner inside cannot decode it)\n"
    "  --runner cpu|cuda   the engine inside; cuda: 37 KB more, and it scores on an NVIDIA card\n"
    "                      where there is one, on the CPU elsewhere (default: cpu)\n"
    "  --tokenizer FILE    SentencePiece model that the weights were trained with\n"
    "  --byte-table FILE   or its byte table (default: byte_table.bin beside the weights)\n"
    "  --with-source       include the sources of this program\n"
    "  --record-size       also say how large the record's own file would be (COMPRESSOR; slow)\n"
    "  --json              print one JSON object instead of the table\n"
    "\n"
    "Example: packer pack out/demo/model.quant.safetensors -o submission\n";

struct options {
    struct pack_job job;
    bool json, record_size;
};

static enum err_code parse_codec(int *codec, const char *name, struct err *e)
{
    if (!strcmp(name, "auto")) {
        *codec = CODEC_AUTO;
        return ERR_OK;
    }
    for (int c = CODEC_NONE; c <= CODEC_CM; c++)
        if (!strcmp(name, codec_name((uint32_t)c))) {
            *codec = c;
            return ERR_OK;
        }
    return err_set(e, ERR_USAGE,
                   "--codec %s: unknown, expected auto, cm, range, lzma, zstd or none", name);
}

static enum err_code parse_bytes(size_t *n, const char *text, struct err *e)
{
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno || *end || *text < '0' || *text > '9' || v == 0)
        return err_set(e, ERR_USAGE, "--target-bytes %s: expected a number of bytes", text);
    *n = (size_t)v;
    return ERR_OK;
}

/* One option that has a value. */
static enum err_code set_option(struct options *o, const char *key, const char *value,
                                struct err *e)
{
    if (!strcmp(key, "-o"))
        o->job.out = value;
    else if (!strcmp(key, "--target-bytes"))
        return parse_bytes(&o->job.target_bytes, value, e);
    else if (!strcmp(key, "--codec"))
        return parse_codec(&o->job.codec, value, e);
    else if (!strcmp(key, "--tokenizer"))
        o->job.tokenizer = value;
    else if (!strcmp(key, "--byte-table"))
        o->job.byte_table = value;
    else if (strcmp(value, "cpu") && strcmp(value, "cuda")) /* the only key left is --runner */
        return err_set(e, ERR_USAGE, "--runner %s: unknown, expected cpu or cuda", value);
    else
        o->job.cuda = !strcmp(value, "cuda");
    if (o->job.cuda && !o->job.kernels_n)
        return err_set(e, ERR_USAGE, "--runner cuda: this program was built without nvcc; use cpu");
    return ERR_OK;
}

static enum err_code parse_options(struct options *o, int argc, char **argv, struct err *e)
{
    static const char *const with_value[] = {"-o",       "--target-bytes", "--codec",
                                             "--runner", "--tokenizer",    "--byte-table"};
    for (int i = 0; i < argc; i++) {
        const char *a = argv[i], *key = NULL;
        for (size_t k = 0; k < sizeof with_value / sizeof *with_value; k++)
            if (!strcmp(a, with_value[k]))
                key = a;
        if (key) {
            if (++i == argc)
                return err_set(e, ERR_USAGE, "%s needs a value", key);
            enum err_code rc = set_option(o, key, argv[i], e);
            if (rc)
                return rc;
        } else if (!strcmp(a, "--with-source")) {
            o->job.with_source = true;
        } else if (!strcmp(a, "--json")) {
            o->json = true;
        } else if (!strcmp(a, "--record-size")) {
            o->record_size = true;
        } else if (a[0] == '-' && a[1]) {
            return err_set(e, ERR_USAGE, "unknown option %s (packer pack --help)", a);
        } else if (o->job.weights) {
            return err_set(e, ERR_USAGE, "one weight file at a time: %s and %s", o->job.weights, a);
        } else {
            o->job.weights = a;
        }
    }
    if (!o->job.weights || !o->job.out)
        return err_set(e, ERR_USAGE, "expected: packer pack WEIGHTS.safetensors -o FILE");
    if (o->job.tokenizer && o->job.byte_table)
        return err_set(e, ERR_USAGE, "--tokenizer and --byte-table say the same thing; give one");
    return ERR_OK;
}

/* A number with commas between groups of three digits; out holds 32 characters. */
static const char *commas(char *out, size_t n)
{
    char digits[32];
    int len = snprintf(digits, sizeof digits, "%zu", n);
    char *at = out;
    for (int i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0)
            *at++ = ',';
        *at++ = digits[i];
    }
    *at = 0;
    return out;
}

static void print_table(const struct blob *b, const struct pack_job *job)
{
    char size[32], raw[32];
    printf("%-11s %-6s %12s %12s %8s %7s\n", "section", "codec", "stored", "unpacked", "share",
           "ratio");
    for (size_t i = 0; i < b->count; i++) {
        const struct blob_section *s = &b->section[i];
        printf("%-11s %-6s %12s %12s %7.3f%% %7.3f\n", blob_kind_name(s->kind),
               codec_name(s->codec), commas(size, s->size), commas(raw, s->raw_size),
               100.0 * (double)s->size / (double)b->size, (double)s->size / (double)s->raw_size);
    }
    printf("%-11s %-6s %12s\n", "total", "", commas(size, b->size));
    printf("%-11s %-6s %12s  of the target of %s\n", "left", "",
           commas(size, job->target_bytes - b->size), commas(raw, job->target_bytes));
}

static enum err_code print_json(const struct blob *b, const struct pack_job *job, size_t record,
                                struct err *e)
{
    enum err_code rc = ERR_OK;
    cJSON *root = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(root, "sections");
    cJSON_AddStringToObject(root, "file", job->out);
    cJSON_AddNumberToObject(root, "bytes", (double)b->size);
    cJSON_AddNumberToObject(root, "target_bytes", (double)job->target_bytes);
    if (record)
        cJSON_AddNumberToObject(root, "record_bytes", (double)record);
    for (size_t i = 0; i < b->count; i++) {
        const struct blob_section *s = &b->section[i];
        cJSON *j = cJSON_CreateObject();
        cJSON_AddStringToObject(j, "kind", blob_kind_name(s->kind));
        cJSON_AddStringToObject(j, "codec", codec_name(s->codec));
        cJSON_AddNumberToObject(j, "offset", (double)s->offset);
        cJSON_AddNumberToObject(j, "size", (double)s->size);
        cJSON_AddNumberToObject(j, "unpacked_size", (double)s->raw_size);
        cJSON_AddItemToArray(list, j);
    }
    char *text = cJSON_PrintUnformatted(root);
    if (text)
        puts(text);
    else
        rc = err_nomem(e, "JSON", 0);
    cJSON_free(text);
    cJSON_Delete(root);
    return rc;
}

static enum err_code run_pack(int argc, char **argv, struct err *e)
{
    struct options o = {
        .job = {.target_bytes = CHALLENGE_BYTES,
                .codec = CODEC_AUTO,
                .loader = stub_loader,
                .loader_n = (size_t)(stub_loader_end - stub_loader),
                .runner = stub_runner,
                .runner_n = (size_t)(stub_runner_end - stub_runner),
                .runner_full = stub_runner_full,
                .runner_full_n = (size_t)(stub_runner_full_end - stub_runner_full),
                .runner_any = stub_runner_any,
                .runner_any_n = (size_t)(stub_runner_any_end - stub_runner_any),
                .runner_cuda = stub_runner_cuda,
                .runner_cuda_n = (size_t)(stub_runner_cuda_end - stub_runner_cuda),
                .kernels = stub_cuda,
                .kernels_n = (size_t)(stub_cuda_end - stub_cuda),
                .source = stub_source,
                .source_n = (size_t)(stub_source_end - stub_source)},
    };
    struct blob b;
    enum err_code rc = parse_options(&o, argc, argv, e);
    if (!rc)
        rc = pack(&o.job, &b, e);
    if (rc)
        return rc;
    if (o.job.codec == CODEC_ZSTD)
        fputs("packer: note: the runner cannot decode zstd, this file will not score\n", stderr);
    size_t record = 0;
    if (o.record_size && (rc = export_size(o.job.weights, &record, e)))
        return rc;
    if (o.json)
        return print_json(&b, &o.job, record, e);
    print_table(&b, &o.job);
    if (record)
        printf("as the record packed the weights: %zu bytes\n", record);
    return import_saved_print(stdout, o.job.weights, b.size, e);
}

static const struct {
    const char *name, *help;
    enum err_code (*run)(int argc, char **argv, struct err *e);
} commands[] = {
    {"quantize", help_quantize, cmd_quantize}, {"pack", help_pack, run_pack},
    {"import", help_import, cmd_import},       {"export", help_export, cmd_export},
    {"submit", help_submit, cmd_submit},
};

int main(int argc, char **argv)
{
    struct err e = {0};
    const char *name = argc > 1 ? argv[1] : "";
    if (!strcmp(name, "--help")) {
        fputs(help_all, stdout);
        return ERR_OK;
    }
    if (!strcmp(name, "--version")) {
        puts("packer " VERSION);
        return ERR_OK;
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(name, commands[i].name))
            continue;
        for (int k = 2; k < argc; k++)
            if (!strcmp(argv[k], "--help")) {
                fputs(commands[i].help, stdout);
                return ERR_OK;
            }
        enum err_code rc = commands[i].run(argc - 2, argv + 2, &e);
        if (!rc && (ferror(stdout) || fflush(stdout)))
            rc = err_set(&e, ERR_RESOURCE, "standard output: %s", strerror(errno));
        if (rc)
            fprintf(stderr, "packer: %s\n", e.msg);
        return (int)rc;
    }
    if (*name) {
        const char *known[sizeof commands / sizeof *commands];
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            known[i] = commands[i].name;
        const char *near = near_word(name, known, sizeof known / sizeof *known);
        fprintf(stderr, "packer: unknown command %s%s%s\n", name,
                near ? "; the nearest known one is " : "", near ? near : "");
    }
    fputs(help_all, stderr);
    return ERR_USAGE;
}
