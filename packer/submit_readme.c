/* submit_readme.c - see submit.h: README.md, with the tables that records show. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/score.h"
#include "packer/submit.h"

/* Somebody's text inside Markdown: one line, no markup of its own. */
static void plain(FILE *f, const char *s)
{
    for (; *s; s++) {
        if (strchr("\\`*_[]<>|#", *s))
            fputc('\\', f);
        fputc((unsigned char)*s < ' ' || *s == 127 ? ' ' : *s, f);
    }
}

/* A number with a comma between groups of three digits. */
static const char *commas(char out[32], size_t n)
{
    char digits[32], *at = out;
    int len = snprintf(digits, sizeof digits, "%zu", n);
    for (int i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0)
            *at++ = ',';
        *at++ = digits[i];
    }
    *at = 0;
    return out;
}

static void cell(FILE *f, const char *fmt, double v)
{
    if (isfinite(v))
        fprintf(f, fmt, v);
    else
        fputs(" - |", f);
}

static void results(FILE *f, const struct submit *s)
{
    bool adapts = s->run[0].adapts;
    char n[32];
    fprintf(f, "## Results\n\n| seed | steps | ms/step | train time | before quantisation | ");
    fprintf(f, "val_loss | **val_bpb** (%s) |", s->run[0].record.mode);
    if (adapts)
        fprintf(f, " %s |", s->run[0].own.mode);
    fprintf(f, " bytes | score time |\n|---|---|---|---|---|---|---|---|---|%s\n",
            adapts ? "---|" : "");
    for (size_t i = 0; i < s->runs; i++) {
        const struct submit_run *r = &s->run[i];
        fprintf(f, "| %lld | %zu |", r->seed, r->steps);
        cell(f, " %.1f |", r->train_ms / (double)r->steps);
        cell(f, " %.1f s |", r->train_ms / 1e3);
        cell(f, " %.8f |", r->pre_bpb);
        fprintf(f, " %.8f | **%.8f** |", r->record.val_loss, r->record.val_bpb);
        if (adapts)
            fprintf(f, " %.8f |", r->own.val_bpb);
        fprintf(f, " %s%s | %.1f s |\n", commas(n, r->blob.size), i == s->worst ? " (largest)" : "",
                (double)r->own.time_ms / 1e3);
    }
    fprintf(f, "| **mean** | | | | | %.8f | **%.8f** |", s->loss.mean, s->bpb.mean);
    if (adapts)
        fprintf(f, " %.8f |", s->own.mean);
    fprintf(f, " | |\n");
    if (s->runs > 1) {
        fprintf(f, "| std (n - 1) | | | | | %.8f | %.8f |", s->loss.sd, s->bpb.sd);
        if (adapts)
            fprintf(f, " %.8f |", s->own.sd);
        fprintf(f, " | |\n");
    }
    const struct submit_score *r = &s->run[0].record;
    fprintf(f,
            "\nEach score is over %" PRIu64 " tokens, which stand for %" PRIu64
            " bytes of text (%.5f bytes per\ntoken): val_bpb = val_loss / ln 2 * tokens / bytes.\n",
            r->tokens, r->bytes, s->scale);
}

static void conditions(FILE *f, const struct submit *s)
{
    const struct submit_run *r = &s->run[0];
    bool met[SCORE_CONDITIONS];
    if (!r->adapts)
        return;
    score_conditions(&r->scoring, eval_mode_parse(r->own.mode), met);
    fprintf(
        f,
        "\nThe value of record is the sliding one. Mode `%s` adapts to the stream that it scores;\n"
        "of the four conditions (issue #1017) it meets:",
        r->own.mode);
    for (size_t i = 0; i < SCORE_CONDITIONS; i++)
        fprintf(f, " %zu %s: %s%s", i + 1, score_condition_name(i), met[i] ? "yes" : "**no**",
                i + 1 < SCORE_CONDITIONS ? "," : ".\n");
}

static void significance(FILE *f, const struct submit *s)
{
    const struct submit_job *j = s->job;
    struct stats old = stats_of(j->sota, j->sotas);
    const struct {
        const char *name;
        double per_bpb; /* the unit's worth of 1 BPB */
    } unit[] = {{"nats per token", log(2) * s->scale}, {"nats per byte", log(2)}, {"BPB", 1}};
    if (!j->sotas)
        return;
    double gain = old.mean - s->bpb.mean;
    fprintf(f, "\n## Against %.8f BPB (%zu run%s)\n\n", old.mean, old.n, old.n == 1 ? "" : "s");
    fprintf(f, "%s t-test, one-sided, sample standard deviation.\n\n",
            old.n > 1 ? "Welch's" : "One-sample");
    fprintf(f, "| unit | gain | t, df, p: gain above 0 | t, df, p: gain above 0.005 of the unit |\n"
               "|---|---|---|---|\n");
    for (size_t i = 0; i < sizeof unit / sizeof *unit; i++) {
        fprintf(f, "| %s | %.6f |", unit[i].name, gain * unit[i].per_bpb);
        for (int k = 0; k < 2; k++) {
            double margin = k ? 0.005 / unit[i].per_bpb : 0;
            struct t_test t = old.n > 1 ? t_welch(&s->bpb, &old, margin)
                                        : t_one_sample(&s->bpb, old.mean, margin);
            if (t.valid)
                fprintf(f, " %.3f, %.2f, %.3g |", t.t, t.df, t.p);
            else
                fprintf(f, " not enough runs |");
        }
        fprintf(f, "\n");
    }
}

