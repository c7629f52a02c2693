/*
 * record_check_meta.c - files that should be there, and the claimed scores against the logs.
 */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "verify/record.h"

static void files(struct record *r)
{
    const struct record_script *c = &r->script;
    bool readme = false;
    for (size_t i = 0; i < r->folder.files; i++)
        readme |= r->folder.file[i].kind == RECORD_README;
    if (!readme)
        record_find(r, RC_README_MISSING, NULL, 0, "no README.md");
    if (!r->runs)
        record_find(r, RC_LOGS_MISSING, NULL, 0, "no training log in the folder");
    if (!c->file && r->size.program)
        return; /* the program is in the submission */
    if (!c->file) {
        record_find(r, RC_SCRIPT_MISSING, NULL, 0, "no training script in the folder");
        return;
    }
    if (!c->file->size)
        record_find(r, RC_SCRIPT_EMPTY, c->file->path, 0, "%s has 0 bytes", c->file->path);
    if (!record_folder_find(&r->folder, "train_gpt.py"))
        record_find(r, RC_SCRIPT_NAME, c->file->path, 0, "no train_gpt.py; the script is %s",
                    c->file->path);
    if (c->target)
        record_find(r, RC_INDIRECT, c->file->path, 1, "%s only executes %s", c->file->path,
                    c->target->path);
    if (c->self_line)
        record_find(r, RC_SELF_SIZE, (c->target ? c->target : c->file)->path, c->self_line,
                    "the wrapper states %s bytes, the file has %s", record_count(c->self_size),
                    record_count((c->target ? c->target : c->file)->size));
    if (c->new_syntax)
        record_find(r, RC_SYNTAX, (c->target ? c->target : c->file)->path,
                    c->wrapped ? 0 : c->new_syntax,
                    "%sline %zu nests quotes in an f-string as Python before 3.12 cannot",
                    c->wrapped ? "unpacked source, " : "", c->new_syntax);
}

static void unusual_key(struct record *r, const struct meta_number *n, const char *usual,
                        const char *what)
{
    if (n->have && strcmp(n->key, usual))
        record_find(r, RC_JSON_KEY, r->meta.path, n->line, "%s under key %s", what, n->key);
}

static void trick(struct record *r, const struct key_trick *t)
{
    char odd[48] = "";
    switch (t->kind) {
    case KEY_TWICE:
        record_find(r, RC_JSON_TWICE, r->meta.path, t->line, "key %s stands twice", t->key);
        break;
    case KEY_LOOKALIKE:
        if (t->odd)
            snprintf(odd, sizeof odd, " (first odd character U+%04X)", (unsigned)t->odd);
        record_find(r, RC_JSON_LIKE, r->meta.path, t->line,
                    "the key \"%s\" looks like %s and is another one%s", t->key, t->like, odd);
        break;
    case KEY_NUL:
        record_find(r, RC_JSON_LIKE, r->meta.path, t->line,
                    "an escaped NUL, behind which some readers stop");
        break;
    }
}

static void keys(struct record *r)
{
    const struct record_meta *m = &r->meta;
    const char *absent[3];
    size_t n = 0;
    bool seed_bytes = false;
    if (strcmp(m->path, "submission.json"))
        record_find(r, RC_JSON_NAME, m->path, 0, "the metadata is called %s", m->path);
    for (size_t i = 0; i < m->tricks; i++)
        trick(r, &m->trick[i]);
    if (!m->bpb.have)
        record_find(r, RC_JSON_NO_BPB, m->path, 0, "no numeric val_bpb");
    if (r->wrong_unit)
        record_find(r, RC_JSON_UNIT, m->path, m->loss.line,
                    "val_loss holds %.10g, the BPB of the logs (%.8f)", m->loss.v, r->bpb.mean);
    if (!m->loss.have)
        record_find(r, RC_JSON_NO_LOSS, m->path, 0, "no numeric val_loss");
    for (size_t i = 0; i < m->seeds; i++)
        seed_bytes |= m->seed[i].bytes.have;
    if (!m->total.have && !seed_bytes)
        record_find(r, RC_JSON_NO_TOTAL, m->path, 0, "no total bytes");
    if (!m->code.have)
        record_find(r, RC_JSON_NO_CODE, m->path, 0, "no code bytes");
    unusual_key(r, &m->bpb, "val_bpb", "headline");
    unusual_key(r, &m->total, "bytes_total", "total bytes");
    if (!*m->author)
        absent[n++] = "author";
    if (!*m->github_id)
        absent[n++] = "github_id";
    if (!*m->name)
        absent[n++] = "name";
    if (n)
        record_find(r, RC_JSON_IDENTITY, m->path, 0, "%s%s%s%s%s absent or empty", absent[0],
                    n > 1 ? ", " : "", n > 1 ? absent[1] : "", n > 2 ? ", " : "",
                    n > 2 ? absent[2] : "");
}

