/*
 * facts_method.c - how the script scores: which of its functions stand for which method, and
 * whether they are used.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "verify/facts_method.h"

static const char *const keys[METHODS][5] = {
    {NULL},
    {"slid", "stride", NULL},
    {"ttt", "test_time_train", NULL},
    {"slot", "etlb", NULL},
    {"ngram", "n_gram", NULL},
    {"ppm", NULL},
};

/* Does the statement from token i on add a loss in double precision, or as a number? Sums of a
 * record do; a loss that is still to be differentiated does not. */
static bool precise(const struct facts_walk *w, size_t i)
{
    bool loss = false, out = false;
    for (; i < w->s.count && w->s.tok[i].kind != PY_NEWLINE && !py_is(&w->s, i, ";"); i++) {
        loss |=
            facts_has(w, i, "cross_entropy") || facts_has(w, i, "nll") || facts_has(w, i, "loss");
        out |= py_is(&w->s, i, "float64") || py_is(&w->s, i, "item") || py_is(&w->s, i, "double");
    }
    return loss && out;
}

static bool summed(const struct facts_walk *w, size_t i)
{
    static const char *const sums[] = {"loss_sum",  "nll_sum",     "bits_sum",    "bpb_sum",
                                       "byte_sum",  "byte_count",  "token_count", "total_loss",
                                       "total_nll", "total_bytes", "total_bits",  "losses",
                                       "nlls",      "doc_loss",    NULL};
    static const char *const calls[] = {"accumulate", "score", NULL};
    static const char *const learned[] = {"train", "epoch", "step", NULL};
    size_t op = i + 1;
    if (w->s.tok[i].kind != PY_NAME)
        return false;
    if (py_is(&w->s, op, "[")) /* doc_loss[b] += ... */
        for (op++; op < w->s.count && w->s.tok[op].depth > w->s.tok[i].depth; op++)
            ;
    op += py_is(&w->s, op, "]");
    if (facts_has_any(w, i, sums))
        return py_is(&w->s, op, "+=") ||
               (py_is(&w->s, i + 1, ".") &&
                (py_is(&w->s, i + 2, "add_") || py_is(&w->s, i + 2, "append") ||
                 py_is(&w->s, i + 2, "extend")));
    if (py_is(&w->s, op, "+=")) /* under any name, where it is taken out of the graph */
        return !facts_has_any(w, i, learned) && precise(w, i);
    return facts_has_any(w, i, calls) && py_is(&w->s, i + 1, "(") && facts_called(w, i);
}

static bool trains(const struct facts_walk *w, size_t i)
{
    static const char *const others[] = {"sched", "prof", "scaler", NULL};
    if (!py_is(&w->s, i + 1, "(") || !i || !py_is(&w->s, i - 1, "."))
        return false;
    if (py_is(&w->s, i, "backward") || py_is(&w->s, i, "grad"))
        return py_is(&w->s, i, "backward") || facts_has(w, i - 2, "autograd");
    return py_is(&w->s, i, "step") && i >= 2 && !facts_has_any(w, i - 2, others);
}

/* - stride, or - h.eval_stride. */
static bool subtracted(const struct facts_walk *w, size_t i)
{
    while (i >= 2 && py_is(&w->s, i - 1, ".") && w->s.tok[i - 2].kind == PY_NAME)
        i -= 2;
    return i && py_is(&w->s, i - 1, "-");
}

/* The function of the script that f calls at token i, not one that is defined inside of it. */
static const struct facts_func *helper(const struct facts_walk *w, const struct facts_func *f,
                                       size_t i)
{
    const struct facts_func *g = py_is(&w->s, i + 1, "(") ? facts_called(w, i) : NULL;
    return g && g->body != f->body && !(g->body >= f->body && g->end <= f->end) ? g : NULL;
}

