/* options.c - see options.h. */
#include "verify/options.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/near.h"
#include "model/score.h"

enum {
    BLOB = 1 << COMMAND_BLOB,
    SCORE = 1 << COMMAND_SCORE,
    PROBE = 1 << COMMAND_PROBE,
    BOTH = BLOB | SCORE,
    EVERY = BOTH | PROBE,
    RUNS = BLOB | PROBE, /* those that execute the file */
};

/* KEY=VALUE with a key in the community's spelling. */
static bool is_setting(const char *s)
{
    const char *p = s;
    while ((*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || *p == '_')
        p++;
    return p > s && *p == '=';
}

static enum err_code number(size_t *out, const char *name, const char *s, struct err *e)
{
    size_t v = 0;
    for (const char *p = s; *p; p++) {
        size_t digit = (size_t)(*p - '0');
        if (*p < '0' || *p > '9' || v > (SIZE_MAX - digit) / 10)
            return err_set(e, ERR_USAGE, "%s %s: must be a number", name, s);
        v = v * 10 + digit;
    }
    if (!*s)
        return err_set(e, ERR_USAGE, "%s: must be a number", name);
    *out = v;
    return ERR_OK;
}

/* record and unwrap have command lines of their own (commands.h), and never come here. */
static enum err_code unknown(const char *name, struct err *e)
{
    static const char *const commands[] = {"blob", "score", "probe", "record", "unwrap"};
    const char *near = near_word(name, commands, sizeof commands / sizeof *commands);
    if (near)
        return err_set(e, ERR_USAGE, "%s: unknown command; the nearest known one is %s", name,
                       near);
    return err_set(e, ERR_USAGE,
                   "%s: unknown command; there are blob, score, probe, record and unwrap", name);
}

static enum err_code command(struct options *o, const char *name, struct err *e)
{
    if (!name)
        return err_set(e, ERR_USAGE,
                       "say what to do: blob, score, probe, record or unwrap; --help shows how");
    if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help"))
        o->help = true;
    else if (!strcmp(name, "blob"))
        o->command = COMMAND_BLOB;
    else if (!strcmp(name, "score"))
        o->command = COMMAND_SCORE;
    else if (!strcmp(name, "probe"))
        o->command = COMMAND_PROBE;
    else
        return unknown(name, e);
    return ERR_OK;
}

static enum err_code positional(struct options *o, const char *s, struct err *e)
{
    if (is_setting(s)) {
        if (o->command == COMMAND_BLOB)
            return err_set(e, ERR_USAGE,
                           "%s: a submission brings its own settings; score and probe take "
                           "KEY=VALUE",
                           s);
        o->setting[o->settings++] = s;
        return ERR_OK;
    }
    if (o->file)
        return err_set(e, ERR_USAGE, "%s: one file at a time, %s is the first", s, o->file);
    o->file = s;
    return ERR_OK;
}

static enum err_code finish(const struct options *o, struct err *e)
{
    static const char *const which[COMMANDS] = {
        [COMMAND_BLOB] = "say which file: verify blob FILE --data DIR",
        [COMMAND_SCORE] = "say which weights: verify score WEIGHTS.safetensors --data DIR",
        [COMMAND_PROBE] = "say which file: verify probe FILE --data DIR",
    };
    bool runs = o->execute || o->command == COMMAND_PROBE;
    if (!o->file)
        return err_set(e, ERR_USAGE, "%s", which[o->command]);
    if (!o->data)
        return err_set(e, ERR_USAGE, "say --data DIR: a directory with *_val_*.bin, or one shard");
    if (o->eval && o->command != COMMAND_PROBE && eval_mode_parse(o->eval) == EVAL_MODES)
        return err_set(e, ERR_USAGE, "--eval %s: must be " EVAL_MODE_NAMES, o->eval);
    if (o->tokenizer && o->byte_table)
        return err_set(e, ERR_USAGE, "--tokenizer and --byte-table exclude each other");
    if (!o->report && (o->log || o->quant_log || o->weights || o->code_map))
        return err_set(e, ERR_USAGE,
                       "--log, --quant-log, --float and --code-map are for --report OUT.html");
    if (o->weaker && !runs)
        return err_set(e, ERR_USAGE, "--allow-weaker-sandbox is nothing without --execute");
    bool cuda = o->device && !strcmp(o->device, "cuda");
    if (o->device && !cuda && strcmp(o->device, "cpu"))
        return err_set(e, ERR_USAGE, "--device %s: must be cpu or cuda", o->device);
    if (cuda && o->command != COMMAND_SCORE)
        return err_set(e, ERR_USAGE,
                       "--device cuda: a file is verified by the bits of its scores, which the cpu "
                       "defines; verify score takes it");
    if (!o->timeout && runs)
        return err_set(e, ERR_USAGE, "--timeout 0: must be at least 1 second");
    return ERR_OK;
}

enum err_code options_parse(struct options *o, char **argv, struct err *e)
{
    /* An hour, and 8 GiB of address space: a sandbox for any machine that can score at all. */
    *o = (struct options){
        .timeout = 3600, .memory = 8192, .seed = 1, .flips = 4, .positions = 8, .budget = 240};
    const struct {
        const char *name;
        int commands;
        const char **str;
        size_t *num;
        bool *flag;
    } opt[] = {
        {"--data", EVERY, &o->data, NULL, NULL},
        {"--eval", EVERY, &o->eval, NULL, NULL},
        {"--nll", BOTH, &o->nll, NULL, NULL},
        {"--max-tokens", EVERY, NULL, &o->max_tokens, NULL},
        {"--threads", EVERY, NULL, &o->threads, NULL},
        {"--device", BOTH, &o->device, NULL, NULL},
        {"--tokenizer", EVERY, &o->tokenizer, NULL, NULL},
        {"--byte-table", SCORE, &o->byte_table, NULL, NULL},
        {"--json", EVERY, NULL, NULL, &o->json},
        {"--quiet", EVERY, NULL, NULL, &o->quiet},
        {"--claim", BLOB, &o->claim, NULL, NULL},
        {"--report", BLOB, &o->report, NULL, NULL},
        {"--log", BLOB, &o->log, NULL, NULL},
        {"--quant-log", BLOB, &o->quant_log, NULL, NULL},
        {"--float", BLOB, &o->weights, NULL, NULL},
        {"--code-map", BLOB, &o->code_map, NULL, NULL},
        {"--execute", BLOB, NULL, NULL, &o->execute},
        {"--timeout", RUNS, NULL, &o->timeout, NULL},
        {"--memory", RUNS, NULL, &o->memory, NULL},
        {"--allow-weaker-sandbox", RUNS, NULL, NULL, &o->weaker},
        {"--seed", PROBE, NULL, &o->seed, NULL},
        {"--flips", PROBE, NULL, &o->flips, NULL},
        {"--positions", PROBE, NULL, &o->positions, NULL},
        {"--budget", PROBE, NULL, &o->budget, NULL},
    };
    const size_t opts = sizeof opt / sizeof *opt;
    size_t args = 0;
    enum err_code rc = command(o, argv[0] ? argv[1] : NULL, e);
    if (rc || o->help)
        return rc;

    while (argv[args])
        args++;
    o->setting = calloc(args, sizeof *o->setting);
    if (!o->setting)
        return err_nomem(e, "the command line", args * sizeof *o->setting);
    for (char **a = argv + 2; *a; a++) {
        size_t i = 0;
        if (!strcmp(*a, "--help") || !strcmp(*a, "-h")) {
            o->help = true;
            return ERR_OK;
        }
        if (**a != '-') {
            if ((rc = positional(o, *a, e)))
                return rc;
            continue;
        }
        while (i < opts && strcmp(*a, opt[i].name))
            i++;
        if (i == opts)
            return err_set(e, ERR_USAGE, "%s: unknown option; --help lists them", *a);
        if (!(opt[i].commands & 1 << o->command))
            return err_set(e, ERR_USAGE, "%s: not an option of verify %s", *a, argv[1]);
        if (opt[i].flag) {
            *opt[i].flag = true;
            continue;
        }
        if (!*++a)
            return err_set(e, ERR_USAGE, "%s: needs a value", a[-1]);
        if (opt[i].str)
            *opt[i].str = *a;
        else if ((rc = number(opt[i].num, a[-1], *a, e)))
            return rc;
    }
    return finish(o, e);
}

void options_free(struct options *o)
{
    free(o->setting);
    o->setting = NULL;
}
