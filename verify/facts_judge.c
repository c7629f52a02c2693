/*
 * facts_judge.c - what the text of a scoring function says about the four conditions of issue #1017
 * (docs/scripts.md tells the reasoning).
 *
 * The order of two things decides most of it: where a function adds to its sums (a score is final)
 * and where it changes something by what it has seen (backward, step). COND_NOT_MET is said only
 * where that order, or the positions that a loss covers, stand in the text.
 */
#include <stdio.h>
#include <string.h>

#include "verify/facts_method.h"

static void say(struct facts_walk *w, struct method_facts *m, int c, enum cond cond, size_t i,
                const char *why)
{
    m->cond[c - 1] = cond;
    m->why_line[c - 1] = i < w->s.count ? facts_line(w, i) : 0;
    snprintf(m->why[c - 1], sizeof m->why[0], "%s", why);
}

/* C1 of the model itself: attention is told to be causal, and nowhere told not to be. */
static size_t causal(const struct facts_walk *w, bool *known)
{
    size_t hit = w->s.count;
    *known = true;
    for (size_t i = 0; i + 2 < w->s.count; i++) {
        bool name = py_is(&w->s, i, "is_causal") || py_is(&w->s, i, "causal");
        if (name && py_is(&w->s, i + 1, "=") && py_is(&w->s, i + 2, "False"))
            *known = false;
        if (hit == w->s.count &&
            ((name && py_is(&w->s, i + 1, "=") && py_is(&w->s, i + 2, "True")) ||
             (py_is(&w->s, i, "triu") && py_is(&w->s, i + 1, "(")) ||
             (py_is(&w->s, i, "tril") && py_is(&w->s, i + 1, "("))))
            hit = i;
    }
    *known = *known && hit < w->s.count;
    return hit;
}

static size_t softmax(const struct facts_walk *w)
{
    for (size_t i = 0; i < w->s.count; i++)
        if (w->s.tok[i].kind == PY_NAME &&
            (py_is(&w->s, i, "cross_entropy") || py_is(&w->s, i, "log_softmax") ||
             py_is(&w->s, i, "CrossEntropyLoss") || facts_has(w, i, "cross_entropy") ||
             facts_has(w, i, "fused_ce") || facts_has(w, i, "FusedCE")))
            return i;
    return w->s.count;
}

/* What holds for every method that scores with a frozen model. */
static void base(struct facts_walk *w, struct method_facts *m, const struct deeds *d)
{
    bool known;
    size_t c = causal(w, &known), p = softmax(w), end = d->f->end;
    if (known)
        say(w, m, 1, COND_MET, c, "attention is causal");
    if (p < w->s.count)
        say(w, m, 2, COND_MET, p, "softmax over the vocabulary");
    bool frozen = m->method == METHOD_PLAIN || m->method == METHOD_SLIDING;
    if (frozen && (facts_mixes(w, d->f, METHOD_NGRAM) || facts_mixes(w, d->f, METHOD_PPM))) {
        say(w, m, 1, COND_UNKNOWN, d->f->name, "counts of what was seen may be mixed in");
        say(w, m, 2, COND_UNKNOWN, d->f->name, "counts of what was seen may be mixed in");
        return;
    }
    if (d->train == end && d->score < end)
        say(w, m, 3, COND_MET, d->guard < end ? d->guard : d->score, "nothing is updated");
    if (m->method == METHOD_PLAIN && d->score < end && d->stride == end)
        say(w, m, 4, COND_MET, d->score, "windows side by side");
    if (m->method == METHOD_SLIDING && d->stride < end)
        say(w, m, 4, COND_MET, d->stride, "each window counts its last tokens only");
}