/* The headline number. */
static void headline(struct record *r)
{
    const struct record_meta *m = &r->meta;
    const struct meta_number *c = m->bpb.have ? &m->bpb : &m->loss;
    const char *log = r->basis_run < r->runs ? r->run[r->basis_run].log.path : NULL;
    if (r->basis == BASIS_NOWHERE) {
        char read[128] = "no log has a result line", early[64] = "";
        if (r->bpb.n == 1)
            snprintf(read, sizeof read, "%.80s has %.8f", r->run[r->head[0]].log.path, r->bpb.mean);
        else if (r->bpb.n)
            snprintf(read, sizeof read, "%zu logs average %.8f (%.8f to %.8f)", r->bpb.n,
                     r->bpb.mean, r->bpb.min, r->bpb.max);
        if (r->basis_said)
            snprintf(early, sizeof early, "; line %zu has it, during training",
                     r->basis_said->line);
        struct record_finding *f =
            record_find(r, RC_BPB, m->path, c->line, "claims %.10g; %s%s", c->v, read, early);
        if (r->basis_said)
            record_also(f, log, r->basis_said->line);
    }
    if (r->basis == BASIS_UNREAD) {
        char of[64] = "", read[64] = "";
        if (r->basis_n > 1)
            snprintf(of, sizeof of, "on average of %zu logs ", r->basis_n);
        if (r->bpb.n)
            snprintf(read, sizeof read, "; the result line%s %.8f",
                     r->bpb.n > 1 ? "s average" : " has", r->bpb.mean);
        struct record_finding *f = record_find(
            r, RC_UNREAD, m->path, c->line,
            "claims %.10g, which %s prints %sas %s, a label that is read as no result%s", c->v, log,
            of, r->basis_said->key, read);
        record_also(f, log, r->basis_line);
    }
    if (r->basis == BASIS_PERIODIC) {
        struct record_finding *f = record_find(
            r, RC_PERIODIC, m->path, c->line,
            "claims %.10g, which %s prints for the model before quantisation", c->v, log);
        record_also(f, log, r->basis_line);
    }
    if (r->basis == BASIS_SINGLE && r->heads > 1) {
        double v = record_log_headline(&r->run[r->basis_run].log)->val_bpb;
        struct record_finding *f =
            record_find(r, v <= r->bpb.min ? RC_BEST_SEED : RC_ONE_SEED, m->path, c->line,
                        "claims %.10g, the %s of %zu logs (%s); their mean is %.8f", c->v,
                        v <= r->bpb.min   ? "best"
                        : v >= r->bpb.max ? "worst"
                                          : "value of one",
                        r->heads, log, r->bpb.mean);
        record_also(f, log, r->basis_line);
    }
}

