/*
 * cmd_blob.c - verify blob: is this file a sound submission, and does it score what is claimed?
 *
 * In order: every byte (packer/blob.h), the parts, the byte table, the score by the trusted engine,
 * the execution, the claim. A damaged file is an error (exit 3); a sound file that is not what it
 * should be is a doubt (exit 1), and all doubts are collected.
 */
#include "verify/commands.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/file.h"
#include "packer/blob.h"
#include "packer/digest.h"
#include "stub/embed.h"
#include "stub/weights_dec.h"
#include "verify/bytetable.h"
#include "verify/claim.h"
#include "verify/contents.h"
#include "verify/execute.h"
#include "verify/html_page.h"
#include "verify/npy.h"

/* The challenge counts decimal bytes, all of them (repository README: 16,000,000, not 16 MiB). */
enum { LIMIT = 16000000, LARGEST = 1 << 30 };

/* Everything that is held while a file is audited. */
struct audit {
    uint8_t *file; /* a copy: what was checked is what is scored and run */
    size_t size;
    struct blob blob;
    struct recipe recipe;
    struct byte_table bytes;
    struct engine engine;
    struct scores scores;
    struct execution run;
};

static void audit_free(struct audit *a)
{
    execution_free(&a->run);
    scores_free(&a->scores);
    engine_close(&a->engine);
    bytes_free(&a->bytes);
    blob_close(&a->blob);
    free(a->file);
}

static enum err_code read_file(struct audit *a, const char *path, struct err *e)
{
    const void *map;
    size_t n;
    enum err_code rc = file_map(path, &map, &n, e);
    if (rc)
        return rc;
    if (n > LARGEST)
        rc = err_set(e, ERR_INPUT, "%s: %zu bytes are no submission", path, n);
    else if (!(a->file = malloc(n ? n : 1)))
        rc = err_nomem(e, "the file", n);
    else if (n)
        memcpy(a->file, map, n);
    a->size = n;
    file_unmap(map, n);
    return rc;
}

/* Decoded section of a kind; for the caller to free. */
static enum err_code decode(const struct audit *a, enum kind kind, const char *path, uint8_t **raw,
                            size_t *n, struct err *e)
{
    const struct blob_section *s = blob_find(&a->blob, kind);
    *n = s->raw_size;
    return blob_decode(raw, s, path, e);
}

/* ---- what the file consists of ---- */

static void table(struct audit *a, struct report *r)
{
    cJSON *sections = cJSON_AddArrayToObject(r->root, "sections");
    report_line(r, "section      codec     offset       size   unpacked  xxh64");
    for (size_t i = 0; i < a->blob.count; i++) {
        const struct blob_section *s = &a->blob.section[i];
        char hash[32] = "-";
        if (s->kind != KIND_HEADER) /* its hash is inside it */
            snprintf(hash, sizeof hash, "%016" PRIx64, s->xxh64);
        report_line(r, "%-12s %-6s %9zu %10zu %10zu  %s", blob_kind_name(s->kind),
                    codec_name(s->codec), s->offset, s->size, s->raw_size, hash);
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "kind", blob_kind_name(s->kind));
        cJSON_AddStringToObject(o, "codec", codec_name(s->codec));
        cJSON_AddNumberToObject(o, "offset", (double)s->offset);
        cJSON_AddNumberToObject(o, "size", (double)s->size);
        cJSON_AddNumberToObject(o, "unpacked_size", (double)s->raw_size);
        cJSON_AddStringToObject(o, "xxh64", hash);
        cJSON_AddItemToArray(sections, o);
    }
    report_line(r, "total                  %17zu of %d bytes, %s by %lld", a->size, LIMIT,
                a->size > LIMIT ? "over" : "under", llabs((long long)LIMIT - (long long)a->size));
    cJSON_AddNumberToObject(r->root, "bytes_total", (double)a->size);
    cJSON_AddNumberToObject(r->root, "bytes_limit", LIMIT);
    char sha[DIGEST_TEXT];
    digest_sha256(sha, a->file, a->size);
    report_line(r, "sha256       %s", sha);
    cJSON_AddStringToObject(r->root, "sha256", sha);
    if (a->size > LIMIT)
        report_doubt(r, "%zu bytes, the limit is %d [R-SIZE]", a->size, LIMIT);
}

