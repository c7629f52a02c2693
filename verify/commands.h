/*
 * commands.h - what bin/verify does, one function per command.
 *
 * Each fills the report and returns an exit status; ERR_CLAIM is the verdict "not verified", for
 * which e stays empty.
 */
#ifndef VERIFY_COMMANDS_H
#define VERIFY_COMMANDS_H

#include "verify/options.h"
#include "verify/report.h"

/* verify_score - score a weight file (float or quantised). */
enum err_code verify_score(const struct options *o, struct report *r, struct err *e);

/* verify_blob - audit a submission: every byte, the score, and on request its execution. */
enum err_code verify_blob(const struct options *o, struct report *r, struct err *e);

/* verify_probe - run a submission on changed streams: does a score depend on its own future? */
enum err_code verify_probe(const struct options *o, struct report *r, struct err *e);

/* verify_unwrap - take a self-extracting script apart and tell what its source says. argv is what
 * follows `unwrap` on the command line; the command prints its own report. */
enum err_code verify_unwrap(char **argv, struct err *e);

/* verify_record - audit leaderboard folders. argv is what follows `record` on the command line; the
 * command prints its own report. */
enum err_code verify_record(char **argv, struct err *e);

#endif
