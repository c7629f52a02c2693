/* cmd_unwrap.c - verify unwrap: what is in a self-extracting script, and what the source says. */
#include "verify/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/file.h"
#include "verify/script_facts.h"
#include "verify/unwrap.h"

static const char help[] =
    "verify unwrap FILE.py [-o OUT.py] [KEY=VALUE]... [--json]   manual: docs/scripts.md\n"
    "\n"
    "Takes a self-extracting Python script apart without running it, and reads from its source "
    "what\n"
    "it compresses with, how it scores, what it counts as code, and what it uses beyond itself.\n"
    "\n"
    "  -o OUT.py       write the source\n"
    "  KEY=VALUE       settings that the run was started with, as TTT_ENABLED=1\n"
    "  --json          one JSON object instead of lines    --quiet   the wrapper only\n"
    "\n"
    "Exit status: 0 done, 2 wrong use, 3 bad input, 4 out of resources.\n"
    "Example: verify unwrap records/some_record/train_gpt.py -o source.py\n";

enum { SETTINGS = 256, NAME = 64 };

struct args {
    const char *file, *out;
    bool json, quiet, help;
    struct script_setting setting[SETTINGS];
    char name[SETTINGS][NAME];
    size_t settings;
};

static enum err_code parse(struct args *a, char **argv, struct err *e)
{
    for (; *argv; argv++) {
        const char *s = *argv, *eq = strchr(s, '=');
        if (!strcmp(s, "--help") || !strcmp(s, "-h")) {
            a->help = true;
            return ERR_OK;
        }
        if (!strcmp(s, "--json")) {
            a->json = true;
        } else if (!strcmp(s, "--quiet")) {
            a->quiet = true;
        } else if (!strcmp(s, "-o")) {
            if (!*++argv)
                return err_set(e, ERR_USAGE, "-o: needs a value");
            a->out = *argv;
        } else if (*s == '-') {
            return err_set(e, ERR_USAGE, "%s: unknown option; verify unwrap --help lists them", s);
        } else if (a->file && eq && eq > s && eq - s < NAME) {
            if (a->settings == SETTINGS)
                return err_set(e, ERR_USAGE, "%s: more than %d settings", s, SETTINGS);
            memcpy(a->name[a->settings], s, (size_t)(eq - s));
            a->setting[a->settings] = (struct script_setting){a->name[a->settings], eq + 1};
            a->settings++;
        } else if (a->file) {
            return err_set(e, ERR_USAGE, "%s: one file at a time, %s is the first", s, a->file);
        } else {
            a->file = s;
        }
    }
    if (!a->file)
        return err_set(e, ERR_USAGE, "say which file: verify unwrap FILE.py");
    return ERR_OK;
}

static const char *const judged[] = {"not checked", "met", "not met"};
static const char *const usage[] = {"may be used", "used", "not used"};
static const char *const counted[] = {"not found", "the size of the running file",
                                      "a compressed copy made for counting",
                                      "a number in the source", "in a way not understood"};

/* A fact with the line it stands on. */
static void fact_line(struct report *r, const char *head, size_t line, const char *text)
{
    if (line)
        report_line(r, "%-12s %s (line %zu)", head, text, line);
    else
        report_line(r, "%-12s %s", head, text);
}