/* Facts, not doubts: other builds make other loaders and runners. What an unknown one does is only
 * known by executing it. */
static enum err_code builds(struct audit *a, const char *path, struct report *r, struct err *e)
{
    uint8_t *runner;
    size_t n;
    enum err_code rc = decode(a, KIND_RUNNER, path, &runner, &n, e);
    if (rc)
        return rc;
    size_t small = (size_t)(stub_runner_end - stub_runner);
    size_t full = (size_t)(stub_runner_full_end - stub_runner_full);
    size_t any = (size_t)(stub_runner_any_end - stub_runner_any);
    size_t cuda = (size_t)(stub_runner_cuda_end - stub_runner_cuda);
    bool known = (n == small && !memcmp(runner, stub_runner, n)) ||
                 (n == full && !memcmp(runner, stub_runner_full, n)) ||
                 (n == any && !memcmp(runner, stub_runner_any, n)) ||
                 (n == cuda && !memcmp(runner, stub_runner_cuda, n));
    rc = contents_needs(runner, n, blob_find(&a->blob, KIND_CUDA), path, r, e);
    free(runner);
    if (rc)
        return rc;
    report_line(r, "builds       loader %s, runner %s", a->blob.known_loader ? "known" : "unknown",
                known ? "known" : "unknown");
    cJSON_AddStringToObject(r->root, "loader", a->blob.known_loader ? "known" : "unknown");
    cJSON_AddStringToObject(r->root, "runner", known ? "known" : "unknown");
    return ERR_OK;
}

static enum err_code settings(struct audit *a, const char *path, struct err *e)
{
    char where[1100];
    uint8_t *text;
    size_t n;
    enum err_code rc = decode(a, KIND_RECIPE, path, &text, &n, e);
    if (rc)
        return rc;
    snprintf(where, sizeof where, "%s: recipe", path);
    recipe_init(&a->recipe);
    rc = recipe_parse(&a->recipe, (const char *)text, n, where, true, e);
    if (!rc)
        rc = recipe_check(&a->recipe, e);
    if (rc == ERR_USAGE)
        rc = e->code = ERR_INPUT; /* inside a file it is bad input, not wrong use */
    free(text);
    return rc;
}

static enum err_code byte_table(struct audit *a, const struct options *o, struct report *r,
                                struct err *e)
{
    char where[1100], which[BYTETABLE_PATH];
    enum bytetable_verdict v;
    uint8_t *raw;
    size_t n;
    enum err_code rc = decode(a, KIND_BYTE_TABLE, o->file, &raw, &n, e);
    if (rc)
        return rc;
    snprintf(where, sizeof where, "%s: byte_table", o->file);
    rc = bytes_parse(&a->bytes, raw, n, where, e);
    free(raw);
    if (rc || (rc = bytetable_check(&a->bytes, o->tokenizer, o->data, &v, which, e)))
        return rc;

    static const char *const word[] = {[BYTETABLE_UNCHECKED] = "not checked",
                                       [BYTETABLE_EQUAL] = "equal",
                                       [BYTETABLE_DIFFERS] = "differs"};
    report_line(r, "byte table   %s%s%s", v == BYTETABLE_EQUAL ? "equals that of " : word[v],
                v == BYTETABLE_UNCHECKED ? ": no tokeniser near the data; --tokenizer names one"
                : v == BYTETABLE_DIFFERS ? " from that of "
                                         : "",
                which);
    cJSON_AddStringToObject(r->root, "byte_table", word[v]);
    if (which[0])
        cJSON_AddStringToObject(r->root, "tokenizer", which);
    if (which[0])
        contents_tokenizer(a->size, which, r);
    if (v == BYTETABLE_DIFFERS)
        report_doubt(r, "its byte table is not that of %s [R-BYTES]", which);
    return ERR_OK;
}

/* ---- what it scores ---- */

