/* record_text.c - the text forms of record_report.h. */
#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "verify/record_report.h"

static const char *const track_name[] = {"unknown", "record", "non-record"};

/* "-" for bytes that nothing says. */
static const char *bytes(uint64_t v)
{
    return v ? record_count(v) : "-";
}

static void place(FILE *out, const struct record_at *at)
{
    if (at->line)
        fprintf(out, "%s:%zu", at->file, at->line);
    else
        fprintf(out, "%s", at->file);
}

static void head(FILE *out, const struct record *r)
{
    const struct record_meta *m = &r->meta;
    fprintf(out, "record       %s\n", r->folder.name);
    fprintf(out, "             %s track (%s)", track_name[r->track], r->track_why);
    if (*m->author)
        fprintf(out, ", by %s", m->author);
    if (*m->date)
        fprintf(out, ", %.10s", m->date);
    fprintf(out, ", %zu file%s, %zu log%s\n", r->folder.files, r->folder.files == 1 ? "" : "s",
            r->runs, r->runs == 1 ? "" : "s");
}

/* One claim: what is claimed and where, what the logs say, the verdict. */
static void claim(FILE *out, const struct record *r, enum record_claim k, const char *claimed,
                  size_t line, const char *evidence)
{
    char where[96] = "";
    if (line)
        snprintf(where, sizeof where, "%.50s:%zu", r->meta.path, line);
    fprintf(out, "  %-10s %-12s %-13s%s%s%s%s\n", record_claim_name[k], claimed,
            claim_state_name[r->claim[k]], evidence, line ? "  [" : "", where, line ? "]" : "");
}

static void claims(FILE *out, const struct record *r)
{
    const struct record_meta *m = &r->meta;
    char c[64], ev[160];
    fprintf(out, "claims       claimed                   in the logs\n");
    const struct meta_number *bpb = m->bpb.have ? &m->bpb : r->wrong_unit ? &m->loss : NULL;
    snprintf(c, sizeof c, "%s", "-");
    if (bpb)
        snprintf(c, sizeof c, "%.10g", bpb->v);
    if (r->claim_bpb.n > 1)
        snprintf(ev, sizeof ev, "mean of %zu: %.8f", r->claim_bpb.n, r->claim_bpb.mean);
    else if (r->bpb.n)
        snprintf(ev, sizeof ev, "%.8f", r->bpb.mean);
    else
        snprintf(ev, sizeof ev, "no result in a log");
    claim(out, r, RCLAIM_BPB, c, bpb ? bpb->line : 0, ev);
    if (m->loss.have && !r->wrong_unit) {
        snprintf(c, sizeof c, "%.10g", m->loss.v);
        snprintf(ev, sizeof ev, r->claim_loss.n ? "%.8f" : "-", r->claim_loss.mean);
        claim(out, r, RCLAIM_LOSS, c, m->loss.line, ev);
    }
    if (m->std.have) {
        snprintf(c, sizeof c, "%.10g", m->std.v);
        snprintf(ev, sizeof ev, r->claim_bpb.n > 1 ? "%.8f by n-1, %.8f by n" : "-",
                 r->claim_bpb.sd, r->claim_bpb.sd_pop);
        claim(out, r, RCLAIM_STD, c, m->std.line, ev);
    }
    size_t total_line = m->total.line;
    snprintf(c, sizeof c, "%s", m->total.have ? record_count((uint64_t)fmax(m->total.v, 0)) : "-");
    for (size_t i = 0; i < m->seeds && !m->total.have && *c == '-'; i++)
        if (m->seed[i].bytes.have) {
            snprintf(c, sizeof c, "per seed");
            total_line = m->seed[i].bytes.line;
        }
    snprintf(ev, sizeof ev, "%s%s", bytes(r->size.total),
             r->heads > 1 ? " in the largest log" : "");
    claim(out, r, RCLAIM_TOTAL, c, total_line, ev);
    snprintf(c, sizeof c, "%zu", m->seeds);
    snprintf(ev, sizeof ev, "%zu log%s count", r->heads, r->heads == 1 ? "" : "s");
    if (m->seeds)
        claim(out, r, RCLAIM_SEEDS, c, m->seed[0].line, ev);
    if (m->total.have && m->total.v > RECORD_CAP && r->size.total <= RECORD_CAP)
        snprintf(ev, sizeof ev, "the claimed total is over");
    else if (r->size.total)
        snprintf(ev, sizeof ev, "%s%s%s", r->size.total > RECORD_CAP ? "over by " : "under by ",
                 record_count(r->size.total > RECORD_CAP ? r->size.total - RECORD_CAP
                                                         : RECORD_CAP - r->size.total),
                 r->size.total > RECORD_CAP && r->size.total <= RECORD_MIB ? " (16 MiB?)" : "");
    else
        snprintf(ev, sizeof ev, "-");
    claim(out, r, RCLAIM_CAP, "16,000,000", 0, ev);
    if (*r->basis_text)
        fprintf(out, "             val_bpb claimed is: %s\n", r->basis_text);
}

