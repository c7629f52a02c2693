/*
 * commands.h - the commands of bin/packer that have a file of their own.
 *
 * Each takes the arguments behind the command's name and returns an exit status; the help text is
 * what `packer COMMAND --help` prints.
 */
#ifndef PACKER_COMMANDS_H
#define PACKER_COMMANDS_H

#include "kernels/err.h"

/* packer quantize - from trained weights to integers and scales, with a table of what that cost. */
extern const char help_quantize[];
enum err_code cmd_quantize(int argc, char **argv, struct err *e);

/* packer import - a record's packed weights as weights of this project; packer export - the other
 * way round. */
extern const char help_import[], help_export[];
enum err_code cmd_import(int argc, char **argv, struct err *e);
enum err_code cmd_export(int argc, char **argv, struct err *e);

/* packer submit - the leaderboard folder of several runs. */
extern const char help_submit[];
enum err_code cmd_submit(int argc, char **argv, struct err *e);

#endif