static enum err_code load(struct audit *a, const struct options *o, struct report *r, struct err *e)
{
    struct weights_cursor c;
    struct tensor_view *t = NULL, *grown, v;
    uint8_t *payload;
    size_t n, count = 0, cap = 0;
    enum err_code rc = decode(a, KIND_WEIGHTS, o->file, &payload, &n, e);
    if (rc)
        return rc;
    weights_open(&c, payload, n);
    while (weights_next(&c, &v)) {
        if (count == cap) {
            cap = 2 * cap + 64;
            grown = realloc(t, cap * sizeof *t);
            if (!grown) {
                rc = err_nomem(e, "names of tensors", cap * sizeof *t);
                goto out;
            }
            t = grown;
        }
        t[count++] = v;
    }
    char where[1100];
    snprintf(where, sizeof where, "%s: weights", o->file);
    rc = c.bad
             ? err_set(e, ERR_INPUT, "%s: table of tensors is damaged", where)
             : engine_open(&a->engine, &a->recipe, t, count, where, NULL, o->threads, r->peers, e);
out:
    free(t);
    free(payload);
    return rc;
}

/* The mode on the command line has been checked; what is left to complain about is the recipe's. */
static enum err_code score(struct audit *a, const struct options *o, struct err *e)
{
    enum err_code rc = engine_score(&a->engine, o->data, o->eval, o->max_tokens, &a->bytes,
                                    !o->quiet, &a->scores, e);
    if (rc == ERR_USAGE)
        rc = e->code = ERR_INPUT;
    return rc;
}

static enum err_code execute(struct audit *a, const struct options *o, struct report *r,
                             struct err *e)
{
    char layers[160], how[128];
    struct execution *x = &a->run;
    enum err_code rc = execute_submission(a->file, a->size, o, &a->scores, x, e);
    if (rc)
        return rc;
    sandbox_layers(&x->box, layers, sizeof layers);
    sandbox_describe(&x->box, how, sizeof how);
    report_line(r, "sandbox      %s", layers);
    report_line(r, "execution    %s, %zu of %zu scores compared, %s, %.1f s", how, x->compared,
                a->scores.count, x->why[0] ? "not the same" : "identical bits", x->box.seconds);
    cJSON *j = cJSON_AddObjectToObject(r->root, "execution");
    cJSON_AddStringToObject(j, "sandbox", layers);
    cJSON_AddStringToObject(j, "end", how);
    cJSON_AddBoolToObject(j, "identical", !x->why[0]);
    cJSON_AddNumberToObject(j, "compared", (double)x->compared);
    cJSON_AddNumberToObject(j, "seconds", x->box.seconds);
    if (x->why[0])
        report_doubt(r, "execution: %s [F-ENGINE]", x->why);
    return ERR_OK;
}

static void compare(const struct audit *a, const struct claim *c, struct report *r)
{
    /* Who does not say in which mode claims the value of record. */
    bool record = eval_mode_adapts(a->scores.mode) && !c->v[CLAIM_MODE].given;
    const struct score *sum = record ? &a->scores.record : &a->scores.sum;
    const struct claim_facts f = {.bytes_total = a->size,
                                  .tokens = sum->tokens,
                                  .bytes = sum->bytes,
                                  .nll_xxh64 = a->scores.nll_xxh64,
                                  .val_loss = sum->val_loss,
                                  .val_bpb = sum->val_bpb,
                                  .mode = eval_mode_name(a->scores.mode)};
    if (record)
        report_line(r, "claim        names no mode, so it is compared with the sliding value");
    cJSON *list = cJSON_AddArrayToObject(r->root, "claim");
    for (int k = 0; k < CLAIM_KEYS; k++) {
        char measured[CLAIM_TEXT];
        const char *name = claim_key_name((enum claim_key)k), *claimed = c->v[k].text;
        if (!c->v[k].given)
            continue;
        bool holds = claim_holds(c, (enum claim_key)k, &f, measured);
        report_line(r, "claim        %-12s %20s  measured %-20s %s", name, claimed, measured,
                    holds ? "confirmed" : "NOT CONFIRMED");
        cJSON *j = cJSON_CreateObject();
        cJSON_AddStringToObject(j, "key", name);
        cJSON_AddStringToObject(j, "claimed", claimed);
        cJSON_AddStringToObject(j, "measured", measured);
        cJSON_AddBoolToObject(j, "confirmed", holds);
        cJSON_AddItemToArray(list, j);
        if (!holds)
            report_doubt(r, "%s: claimed %s, measured %s [R-REPRODUCIBLE]", name, claimed,
                         measured);
    }
}