static void sizes(FILE *out, const struct record *r)
{
    const struct record_size *s = &r->size;
    const struct record_script *c = &r->script;
    if (s->program)
        fprintf(out, "bytes        program %s %s: script, weights and all\n             ",
                s->program_path, record_count(s->program));
    else
        fprintf(out, "bytes        ");
    fprintf(out, "script %s %s", c->file ? c->file->path : "none", bytes(s->script));
    if (c->target)
        fprintf(out, " + %s %s", c->target->path, bytes(c->target->size));
    if (c->wrapped && c->source)
        fprintf(out, " (%s, unpacks to %s)", c->family, record_count(c->source_n));
    else if (c->wrapped)
        fprintf(out, " (%s, compiled code that is not read)", c->family);
    fprintf(out, "\n             counted code %s", bytes(s->codes ? s->code[0] : 0));
    if (s->codes > 1)
        fprintf(out, " to %s", record_count(s->code[s->codes - 1]));
    if (s->plains)
        fprintf(out, " (plain %s)", record_count(s->plain[0]));
    fprintf(out, ", outside the count %s, model %s\n", bytes(s->siblings), bytes(s->model));
    fprintf(out, "             total counted %s%s, as shipped %s%s", bytes(s->total),
            s->rounded ? " (from MB)" : "", bytes(s->shipped),
            s->shipped > RECORD_CAP ? s->shipped <= RECORD_MIB ? " (16 MiB?)" : " (over)" : "");
    if (s->siblings)
        fprintf(out, ", with code outside %s", bytes(s->shipped_siblings));
    if (s->tokenizer)
        fprintf(out, ", tokeniser %s (not counted)", record_count(s->tokenizer));
    fprintf(out, "\n");
}

static void runs(FILE *out, const struct record *r)
{
    size_t shown = 0, others = 0;
    if (!r->runs)
        return;
    fprintf(out, "logs  seed     val_bpb       total  train s  eval s  %-24s  bytes scored\n",
            "log");
    for (size_t i = 0; i < r->runs; i++) {
        const struct record_run *run = &r->run[i];
        const struct record_log *l = &run->log;
        const struct metric *m = record_log_headline(l);
        char seed[24] = "-", bpb[24] = "-", train[16] = "-", eval[16] = "-", scored[64] = "-";
        if (!run->headline || shown == 8) {
            others++;
            continue;
        }
        shown++;
        double e = record_log_eval(l);
        if (record_log_seed(l) >= 0)
            snprintf(seed, sizeof seed, "%lld", record_log_seed(l));
        if (m)
            snprintf(bpb, sizeof bpb, "%.8f", m->val_bpb);
        if (l->train_ms.line)
            snprintf(train, sizeof train, "%.1f", (double)l->train_ms.v / 1000);
        if (e > 0)
            snprintf(eval, sizeof eval, "%.1f", e);
        if (!isnan(run->val_bytes))
            snprintf(scored, sizeof scored, "%s %s",
                     record_count((uint64_t)llround(run->val_bytes)),
                     run->denominator ? run->denominator
                     : run->partial   ? "PART of the text"
                                      : "UNKNOWN");
        else if (run->loss_per_byte)
            snprintf(scored, sizeof scored, "not told: val_loss is per byte");
        else if (!isnan(run->bytes_per_token))
            snprintf(scored, sizeof scored, "%.4f per token, %s", run->bytes_per_token,
                     run->denominator ? run->denominator : "no known tokeniser");
        fprintf(out, "  %8s %11s %11s %8s %7s  %-24s  %s\n", seed, bpb, bytes(l->total.v), train,
                eval, l->path, scored);
    }
    if (others)
        fprintf(out,
                "             and %zu log%s not averaged (copies, ablations, re-runs, notes)\n",
                others, others == 1 ? "" : "s");
}