struct deeds facts_deeds(const struct facts_walk *w, const struct facts_func *f, unsigned deep)
{
    struct deeds d = {f, f->end, f->end, f->end, f->end, f->end, f->end};
    for (size_t i = f->body; i + 1 < f->end; i++) {
        if (w->s.tok[i].kind != PY_NAME)
            continue;
        if (d.score == f->end && summed(w, i))
            d.score = i;
        if (d.train == f->end && trains(w, i))
            d.train = i;
        if (d.guard == f->end && (py_is(&w->s, i, "no_grad") || py_is(&w->s, i, "inference_mode")))
            d.guard = i;
        if (d.stride == f->end && facts_has(w, i, "stride") && subtracted(w, i))
            d.stride = i;
        if (d.val == f->end && facts_has(w, i, "val_") && !facts_has(w, i, "eval"))
            d.val = i;
        if (d.update == f->end && py_is(&w->s, i + 1, "(") &&
            (facts_has(w, i, "update") || py_is(&w->s, i, "scatter_add_") ||
             py_is(&w->s, i, "index_add_")))
            d.update = i;
        const struct facts_func *g = deep ? helper(w, f, i) : NULL;
        if (g) { /* a helper's deeds are done where it is called */
            struct deeds h = facts_deeds(w, g, deep - 1);
            if (d.train == f->end && h.train < g->end)
                d.train = i;
            if (d.score == f->end && h.score < g->end && h.train == g->end)
                d.score = i;
            if (d.stride == f->end && h.stride < g->end)
                d.stride = i;
            if (d.guard == f->end && h.guard < g->end && h.score < g->end)
                d.guard = i;
        }
    }
    return d;
}

bool facts_scores_at(const struct facts_walk *w, const struct facts_func *f, size_t i)
{
    if (w->s.tok[i].kind != PY_NAME)
        return false;
    if (summed(w, i))
        return true;
    const struct facts_func *g = helper(w, f, i);
    if (!g)
        return false;
    struct deeds h = facts_deeds(w, g, 1);
    return h.score < g->end && h.train == g->end;
}

bool facts_evaluates(const struct facts_walk *w, const struct facts_func *f)
{
    static const char *const names[] = {"eval", "valid", "score", NULL};
    return facts_has_any(w, f->name, names) && !facts_has(w, f->name, "timed");
}

/* ---- is it used ---- */

size_t facts_reference(const struct facts_walk *w, const struct facts_func *f, size_t i)
{
    for (i = i ? i : 1; i < w->s.count; i++)
        if (w->s.tok[i].kind == PY_NAME && !(i >= f->name && i < f->end) &&
            !py_is(&w->s, i - 1, "def") && facts_same(w, i, f->name))
            return i;
    return w->s.count;
}

/* The value of the switch that the condition in tokens [from, to) asks for, -1 when it is not one.
 */
static int condition(const struct facts_walk *w, size_t from, size_t to)
{
    int all = -1;
    for (size_t i = from; i < to; i++) {
        char name[48];
        if (py_is(&w->s, i, "not") || py_is(&w->s, i, "or") || py_is(&w->s, i, "=="))
            return -1;
        if (w->s.tok[i].kind != PY_NAME || py_is(&w->s, i + 1, ".") || py_keyword(&w->s, i))
            continue;
        snprintf(name, sizeof name, "%.*s", (int)w->s.tok[i].len, w->s.text + w->s.tok[i].at);
        const struct env_fact *x = script_env(w->f, name);
        int on = x ? facts_truth(x->value) : -1;
        if (on == 0)
            return 0;
        all = on == 1 ? 1 : all;
    }
    return all;
}

/* Walk out of the ifs around token i. */
static enum used around(const struct facts_walk *w, size_t i)
{
    size_t first = facts_statement(w, i);
    unsigned indent = w->s.tok[i].indent;
    enum used u = USED_YES;
    for (;;) {
        bool test = py_is(&w->s, first, "if");
        if (test || py_is(&w->s, first, "elif")) {
            size_t colon = py_header_colon(&w->s, first);
            int on = colon && colon < i ? condition(w, first + 1, colon) : -1;
            if (on == 0 && colon && colon < i)
                return USED_NO;
            if (on < 0 && colon && colon < i)
                u = USED_UNKNOWN;
        } else if (py_is(&w->s, first, "else")) {
            u = USED_UNKNOWN;
        }
        if (!first || !indent)
            return u;
        do { /* the next line above that is indented less */
            first = facts_statement(w, first - 1);
        } while (first && w->s.tok[first].indent >= indent);
        indent = w->s.tok[first].indent;
        if (py_is(&w->s, first, "def") || py_is(&w->s, first, "class"))
            return u;
    }
}

