/* probe_file.c - see probe_file.h. */
#include "verify/probe_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/file.h"
#include "model/reader.h"
#include "packer/blob.h"
#include "stub/embed.h"

enum { LARGEST = 1 << 30 };

static enum err_code read_file(struct probe_file *f, struct err *e)
{
    const void *map;
    size_t n;
    enum err_code rc = file_map(f->path, &map, &n, e);
    if (rc)
        return rc;
    if (!n || n > LARGEST)
        rc = err_set(e, ERR_INPUT, "%s: %zu bytes are no program", f->path, n);
    else if (!(f->data = malloc(n)))
        rc = err_nomem(e, "the file", n);
    else
        memcpy(f->data, map, n);
    f->size = n;
    file_unmap(map, n);
    return rc;
}

/* Is it meant as a submission of this format? Its loader says how long it is, and behind it stands
 * the magic number. A damaged one must not pass for a foreign program. */
static bool has_header(const struct probe_file *f)
{
    enum { PHDR_FILESZ = 64 + 32 }; /* of the first program header of an ELF file */
    if (f->size < PHDR_FILESZ + 8)
        return false;
    uint64_t loader = le64(f->data + PHDR_FILESZ);
    return loader <= f->size - 8 && le64(f->data + loader) == FORMAT_MAGIC;
}

static enum err_code section(const struct probe_file *f, const struct blob *b, enum kind kind,
                             uint8_t **raw, size_t *n, struct err *e)
{
    const struct blob_section *s = blob_find(b, kind);
    *n = s->raw_size;
    return blob_decode(raw, s, f->path, e);
}

/* The recipe and the byte table of a submission. */
static enum err_code declared(struct probe_file *f, struct recipe *r, struct byte_table *own,
                              struct err *e)
{
    char where[1100];
    uint8_t *raw = NULL;
    size_t n;
    struct blob b = {0};
    enum err_code rc = blob_parse(&b, f->data, f->size, f->path, stub_loader,
                                  (size_t)(stub_loader_end - stub_loader), e);
    if (rc)
        return rc;
    if ((rc = section(f, &b, KIND_RECIPE, &raw, &n, e)))
        goto out;
    snprintf(where, sizeof where, "%s: recipe", f->path);
    if ((rc = recipe_parse(r, (const char *)raw, n, where, true, e)))
        goto out;
    free(raw);
    raw = NULL;
    if ((rc = section(f, &b, KIND_BYTE_TABLE, &raw, &n, e)))
        goto out;
    snprintf(where, sizeof where, "%s: byte_table", f->path);
    rc = bytes_parse(own, raw, n, where, e);
out:
    free(raw);
    blob_close(&b);
    return rc;
}

static bool same(const struct byte_table *a, const struct byte_table *b)
{
    return a->vocab == b->vocab && !memcmp(a->base, b->base, a->vocab) &&
           !memcmp(a->flags, b->flags, a->vocab);
}

/* The tokeniser's table where there is one: the file's own is only its word. */
static enum err_code table(struct probe_file *f, const struct options *o, struct byte_table *own,
                           struct err *e)
{
    struct err unused = {0};
    enum err_code rc = bytetable_for_weights(&f->b, o->data, o->tokenizer, NULL, o->data, f->vocab,
                                             o->tokenizer ? e : &unused);
    if (rc && o->tokenizer)
        return rc;
    if (!rc) {
        f->table_differs = own->vocab && !same(own, &f->b.b);
    } else if (own->vocab >= f->vocab) {
        f->b.b = *own;
        *own = (struct byte_table){0};
        snprintf(f->b.origin, sizeof f->b.origin, "%s", f->path);
        f->own_table = true;
    }
    return ERR_OK;
}

enum err_code probe_file_open(struct probe_file *f, const struct options *o, struct err *e)
{
    struct byte_table own = {0};
    struct recipe r;
    enum err_code rc;

    *f = (struct probe_file){.path = o->file};
    recipe_init(&r);
    if ((rc = read_file(f, e)))
        goto out;
    f->ours = has_header(f);
    if (f->ours && o->settings) {
        rc = err_set(e, ERR_USAGE, "%s: a submission brings its own settings", o->setting[0]);
        goto out;
    }
    if (f->ours && (rc = declared(f, &r, &own, e)))
        goto out;
    for (size_t i = 0; i < o->settings; i++)
        if ((rc = recipe_set(&r, o->setting[i], "command line", e)))
            goto out;
    if ((rc = recipe_check(&r, e)) || (rc = gpt_init(&f->m, &r, e)))
        goto out;
    f->vocab = (size_t)r.vocab_size;
    rc = table(f, o, &own, e);
out:
    if (rc == ERR_USAGE && f->ours && !o->settings)
        rc = e->code = ERR_INPUT; /* inside a file it is bad input, not wrong use */
    bytes_free(&own);
    if (rc)
        probe_file_close(f);
    return rc;
}

void probe_file_close(struct probe_file *f)
{
    bytetable_free(&f->b);
    gpt_free(&f->m);
    free(f->data);
    *f = (struct probe_file){0};
}

enum err_code probe_map_make(struct probe_map *p, const struct gpt *m, enum eval_mode mode,
                             size_t n, struct err *e)
{
    const struct score_opts o = {.mode = mode};
    struct window_list l;
    size_t at = 0, scored = 0;
    enum err_code rc = score_windows(m, n, &o, &l, e);

    *p = (struct probe_map){0};
    if (rc)
        return rc;
    p->total = l.total;
    p->windows = window_count(&l);
    p->count = window_scored(&l);
    p->token = malloc(p->count * sizeof *p->token);
    p->start = malloc(p->count * sizeof *p->start);
    p->reach = malloc(p->count * sizeof *p->reach);
    if (!p->token || !p->start || !p->reach) {
        probe_map_free(p);
        return err_nomem(e, "the list of scores", p->count * 3 * sizeof *p->token);
    }
    for (size_t i = 0; i < p->windows; i++) {
        struct window w = window_at(&l, i);
        for (size_t j = w.from; j < w.len; j++, at++) {
            p->token[at] = w.start + j + 1; /* the target of position start + j */
            p->start[at] = w.start;
            p->reach[at] = w.start + w.len;
            p->repeated += p->token[at] <= scored;
            scored = p->token[at] > scored ? p->token[at] : scored;
        }
    }
    return ERR_OK;
}

void probe_map_free(struct probe_map *p)
{
    free(p->token);
    free(p->start);
    free(p->reach);
    *p = (struct probe_map){0};
}