/* Two budgets of 600 s, and what scripts print beside them; worst of the headline logs. */
static void ledger(FILE *out, const struct record *r)
{
    double most[LOG_TIME_KINDS] = {0}, train = 0, calib = 0, eval = 0, warm = 0, others = 0;
    if (!r->heads)
        return;
    for (size_t i = 0; i < r->heads; i++) {
        const struct record_log *l = &r->run[r->head[i]].log;
        double t[LOG_TIME_KINDS], ms = l->train_ms.line ? (double)l->train_ms.v / 1000 : 0;
        for (size_t k = 0; k < LOG_TIME_KINDS; k++) {
            t[k] = record_log_time(l, (enum log_time_kind)k, NULL);
            most[k] = fmax(most[k], t[k]);
        }
        t[LOG_TIME_EVAL] = record_log_eval(l);
        train = fmax(train, ms);
        calib = fmax(calib, ms + t[LOG_TIME_HESSIANS] + t[LOG_TIME_GENERATED]);
        eval = fmax(eval, t[LOG_TIME_EVAL]);
        warm = fmax(warm, t[LOG_TIME_EVAL] + t[LOG_TIME_WARMUP]);
    }
    /* Logs that score a file train nothing: then those count that made the file. */
    for (size_t i = 0; i < r->runs && train <= 0; i++)
        others = fmax(others, (double)r->run[i].log.train_ms.v / 1000);
    if (train > 0 || others > 0)
        fprintf(out, "time         training %.1f s%s", fmax(train, others),
                others > 0 ? " (logs not averaged)" : "");
    else
        fprintf(out, "time         training not told");
    if (calib > train)
        fprintf(out, ", with logged calibration %.1f s", calib);
    if (eval > 0)
        fprintf(out, "; evaluation %.1f s", eval);
    else
        fprintf(out, "; evaluation not told");
    if (warm > eval)
        fprintf(out, ", with compile warm-up %.1f s", warm);
    fprintf(out, "%s\n", r->track == RECORD_TRACK_RECORD ? "; of 600 s each" : "");
    for (size_t k = LOG_TIME_QUANTISE, n = 0; k < LOG_TIME_KINDS; k++)
        if (most[k] > 0 && k != LOG_TIME_WARMUP && k != LOG_TIME_EVAL)
            fprintf(out, "%s %s %.1f s", n++ ? "," : "             also printed:", log_time_name[k],
                    most[k]);
    if (most[LOG_TIME_QUANTISE] > 0 || most[LOG_TIME_SERIALISE] > 0 ||
        most[LOG_TIME_POST_GPTQ] > 0 || most[LOG_TIME_ARTIFACT] > 0)
        fprintf(out, "\n");
}

/* Is the code that ran the code that is here? Logs that print their script can say. */
static void identity(FILE *out, const struct record *r)
{
    size_t print = 0, same = 0;
    for (size_t i = 0; i < r->runs; i++)
        if (r->run[i].duplicate_of == SIZE_MAX && r->run[i].log.source_n) {
            print++;
            same += r->run[i].source_same;
        }
    if (print)
        fprintf(out,
                "             %zu of %zu logs print the script; in %zu it is a file of the "
                "folder, byte for byte\n",
                print, r->runs, same);
}

static void method(FILE *out, const struct record *r)
{
    static const char *const cond[] = {"not checked", "met", "NOT met"};
    const struct record_script *c = &r->script;
    const struct metric *m = r->heads ? record_log_headline(&r->run[r->head[0]].log) : NULL;
    if (m)
        fprintf(out, "method       %s (%s, %s:%zu)\n", metric_kind_name[m->kind], m->label,
                r->run[r->head[0]].log.path, m->line);
    else if (c->have_facts)
        fprintf(out, "method       no result line in a log\n");
    for (size_t i = 0; c->have_facts && i < c->facts.methods; i++) {
        const struct method_facts *f = &c->facts.method[i];
        bool logged = record_method_used(r, f);
        if (f->used == USED_NO && !logged)
            continue; /* defined, switched off by its defaults, and no log has it */
        fprintf(out, "             script line %zu: %s%s%s%s", f->line, method_name[f->method],
                *f->form ? ", " : "", f->form,
                f->used == USED_YES ? ""
                : logged            ? ", used by the log"
                                    : ", use not told");
        if (f->stride)
            fprintf(out, ", stride %ld", f->stride);
        if (f->seq)
            fprintf(out, ", length %ld", f->seq);
        fprintf(out, ":");
        for (size_t k = 0; k < 4; k++)
            fprintf(out, " C%zu %s%s", k + 1, cond[f->cond[k]], k < 3 ? "," : "");
        fprintf(out, "\n");
    }
    if (c->have_facts && (*c->facts.quantiser || *c->facts.compressor))
        fprintf(out, "             packs with %s%s%s%s%s\n", c->facts.quantiser,
                *c->facts.quantiser && *c->facts.compressor ? ", " : "", c->facts.compressor,
                c->facts.caseops ? ", CaseOps" : "", c->facts.byte_sidecar ? ", byte sidecar" : "");
}

static void one_test(FILE *out, const char *h0, const struct t_test *t)
{
    if (t->valid)
        fprintf(out, "  gain > %s: t %.2f, df %.2f, p %.2g", h0, t->t, t->df, t->p);
    else
        fprintf(out, "  gain > %s: no test", h0);
}

