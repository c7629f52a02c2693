/* progress.c - see progress.h. */
#include "verify/progress.h"

#include <stdio.h>
#include <unistd.h>

#include "model/clock.h"

void progress_init(struct progress *p, bool on)
{
    double t = seconds_now();
    *p = (struct progress){.on = on, .tty = isatty(STDERR_FILENO) == 1, .start = t, .shown = t};
}

void progress_show(struct progress *p, size_t done, size_t all, size_t tokens)
{
    double t = seconds_now(), ran = t - p->start;
    if (!p->on || !done || t - p->shown < (p->tty ? 0.2 : 30.0))
        return;
    p->shown = t;
    p->drawn = true;
    unsigned left = (unsigned)(ran * (double)(all - done) / (double)done + 0.5);
    fprintf(stderr, "%sscoring: %zu/%zu windows (%.1f%%), %.0f tokens/s, %u:%02u:%02u left%s",
            p->tty ? "\r" : "", done, all, 100.0 * (double)done / (double)all, (double)tokens / ran,
            left / 3600, left / 60 % 60, left % 60, p->tty ? "\033[K" : "\n");
}

double progress_end(struct progress *p)
{
    if (p->drawn && p->tty)
        fprintf(stderr, "\r\033[K");
    p->drawn = false;
    return seconds_now() - p->start;
}
