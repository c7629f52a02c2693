/* contents.c - see contents.h. */
#include "verify/contents.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "model/shard.h"
#include "stub/embed.h"
#include "stub/xxh64.h"
#include "verify/carried.h"
#include "verify/needs.h"

enum { LIMIT = 16000000, WHERE = 1100 };

/* What the runner of stub/cuda.h takes from a machine with a card. On others it is static. */
static const char *const with_card[] = {"/lib64/ld-linux-x86-64.so.2", "libc.so.6", "libdl.so.2",
                                        "libcuda.so.1"};

enum err_code contents_needs(const uint8_t *elf, size_t n, bool cuda, const char *path,
                             struct report *r, struct err *e)
{
    char where[WHERE];
    struct needs *list = calloc(1, sizeof *list);
    if (!list)
        return err_nomem(e, "shared objects", sizeof *list);
    snprintf(where, sizeof where, "%s: runner", path);
    enum err_code rc = needs_list(list, elf, n, where, e);
    cJSON *names = rc ? NULL : cJSON_AddArrayToObject(r->root, "shared_objects");
    for (size_t i = 0; !rc && i < list->count; i++) {
        report_line(r, "needs        %s, which is not counted [R-LIBRARY]", list->name[i]);
        cJSON_AddItemToArray(names, cJSON_CreateString(list->name[i]));
    }
    if (!rc && !list->count)
        report_line(r, "needs        no shared objects");
    for (size_t i = 0; !rc && cuda && i < sizeof with_card / sizeof *with_card; i++) {
        report_line(r, "needs        %s to use a card, which is not counted [R-LIBRARY]",
                    with_card[i]);
        cJSON_AddItemToArray(names, cJSON_CreateString(with_card[i]));
    }
    free(list);
    return rc;
}

void contents_tokenizer(size_t size, const char *path, struct report *r)
{
    struct stat st;
    if (stat(path, &st))
        return;
    report_line(r, "tokeniser    %lld bytes, not counted; with it %lld of %d",
                (long long)st.st_size, (long long)size + st.st_size, LIMIT);
    cJSON_AddNumberToObject(r->root, "tokenizer_bytes", (double)st.st_size);
    cJSON_AddNumberToObject(r->root, "bytes_with_tokenizer", (double)size + (double)st.st_size);
}

/* ---- inside the sections ---- */

static bool same(const uint8_t *raw, size_t n, const uint8_t *own, const uint8_t *end)
{
    return n == (size_t)(end - own) && !memcmp(raw, own, n);
}

static void source(const uint8_t *raw, size_t n, struct report *r)
{
    bool known = same(raw, n, stub_source, stub_source_end);
    report_line(r, "source       %zu bytes, %s", n,
                known ? "that of this build" : "not that of this build");
    cJSON_AddStringToObject(r->root, "source", known ? "known" : "unknown");
}

/* Whose kernels a card would run. */
static void kernels(const uint8_t *raw, size_t n, struct report *r)
{
    bool known = same(raw, n, stub_cuda, stub_cuda_end);
    report_line(r, "cuda         %zu bytes of kernels, %s", n,
                known ? "those of this build" : "not those of this build");
    cJSON_AddStringToObject(r->root, "cuda", known ? "known" : "unknown");
}

/* Bytes of lines that set nothing this build knows: newer keys, or a place to keep something. */
static enum err_code recipe_text(const char *text, size_t n, struct report *r, struct err *e)
{
    struct recipe *scratch = malloc(sizeof *scratch);
    size_t unknown = 0;
    if (!scratch)
        return err_nomem(e, "the recipe", sizeof *scratch);
    recipe_init(scratch);
    for (size_t at = 0; at < n;) {
        const char *end = memchr(text + at, '\n', n - at);
        size_t len = end ? (size_t)(end - (text + at)) : n - at;
        char line[2 * RECIPE_STR] = "";
        struct err ignored = {0};
        if (len < sizeof line) {
            memcpy(line, text + at, len);
            line[len] = 0;
        }
        if (len && recipe_set(scratch, line, "recipe", &ignored))
            unknown += len;
        at += len + 1;
    }
    free(scratch);
    if (unknown)
        report_line(r, "recipe       %zu of its %zu bytes set nothing that this build knows",
                    unknown, n);
    cJSON_AddNumberToObject(r->root, "recipe_unknown", (double)unknown);
    return ERR_OK;
}