/* An error about the file ends with the rule that it broke (docs/rules.md): `rule` where the step
 * has one, NULL where it may also fail for the data's sake. Bytes that do not decode, and hashes,
 * are met in several steps; packer/blob.c says which it is. */
static enum err_code named(enum err_code rc, const char *rule, struct err *e)
{
    size_t n = strlen(e->msg);
    if (strstr(e->msg, " do not unpack to "))
        rule = "F-DECODE";
    else if (strstr(e->msg, ": damaged, hash "))
        rule = "F-HASH";
    if (rc == ERR_INPUT && rule && n + strlen(rule) + sizeof " []" <= sizeof e->msg)
        snprintf(e->msg + n, sizeof e->msg - n, " [%s]", rule);
    return rc;
}

/* All that is known without scoring. */
static enum err_code inspect(struct audit *a, const struct options *o, struct report *r,
                             struct err *e)
{
    enum err_code rc = read_file(a, o->file, e);
    if (rc || (rc = blob_parse(&a->blob, a->file, a->size, o->file, stub_loader,
                               (size_t)(stub_loader_end - stub_loader), e)))
        return named(rc, "F-LAYOUT", e);
    report_line(r, "file         %s, every byte and hash in order", o->file);
    table(a, r);
    if ((rc = named(builds(a, o->file, r, e), "F-DECODE", e)) ||
        (rc = named(settings(a, o->file, e), "F-MODEL", e)) ||
        (rc = named(byte_table(a, o, r, e), NULL, e)) ||
        (rc = named(load(a, o, r, e), "F-MODEL", e)))
        return rc;
    return named(contents_sections(&a->blob, o->file, o->data, (size_t)a->recipe.vocab_size,
                                   o->max_tokens, r, e),
                 NULL, e);
}

/* What follows from the scores: rank 0's business. */
static enum err_code judge(struct audit *a, const struct options *o, const struct claim *c,
                           struct report *r, struct err *e)
{
    enum err_code rc;
    if (o->nll && (rc = npy_write(o->nll, a->scores.nll, a->scores.count, e)))
        return rc;
    report_scores(r, &a->engine, &a->scores, &a->bytes);
    contents_stream(&a->scores, o->max_tokens, r);
    if (o->max_tokens)
        cJSON_AddNumberToObject(r->root, "max_tokens", (double)o->max_tokens);
    if ((rc = page_blob(r->page, &a->blob, &a->engine, &a->scores, e)) ||
        (o->execute && (rc = execute(a, o, r, e))))
        return rc;
    if (o->claim)
        compare(a, c, r);
    return ERR_OK;
}

enum err_code verify_blob(const struct options *o, struct report *r, struct err *e)
{
    struct audit *a = calloc(1, sizeof *a);
    struct claim c = {0};
    enum err_code rc = ERR_OK;

    if (!a)
        return err_nomem(e, "the audit", sizeof *a);
    cJSON_AddStringToObject(r->root, "command", "blob");
    cJSON_AddStringToObject(r->root, "file", o->file);
    if (!((rc = contents_data(o->data, e)) ||
          (o->nll && peers_first(r->peers) && (rc = npy_try(o->nll, e))) ||
          (o->claim && (rc = claim_load(&c, o->claim, e)))))
        rc = inspect(a, o, r, e);
    if (!(rc = peers_agree(r->peers, rc, NULL, NULL, 0, e)) && !(rc = score(a, o, e)) &&
        peers_first(r->peers))
        rc = judge(a, o, &c, r, e);
    audit_free(a);
    free(a);
    return rc;
}
