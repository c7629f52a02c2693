/* main.c - bin/verify: is a submission what it says it is? docs/verify.md is the manual. */
#include <stdio.h>
#include <string.h>

#include "model/version.h"
#include "verify/commands.h"
#include "verify/html_page.h"

static const char help[] =
    "verify - score weights, audit submissions                          manual: docs/verify.md\n"
    "\n"
    "  verify blob FILE --data DIR [options]      every byte, the score, the claim\n"
    "    --claim FILE.json   compare with val_bpb, val_loss, bytes_total, tokens, bytes, "
    "nll_xxh64\n"
    "    --execute           run the file in a sandbox too and demand the identical bits\n"
    "    --timeout SECONDS   of that run (3600)    --memory MIB   of that run (8192)\n"
    "    --allow-weaker-sandbox   run it even where the kernel lacks seccomp\n"
    "    --report OUT.html   all of it as a page with pictures; --log, --quant-log, --float FILE:\n"
    "                        training log, quantiser's table, float weights (found beside FILE);\n"
    "                        --code-map FILE: functions of the runner\n"
    "  verify score WEIGHTS.safetensors --data DIR [KEY=VALUE]... [options]\n"
    "    KEY=VALUE           settings over the file's own, as EVAL_STRIDE=128\n"
    "    --byte-table FILE   bytes per token, else byte_table.bin beside the weights\n"
    "  verify probe FILE --data DIR [options]     does a score depend on its own future?\n"
    "    verify probe --help lists its options\n"
    "  verify unwrap FILE.py [-o OUT.py]          a self-extracting script, without running it\n"
    "    verify unwrap --help lists its options\n"
    "  verify record FOLDER [--sota BPB] [--json]  what a leaderboard folder claims and shows\n"
    "    verify record --help lists its options; a tree of folders gives a table\n"
    "  blob and score:\n"
    "    --data DIR          directory with *_val_*.bin, or one shard file\n"
    "    --eval MODE         plain, sliding, slot, slot-context or ttt (the recipe's EVAL_MODE)\n"
    "    --tokenizer FILE    SentencePiece .model, else searched near the data\n"
    "    --max-tokens N      score the first N positions only\n"
    "    --nll OUT.npy       every score as float64, in stream order\n"
    "    --threads N         all cores by default; no bit depends on it\n"
    "    --device cpu        where to score; score also takes cuda\n"
    "    --json              one JSON object instead of lines    --quiet   fewer lines\n"
    "\n"
    "Exit status: 0 verified or scored, 1 not verified, 2 wrong use, 3 bad input, 4 out of "
    "resources.\n"
    "Environment: KERN_ISA=portable|avx2|avx512; score also reads settings from it.\n"
    "Example: verify blob out/demo/submission --data out/demo/data --execute\n";

static const char help_probe[] =
    "verify probe FILE --data DIR [options]                     manual: docs/scoring.md\n"
    "\n"
    "Runs FILE in a sandbox on changed streams. Does the score of a token depend on later tokens,\n"
    "are its probabilities a distribution, is each token scored once?\n"
    "\n"
    "  --data DIR          directory with *_val_*.bin, or one shard file\n"
    "  --eval MODE,...     modes to probe, or all (the file's own mode, and sliding)\n"
    "  --seed N            of the places and changes (1): the same seed, the same probe\n"
    "  --max-tokens N      positions of the flip test (4096; two windows where they are longer;\n"
    "                      in ttt a chunk more)\n"
    "  --flips N           streams with changes, of each of the two forms (4)\n"
    "  --positions N       places where the sum over all tokens is taken (8), 0: none\n"
    "  --budget SECONDS    for these sums, in each mode (240)\n"
    "  --tokenizer FILE    SentencePiece .model, else searched near the data\n"
    "  --threads N         all cores by default\n"
    "  --timeout SECONDS   of one run (3600)    --memory MIB   of one run (8192)\n"
    "  --allow-weaker-sandbox   run it even where the kernel lacks seccomp\n"
    "  --json              one JSON object instead of lines    --quiet   only the verdicts\n"
    "  KEY=VALUE           for a FILE in another format: VOCAB_SIZE, TRAIN_SEQ_LEN, EVAL_STRIDE,\n"
    "                      EVAL_WINDOWS, EVAL_MODE as it scores\n"
    "\n"
    "Exit status: 0 every mode is causal and normalised, 1 not, 2 wrong use, 3 bad input,\n"
    "4 out of resources.\n"
    "Example: verify probe out/demo/submission --data out/demo/data --eval plain,sliding\n";

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

