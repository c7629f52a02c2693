/*
 * tokenizer.c - fixtures of a tokeniser (.json): the byte table made from the .model file, and the
 * byte count of encoded texts. Encoding itself is not the project's (spm_encode does it).
 */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/parity/parity.h"

static const cJSON *array(struct check *c, const cJSON *j, const char *key, size_t n)
{
    const cJSON *a = cJSON_GetObjectItemCaseSensitive(j, key);
    if (!cJSON_IsArray(a) || (size_t)cJSON_GetArraySize(a) != n) {
        check_fail(c, "%s: must be an array of %zu", key, n);
        return NULL;
    }
    return a;
}

/* The expected table, from the three arrays. */
static bool table_of(struct check *c, struct byte_table *b, const cJSON *j, size_t vocab)
{
    const cJSON *base = array(c, j, "base_bytes", vocab);
    const cJSON *lead = array(c, j, "has_leading_space", vocab);
    const cJSON *edge = array(c, j, "is_boundary", vocab);
    if (!base || !lead || !edge)
        return false;
    uint8_t *raw = parity_alloc(4 + 2 * vocab, 1);
    struct err e = {0};
    for (size_t i = 0; i < 4; i++)
        raw[i] = (uint8_t)(vocab >> 8 * i);
    base = base->child;
    lead = lead->child;
    edge = edge->child;
    for (size_t i = 0; i < vocab; i++, base = base->next, lead = lead->next, edge = edge->next) {
        raw[4 + 2 * i] = (uint8_t)base->valueint;
        raw[5 + 2 * i] = (uint8_t)((lead->valueint || cJSON_IsTrue(lead) ? BYTES_LEAD : 0) |
                                   (edge->valueint || cJSON_IsTrue(edge) ? BYTES_BOUNDARY : 0));
    }
    if (bytes_parse(b, raw, 4 + 2 * vocab, c->path, &e))
        check_fail(c, "%s", e.msg);
    free(raw);
    return !e.code;
}

/* NAME.model beside the fixture or in the tokenizers folder one or two levels up. */
static bool find_model(const struct check *c, const char *name, char *path, size_t cap)
{
    static const char *const where[] = {"", "tokenizers/", "../tokenizers/", "../../tokenizers/"};
    for (size_t i = 0; i < sizeof where / sizeof where[0]; i++) {
        snprintf(path, cap, "%s/%s%s.model", c->dir, where[i], name);
        if (!access(path, R_OK))
            return true;
    }
    return false;
}

static void compare_model(struct check *c, const struct byte_table *want, const char *path)
{
    struct byte_table got = {0};
    struct err e = {0};
    if (bytes_from_tokenizer(&got, path, &e)) {
        check_fail(c, "%s", e.msg);
        return;
    }
    c->compared = true;
    if (got.vocab != want->vocab)
        check_fail(c, "%s: %zu pieces, expected %zu", path, got.vocab, want->vocab);
    for (size_t i = 0; i < got.vocab && i < want->vocab; i++)
        if (got.base[i] != want->base[i] || got.flags[i] != want->flags[i])
            check_fail(c, "piece %zu: got %u bytes, flags %u; expected %u, %u", i,
                       (unsigned)got.base[i], (unsigned)got.flags[i], (unsigned)want->base[i],
                       (unsigned)want->flags[i]);
    check_note(c, "table of %zu pieces exact", got.vocab);
    bytes_free(&got);
}

/* Byte counts of the encoded texts when they follow BOS. */
static void compare_counts(struct check *c, const struct byte_table *b, const cJSON *j)
{
    const cJSON *text, *id, *list = cJSON_GetObjectItemCaseSensitive(j, "encode");
    int prev = cJSON_GetObjectItemCaseSensitive(j, "bos_id")
                   ? cJSON_GetObjectItemCaseSensitive(j, "bos_id")->valueint
                   : 1;
    const int bos = prev;
    size_t texts = 0;
    cJSON_ArrayForEach(text, list)
    {
        const cJSON *want = cJSON_GetObjectItemCaseSensitive(text, "lut_bytes_after_bos");
        unsigned sum = 0;
        bool bad = bos < 0 || (size_t)bos >= b->vocab;
        prev = bos;
        cJSON_ArrayForEach(id, cJSON_GetObjectItemCaseSensitive(text, "ids"))
        {
            if (bad || !cJSON_IsNumber(id) || id->valueint < 0 ||
                (size_t)id->valueint >= b->vocab) {
                bad = true;
                break;
            }
            sum += bytes_of(b, (uint16_t)prev, (uint16_t)id->valueint);
            prev = id->valueint;
        }
        if (!want)
            continue;
        c->compared = true;
        if (bad || sum != (unsigned)want->valueint)
            check_fail(c, "text %zu: %u bytes, expected %d", texts, sum, want->valueint);
        texts++;
    }
    check_note(c, "byte counts of %zu texts exact", texts);
}

enum err_code parity_tokenizer(struct check *c, const char *text, size_t n, struct err *e)
{
    cJSON *j = cJSON_ParseWithLength(text, n);
    const cJSON *vocab = cJSON_GetObjectItemCaseSensitive(j, "vocab_size");
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(j, "tokenizer");
    struct byte_table table = {0};
    char path[4096];
    if (!j)
        return err_set(e, ERR_INPUT, "%s: no JSON", c->path);
    if (!cJSON_IsNumber(vocab) || !cJSON_IsString(name)) {
        check_missing(c, "unknown kind: JSON without vocab_size and tokenizer");
    } else if (!(vocab->valuedouble >= 1 && vocab->valuedouble <= 65536)) {
        check_fail(c, "vocab_size must be 1 to 65536");
    } else if (table_of(c, &table, j, (size_t)vocab->valuedouble)) {
        if (find_model(c, name->valuestring, path, sizeof path))
            compare_model(c, &table, path);
        else
            check_skipped(c, "the table itself (no %s.model)", name->valuestring);
        compare_counts(c, &table, j);
        check_skipped(c, "encode() (the project reads ids, spm_encode makes them)");
    }
    bytes_free(&table);
    cJSON_Delete(j);
    return ERR_OK;
}
