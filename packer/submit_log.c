/* submit_log.c - see submit_run.h: the lines of train.log that a leaderboard asks for. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "packer/submit_run.h"

enum { LINE = 512 };

/* The number behind `key` in a line; NAN when the key or the number is not there. */
static double number_after(const char *line, const char *key)
{
    const char *at = strstr(line, key);
    char *end;
    if (!at)
        return NAN;
    at += strlen(key);
    double v = strtod(at, &end);
    return end == at ? NAN : v;
}

static bool begins(const char *line, const char *with)
{
    return strncmp(line, with, strlen(with)) == 0;
}

static void take_line(struct submit_run *r, const char *line)
{
    double v;
    char *end;
    if (begins(line, "seed:")) {
        long long seed = strtoll(line + 5, &end, 10);
        r->has_seed = end != line + 5 && !*end;
        r->seed = seed;
    } else if (begins(line, "step:")) {
        v = number_after(line, "step:");
        if (v >= 0 && v < 1e15)
            r->steps = (size_t)v;
        v = number_after(line, "train_time:");
        if (v >= 0)
            r->train_ms = v;
        v = number_after(line, " val_bpb:");
        if (v > 0)
            r->pre_bpb = v; /* of the last step, unless an average is saved */
    } else if (begins(line, "stopping_early:")) {
        v = number_after(line, "train_time:");
        if (v >= 0)
            r->train_ms = v;
    } else if (begins(line, "pre-quantization")) {
        r->pre_bpb = number_after(line, "val_bpb:");
    } else if (begins(line, "final_int") && strstr(line, "_roundtrip_exact ")) {
        r->trip_bpb = number_after(line, "val_bpb:");
    }
}

/* Settings stand under "Hyperparameters:", indented by two; a resumed run prints them again, and
 * the last ones are those of the weights. */
static enum err_code take_recipe(struct submit_run *r, const char *from, const char *to,
                                 const char *path, struct err *e)
{
    char where[SUBMIT_PATH + 32];
    snprintf(where, sizeof where, "%s: Hyperparameters", path);
    recipe_init(&r->recipe);
    enum err_code rc = recipe_parse(&r->recipe, from, (size_t)(to - from), where, true, e);
    if (rc == ERR_USAGE)
        rc = e->code = ERR_INPUT; /* inside a file it is bad input, not wrong use */
    r->has_recipe = !rc;
    return rc;
}

enum err_code submit_log_parse(struct submit_run *r, const char *path, struct err *e)
{
    const char *at = r->log, *end = at + r->log_n, *settings = NULL;
    enum err_code rc = ERR_OK;
    r->train_ms = r->pre_bpb = r->trip_bpb = NAN;
    while (at < end && !rc) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        const char *next = stop ? stop + 1 : end;
        size_t n = (size_t)((stop ? stop : end) - at);
        char line[LINE];
        if (settings && !(n > 2 && !memcmp(at, "  ", 2))) {
            rc = take_recipe(r, settings, at, path, e);
            settings = NULL;
        }
        if (n < sizeof line) { /* no line of ours is longer */
            memcpy(line, at, n);
            line[n] = 0;
            if (!strcmp(line, "Hyperparameters:"))
                settings = next;
            else if (!settings)
                take_line(r, line);
        }
        at = next;
    }
    return !rc && settings ? take_recipe(r, settings, end, path, e) : rc;
}