/* blob and score: what other ranks than the first have to say is gathered as JSON and forgotten. */
static enum err_code run(const struct options *o, struct peers *peers, struct err *e)
{
    bool first = peers_first(peers);
    struct report r = {0};
    enum err_code rc, written;

    if (!(rc = report_init(&r, o->json || !first, o->quiet, e)) && o->report && first)
        rc = page_open(&r.page, o, e);
    if ((rc = peers_agree(peers, rc, NULL, NULL, 0, e)))
        goto out;
    r.peers = peers;
    rc = o->command == COMMAND_BLOB    ? blob(o, &r, e)
         : o->command == COMMAND_PROBE ? verify_probe(o, &r, e)
                                       : verify_score(o, &r, e);
    if (first && (rc == ERR_OK || rc == ERR_CLAIM || o->command == COMMAND_BLOB)) {
        written = rc == ERR_USAGE ? ERR_OK : report_finish(&r, e);
        rc = rc ? rc : written;
        if (r.page && rc != ERR_USAGE && (written = page_write(r.page, r.root, e)))
            rc = written;
    }
out:
    page_free(r.page);
    report_free(&r);
    return rc;
}

static void complain(const struct peers *peers, struct err *e)
{
    if (!e->msg[0] || !peers_speaks(peers))
        return;
    if (peers && peers->apart && peers->comm.size > 1)
        fprintf(stderr, "verify: rank %zu: %s\n", peers->comm.rank, report_clean(e->msg));
    else
        fprintf(stderr, "verify: %s\n", report_clean(e->msg));
}

/* Commands that are not shared out: of several processes rank 0 works, and says so; the others
 * leave, which is no failure. */
static enum err_code leave_to_first(bool *leave, const char *command, struct err *e)
{
    static const char *const alone[] = {"probe", "record", "unwrap"};
    for (size_t i = 0; command && i < sizeof alone / sizeof *alone; i++) {
        size_t rank, size;
        enum err_code rc;
        if (strcmp(command, alone[i]))
            continue;
        rc = comm_place(&rank, &size, e);
        *leave = rank > 0;
        if (!rc && !rank && size > 1)
            fprintf(stderr,
                    "verify: %s is one process's work: rank 0 does it, the other %zu leave\n",
                    command, size - 1);
        return rc;
    }
    return ERR_OK;
}

static enum err_code command(char **argv)
{
    struct options o = {0};
    struct peers peers = {0};
    struct err e = {0};
    bool leave = false;
    enum err_code rc;

    if ((rc = leave_to_first(&leave, argv[1], &e)) || leave) {
        complain(NULL, &e);
        return rc;
    }
    if (argv[1] && !strcmp(argv[1], "--version"))
        rc = puts("verify " VERSION) < 0 ? ERR_RESOURCE : ERR_OK;
    else if (argv[1] && !strcmp(argv[1], "unwrap"))
        rc = verify_unwrap(argv + 2, &e);
    else if (argv[1] && !strcmp(argv[1], "record"))
        rc = verify_record(argv + 2, &e);
    else if (!(rc = options_parse(&o, argv, &e)) && o.help)
        fputs(o.command == COMMAND_PROBE ? help_probe : help, stdout);
    else if (!rc && o.command == COMMAND_PROBE)
        rc = run(&o, NULL, &e);
    else if (!rc && !(rc = peers_open(&peers, &e)))
        rc = run(&o, &peers, &e);
    complain(&peers, &e);
    peers_close(&peers, rc);
    options_free(&o);
    return rc;
}

int main(int argc, char **argv)
{
    return argc > 0 ? (int)command(argv) : ERR_USAGE;
}