/* Is the call of f in front of the quantiser in the function that calls both? */
static bool before_quantiser(const struct facts_walk *w, const struct facts_func *f)
{
    static const char *const names[] = {"serialize", "quantize", "quantise", NULL};
    size_t at = facts_reference(w, f, 0);
    const struct facts_func *g = facts_function(w, at);
    if (!g)
        return false;
    for (size_t i = g->body; i < at; i++)
        if (facts_has_any(w, i, names) && py_is(&w->s, i + 1, "(") && facts_called(w, i))
            return false;
    for (size_t i = at; i < g->end; i++)
        if (facts_has_any(w, i, names) && py_is(&w->s, i + 1, "(") && facts_called(w, i) &&
            !facts_has(w, i, "deserialize") && !facts_has(w, i, "dequant"))
            return true;
    return false;
}

/* The score that goes with the training step: in front of it, in the innermost loop around the step
 * that has one. A score in an earlier loop of its own says nothing about the order. */
static size_t paired(const struct facts_walk *w, const struct facts_func *f, size_t train)
{
    size_t best = f->end;
    for (size_t i = f->body; i < train; i++) {
        bool loop = py_is(&w->s, i, "for") || py_is(&w->s, i, "while");
        bool start = w->s.tok[i - 1].kind == PY_NEWLINE || py_is(&w->s, i - 1, ";");
        size_t colon = loop && start ? py_header_colon(&w->s, i) : 0;
        if (!colon || py_body_end(&w->s, colon, w->s.tok[i].indent) < train)
            continue;
        for (size_t k = colon; k < train; k++)
            if (facts_scores_at(w, f, k)) {
                best = k; /* loops come from the outside in */
                break;
            }
    }
    return best;
}

/* Is there a loop over epochs around both places: does each epoch score again what the one before
 * has trained on? 1 yes, 0 no, -1 it depends on a condition. */
static int rescored(const struct facts_walk *w, const struct deeds *d, size_t score)
{
    static const char *const names[] = {"ttt_epochs", "epochs", "num_epochs", "n_epochs", NULL};
    for (size_t i = d->f->body; i < score; i++) {
        size_t colon = py_is(&w->s, i, "for") ? py_header_colon(&w->s, i) : 0;
        bool epochs = false;
        if (!colon || py_body_end(&w->s, colon, w->s.tok[i].indent) < d->train)
            continue;
        for (size_t k = i; k < colon; k++)
            epochs |= facts_has(w, k, "epoch") || py_is(&w->s, k, "ep");
        if (!epochs || facts_number(w, names) == 1)
            continue;
        for (size_t k = colon; k < score; k++) { /* if epoch == last: score */
            size_t c = py_is(&w->s, k, "if") ? py_header_colon(&w->s, k) : 0;
            bool about = false;
            for (size_t j = k; c && j < c; j++)
                about |= facts_has(w, j, "epoch") || py_is(&w->s, j, "ep");
            if (about && c < score && py_body_end(&w->s, c, w->s.tok[k].indent) > score)
                return -1;
        }
        return 1;
    }
    return 0;
}

/* Does the function count bytes, as one does that gives a score and not just a loss to look at? */
static bool counts_bytes(const struct facts_walk *w, const struct facts_func *f)
{
    for (size_t i = f->name; i < f->end; i++)
        if (w->s.tok[i].kind == PY_NAME && (facts_has(w, i, "byte") || facts_has(w, i, "bpb")))
            return true;
    return false;
}

/* A function that trains and scores nothing: does its caller score in front of the call, in a loop
 * around both? *score: where. */
static bool caller_scores(const struct facts_walk *w, const struct facts_func *f, size_t *score)
{
    size_t at = facts_reference(w, f, 0);
    const struct facts_func *g = facts_function(w, at);
    if (!g || !counts_bytes(w, g))
        return false;
    *score = paired(w, g, at);
    return *score < g->end;
}

