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

enum eval_mode {
    EVAL_PLAIN,
    EVAL_SLIDING,
    EVAL_SLOT,         /* delta and logit bias per window, fitted to what is scored (#1263) */
    EVAL_SLOT_CONTEXT, /* delta fitted to the tokens before (#1276, or strictly causal) */
    EVAL_TTT,          /* weights trained on what has been scored (#461, #549) */
    EVAL_MODES
};
/* For messages about a mode that does not exist. */
#define EVAL_MODE_NAMES "plain, sliding, slot, slot-context or ttt"
const char *eval_mode_name(enum eval_mode m);
/* eval_mode_parse - the mode of a name; EVAL_MODES when there is none. */
enum eval_mode eval_mode_parse(const char *name);
/* eval_mode_adapts - does the mode fit something to the stream? Then the value of record is the
 * sliding one, and the mode's own stands beside it. */
bool eval_mode_adapts(enum eval_mode m);
/* eval_mode_trains - does the mode, with the settings of r, train the weights? Scoring then needs
 * gradients. */
bool eval_mode_trains(const struct recipe *r, enum eval_mode mode);

/*
 * Windows of a stream of `total` positions. Window w covers positions [start, start+len) and scores
 * [start+from, start+len).
 *   plain        start = 0, len, 2 len, ...; from = 0
 *   sliding new  start = 0, stride, ... while start + len - stride < total; the first window scores
 *                all, the others the positions from len - stride; each position once
 *                (#1218, #1296, #1260)
 *   sliding old  every start < total; windows at the end get shorter and each scores its last
 *                `stride` positions again (#549, #1263, #1276)
 *   slot, slot-context   as sliding
 *   ttt          as sliding old, without windows shorter than `stride`, whatever `old` says
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

struct score {
    double nll;             /* sum over scored tokens, nats, added in window order */
    uint64_t tokens, bytes; /* scored tokens and the bytes that they stand for */
    double val_loss;        /* nll / tokens */
    double val_bpb;         /* nll / ln 2 / bytes, computed as loss / ln 2 * tokens / bytes */
};

/*
 * Several processes that score one stream together. Each of them calls score_run with the same
 * arguments but its own rank; each computes a part of the windows, and all get all scores, in
 * window order: the same result, and the same calls of sink, as when one process does everything.
 *
 * What is fitted to the stream: SLOT's deltas belong to windows and are shared out with them. Of
 * the training of TTT, which is one chain of steps, the rows of each step are shared out where
 * there is `swap`; without, every rank takes all steps.
 */
struct score_part { /* bytes of the backend's memory, to or from another rank */
    size_t peer;
    bool send;
    void *at;
    size_t bytes;
};
struct score_share {
    size_t rank, ranks; /* ranks is at least 1 */
    /* all[r * bytes ...] = what rank r gave as mine, on every rank. An error ends the scoring. */
    enum err_code (*gather)(void *ctx, void *all, const void *mine, size_t bytes, struct err *e);
    /* Send and receive all parts, behind what the backend has queued, and wait. Parts between two
     * ranks match in their order. An error ends the scoring. May be NULL. */
    enum err_code (*swap)(void *ctx, const struct score_part *part, size_t n, struct err *e);
    void *ctx;
};

struct score_opts {
    enum eval_mode mode;
    size_t max_tokens; /* score the first max_tokens positions only; 0: all */
    size_t batch;      /* windows per run, 0: chosen. On the CPU it never changes a bit. */
    size_t cache; /* bytes that SLOT may keep of a batch's logits, 0: 1 GiB, an eighth of a card's
                     memory. Likewise. */
    /* Where the sliding score goes when the mode adapts (zeros otherwise); may be NULL. */
    struct score *record;
    /* Called with the nll of each finished batch in window order; may be NULL. Not ERR_OK stops. */
    enum err_code (*sink)(void *ctx, const double *nll, size_t n, struct err *e);
    /* Called now and then with windows (and sequences of training) done and in all; may be NULL. */
    void (*progress)(void *ctx, size_t done, size_t all);
    void *ctx;
    const struct score_share *share; /* NULL: this process does it all */
};

/*
 * score_run - score a stream. Modes that adapt work on copies: params are never changed.
 *
 *   m, params  the model and its parameters (backend memory)
 *   tok, n     the stream (host)
 *   b          byte table with at least the model's vocabulary
 *
 * ERR_INPUT: stream shorter than one window, token >= vocabulary, a score that is not finite (says
 * at which position). ERR_USAGE: settings of windows, SLOT or TTT that make no sense. ERR_RESOURCE:
 * memory. With o->share an error of one rank while windows are scored, the sink's included, is
 * returned by all ranks, its message behind "rank N: ".
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

/* The four conditions that a score must meet to be one (issue #1017; docs/scoring.md): causal,
 * normalised, score-before-update, single-pass. */
enum { SCORE_CONDITIONS = 4 };
const char *score_condition_name(size_t i);
void score_conditions(const struct recipe *r, enum eval_mode mode, bool met[SCORE_CONDITIONS]);

/*
 * score_report - all that a run has to say, without a newline at the end: the result line, and when
 * the mode adapts, the sliding line before it and its conditions behind it:
 *
 *   final_sliding val_loss:... time_ms:N
 *   final_slot val_loss:... time_ms:N
 *   conditions slot: 1 causal:no 2 normalised:yes 3 score-before-update:no 4 single-pass:yes
 *
 * With `json` one object: that of score_line, then "record" (the sliding one) and "conditions". The
 * times are that of the whole run. record may be NULL when the mode does not adapt.
 */
void score_report(struct text *t, const struct recipe *r, enum eval_mode mode,
                  const struct score *s, const struct score *record, uint64_t time_ms, bool json);

#endif