/* A setting that switches the method as a whole: TTT_ENABLED, USE_SLOT, SLOT_STEPS=0. */
static int switched(const struct facts_walk *w, enum method m, const struct env_fact **by)
{
    for (size_t i = 0; i < w->f->envs; i++) {
        const struct env_fact *x = &w->f->env[i];
        const char *name = *x->name ? x->name : x->attr;
        for (size_t k = 0; keys[m][k]; k++) {
            const char *hit = strcasestr(name, keys[m][k]);
            if (!hit || (m == METHOD_SLIDING && !strcasestr(name, "slid")))
                continue;
            size_t front = (size_t)(hit - name);
            bool verb =
                front && (!strncasecmp(name, "use_", front) || !strncasecmp(name, "run_", front) ||
                          !strncasecmp(name, "do_", front) || !strncasecmp(name, "enable_", front));
            bool bare = strlen(hit) == strlen(keys[m][k]); /* PHASED_TTT_ENABLED is one variety */
            bool enabled = !front && strcasestr(hit, "enable");
            bool steps = m == METHOD_SLOT && strcasestr(hit, "steps") && facts_truth(x->value) == 0;
            if (((bare && (verb || !front)) || enabled || steps) && facts_truth(x->value) >= 0) {
                if (by)
                    *by = x;
                return facts_truth(x->value);
            }
        }
    }
    return -1;
}

/* Used, when one of its references stands where nothing switches it off. */
static enum used in_use(const struct facts_walk *w, enum method m, const struct facts_func *f)
{
    int on = switched(w, m, NULL);
    enum used best = USED_NO;
    for (size_t at = facts_reference(w, f, 0); at < w->s.count && best != USED_YES;
         at = facts_reference(w, f, at + 1)) {
        enum used u = around(w, at);
        best = u == USED_YES || best == USED_NO ? u : best;
    }
    if (best == USED_NO || on == 0)
        return USED_NO;
    return on == 1 ? USED_YES : best;
}

/* ---- numbers ---- */

long facts_number(const struct facts_walk *w, const char *const *names)
{
    for (; *names; names++) {
        const struct env_fact *x = script_env(w->f, *names);
        char *end;
        long v = x ? strtol(x->value, &end, 10) : 0;
        if (x && end != x->value && v > 0)
            return v;
    }
    return 0;
}

/* stride=64 or stride: int = 64 somewhere. */
static long written(const struct facts_walk *w, const char *name)
{
    for (size_t i = 0; i + 3 < w->s.count; i++)
        if (py_is(&w->s, i, name)) {
            size_t eq = i + 1 + (py_is(&w->s, i + 1, ":") ? 2u : 0u);
            if (py_is(&w->s, eq, "=") && py_kind_at(&w->s, eq + 1) == PY_NUMBER)
                return strtol(w->s.text + w->s.tok[eq + 1].at, NULL, 10);
        }
    return 0;
}

static void measure(const struct facts_walk *w, struct method_facts *m)
{
    static const char *const strides[] = {"eval_stride",  "sliding_stride", "sliding_window_stride",
                                          "slide_stride", "stride",         NULL};
    static const char *const ttt[] = {"ttt_eval_seq_len", "eval_seq_len", "train_seq_len", NULL};
    static const char *const lengths[] = {"eval_seq_len",
                                          "eval_context_length",
                                          "train_seq_len",
                                          "seq_len",
                                          "block_size",
                                          "max_seq_len",
                                          NULL};
    m->seq = facts_number(w, m->method == METHOD_TTT ? ttt : lengths);
    if (m->method == METHOD_PLAIN)
        return;
    m->stride = facts_number(w, strides);
    if (!m->stride)
        m->stride = written(w, "stride");
}

/* ---- which functions are what ---- */

static bool named(const struct facts_walk *w, const struct facts_func *f, enum method m)
{
    static const char *const model[] = {"embed", "hash_ids", "vocab", NULL}; /* n-grams as input */
    for (size_t k = 0; keys[m][k]; k++)
        if (facts_has(w, f->name, keys[m][k]))
            return m != METHOD_NGRAM || !facts_has_any(w, f->name, model);
    return false;
}

bool facts_mixes(const struct facts_walk *w, const struct facts_func *f, enum method m)
{
    static const char *const model[] = {"embed", "hash_ids", "vocab", NULL};
    enum { MENTIONS = 3 }; /* a setting that is handed on is named once or twice */
    size_t n = 0;
    for (size_t i = f->body; i < f->end && n < MENTIONS; i++)
        for (size_t k = 0; w->s.tok[i].kind == PY_NAME && keys[m][k]; k++)
            n += facts_has(w, i, keys[m][k]) && !facts_has_any(w, i, model);
    return n == MENTIONS;
}

/* Counts that are mixed in by a function of another name: the one that scores. */
static bool inside(const struct facts_walk *w, enum method m, struct deeds *best)
{
    for (size_t k = 0; k < w->funcs; k++) {
        const struct facts_func *f = &w->func[k];
        if (!facts_evaluates(w, f) || !facts_mixes(w, f, m))
            continue;
        struct deeds d = facts_deeds(w, f, 2);
        if (d.score == f->end)
            continue;
        *best = d;
        return true;
    }
    return false;
}

