/*
 * score.h - from a model and a token stream to bits per byte: windows, and the loop over them.
 *
 * A stream of n tokens has n-1 positions: position p has input tok[p] and target tok[p+1]. The
 * usable total is total = floor((n-1)/len)*len. docs/scoring.md is the manual.
 */
#ifndef MODEL_SCORE_H
#define MODEL_SCORE_H

#include <stdbool.h>

#include "model/bytes.h"
#include "model/gpt.h"

enum eval_mode { EVAL_PLAIN, EVAL_SLIDING, EVAL_MODES };
const char *eval_mode_name(enum eval_mode m);
/* eval_mode_parse - "plain", "sliding"; EVAL_MODES when it is neither. */
enum eval_mode eval_mode_parse(const char *name);

/*
 * Windows of a stream of `total` positions. Window w covers positions [start, start+len) and scores
 * [start+from, start+len).
 *   plain        start = 0, len, 2 len, ...; from = 0
 *   sliding new  start = 0, stride, ... while start + len - stride < total; the first window scores
 *                all, the others the positions from len - stride; each position once
 *                (#1218, #1296, #1260)
 *   sliding old  every start < total; windows at the end get shorter and each scores its last
 *                `stride` positions again (#549, #1263, #1276)
 */
struct window {
    size_t start, len, from;
};
struct window_list {
    enum eval_mode mode;
    bool old;
    size_t total, len, stride;
};
/* window_count - how many windows there are. */
size_t window_count(const struct window_list *l);
/* window_at - window i, i < window_count. */
struct window window_at(const struct window_list *l, size_t i);
/* window_scored - scored tokens over all windows (old lists score some positions more than once).
 */
size_t window_scored(const struct window_list *l);

struct score_opts {
    enum eval_mode mode;
    size_t max_tokens; /* score the first max_tokens positions only; 0: all */
    size_t batch;      /* windows per run, 0: chosen. Never changes a bit. */
    /* Called with the nll of each finished batch in window order; may be NULL. Not ERR_OK stops. */
    enum err_code (*sink)(void *ctx, const double *nll, size_t n, struct err *e);
    /* Called now and then with windows done and in all; may be NULL. */
    void (*progress)(void *ctx, size_t done, size_t all);
    void *ctx;
};

struct score {
    double nll;             /* sum over scored tokens, nats, added in window order */
    uint64_t tokens, bytes; /* scored tokens and the bytes that they stand for */
    double val_loss;        /* nll / tokens */
    double val_bpb;         /* nll / ln 2 / bytes, computed as loss / ln 2 * tokens / bytes */
};

/*
 * score_run - score a stream.
 *
 *   m, params  the model and its parameters (backend memory)
 *   tok, n     the stream (host)
 *   b          byte table with at least the model's vocabulary
 *
 * ERR_INPUT: stream shorter than one window, token >= vocabulary, a score that is not finite (says
 * at which position). ERR_USAGE: stride or window length that make no sense. ERR_RESOURCE: memory.
 */
enum err_code score_run(const struct gpt *m, struct kern *k, const float *params,
                        const uint16_t *tok, size_t n, const struct byte_table *b,
                        const struct score_opts *o, struct score *out, struct err *e);

/* score_windows - the window list that score_run uses for a stream of n tokens. */
enum err_code score_windows(const struct gpt *m, size_t n, const struct score_opts *o,
                            struct window_list *l, struct err *e);

/* score_line - the community's result line, without a newline:
 * "final_sliding val_loss:2.51470000 val_bpb:1.08970000 tokens:N bytes:N time_ms:N"; with `json`
 * the same as {"mode":"sliding","val_loss":...}. */
struct text;
void score_line(struct text *t, const char *mode, const struct score *s, uint64_t time_ms,
                bool json);

#endif