static void judge_ttt(struct facts_walk *w, struct method_facts *m, const struct deeds *d)
{
    size_t end = d->f->end, score = d->train < end ? paired(w, d->f, d->train) : end;
    bool first = score < end && counts_bytes(w, d->f);
    snprintf(m->form, sizeof m->form, "order not told");
    if (d->train == end) {
        snprintf(m->form, sizeof m->form, "no training found");
        return;
    }
    if (before_quantiser(w, d->f) && (d->val < end || d->score < end)) {
        snprintf(m->form, sizeof m->form, "before quantisation");
        /* a score-first pass may be the one that is reported; then the artifact is not what it
         * scored */
        enum cond c = first ? COND_UNKNOWN : COND_NOT_MET;
        say(w, m, 1, c, d->train, "weights have seen tokens that the artifact scores later");
        say(w, m, 3, c, d->train, "trains on validation tokens in front of the quantiser");
        say(w, m, 4, c, d->train, "scoring the artifact is a second pass over them");
        return;
    }
    if (d->score == end && caller_scores(w, d->f, &score)) {
        snprintf(m->form, sizeof m->form, "score-first");
        say(w, m, 3, COND_MET, score, "sums are added to in front of the call that trains");
        return;
    }
    if (d->score == end ? d->val < end && !facts_evaluates(w, d->f) : d->train < d->score) {
        snprintf(m->form, sizeof m->form, "before scoring");
        say(w, m, 1, COND_NOT_MET, d->train, "weights have seen the tokens that are scored");
        say(w, m, 3, COND_NOT_MET, d->train, "trains in front of the place that scores");
        return;
    }
    if (!first) {
        m->cond[0] = COND_UNKNOWN;
        m->why_line[0] = 0;
        m->why[0][0] = 0;
        return;
    }
    int again = rescored(w, d, score);
    if (again) {
        enum cond c = again > 0 ? COND_NOT_MET : COND_UNKNOWN;
        snprintf(m->form, sizeof m->form, again > 0 ? "scored again each epoch" : "order not told");
        say(w, m, 1, c, score, "epochs go over the same tokens");
        say(w, m, 3, c, score, "a later epoch scores what an earlier one has trained on");
        say(w, m, 4, c, score, "several passes");
        return;
    }
    snprintf(m->form, sizeof m->form, "score-first");
    say(w, m, 3, COND_MET, score, "sums are added to in front of the training step");
    if (d->stride < end)
        say(w, m, 4, COND_MET, d->stride, "each window counts its last tokens only");
}

/* What a subscript that opens at token i takes: everything up to some place (-1), from some place
 * on (1), or neither is told (0). [:, :n] and [:, :-stride] are the first, [i, s:wlen] is the
 * second. */
static int sliced(const struct facts_walk *w, size_t i)
{
    unsigned depth = w->s.tok[i].depth + 1u;
    int found = 0;
    for (size_t k = i + 1; k + 2 < w->s.count && w->s.tok[k].depth >= depth; k++) {
        if (w->s.tok[k].depth != depth || !py_is(&w->s, k, ":"))
            continue;
        bool from = !py_is(&w->s, k - 1, "[") && !py_is(&w->s, k - 1, ",");
        size_t to = k + 1 + py_is(&w->s, k + 1, "-");
        bool upto = py_kind_at(&w->s, to) == PY_NAME;
        if (from)
            return 1;
        found = upto ? -1 : found;
    }
    return found;
}

/* Positions of the loss that a SLOT vector is fitted to: by the slices of a mask that is filled in
 * front of the loop, or by names and slices between the loop's beginning and its backward. */
