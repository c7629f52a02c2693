/* claim.c - see claim.h. */
#include "verify/claim.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/file.h"
#include "verify/json_keys.h"

enum { LONGEST = 1 << 20, DECIMALS = 8 };

enum value_kind { KIND_NUMBER, KIND_COUNT, KIND_TEXT, KIND_HASH };
static const struct {
    const char *name;
    enum value_kind kind;
} keys[CLAIM_KEYS] = {
    [CLAIM_BYTES_TOTAL] = {"bytes_total", KIND_COUNT}, [CLAIM_MODE] = {"mode", KIND_TEXT},
    [CLAIM_TOKENS] = {"tokens", KIND_COUNT},           [CLAIM_BYTES] = {"bytes", KIND_COUNT},
    [CLAIM_VAL_LOSS] = {"val_loss", KIND_NUMBER},      [CLAIM_VAL_BPB] = {"val_bpb", KIND_NUMBER},
    [CLAIM_NLL_XXH64] = {"nll_xxh64", KIND_HASH},
};

const char *claim_key_name(enum claim_key k)
{
    return keys[k].name;
}

/* Counts in JSON are doubles; beyond 2^53 not every one is a number of its own. */
static bool to_count(double v, uint64_t *out)
{
    if (!(v >= 0 && v <= 9007199254740992.0) || v != floor(v))
        return false;
    *out = (uint64_t)v;
    return true;
}

static bool to_hash(const char *s, uint64_t *out)
{
    *out = 0;
    if (strlen(s) != 16)
        return false;
    for (; *s; s++) {
        const char *digits = "0123456789abcdef", *d = strchr(digits, *s);
        if (!d)
            return false;
        *out = *out << 4 | (uint64_t)(d - digits);
    }
    return true;
}

/* A claim's text is repeated in the report: no line of it may come from the claim. */
static bool printable(const char *s)
{
    while (*s >= ' ' && *s <= '~')
        s++;
    return !*s;
}

static enum err_code take(struct claim_value *v, enum value_kind kind, const char *name,
                          const cJSON *item, const char *path, struct err *e)
{
    const char *s = cJSON_GetStringValue(item);
    switch (kind) {
    case KIND_NUMBER:
        if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble))
            return err_set(e, ERR_INPUT, "%s: %s is not a number", path, name);
        v->number = item->valuedouble;
        snprintf(v->text, sizeof v->text, "%.10g", v->number);
        break;
    case KIND_COUNT:
        if (!cJSON_IsNumber(item) || !to_count(item->valuedouble, &v->count))
            return err_set(e, ERR_INPUT, "%s: %s is not a whole number", path, name);
        snprintf(v->text, sizeof v->text, "%" PRIu64, v->count);
        break;
    case KIND_TEXT:
        if (!s || strlen(s) >= sizeof v->text || !printable(s))
            return err_set(e, ERR_INPUT, "%s: %s is not a short text of printable characters", path,
                           name);
        snprintf(v->text, sizeof v->text, "%s", s);
        break;
    case KIND_HASH:
        if (!s || !to_hash(s, &v->count))
            return err_set(e, ERR_INPUT, "%s: %s is not 16 hexadecimal digits", path, name);
        snprintf(v->text, sizeof v->text, "%s", s);
        break;
    }
    v->given = true;
    return ERR_OK;
}

/* Other names of bytes_total: in leaderboard files, and in `submission --info`. */
static const char *const also[] = {"artifact_bytes", "total_bytes"};
enum { ALSO = sizeof also / sizeof *also };

static enum err_code take_all(struct claim *c, const cJSON *root, const char *path, struct err *e)
{
    size_t given = 0;
    enum err_code rc;
    if (!cJSON_IsObject(root))
        return err_set(e, ERR_INPUT, "%s: not a JSON object", path);
    for (int k = 0; k < CLAIM_KEYS; k++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, keys[k].name);
        if (item && (rc = take(&c->v[k], keys[k].kind, keys[k].name, item, path, e)))
            return rc;
    }
    for (size_t i = 0; i < ALSO; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, also[i]);
        struct claim_value other = {0}, *total = &c->v[CLAIM_BYTES_TOTAL];
        if (item && (rc = take(&other, KIND_COUNT, also[i], item, path, e)))
            return rc;
        if (other.given && total->given && other.count != total->count)
            return err_set(e, ERR_INPUT, "%s: bytes_total is %s, %s is %s", path, total->text,
                           also[i], other.text);
        if (other.given)
            *total = other;
    }
    for (int k = 0; k < CLAIM_KEYS; k++)
        given += c->v[k].given;
    if (!given)
        return err_set(e, ERR_INPUT,
                       "%s: claims nothing that can be checked (val_bpb, val_loss, "
                       "bytes_total, tokens, bytes, nll_xxh64)",
                       path);
    return ERR_OK;
}