static void say_wrapper(struct report *r, const struct unwrap *u)
{
    char family[256];
    cJSON *parts = cJSON_AddArrayToObject(r->root, "parts");
    cJSON *notes = cJSON_AddArrayToObject(r->root, "notes");
    unwrap_family(u, family, sizeof family);
    cJSON_AddStringToObject(r->root, "wrapper", family);
    cJSON_AddBoolToObject(r->root, "bomb", u->bomb);
    cJSON_AddBoolToObject(r->root, "runs_other_file", u->other_file);
    report_say(r, "wrapper      %s", family);
    for (size_t i = 1; i < u->parts; i++) {
        const struct unwrap_part *p = &u->part[i];
        cJSON *o = cJSON_CreateObject();
        report_say(r, "%-12s %s, line %zu: %zu characters, %zu bytes packed, %zu bytes of %s%s",
                   i == u->main ? "source" : "  part", p->family, p->line, p->coded, p->packed,
                   p->size,
                   p->python    ? "Python"
                   : p->marshal ? "compiled code"
                   : p->listing ? "listing: names and constants of compiled code"
                                : "other text or data",
                   p->guessed ? " (codecs guessed)" : "");
        cJSON_AddStringToObject(o, "family", p->family);
        cJSON_AddNumberToObject(o, "parent", (double)p->parent);
        cJSON_AddNumberToObject(o, "line", (double)p->line);
        cJSON_AddNumberToObject(o, "characters", (double)p->coded);
        cJSON_AddNumberToObject(o, "packed_bytes", (double)p->packed);
        cJSON_AddNumberToObject(o, "bytes", (double)p->size);
        cJSON_AddBoolToObject(o, "python", p->python);
        cJSON_AddBoolToObject(o, "marshal", p->marshal);
        cJSON_AddBoolToObject(o, "listing", p->listing);
        cJSON_AddBoolToObject(o, "guessed", p->guessed);
        cJSON_AddBoolToObject(o, "main", i == u->main);
        cJSON_AddItemToArray(parts, o);
    }
    for (size_t i = 0; i < u->notes; i++) {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddNumberToObject(o, "part", (double)u->note[i].part);
        cJSON_AddNumberToObject(o, "line", (double)u->note[i].line);
        cJSON_AddStringToObject(o, "text", u->note[i].text);
        cJSON_AddItemToArray(notes, o);
        fact_line(r, "not decoded", u->note[i].line, u->note[i].text);
    }
    if (u->notes_dropped)
        report_line(r, "not decoded  and %zu more", u->notes_dropped);
}

static void say_methods(struct report *r, const struct script_facts *f)
{
    cJSON *list = cJSON_AddArrayToObject(r->root, "methods");
    for (size_t i = 0; i < f->methods; i++) {
        const struct method_facts *m = &f->method[i];
        cJSON *o = cJSON_CreateObject(), *c = cJSON_CreateArray();
        char text[160];
        snprintf(text, sizeof text, "%s%s%s%s", usage[m->used], m->by_default ? " by default" : "",
                 *m->form ? ", " : "", m->form);
        size_t n = strlen(text);
        if (m->stride)
            n += (size_t)snprintf(text + n, sizeof text - n, ", stride %ld", m->stride);
        if (m->seq)
            snprintf(text + n, sizeof text - n, ", %ld tokens", m->seq);
        fact_line(r, method_name[m->method], m->line, text);
        cJSON_AddStringToObject(o, "method", method_name[m->method]);
        cJSON_AddStringToObject(o, "used", usage[m->used]);
        cJSON_AddBoolToObject(o, "by_default", m->by_default);
        cJSON_AddStringToObject(o, "form", m->form);
        cJSON_AddNumberToObject(o, "line", (double)m->line);
        cJSON_AddNumberToObject(o, "stride", (double)m->stride);
        cJSON_AddNumberToObject(o, "sequence", (double)m->seq);
        for (size_t k = 0; k < 4; k++) {
            cJSON *x = cJSON_CreateObject();
            snprintf(text, sizeof text, "C%zu %s%s%s", k + 1, judged[m->cond[k]],
                     *m->why[k] ? ": " : "", m->why[k]);
            fact_line(r, "", m->why_line[k], text);
            cJSON_AddStringToObject(x, "condition", judged[m->cond[k]]);
            cJSON_AddNumberToObject(x, "line", (double)m->why_line[k]);
            cJSON_AddStringToObject(x, "why", m->why[k]);
            cJSON_AddItemToArray(c, x);
        }
        cJSON_AddItemToObject(o, "conditions", c);
        cJSON_AddItemToArray(list, o);
    }
    if (!f->methods)
        report_line(r, "evaluation   no method found: not checked");
}

