/* record_script.c - see record_script.h. */
#include "verify/record_script.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "verify/pytoken.h"
#include "verify/record_line.h"

static const struct record_file *choose(const struct record_folder *f, size_t counted)
{
    const struct record_file *best = record_folder_find(f, "train_gpt.py");
    for (size_t i = 0; i < f->files && (!best || strcmp(best->path, "train_gpt.py")); i++) {
        const struct record_file *r = &f->file[i];
        if (r->kind != RECORD_SCRIPT || strchr(r->path, '/'))
            continue;
        /* In this order: begins with "train", has the counted size, has the shorter name. */
        bool train = !strncmp(r->path, "train", 5), was = best && !strncmp(best->path, "train", 5);
        bool size = counted && r->size == counted, had = best && counted && best->size == counted;
        if (!best || train > was ||
            (train == was && (size > had || (size == had && strlen(r->path) < strlen(best->path)))))
            best = r;
    }
    for (size_t i = 0; i < f->files && !best; i++) /* nothing at the top: somewhere below */
        if (f->file[i].kind == RECORD_SCRIPT &&
            !strcmp(record_file_name(&f->file[i]), "train_gpt.py"))
            best = &f->file[i];
    return best;
}

/* ---- siblings ---- */

static void add_sibling(struct record_script *s, const struct record_file *r, size_t line)
{
    if (r == s->file || r == s->target)
        return;
    for (size_t i = 0; i < s->siblings; i++)
        if (s->sibling[i] == r)
            return;
    if (s->siblings < SCRIPT_SIBLINGS) {
        s->sibling_line[s->siblings] = line;
        s->sibling[s->siblings++] = r;
    }
}

/* A module of this name beside the script? */
static void import_of(struct record_script *s, const struct record_folder *f, const char *name,
                      size_t n, size_t line)
{
    for (size_t i = 0; i < f->files; i++) {
        const char *p = f->file[i].path;
        if (f->file[i].kind == RECORD_SCRIPT && !strncmp(p, name, n) &&
            (!strcmp(p + n, ".py") || !strcmp(p + n, "/__init__.py")))
            add_sibling(s, &f->file[i], line);
    }
}

/* A string that ends in the path of a code file of the folder: it is loaded, built or run. */
static void named_in(struct record_script *s, const struct record_folder *f, const char *str,
                     size_t n, size_t line)
{
    if (n < 3 || !memchr(str, '.', n))
        return; /* no file name */
    for (size_t i = 0; i < f->files; i++) {
        const struct record_file *r = &f->file[i];
        const char *name = record_file_name(r);
        size_t len = strlen(name);
        if ((r->kind == RECORD_CODE || r->kind == RECORD_SCRIPT) && n >= len &&
            !memcmp(str + n - len, name, len) && (n == len || str[n - len - 1] == '/'))
            add_sibling(s, r, line);
    }
}

/* What one source imports or names. `own`: report its lines. */
static enum err_code siblings_in(struct record_script *s, const struct record_folder *f,
                                 const char *text, size_t n, bool own, struct err *e)
{
    struct py_source py;
    enum err_code rc = py_scan(&py, text, n, e);
    for (size_t i = 0; !rc && i < py.count; i++) {
        const struct py_token *t = &py.tok[i];
        size_t line = own ? t->line : 0;
        bool first = !i || py.tok[i - 1].kind == PY_NEWLINE || py_is(&py, i - 1, ";") ||
                     py_is(&py, i - 1, ":");
        if (t->kind == PY_STRING && t->len < 512) {
            uint8_t value[2 * 512];
            size_t len = 0;
            if (py_string(&py, i, value, &len))
                named_in(s, f, (const char *)value, len, line);
        } else if (first && (py_is(&py, i, "import") || py_is(&py, i, "from"))) {
            bool list = py_is(&py, i, "import");
            for (size_t k = i + 1; py_kind_at(&py, k) == PY_NAME; k += 2) {
                import_of(s, f, text + py.tok[k].at, py.tok[k].len, line);
                while (py_is(&py, k + 1, ".") || py_is(&py, k + 1, "as"))
                    k += 2;
                if (!list || !py_is(&py, k + 1, ","))
                    break;
            }
        }
    }
    if (!rc && own) {
        s->new_syntax = py.new_syntax;
        s->lines = py.lines;
    }
    py_free(&py);
    return rc;
}

/* ---- reading ---- */

/*
 * A train_gpt.py that is not what the logs counted, beside another script that is: the other one
 * ran. Not where train_gpt.py only executes it.
 */
static const struct record_file *counted_one(const struct record_folder *f,
                                             const struct record_file *main, size_t counted)
{
    if (!main || !counted || main->size == counted)
        return main;
    for (size_t i = 0; i < f->files; i++)
        if (f->file[i].kind == RECORD_SCRIPT && !strchr(f->file[i].path, '/') &&
            f->file[i].size == counted)
            return &f->file[i];
    return main;
}