enum err_code claim_parse(struct claim *c, const char *text, size_t n, const char *path,
                          struct err *e)
{
    const char *end = NULL;
    *c = (struct claim){0};
    cJSON *root = cJSON_ParseWithLengthOpts(text, n, &end, 0);
    if (!root)
        return err_set(e, ERR_INPUT, "%s: not JSON: stops making sense at byte %zu", path,
                       end ? (size_t)(end - text) : (size_t)0);
    enum err_code rc = ERR_OK;
    for (size_t at = (size_t)(end - text); at < n && !rc; at++)
        if (!strchr(" \t\r\n", text[at])) /* a NUL counts as a blank here, and harms nobody */
            rc = err_set(e, ERR_INPUT, "%s: more behind the JSON object, at byte %zu", path, at);
    const char *read[CLAIM_KEYS + ALSO];
    for (int k = 0; k < CLAIM_KEYS + ALSO; k++)
        read[k] = k < CLAIM_KEYS ? keys[k].name : also[k - CLAIM_KEYS];
    if (!rc)
        rc = json_keys_check(root, text, n, read, CLAIM_KEYS + ALSO, path, e);
    if (!rc)
        rc = take_all(c, root, path, e);
    cJSON_Delete(root);
    return rc;
}

enum err_code claim_load(struct claim *c, const char *path, struct err *e)
{
    const void *text;
    size_t n;
    enum err_code rc = file_map(path, &text, &n, e);
    if (rc)
        return rc;
    if (n > LONGEST)
        rc = err_set(e, ERR_INPUT, "%s: %zu bytes, at most %d are read", path, n, LONGEST);
    else if (!n)
        rc = err_set(e, ERR_INPUT, "%s: empty", path);
    else
        rc = claim_parse(c, text, n, path, e);
    file_unmap(text, n);
    return rc;
}

/* The unit of the last decimal of v, as written with the fewest decimals that give v back. */
static double last_unit(double v)
{
    double unit = 1;
    for (int d = 0; d < DECIMALS; d++, unit /= 10) {
        double scaled = v / unit;
        if (fabs(scaled - nearbyint(scaled)) < 1e-6)
            return unit;
    }
    return unit;
}

static bool near(double claimed, double measured)
{
    double off = fabs(claimed - measured);
    /* One unit is too far; the subtraction's own rounding is no difference. */
    return off <= 1e-4 && off < last_unit(claimed) * (1 - 1e-6);
}

bool claim_holds(const struct claim *c, enum claim_key k, const struct claim_facts *f,
                 char *measured)
{
    const uint64_t count[CLAIM_KEYS] = {[CLAIM_BYTES_TOTAL] = f->bytes_total,
                                        [CLAIM_TOKENS] = f->tokens,
                                        [CLAIM_BYTES] = f->bytes,
                                        [CLAIM_NLL_XXH64] = f->nll_xxh64};
    const double number[CLAIM_KEYS] = {
        [CLAIM_VAL_LOSS] = f->val_loss, [CLAIM_VAL_BPB] = f->val_bpb};
    const struct claim_value *v = &c->v[k];
    char unused[CLAIM_TEXT];
    bool holds = false;

    if (!measured)
        measured = unused;
    switch (keys[k].kind) {
    case KIND_NUMBER:
        snprintf(measured, CLAIM_TEXT, "%.8f", number[k]);
        holds = near(v->number, number[k]);
        break;
    case KIND_COUNT:
        snprintf(measured, CLAIM_TEXT, "%" PRIu64, count[k]);
        holds = v->count == count[k];
        break;
    case KIND_TEXT:
        snprintf(measured, CLAIM_TEXT, "%s", f->mode);
        holds = strcmp(v->text, f->mode) == 0;
        break;
    case KIND_HASH:
        snprintf(measured, CLAIM_TEXT, "%016" PRIx64, count[k]);
        holds = v->count == count[k];
        break;
    }
    return !v->given || holds;
}
