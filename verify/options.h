/*
 * options.h - the command line of bin/verify.
 */
#ifndef VERIFY_OPTIONS_H
#define VERIFY_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/err.h"

enum command { COMMAND_NONE, COMMAND_BLOB, COMMAND_SCORE, COMMAND_PROBE, COMMANDS };

struct options {
    enum command command;
    const char *file;
    const char *data, *eval, *nll, *claim, *tokenizer, *byte_table, *device;
    const char *report, *log, *quant_log, *weights, *code_map; /* the page; what it may also show */
    size_t max_tokens, threads, timeout, memory;
    size_t seed, flips, positions, budget; /* of a probe */
    bool json, quiet, execute, weaker, help;
    const char **setting; /* KEY=VALUE arguments, in order; owned */
    size_t settings;
};

/*
 * options_parse - fill o from argv (NULL-terminated, argv[1] is the command).
 *
 * An argument KEY=VALUE, KEY in capitals, is a setting; the first other argument is the file.
 * Options that belong to the other command, repeated files and missing values are ERR_USAGE.
 * `--help` anywhere sets help and stops. Strings stay in argv.
 */
enum err_code options_parse(struct options *o, char **argv, struct err *e);
void options_free(struct options *o);

#endif