static void say_facts(struct report *r, const struct script_facts *f)
{
    cJSON *facts = cJSON_AddArrayToObject(r->root, "facts");
    cJSON *env = cJSON_AddArrayToObject(r->root, "settings");
    fact_line(r, "compressor", 0, *f->compressor ? f->compressor : "not found");
    fact_line(r, "quantiser", 0, *f->quantiser ? f->quantiser : "not found");
    fact_line(r, "code size", f->count_line, counted[f->count]);
    cJSON_AddStringToObject(r->root, "compressor", f->compressor);
    cJSON_AddStringToObject(r->root, "quantiser", f->quantiser);
    cJSON_AddStringToObject(r->root, "code_counted", counted[f->count]);
    cJSON_AddBoolToObject(r->root, "byte_sidecar", f->byte_sidecar);
    cJSON_AddBoolToObject(r->root, "caseops", f->caseops);
    cJSON_AddBoolToObject(r->root, "minifier_fallback", f->minifier_fallback);
    say_methods(r, f);
    for (size_t i = 0; i < f->facts; i++) {
        const struct fact *x = &f->fact[i];
        cJSON *o = cJSON_CreateObject();
        /* methods have been told, compressor and quantiser as well */
        if (x->kind != FACT_EVAL && x->kind != FACT_COMPRESSOR && x->kind != FACT_QUANTISER)
            fact_line(r, fact_kind_name[x->kind], x->line, x->text);
        cJSON_AddStringToObject(o, "kind", fact_kind_name[x->kind]);
        cJSON_AddNumberToObject(o, "line", (double)x->line);
        cJSON_AddStringToObject(o, "text", x->text);
        cJSON_AddItemToArray(facts, o);
    }
    for (size_t i = 0; i < f->envs; i++) {
        const struct env_fact *x = &f->env[i];
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "name", *x->name ? x->name : x->attr);
        cJSON_AddStringToObject(o, "value", x->value);
        cJSON_AddBoolToObject(o, "set", x->set);
        cJSON_AddNumberToObject(o, "line", (double)x->line);
        cJSON_AddItemToArray(env, o);
    }
    report_line(r, "settings     %zu, with their defaults in --json", f->envs);
}

static enum err_code run(const struct args *a, struct report *r, struct err *e)
{
    const void *data = NULL;
    size_t n = 0;
    struct unwrap *u = calloc(1, sizeof *u);
    struct script_facts f = {0};
    enum err_code rc;
    if (!u)
        return err_nomem(e, "the parts of the script", sizeof *u);
    if ((rc = file_map(a->file, &data, &n, e)) || (rc = unwrap(u, data, n, a->file, e)))
        goto out;
    const struct unwrap_part *p = &u->part[u->main];
    const uint8_t *nul = p->python ? memchr(p->text, 0, p->size) : NULL;
    if (nul) { /* Python itself refuses such a text */
        rc = err_set(e, ERR_INPUT, "%s: no Python source: a NUL at byte %zu", a->file,
                     (size_t)(nul - p->text));
        goto out;
    }
    if (p->python && (rc = script_facts(&f, p->text, p->size, a->setting, a->settings, e)))
        goto out;
    report_say(r, "file         %s, %zu bytes", a->file, n);
    cJSON_AddStringToObject(r->root, "command", "unwrap");
    cJSON_AddStringToObject(r->root, "file", a->file);
    cJSON_AddNumberToObject(r->root, "bytes", (double)n);
    cJSON_AddNumberToObject(r->root, "source_bytes", (double)p->size);
    cJSON_AddNumberToObject(r->root, "source_lines", (double)f.lines);
    say_wrapper(r, u);
    if (p->python)
        say_facts(r, &f);
    else
        report_say(r, "not checked  what the script does: nothing of it can be read as Python");
    if (a->out && !(rc = file_write(a->out, p->text, p->size, e)))
        report_say(r, "written      %s, %zu bytes%s", a->out, p->size,
                   p->listing ? ", a listing and no Python" : "");
    if (!rc)
        rc = report_finish(r, e);
out:
    script_facts_free(&f);
    unwrap_free(u);
    free(u);
    file_unmap(data, n);
    return rc;
}

enum err_code verify_unwrap(char **argv, struct err *e)
{
    struct args *a = calloc(1, sizeof *a);
    struct report r = {0};
    enum err_code rc;
    if (!a)
        return err_nomem(e, "the command line", sizeof *a);
    if ((rc = parse(a, argv, e)))
        goto out;
    if (a->help)
        fputs(help, stdout);
    else if (!(rc = report_init(&r, a->json, a->quiet, e)))
        rc = run(a, &r, e);
    report_free(&r);
out:
    free(a);
    return rc;
}