static void judge_slot(struct facts_walk *w, struct method_facts *m, const struct deeds *d)
{
    static const char *const past[] = {"ctx", "context", "prefix", "past", NULL};
    static const char *const values[] = {"nll", "loss", "logit", "target", "tgt", "ce", NULL};
    size_t end = d->f->end, loop = d->f->body, ctx = end, here = end, all = end;
    bool masked = false;
    snprintf(m->form, sizeof m->form, "positions not told");
    m->cond[0] = COND_UNKNOWN;
    m->why_line[0] = 0;
    m->why[0][0] = 0;
    if (d->train == end)
        return;
    if (d->score < d->train) {
        snprintf(m->form, sizeof m->form, "score-first");
        say(w, m, 3, COND_MET, d->score, "sums are added to in front of the fitting step");
        return;
    }
    for (size_t i = d->f->body; i < d->train; i++)
        if (py_is(&w->s, i, "for") && facts_has(w, i + 3, "range"))
            loop = i;
    for (size_t i = d->f->body; i < d->train; i++) {
        if (w->s.tok[i].kind != PY_NAME)
            continue;
        bool mask = facts_has(w, i, "mask");
        int part = 0;
        if (py_is(&w->s, i + 1, "[") && (mask || (i > loop && facts_has_any(w, i, values))))
            part = sliced(w, i + 1);
        if (part < 0 || (i > loop && facts_has_any(w, i, past)))
            ctx = ctx < end ? ctx : i;
        else if (part > 0)
            here = here < end ? here : i;
        masked |= mask && i > loop;
        if (i > loop && all == end && py_is(&w->s, i, "cross_entropy"))
            all = i;
    }
    if (ctx < end) { /* a vector shared by windows that overlap still leaks (#1240) */
        snprintf(m->form, sizeof m->form, "context-only");
        say(w, m, 1, COND_UNKNOWN, ctx, "fitted to context; shared between windows it leaks");
        say(w, m, 3, COND_UNKNOWN, ctx, "depends on which windows share the vector");
    } else if (here < end || (all < end && !masked)) {
        snprintf(m->form, sizeof m->form, "scored-position");
        say(w, m, 1, COND_NOT_MET, here < end ? here : all,
            "fitted to the positions that it then scores");
        say(w, m, 3, COND_NOT_MET, d->train, "fitted before they are scored");
    }
}

/* A key that hashes the target in, or a probability of the target alone. */
static void judge_ngram(struct facts_walk *w, struct method_facts *m, const struct deeds *d)
{
    static const char *const target[] = {"tgt", "target", NULL};
    static const char *const key[] = {"key", "hash", NULL};
    size_t hit = w->s.count;
    snprintf(m->form, sizeof m->form, "key not told");
    for (size_t i = 0; i + 1 < w->s.count; i++) {
        if (!py_is(&w->s, i, "^") && !py_is(&w->s, i, "bitwise_xor"))
            continue;
        size_t from = facts_statement(w, i), to = i;
        bool has_key = false, has_target = false;
        while (to < w->s.count && w->s.tok[to].kind != PY_NEWLINE)
            to++;
        for (size_t k = from; k < to; k++) {
            has_key |= w->s.tok[k].kind == PY_NAME && facts_has_any(w, k, key);
            has_target |= w->s.tok[k].kind == PY_NAME && facts_has_any(w, k, target);
        }
        if (has_key && has_target) {
            hit = from;
            break;
        }
    }
    m->cond[0] = m->cond[1] = COND_UNKNOWN;
    m->why[0][0] = m->why[1][0] = 0;
    m->why_line[0] = m->why_line[1] = 0;
    if (hit < w->s.count) {
        snprintf(m->form, sizeof m->form, "key with the target");
        say(w, m, 2, COND_NOT_MET, hit, "counts are looked up with the target in the key");
    }
    if (d->score < d->update && d->update < d->f->end)
        say(w, m, 3, COND_MET, d->score, "sums are added to in front of the update");
    else
        say(w, m, 3, COND_UNKNOWN, w->s.count, "");
}

void facts_judge(struct facts_walk *w, struct method_facts *m, const struct deeds *d)
{
    base(w, m, d);
    if (m->method == METHOD_TTT)
        judge_ttt(w, m, d);
    if (m->method == METHOD_SLOT)
        judge_slot(w, m, d);
    if (m->method == METHOD_NGRAM || m->method == METHOD_PPM)
        judge_ngram(w, m, d);
}