static enum err_code look(const struct blob_section *s, const struct carried_index *x,
                          const char *path, struct carried *most, struct report *r, struct err *e)
{
    uint8_t *raw;
    const char *name = blob_kind_name(s->kind);
    enum err_code rc = blob_decode(&raw, s, path, e);
    if (rc)
        return rc;
    if (s->kind == KIND_SOURCE)
        source(raw, s->raw_size, r);
    if (s->kind == KIND_CUDA)
        kernels(raw, s->raw_size, r);
    if (s->kind == KIND_RECIPE)
        rc = recipe_text((const char *)raw, s->raw_size, r, e);
    struct carried c = carried_scan(x, raw, s->raw_size);
    if (c.tokens) {
        report_doubt(
            r,
            "%s: %zu tokens of the scored stream, %zu of them in a row from number %zu, at "
            "byte %zu of the unpacked section [R-NO-VAL]",
            name, c.tokens, c.run, c.from, c.byte);
        most->tokens += c.tokens;
    }
    free(raw);
    return rc;
}

enum err_code contents_sections(const struct blob *b, const char *path, const char *data,
                                size_t vocab, size_t max_tokens, struct report *r, struct err *e)
{
    uint16_t *tok = NULL;
    size_t n = 0;
    struct carried_index x = {0};
    struct carried all = {0};
    enum err_code rc = shard_load(&tok, &n, data, "val", vocab, max_tokens ? max_tokens + 1 : 0, e);
    if (rc || (rc = carried_open(&x, tok, n, e)))
        goto out;
    for (size_t i = 0; i < b->count && !rc; i++)
        rc = look(&b->section[i], &x, path, &all, r, e);
    if (rc)
        goto out;
    if (all.tokens)
        report_line(r, "carried      %zu TOKENS OF THE SCORED STREAM", all.tokens);
    else
        report_line(r, "carried      no %d tokens of the scored stream in a row", CARRIED_RUN);
    cJSON_AddNumberToObject(r->root, "carried_tokens", (double)all.tokens);
    char hash[20];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)xxh64((const uint8_t *)tok, 2 * n));
    report_line(r, "data         xxh64:%s of the %zu tokens that are read", hash, n);
    cJSON_AddStringToObject(r->root, "stream_xxh64", hash);
out:
    carried_close(&x);
    free(tok);
    return rc;
}

/* ---- the stream ---- */

/* The challenge's validation set as tokens of several vocabularies: what a score over whole windows
 * of the usual lengths covers, and the bytes of text that it stands for. */
static const struct {
    const char *name;
    size_t tokens, bytes;
} known[] = {
    {"SP1024", 62021632, 151080363},
    {"SP4096", 45508608, 151074053},
    {"SP8192", 40540160, 151078222},
    {"SP8192 CaseOps", 47851520, 151074499},
    {"bytes, vocabulary 256", 151076864, 151076864},
    {"bytes, vocabulary 260", 151130112, 151080112},
    {"SP1024 of the launch day", 63779840, 155769746},
};
/* The set's length is known up to a window that scripts drop; bytes move with it (docs/rules.md).
 */
enum { TAIL = 8192 };
#define BYTES_TOLERANCE 0.002

enum err_code contents_data(const char *data, struct err *e)
{
    struct shard_list l;
    enum err_code rc = shard_list(&l, data, "val", e);
    if (!rc)
        shard_list_free(&l);
    return rc;
}

void contents_stream(const struct scores *s, size_t max_tokens, struct report *r)
{
    if (max_tokens)
        report_line(r,
                    "part         only the first %zu positions were scored (--max-tokens): not "
                    "the score of the stream",
                    (size_t)s->sum.tokens);
    if (max_tokens || !s->stream)
        return;
    /* The last window may drop less than its length; a long one could drop the hard half. */
    size_t all = s->stream - 1, lost = s->sum.tokens < all ? all - s->sum.tokens : 0;
    if (lost > 65536 && lost > all / 100)
        report_doubt(r, "%zu of %zu tokens are not scored [R-VAL-SET]", lost, all);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (all < known[i].tokens || all - known[i].tokens > TAIL)
            continue;
        double off = (double)s->sum.bytes / (double)known[i].bytes - 1;
        report_line(r, "validation   as long as the challenge's set (%s)", known[i].name);
        cJSON_AddStringToObject(r->root, "validation_set", known[i].name);
        if (lost <= TAIL && fabs(off) > BYTES_TOLERANCE)
            report_doubt(r, "its tokens stand for %zu bytes, the set (%s) has %zu [R-BYTES]",
                         (size_t)s->sum.bytes, known[i].name, known[i].bytes);
        return;
    }
}