/* exec(open(...).read()) of another script of the folder, and little else. */
static const struct record_file *executes(const struct record_folder *f,
                                          const struct record_file *file)
{
    struct line all = {file->text, (size_t)file->size};
    if (file->size > 2000 || line_word(all, "exec", 0) == SIZE_MAX)
        return NULL;
    for (size_t i = 0; i < f->files; i++)
        if (f->file[i].kind == RECORD_SCRIPT && &f->file[i] != file &&
            line_find(all, record_file_name(&f->file[i]), 0) != SIZE_MAX)
            return &f->file[i];
    return NULL;
}

/* "__wrapper_size__=21392" in a wrapper of another size. */
static void own_size(struct record_script *s)
{
    const struct record_file *r = s->target ? s->target : s->file;
    struct line l;
    size_t line = 1;
    for (size_t at = 0; s->wrapped && line_next(r->text, (size_t)r->size, &at, &l); line++) {
        struct line head = {l.s, l.n < 80 ? l.n : 80};
        struct line_number v;
        size_t eq = line_find(head, "=", 0);
        struct line name = {l.s, eq == SIZE_MAX ? 0 : eq};
        if (!line_has(name, "size") || !line_number(head, eq, &v) || v.decimals || v.v < 100 ||
            v.v > 1e9)
            continue;
        if ((uint64_t)v.v != r->size) {
            s->self_line = line;
            s->self_size = (unsigned long long)v.v;
        }
    }
}

enum err_code record_script_read(struct record_script *s, const struct record_folder *f,
                                 size_t counted, const struct script_setting *setting,
                                 size_t settings, struct err *e)
{
    *s = (struct record_script){.file = choose(f, counted), .family = "none"};
    if (!s->file || !s->file->text)
        return ERR_OK;
    s->target = executes(f, s->file);
    if (!s->target)
        s->file = counted_one(f, s->file, counted);
    const struct record_file *r = s->target ? s->target : s->file;
    if (!r->text)
        return ERR_OK;
    s->source = r->text;
    s->source_n = (size_t)r->size;
    enum err_code rc = ERR_OK;
    if (r->size <= UNWRAP_MAX) {
        rc = unwrap(&s->u, r->text, (size_t)r->size, r->path, e);
        s->unwrapped = true;
        if (!rc && s->u.main) {
            s->wrapped = true;
            s->source = (const char *)s->u.part[s->u.main].text;
            s->source_n = s->u.part[s->u.main].size;
            unwrap_family(&s->u, s->family, sizeof s->family);
        }
        if (!rc && !s->u.part[s->u.main].python) { /* compiled code: nothing to read facts from */
            s->source = NULL;
            s->source_n = 0;
        }
    }
    if (!rc && s->source)
        rc = siblings_in(s, f, s->source, s->source_n, true, e);
    for (size_t i = 0; !rc && i < s->siblings; i++) /* grows: siblings of siblings */
        if (s->sibling[i]->kind == RECORD_SCRIPT && s->sibling[i]->text)
            rc = siblings_in(s, f, s->sibling[i]->text, (size_t)s->sibling[i]->size, false, e);
    if (!rc)
        own_size(s);
    if (!rc && s->source_n) {
        rc = script_facts(&s->facts, s->source, s->source_n, setting, settings, e);
        s->have_facts = true;
    }
    return rc;
}

void record_script_free(struct record_script *s)
{
    if (s->have_facts)
        script_facts_free(&s->facts);
    if (s->unwrapped)
        unwrap_free(&s->u);
    *s = (struct record_script){0};
}

size_t record_script_size(const struct record_script *s)
{
    return (s->file ? (size_t)s->file->size : 0) + (s->target ? (size_t)s->target->size : 0);
}

size_t record_script_sibling_bytes(const struct record_script *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->siblings; i++)
        n += (size_t)s->sibling[i]->size;
    return n;
}

/* Equal but for blanks at the end, which the log's own newline adds. */
static bool same(const char *a, size_t n, const char *b, size_t m)
{
    while (n && isspace((unsigned char)a[n - 1]))
        n--;
    while (m && isspace((unsigned char)b[m - 1]))
        m--;
    return n == m && !memcmp(a, b, n);
}

bool record_script_printed(const struct record_script *s, const struct record_folder *f,
                           const char *text, size_t n, const char **which)
{
    *which = NULL;
    if (s->source && same(text, n, s->source, s->source_n)) {
        *which = (s->target ? s->target : s->file)->path;
        return true;
    }
    /* Inside of it: where the log's own text cannot be told from the end of the script. */
    if (s->source && s->source_n > 1000 && s->source_n < n &&
        memmem(text, n, s->source, s->source_n - 1)) {
        *which = (s->target ? s->target : s->file)->path;
        return true;
    }
    for (size_t i = 0; i < f->files; i++)
        if (f->file[i].kind == RECORD_SCRIPT && f->file[i].text &&
            same(text, n, f->file[i].text, (size_t)f->file[i].size)) {
            *which = f->file[i].path;
            return true;
        }
    return false;
}
