/* cmd_record.c - see commands.h: `packer import` and `packer export`, exchange with records. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "packer/commands.h"
#include "packer/export.h"
#include "packer/import.h"

const char help_import[] =
    "packer import RECORD [--recipe RECIPE] -o WEIGHTS.safetensors [KEY=VALUE]...\n"
    "\n"
    "Reads the packed weights of a record (zlib, gzip, xz, lzma, zstd or brotli around "
    "torch.save,\n"
    "old or new, a pickle of NumPy arrays or an .npz; with or without byte shuffle) and writes "
    "them\n"
    "as quantised weights of this project, integer for integer. Nothing in the file is executed.\n"
    "Without a recipe the model is told from names and shapes; what they do not tell is printed.\n"
    "\n"
    "  --recipe RECIPE     recipe file of the model; KEY=VALUE settings come over it\n"
    "  --code FILE         the record's script: its size counts when bytes are compared\n"
    "  --leave-out PREFIX  tensors whose names begin so are not wanted (mtp_heads.); repeatable\n"
    "  -o FILE             the weights\n"
    "\n"
    "Example: packer import final_model.int6.ptz --recipe recipes/pr1296.conf -o w.safetensors\n";

const char help_export[] =
    "packer export WEIGHTS.safetensors -o RECORD.ptz [option]...\n"
    "\n"
    "Writes quantised weights as the file that the record's own script would have packed; PyTorch\n"
    "reads it. What is not given comes from the recipe in the weights.\n"
    "\n"
    "  -o FILE             the packed file\n"
    "  --compressor NAME   brotli, lzma (xz), zstd or zlib (recipe: COMPRESSOR)\n"
    "  --level N           its level (COMPRESSOR_LEVEL; 0: brotli 11, zstd 22, lzma 6, zlib 9)\n"
    "  --shuffle N         stride of the byte shuffle, 0: none (BYTE_SHUFFLE)\n"
    "\n"
    "Example: packer export out/demo/model.quant.safetensors -o model.int6.ptz --compressor lzma\n";

enum err_code cmd_import(int argc, char **argv, struct err *e)
{
    struct import_job job = {0};
    struct import_report *rep = calloc(1, sizeof *rep);
    const char **list = malloc(((size_t)argc + 1) * sizeof *list);
    const char **leave_out = malloc(((size_t)argc + 1) * sizeof *leave_out);
    enum err_code rc = rep && list && leave_out ? ERR_OK : err_nomem(e, "import", sizeof *rep);
    for (int i = 0; !rc && i < argc; i++) {
        const char *a = argv[i], **value = !strcmp(a, "-o")            ? &job.out
                                           : !strcmp(a, "--recipe")    ? &job.recipe
                                           : !strcmp(a, "--code")      ? &job.code
                                           : !strcmp(a, "--leave-out") ? &leave_out[job.leave_outs]
                                                                       : NULL;
        if (value && i + 1 == argc) {
            rc = err_set(e, ERR_USAGE, "%s needs a value", a);
        } else if (value) {
            *value = argv[++i];
            job.leave_outs += value == &leave_out[job.leave_outs];
        } else if (a[0] == '-' && a[1]) {
            rc = err_set(e, ERR_USAGE, "unknown option %s (packer import --help)", a);
        } else if (job.record && strchr(a, '=')) {
            list[job.settings++] = a;
        } else if (job.record) {
            rc = err_set(e, ERR_USAGE, "one record at a time: %s and %s", job.record, a);
        } else {
            job.record = a;
        }
    }
    if (!rc && (!job.record || !job.out))
        rc = err_set(e, ERR_USAGE,
                     "expected: packer import RECORD [--recipe RECIPE] -o WEIGHTS.safetensors");
    if (!rc) {
        job.setting = list;
        job.leave_out = leave_out;
        rc = import_record(&job, rep, e);
        import_report_print(rep, stdout);
    }
    free(leave_out);
    free(list);
    free(rep);
    return rc;
}

static enum err_code parse_count(int *n, const char *option, const char *text, struct err *e)
{
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (errno || *end || *text < '0' || *text > '9' || v > 255)
        return err_set(e, ERR_USAGE, "%s %s: expected a number", option, text);
    *n = (int)v;
    return ERR_OK;
}

enum err_code cmd_export(int argc, char **argv, struct err *e)
{
    struct export_job job = {.level = -1, .shuffle = -1};
    struct export_report rep;
    enum err_code rc = ERR_OK;
    for (int i = 0; !rc && i < argc; i++) {
        const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : NULL;
        bool option = a[0] == '-' && a[1];
        i += option;
        if (option && strcmp(a, "-o") && strcmp(a, "--compressor") && strcmp(a, "--level") &&
            strcmp(a, "--shuffle"))
            rc = err_set(e, ERR_USAGE, "unknown option %s (packer export --help)", a);
        else if (option && !v)
            rc = err_set(e, ERR_USAGE, "%s needs a value", a);
        else if (!option && job.weights)
            rc = err_set(e, ERR_USAGE, "one weight file at a time: %s and %s", job.weights, a);
        else if (!option)
            job.weights = a;
        else if (!strcmp(a, "-o"))
            job.out = v;
        else if (!strcmp(a, "--compressor"))
            job.compressor = v;
        else
            rc = parse_count(a[2] == 'l' ? &job.level : &job.shuffle, a, v, e);
    }
    if (!rc && (!job.weights || !job.out))
        rc = err_set(e, ERR_USAGE, "expected: packer export WEIGHTS.safetensors -o RECORD.ptz");
    if (!rc)
        rc = export_record(&job, &rep, e);
    if (rc)
        return rc;
    printf("%s: %zu bytes (%s level %d", job.out, rep.file_bytes, ptz_codec_name(rep.how.codec),
           rep.how.level ? rep.how.level : ptz_codec_level(rep.how.codec));
    if (rep.how.shuffle)
        printf(", byte shuffle %u", rep.how.shuffle);
    printf("; payload %zu bytes)\n", rep.payload_bytes);
    return ERR_OK;
}
