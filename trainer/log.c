/* log.c - see log.h. */
#include "trainer/log.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "model/clock.h"

static const double REDRAW_SECONDS = 0.25;

enum err_code log_open(struct log *l, const char *path, bool append, bool quiet, struct err *e)
{
    *l = (struct log){.console = quiet ? NULL : stdout};
    l->tty = !quiet && isatty(STDERR_FILENO) ? stderr : NULL;
    snprintf(l->path, sizeof l->path, "%s", path);
    l->file = fopen(path, append ? "a" : "w");
    if (!l->file)
        return err_set(e, ERR_RESOURCE, "%s: cannot write: %s", path, strerror(errno));
    return ERR_OK;
}

/* Take the progress line off the screen before something else is printed. */
static void wipe(struct log *l)
{
    if (l->tty && l->drawn) {
        fputs("\r\033[K", l->tty);
        fflush(l->tty);
        l->drawn = false;
    }
}

static void emit(FILE *f, const char *fmt, va_list ap)
{
    vfprintf(f, fmt, ap);
    fputc('\n', f);
    fflush(f);
}

void log_line(struct log *l, const char *fmt, ...)
{
    va_list ap;
    if (l->file) {
        va_start(ap, fmt);
        emit(l->file, fmt, ap);
        va_end(ap);
    }
    if (l->console) {
        wipe(l);
        va_start(ap, fmt);
        emit(l->console, fmt, ap);
        va_end(ap);
    }
}

void log_detail(struct log *l, const char *fmt, ...)
{
    va_list ap;
    if (l->file) {
        va_start(ap, fmt);
        emit(l->file, fmt, ap);
        va_end(ap);
    }
}

bool log_progress_due(const struct log *l)
{
    return l->tty && seconds_now() - l->drawn_at >= REDRAW_SECONDS;
}

void log_progress(struct log *l, const char *fmt, ...)
{
    va_list ap;
    if (!l->tty)
        return;
    fputs("\r\033[K", l->tty);
    va_start(ap, fmt);
    vfprintf(l->tty, fmt, ap);
    va_end(ap);
    fflush(l->tty);
    l->drawn = true;
    l->drawn_at = seconds_now();
}

enum err_code log_close(struct log *l, struct err *e)
{
    enum err_code rc = ERR_OK;
    wipe(l);
    if (l->file) {
        bool bad = ferror(l->file) != 0;
        bad |= fclose(l->file) != 0;
        if (bad)
            rc = err_set(e, ERR_RESOURCE, "%s: lines are missing, the disk may be full", l->path);
    }
    *l = (struct log){0};
    return rc;
}

const char *log_duration(double seconds, char *buf)
{
    unsigned s = seconds > 0 ? (unsigned)(seconds < 1e8 ? seconds + 0.5 : 1e8) : 0;
    if (s < 60)
        snprintf(buf, LOG_DURATION, "%us", s);
    else if (s < 3600)
        snprintf(buf, LOG_DURATION, "%u:%02u", s / 60, s % 60);
    else
        snprintf(buf, LOG_DURATION, "%u:%02u:%02u", s / 3600, s / 60 % 60, s % 60);
    return buf;
}
