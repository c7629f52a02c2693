/*
 * progress.h - one line on stderr that says how far long work is, how fast, and how long it still
 * takes. Redrawn on a terminal; elsewhere a plain line now and then; nothing when switched off.
 */
#ifndef VERIFY_PROGRESS_H
#define VERIFY_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>

struct progress {
    bool on, tty, drawn;
    double start, shown; /* seconds of the monotonic clock */
};

void progress_init(struct progress *p, bool on);

/* progress_show - `done` of `all` steps, and the tokens scored so far. Cheap when it is too early
 * to draw again (5 times a second on a terminal, every 30 s elsewhere). */
void progress_show(struct progress *p, size_t done, size_t all, size_t tokens);

/* progress_end - remove the line; returns the seconds since progress_init. */
double progress_end(struct progress *p);

#endif