static void loss(struct record *r)
{
    const struct meta_number *c = &r->meta.loss;
    if (!c->have || r->wrong_unit || !r->runs)
        return;
    /* What the tolerance of BPB is in nats per token. No score: two decimals may be rounded ones.
     */
    double tol = r->claim_loss.n ? RECORD_BPB_TOL * fmax(1, r->claim_loss.mean / r->claim_bpb.mean)
                                 : RECORD_BPB_TOL;
    if (c->decimals >= 2)
        tol = fmax(tol, 0.5000001 * pow(10, -c->decimals));
    if (r->claim_loss.n && meta_near(c, r->claim_loss.mean, tol))
        return;
    for (size_t i = 0; i < r->runs; i++) {
        const struct record_log *l = &r->run[i].log;
        for (size_t k = 0; k < l->finals; k++)
            if (meta_near(c, l->final[k].val_loss, tol))
                return;
        for (size_t k = 0; k < l->saids; k++)
            if (meta_near(c, l->said[k].loss, tol))
                return;
        if (l->periodic.line && meta_near(c, l->periodic.val_loss, tol))
            return;
    }
    if (r->claim_loss.n)
        record_find(r, RC_LOSS, r->meta.path, c->line,
                    "claims val_loss %.10g; the logs have %.8f on average", c->v,
                    r->claim_loss.mean);
    else
        record_find(r, RC_LOSS, r->meta.path, c->line, "claims val_loss %.10g; no log has it",
                    c->v);
}

static void spread(struct record *r)
{
    const struct meta_number *c = &r->meta.std;
    if (!c->have || r->claim_bpb.n < 2)
        return;
    if (r->std_convention == 2)
        record_find(r, RC_STD_POP, r->meta.path, c->line,
                    "claims %.10g, which divides by n; by n-1 it is %.8f", c->v, r->claim_bpb.sd);
    else if (!r->std_convention)
        record_find(r, RC_STD, r->meta.path, c->line,
                    "claims %.10g; the logs give %.8f (by n-1) or %.8f (by n)", c->v,
                    r->claim_bpb.sd, r->claim_bpb.sd_pop);
}

/* A number behind "val_bpb" or in front of "BPB" in the first title of the README. */
static bool readme_score(const struct record_file *f, double *score, size_t *line)
{
    struct line l;
    size_t k = 1, at = 0;
    for (; k <= 12 && line_next(f->text, (size_t)f->size, &at, &l); k++) {
        if (!line_starts(l, "#"))
            continue;
        struct line_number v;
        size_t key = line_word(l, "val_bpb", 0);
        while (key != SIZE_MAX && key < l.n &&
               (l.s[key] == ':' || l.s[key] == '=' || l.s[key] == ' ' || l.s[key] == '*'))
            key++;
        if (key != SIZE_MAX && line_number(l, key, &v) && v.decimals >= 3 && v.v > 0.3 && v.v < 4) {
            *score = v.v;
            *line = k;
            return true;
        }
        for (size_t i = 0; i < l.n; i++) {
            if (!isdigit((unsigned char)l.s[i]) ||
                (i && (isalnum((unsigned char)l.s[i - 1]) || l.s[i - 1] == '.')))
                continue;
            if (line_number(l, i, &v) && v.decimals >= 3 && v.v > 0.3 && v.v < 4 &&
                v.end + 3 < l.n && l.s[v.end] == ' ' && !strncasecmp(l.s + v.end + 1, "bpb", 3)) {
                *score = v.v;
                *line = k;
                return true;
            }
        }
    }
    return false;
}

static void readme(struct record *r)
{
    double score;
    size_t line;
    const struct record_file *f = record_folder_find(&r->folder, "README.md");
    if (f && f->text && r->meta.bpb.have && readme_score(f, &score, &line) &&
        fabs(score - r->meta.bpb.v) > RECORD_README_TOL) {
        struct record_finding *x =
            record_find(r, RC_README, f->path, line, "the README says %.10g, the metadata %.10g",
                        score, r->meta.bpb.v);
        record_also(x, r->meta.path, r->meta.bpb.line);
    }
}

void record_check_meta(struct record *r)
{
    if (!r->meta.path)
        record_find(r, RC_JSON_MISSING, NULL, 0, "no submission*.json in the folder");
    else if (!r->meta.valid)
        record_find(r, RC_JSON_INVALID, r->meta.path, 0, "%s %s", r->meta.path, r->meta.problem);
    files(r);
    if (!r->meta.valid)
        return;
    keys(r);
    headline(r);
    loss(r);
    spread(r);
    readme(r);
}
