/* main.c - bin/verify: is a submission what it says it is? docs/verify.md is the manual. */
#include <stdio.h>

#include "verify/commands.h"

static const char help[] =
    "verify - score weights, audit submissions                          manual: docs/verify.md\n"
    "\n"
    "  verify blob FILE --data DIR [options]      every byte, the score, the claim\n"
    "    --claim FILE.json   compare with val_bpb, val_loss, bytes_total, tokens, bytes, "
    "nll_xxh64\n"
    "    --execute           run the file in a sandbox too and demand the identical bits\n"
    "    --timeout SECONDS   of that run (3600)    --memory MIB   of that run (8192)\n"
    "    --allow-weaker-sandbox   run it even where the kernel lacks seccomp\n"
    "  verify score WEIGHTS.safetensors --data DIR [KEY=VALUE]... [options]\n"
    "    KEY=VALUE           settings over the file's own, as EVAL_STRIDE=128\n"
    "    --byte-table FILE   bytes per token, else byte_table.bin beside the weights\n"
    "  both:\n"
    "    --data DIR          directory with *_val_*.bin, or one shard file\n"
    "    --eval MODE         plain or sliding (the recipe's EVAL_MODE)\n"
    "    --tokenizer FILE    SentencePiece .model, else searched near the data\n"
    "    --max-tokens N      score the first N positions only\n"
    "    --nll OUT.npy       every score as float64, in stream order\n"
    "    --threads N         all cores by default; no bit depends on it\n"
    "    --device cpu        where to score\n"
    "    --json              one JSON object instead of lines    --quiet   fewer lines\n"
    "\n"
    "Exit status: 0 verified or scored, 1 not verified, 2 wrong use, 3 bad input, 4 out of "
    "resources.\n"
    "Environment: KERN_ISA=portable|avx2|avx512; score also reads settings from it.\n"
    "Example: verify blob out/demo/submission --data out/demo/data --execute\n";

/* A verdict belongs on standard output even when the file is too damaged to reach one. */
static enum err_code blob(const struct options *o, struct report *r, struct err *e)
{
    enum err_code rc = verify_blob(o, r, e);
    if (rc == ERR_INPUT || rc == ERR_RESOURCE)
        report_doubt(r, "%s", e->msg);
    if (rc != ERR_USAGE) {
        enum err_code verdict = report_verdict(r);
        return rc ? rc : verdict;
    }
    return rc;
}

static enum err_code run(char **argv, struct err *e)
{
    struct options o = {0};
    struct report r = {0};
    enum err_code rc = options_parse(&o, argv, e);

    if (rc)
        goto out;
    if (o.help) {
        fputs(help, stdout);
        goto out;
    }
    if ((rc = report_init(&r, o.json, o.quiet, e)))
        goto out;
    rc = o.command == COMMAND_BLOB ? blob(&o, &r, e) : verify_score(&o, &r, e);
    if (rc == ERR_OK || o.command == COMMAND_BLOB) {
        enum err_code written = rc == ERR_USAGE ? ERR_OK : report_finish(&r, e);
        rc = rc ? rc : written;
    }
out:
    report_free(&r);
    options_free(&o);
    return rc;
}

int main(int argc, char **argv)
{
    struct err e = {0};
    enum err_code rc = argc > 0 ? run(argv, &e) : ERR_USAGE;
    if (e.msg[0])
        fprintf(stderr, "verify: %s\n", e.msg);
    return (int)rc;
}