static void sizes(FILE *f, const struct submit *s)
{
    const struct submit_run *w = &s->run[s->worst];
    char n[32];
    fprintf(f,
            "\n## Bytes\n\nThe submission is one executable file: its size is the counted size. "
            "The largest of "
            "the\nruns (seed %lld), section by section:\n\n| section | bytes |\n|---|---|\n",
            w->seed);
    for (size_t i = 0; i < w->blob.count; i++)
        fprintf(f, "| %s | %s |\n", blob_kind_name(w->blob.section[i].kind),
                commas(n, w->blob.section[i].size));
    fprintf(f, "| **total** | **%s** |\n", commas(n, w->blob.size));
    fprintf(f, "| left of 16,000,000 | %s |\n", commas(n, SUBMIT_LIMIT - w->blob.size));
    fprintf(f, "\nThe tokeniser is not in the file and not counted; its byte table is.\n");
}

static void recipe(FILE *f, const struct submit *s)
{
    char *text = malloc(1 << 16);
    if (!text || !s->run[0].has_recipe) {
        free(text);
        return;
    }
    struct recipe r = s->run[0].recipe;
    r.run_id[0] = r.data_path[0] = r.tokenizer_path[0] = 0;
    recipe_print(&r, RECIPE_MODEL | RECIPE_EVAL | RECIPE_TRAIN | RECIPE_QUANT, true, text, 1 << 16);
    fprintf(f, "\n## Recipe\n\n`recipe.conf` has all settings. Those that are not the trainer's "
               "defaults:\n\n```\n");
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        if (strncmp(line, "SEED=", 5) && strncmp(line, "DATA_PATH=", 10))
            fprintf(f, "%s\n", line);
    fprintf(f, "```\n");
    free(text);
}

static void checks(FILE *f, const struct submit *s)
{
    static const char *const word[] = {
        [SUBMIT_KEPT] = "kept", [SUBMIT_BROKEN] = "**broken**", [SUBMIT_OPEN] = "open"};
    fprintf(f,
            "\n## Rules\n\nChecked when this folder was made. Open: not checked, or not binding in "
            "this track.\n\n| rule | | |\n|---|---|---|\n");
    for (size_t i = 0; i < s->checks; i++) {
        fprintf(f, "| %s | %s | ", s->check[i].rule, word[s->check[i].verdict]);
        plain(f, s->check[i].text);
        fprintf(f, " |\n");
    }
}

static void files(FILE *f, const struct submit *s)
{
    fprintf(f, "\n## Files\n\n| file | bytes | SHA-256 |\n|---|---|---|\n");
    for (size_t i = 0; i < s->runs; i++)
        fprintf(f, "| submission_seed%lld | %zu | `%s` |\n", s->run[i].seed, s->run[i].blob.size,
                s->run[i].sha256);
    fprintf(
        f,
        "\n`train_seedN.log` is the log of the run, `verify_seedN.json` what an audit of its file "
        "said.\n\nTo score a file again, and to audit it (every byte, every score, executed in a "
        "sandbox):\n\n```\n./submission_seed%lld --data DIR\n"
        "verify blob submission_seed%lld --data DIR --execute --claim verify_seed%lld.json\n"
        "```\n\nTo train again: `trainer recipe.conf DATA_PATH=DIR SEED=%lld --out run`.\n",
        s->run[0].seed, s->run[0].seed, s->run[0].seed, s->run[0].seed);
}

char *submit_readme(const struct submit *s)
{
    const struct submit_job *j = s->job;
    char *text = NULL, name[256], date[16], n[32];
    size_t len;
    FILE *f = open_memstream(&text, &len);
    if (!f)
        return NULL;
    fprintf(f, "# ");
    plain(f, submit_name(s, name, sizeof name));
    fprintf(f, "\n\n**val_bpb: %.5f** (", s->bpb.mean);
    if (s->runs > 1)
        fprintf(f, "mean of %zu seeds, std %.5f)", s->runs, s->bpb.sd);
    else
        fprintf(f, "one seed)");
    fprintf(f, " | **%s bytes** | track %s | %s\n\n", commas(n, s->run[s->worst].blob.size),
            j->track, submit_date(j, date));
    if (j->author) {
        fprintf(f, "By ");
        plain(f, j->author);
        if (j->github) {
            fprintf(f, " (");
            plain(f, j->github);
            fprintf(f, ")");
        }
        fprintf(f, ".\n\n");
    }
    if (j->blurb) {
        plain(f, j->blurb);
        fprintf(f, "\n\n");
    }
    if (strcmp(j->track, "10min_16mb"))
        fprintf(f,
                "This is a non-record submission: it was not run within 10 minutes on 8 H100.\n\n");
    results(f, s);
    conditions(f, s);
    significance(f, s);
    sizes(f, s);
    recipe(f, s);
    checks(f, s);
    files(f, s);
    bool bad = ferror(f);
    if (fclose(f) || bad) {
        free(text);
        return NULL;
    }
    return text;
}
