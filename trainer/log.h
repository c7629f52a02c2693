/*
 * log.h - train.log, the same lines on the console, and one progress line that is redrawn.
 *
 * The log is the community's format, line by line; tools that read leaderboard logs read it. A
 * progress line appears on stderr when that is a terminal, at most a few times per second, and
 * vanishes before the next log line. With `quiet` the console stays silent and the file is written
 * all the same.
 */
#ifndef TRAINER_LOG_H
#define TRAINER_LOG_H

#include <stdbool.h>
#include <stdio.h>

#include "kernels/err.h"

struct log {
    FILE *file;    /* NULL: no file */
    FILE *console; /* NULL: quiet */
    FILE *tty;     /* NULL: no progress line */
    bool drawn;    /* a progress line is on the screen */
    double drawn_at;
    char path[1024];
};

/* log_open - start a log file, or go on with one (append). ERR_RESOURCE: it cannot be written. */
enum err_code log_open(struct log *l, const char *path, bool append, bool quiet, struct err *e);

/* log_line - one line, given without newline; flushed at once. log_close reports a failed write. */
void log_line(struct log *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* log_detail - a line for the file alone. */
void log_detail(struct log *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* log_progress_due - is it time to redraw? Keeps the caller from formatting in vain. */
bool log_progress_due(const struct log *l);
void log_progress(struct log *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* log_close - close the file; ERR_RESOURCE when any line could not be written. Accepts a zeroed
 * struct. */
enum err_code log_close(struct log *l, struct err *e);

/* log_duration - seconds as "42s", "3:07" or "2:03:07" into buf[LOG_DURATION]; returns buf. */
enum { LOG_DURATION = 32 };
const char *log_duration(double seconds, char *buf);

#endif