static void statistics(FILE *out, const struct record *r, const struct record_sota *sota)
{
    struct record_test t[RECORD_UNITS];
    if (!r->bpb.n)
        return;
    fprintf(out, "statistics   n %zu, mean %.8f", r->bpb.n, r->bpb.mean);
    if (r->bpb.n > 1)
        fprintf(out, ", standard deviation %.8f (n-1), %.8f (n)%s", r->bpb.sd, r->bpb.sd_pop,
                r->std_convention == 1   ? ", claimed n-1"
                : r->std_convention == 2 ? ", claimed n"
                                         : "");
    fprintf(out, "\n");
    if (!sota->n) {
        fprintf(out,
                "             not compared: no --sota, and no row below it on a leaderboard\n");
        return;
    }
    record_test(t, r, sota);
    fprintf(out, "             against %s: %s, one-sided, H0 gain <= 0.005 and gain <= 0\n",
            sota->name, sota->n > 1 ? "Welch" : "one sample");
    for (size_t u = 0; u < RECORD_UNITS; u++) {
        if (!t[u].possible) {
            fprintf(out, "  %-14s not compared: %s\n", record_unit_name[u], t[u].why);
            continue;
        }
        fprintf(out, "  %-14s gain %+.6f", record_unit_name[u], t[u].gain);
        if (r->bpb.n < 2)
            fprintf(out, "  no test with one seed");
        else {
            one_test(out, "0.005", &t[u].margin);
            one_test(out, "0", &t[u].plain);
        }
        fprintf(out, "\n");
    }
}

/* A folder of fifty ablations has fifty findings of a kind: the first ones, and how many more. */
enum { ALIKE = 4 };

static size_t alike(const struct record *r, enum record_code code, size_t before)
{
    size_t n = 0;
    for (size_t i = 0; i < before; i++)
        n += r->finding[i].code == code;
    return n;
}

static void findings(FILE *out, const struct record *r)
{
    fprintf(out, "findings     %zu fail, %zu warn, %zu info\n", r->count[RECORD_FAIL],
            r->count[RECORD_WARN], r->count[RECORD_INFO]);
    for (int s = RECORD_FAIL; s >= RECORD_INFO; s--)
        for (size_t i = 0; i < r->findings; i++) {
            const struct record_finding *f = &r->finding[i];
            if ((int)f->severity != s)
                continue;
            const struct record_code_info *info = &record_code_info[f->code];
            size_t nth = alike(r, f->code, i), all = alike(r, f->code, r->findings);
            if (all > ALIKE && nth >= ALIKE) {
                if (nth == ALIKE)
                    fprintf(out, "  %-4s %s: %zu more of these; --json lists them\n",
                            record_severity_name[f->severity], info->code, all - ALIKE);
                continue;
            }
            fprintf(out, "  %-4s %s: %s (%s)", record_severity_name[f->severity], info->code,
                    f->text ? f->text : "", info->rule);
            for (size_t k = 0; k < f->ats; k++) {
                fprintf(out, k ? ", " : "  [");
                place(out, &f->at[k]);
            }
            fprintf(out, f->ats ? "]\n" : "\n");
        }
    if (r->findings_dropped)
        fprintf(out, "  and %zu more\n", r->findings_dropped);
}

void record_text(FILE *out, const struct record *r, const struct record_sota *sota)
{
    head(out, r);
    claims(out, r);
    sizes(out, r);
    identity(out, r);
    runs(out, r);
    ledger(out, r);
    method(out, r);
    statistics(out, r, sota);
    findings(out, r);
    for (size_t i = 0; i < r->uncheckeds; i++)
        fprintf(out, "%s %s\n", i ? "            " : "not checked ", r->unchecked[i]);
    fprintf(out, "%s\n", record_contradicted(r) ? "contradicted" : "not contradicted");
}

void record_line_head(FILE *out)
{
    fprintf(out, "%-4s %-4s %-4s %-10s %-5s %-10s %-12s %-12s %s\n", "fail", "warn", "info",
            "claimed", "logs", "mean", "total", "verdict", "folder");
}

void record_line(FILE *out, const struct record *r)
{
    char claimed[24] = "-", mean[24] = "-";
    if (r->meta.bpb.have)
        snprintf(claimed, sizeof claimed, "%.6f", r->meta.bpb.v);
    if (r->bpb.n)
        snprintf(mean, sizeof mean, "%.6f", r->bpb.mean);
    fprintf(out, "%4zu %4zu %4zu %-10s %5zu %-10s %-12s %-12s %s\n", r->count[RECORD_FAIL],
            r->count[RECORD_WARN], r->count[RECORD_INFO], claimed, r->heads, mean,
            bytes(r->size.total), record_contradicted(r) ? "contradicted" : "-", r->folder.name);
}
