/* window.c - the lists of windows over a stream; see score.h. */
#include "model/score.h"

#include <string.h>

static const char *const mode_name[EVAL_MODES] = {"plain", "sliding", "slot", "slot-context",
                                                  "ttt"};

const char *eval_mode_name(enum eval_mode m)
{
    return mode_name[m];
}

enum eval_mode eval_mode_parse(const char *name)
{
    int m = 0;
    while (m < EVAL_MODES && strcmp(name, mode_name[m]))
        m++;
    return (enum eval_mode)m;
}

bool eval_mode_adapts(enum eval_mode m)
{
    return m > EVAL_SLIDING && m < EVAL_MODES;
}

size_t window_count(const struct window_list *l)
{
    size_t beyond = l->len > l->stride ? l->len - l->stride : 0;
    if (l->mode == EVAL_PLAIN)
        return (l->total + l->len - 1) / l->len;
    if (l->mode == EVAL_TTT) /* no window shorter than a stride, but there is always a first */
        return l->total > l->stride ? l->total / l->stride : l->total > 0;
    if (l->old)
        return (l->total + l->stride - 1) / l->stride;
    /* Starts 0, stride, ... with start + (len - stride) < total. */
    return l->total > beyond ? (l->total - beyond + l->stride - 1) / l->stride : 0;
}

struct window window_at(const struct window_list *l, size_t i)
{
    struct window w = {i * (l->mode == EVAL_PLAIN ? l->len : l->stride), l->len, 0};
    if (w.len > l->total - w.start)
        w.len = l->total - w.start;
    if (l->mode == EVAL_PLAIN || !i)
        return w;
    if (l->old || l->mode == EVAL_TTT)
        w.from = w.len > l->stride ? w.len - l->stride : 0;
    else
        w.from = l->len - l->stride;
    return w;
}

size_t window_scored(const struct window_list *l)
{
    size_t n = 0, count = window_count(l);
    for (size_t i = 0; i < count; i++) {
        struct window w = window_at(l, i);
        n += w.len - w.from;
    }
    return n;
}