/* The function that stands for a method: one that both scores and does what the method does. */
static bool pick(const struct facts_walk *w, enum method m, struct deeds *best)
{
    int rank = 0;
    for (size_t k = 0; k < w->funcs; k++) {
        const struct facts_func *f = &w->func[k];
        bool other = false;
        int r = 0;
        if (m == METHOD_PLAIN || m == METHOD_SLIDING)
            for (enum method o = METHOD_TTT; o < METHODS; o++)
                other |= named(w, f, o);
        if (m == METHOD_PLAIN)
            r = facts_evaluates(w, f) && !other && !named(w, f, METHOD_SLIDING) ? 1 : 0;
        else
            r = named(w, f, m) && !other ? 1 : 0;
        if (!r)
            continue;
        struct deeds d = facts_deeds(w, f, 2);
        bool scores = d.score < f->end, trains_ = d.train < f->end;
        if (m == METHOD_PLAIN && (!scores || d.stride < f->end || trains_))
            continue;
        if (m == METHOD_SLIDING && !scores)
            continue;
        if ((m == METHOD_TTT || m == METHOD_SLOT) && !trains_)
            continue;
        enum used u = in_use(w, m, f); /* one that is used, first of all */
        r += (facts_evaluates(w, f) ? 4 : 0) + (scores ? 2 : 0) +
             (u == USED_YES       ? 16
              : u == USED_UNKNOWN ? 8
                                  : 0);
        if (r > rank) {
            rank = r;
            *best = d;
        }
    }
    if (rank || m != METHOD_SLIDING)
        return rank > 0;
    for (size_t k = 0; k < w->funcs; k++) { /* a sliding evaluation under another name */
        const struct facts_func *f = &w->func[k];
        if (!facts_evaluates(w, f))
            continue;
        struct deeds d = facts_deeds(w, f, 2);
        if (d.stride < f->end && d.score < f->end && d.train == f->end) {
            *best = d;
            return true;
        }
    }
    return false;
}

static void describe(struct facts_walk *w, const struct method_facts *m)
{
    static const char *const used[] = {"may be used", "used", "not used"};
    char text[160];
    int n =
        snprintf(text, sizeof text, "%s%s%s, %s%s", method_name[m->method], *m->form ? ", " : "",
                 m->form, used[m->used], m->by_default ? " by default" : "");
    if (m->stride && n > 0 && (size_t)n < sizeof text)
        n += snprintf(text + n, sizeof text - (size_t)n, ", stride %ld", m->stride);
    if (m->seq && n > 0 && (size_t)n < sizeof text)
        snprintf(text + n, sizeof text - (size_t)n, ", %ld tokens", m->seq);
    facts_add_line(w, FACT_EVAL, m->line, "%s", text);
}

/* A switch for a method whose functions are not in this text: they are in another file. */
static void elsewhere(struct facts_walk *w, enum method k)
{
    const struct env_fact *by = NULL;
    int on = k >= METHOD_TTT ? switched(w, k, &by) : -1;
    if (on < 0)
        return;
    struct method_facts *m = &w->f->method[w->f->methods++];
    *m = (struct method_facts){
        .method = k, .line = by->line, .used = on ? USED_YES : USED_NO, .by_default = !by->set};
    snprintf(m->form, sizeof m->form, "code not in this text");
    describe(w, m);
}

void facts_methods(struct facts_walk *w)
{
    for (enum method k = METHOD_PLAIN; k < METHODS; k++) {
        struct deeds d;
        bool mixed = false;
        if (w->nomem)
            return;
        if (!pick(w, k, &d)) {
            mixed = (k == METHOD_NGRAM || k == METHOD_PPM) && inside(w, k, &d);
            if (!mixed) {
                elsewhere(w, k);
                continue;
            }
        }
        struct method_facts *m = &w->f->method[w->f->methods++];
        *m = (struct method_facts){.method = k, .line = facts_line(w, d.f->name)};
        m->used = in_use(w, k, d.f);
        if (mixed && m->used == USED_YES && switched(w, k, NULL) < 0)
            m->used = USED_UNKNOWN; /* the function is; whether it mixes is for its settings */
        const struct env_fact *by = NULL;
        m->by_default = m->used != USED_UNKNOWN && switched(w, k, &by) >= 0 && !by->set;
        measure(w, m);
        facts_judge(w, m, &d);
        if (k == METHOD_SLIDING && m->stride && m->seq && m->stride >= m->seq)
            m->used = USED_NO; /* windows do not overlap */
        describe(w, m);
    }
}
