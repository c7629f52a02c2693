/* checkpoint.c - see checkpoint.h. */
#include "trainer/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/safetensors.h"
#include "trainer/hash.h"

static const char VERSION[] = "2";
enum { BLOCKS = 5, RECIPE_TEXT = 1 << 16, NUMBER = 40 };

/* ---- which recipes may go on from one another ---- */

/* Keys of the TRAIN group that a resumed run may change. */
static const char *const free_keys[] = {
    "RUN_ID",           "DATA_PATH",      "TOKENIZER_PATH",       "ITERATIONS",
    "TRAIN_LOG_EVERY",  "VAL_LOSS_EVERY", "VAL_MAX_TOKENS",       "MAX_WALLCLOCK_SECONDS",
    "CHECKPOINT_EVERY", "WARMUP_STEPS",   "GPTQ_RESERVE_SECONDS",
};

static bool is_free(const char *key)
{
    for (size_t i = 0; i < sizeof free_keys / sizeof free_keys[0]; i++)
        if (strcmp(key, free_keys[i]) == 0)
            return true;
    return false;
}

static bool diff_int(char *buf, size_t cap, const char *key, int64_t a, int64_t b)
{
    if (a != b)
        snprintf(buf, cap, "%s is %lld now, %lld in the checkpoint", key, (long long)a,
                 (long long)b);
    return a != b;
}

static bool diff_num(char *buf, size_t cap, const char *key, double a, double b)
{
    bool differ = a < b || a > b;
    if (differ)
        snprintf(buf, cap, "%s is %.9g now, %.9g in the checkpoint", key, a, b);
    return differ;
}

static bool diff_str(char *buf, size_t cap, const char *key, const char *a, const char *b)
{
    bool differ = strcmp(a, b) != 0;
    if (differ)
        snprintf(buf, cap, "%s is %s now, %s in the checkpoint", key, a, b);
    return differ;
}

#define DIFF_INT diff_int
#define DIFF_NUM diff_num
#define DIFF_STR diff_str
#define DIFF(type, key, field, def, help)                                                          \
    if (!is_free(#key) && DIFF_##type(buf, cap, #key, a->field, b->field))                         \
        return true;

bool checkpoint_diff(const struct recipe *a, const struct recipe *b, char *buf, size_t cap)
{
    RECIPE_MODEL_KEYS(DIFF)
    RECIPE_TRAIN_KEYS(DIFF)
    /* Late QAT is the one part of training that reads settings of the QUANT group. */
    if (a->late_qat_threshold > 0) {
        DIFF(INT, QUANT_BITS, quant_bits, , )
        DIFF(NUM, QUANT_SCALE_FLOOR, quant_scale_floor, , )
        DIFF(INT, QUANT_KEEP_NUMEL, quant_keep_numel, , )
    }
    return false;
}

/* ---- the blocks ---- */

struct block {
    const char *name;
    float *at; /* backend */
};

static size_t blocks_of(const struct step *s, struct block b[BLOCKS])
{
    b[0] = (struct block){"params", s->params};
    b[1] = (struct block){"momentum", s->opt.mom};
    b[2] = (struct block){"variance", s->opt.var};
    size_t n = 3;
    if (s->ema)
        b[n++] = (struct block){"ema", s->ema};
    if (s->swa)
        b[n++] = (struct block){"swa", s->swa};
    return n;
}

/* Metadata in file order; the last one is the XXH64 of the blocks and of all others, names and
 * values. */
enum {
    META_VERSION,
    META_RECIPE,
    META_LAYOUT,
    META_STEP,
    META_ELAPSED,
    META_SNAPSHOTS,
    META_QAT,
    META_NAME,
    META_SHARD,
    META_POS,
    META_SHARDS,
    META_TOKENS,
    META_XXH64,
    METAS
};
static const char *const meta_key[METAS] = {
    [META_VERSION] = "checkpoint", [META_RECIPE] = "recipe",
    [META_LAYOUT] = "layout",      [META_STEP] = "step",
    [META_ELAPSED] = "elapsed_ms", [META_SNAPSHOTS] = "swa_snapshots",
    [META_QAT] = "late_qat",       [META_NAME] = "shard_name",
    [META_SHARD] = "shard",        [META_POS] = "shard_pos",
    [META_SHARDS] = "shards",      [META_TOKENS] = "shard_tokens",
    [META_XXH64] = "xxh64",
};

static uint64_t hash_metas(const char *const value[METAS], uint64_t h)
{
    for (size_t i = 0; i < META_XXH64; i++) {
        h = hash_bytes(meta_key[i], strlen(meta_key[i]), h);
        h = hash_bytes(value[i], strlen(value[i]), h);
    }
    return h;
}

static uint64_t layout_hash(const struct gpt *m)
{
    uint64_t h = 0;
    for (size_t i = 0; i < m->nparams; i++) {
        const struct gpt_param *p = &m->param[i];
        h = hash_bytes(p->name, strlen(p->name), h);
        h = hash_bytes(p->shape, p->ndim * sizeof p->shape[0], h);
    }
    return h;
}

/* ---- writing ---- */

static const char *print_size(char *buf, size_t v)
{
    snprintf(buf, NUMBER, "%zu", v);
    return buf;
}

/* The safetensors file of `count` host blocks, one after another. */
static enum err_code write_file(const char *path, const struct step *s, const struct checkpoint *c,
                                const struct block *b, const uint8_t *host, size_t count,
                                const char *recipe, struct err *e)
{
    size_t bytes = s->m->floats * sizeof(float);
    struct tensor_view view[BLOCKS];
    char n[METAS][NUMBER];
    const char *value[METAS], *pair[2 * METAS];
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        view[i] = (struct tensor_view){.name = b[i].name,
                                       .dtype = ST_F32,
                                       .ndim = 1,
                                       .shape = {s->m->floats},
                                       .data = host + i * bytes,
                                       .nbytes = bytes};
        sum = hash_bytes(view[i].data, bytes, sum);
    }
    snprintf(n[META_ELAPSED], NUMBER, "%.17g", c->elapsed_ms);
    value[META_VERSION] = VERSION;
    value[META_RECIPE] = recipe;
    value[META_LAYOUT] = hash_hex(layout_hash(s->m), n[META_LAYOUT]);
    value[META_STEP] = print_size(n[META_STEP], s->opt.step);
    value[META_ELAPSED] = n[META_ELAPSED];
    value[META_SNAPSHOTS] = print_size(n[META_SNAPSHOTS], s->snapshots);
    value[META_QAT] = s->qat ? "1" : "0";
    value[META_NAME] = c->pos.name;
    value[META_SHARD] = print_size(n[META_SHARD], c->pos.shard);
    value[META_POS] = print_size(n[META_POS], c->pos.pos);
    value[META_SHARDS] = print_size(n[META_SHARDS], c->pos.shards);
    value[META_TOKENS] = print_size(n[META_TOKENS], c->pos.shard_tokens);
    value[META_XXH64] = hash_hex(hash_metas(value, sum), n[META_XXH64]);
    for (size_t i = 0; i < METAS; i++) {
        pair[2 * i] = meta_key[i];
        pair[2 * i + 1] = value[i];
    }
    return st_write(path, view, count, pair, METAS, e);
}

enum err_code checkpoint_write(const char *path, const struct step *s, const struct checkpoint *c,
                               struct err *e)
{
    struct block b[BLOCKS];
    size_t count = blocks_of(s, b), bytes = s->m->floats * sizeof(float);
    enum err_code rc = step_check(s, e);
    if (rc)
        return rc;
    uint8_t *host = malloc(count * bytes);
    char *recipe = malloc(RECIPE_TEXT);
    if (!host || !recipe) {
        rc = err_nomem(e, "checkpoint", count * bytes + RECIPE_TEXT);
        goto out;
    }
    recipe_print(&s->m->r, RECIPE_MODEL | RECIPE_EVAL | RECIPE_TRAIN | RECIPE_QUANT, false, recipe,
                 RECIPE_TEXT);
    for (size_t i = 0; i < count; i++)
        s->k->download(s->k, host + i * bytes, b[i].at, bytes);
    if (!(rc = s->k->sync(s->k, e)))
        rc = write_file(path, s, c, b, host, count, recipe, e);
out:
    free(host);
    free(recipe);
    return rc;
}

/* ---- reading ---- */

/* All metadata, and whether they and the blocks are what was written. */
static enum err_code read_metas(const struct st_file *f, const char *path, const struct block *b,
                                size_t count, size_t bytes, const char *value[METAS], struct err *e)
{
    uint64_t sum = 0;
    char hex[17];
    for (size_t i = 0; i < METAS; i++)
        if (!(value[i] = st_meta(f, meta_key[i])))
            return err_set(e, ERR_INPUT, "%s: not a checkpoint: no %s in its metadata", path,
                           meta_key[i]);
    if (strcmp(value[META_VERSION], VERSION) != 0)
        return err_set(e, ERR_INPUT, "%s: checkpoint version %s, expected %s", path,
                       value[META_VERSION], VERSION);
    for (size_t i = 0; i < count; i++) {
        const struct tensor_view *t = tensor_find(f->tensor, f->count, b[i].name);
        if (!t || t->dtype != ST_F32)
            return err_set(e, ERR_INPUT, "%s: no tensor %s, or not F32", path, b[i].name);
        if (t->nbytes != bytes)
            return err_set(e, ERR_INPUT, "%s: %s has %zu bytes, the model %zu", path, b[i].name,
                           t->nbytes, bytes);
        sum = hash_bytes(t->data, bytes, sum);
    }
    hash_hex(hash_metas(value, sum), hex);
    if (strcmp(value[META_XXH64], hex) != 0)
        return err_set(e, ERR_INPUT, "%s: damaged: XXH64 of its contents is %s, it says %s", path,
                       hex, value[META_XXH64]);
    return ERR_OK;
}

static enum err_code same_recipe(const struct gpt *m, const char *text, const char *path,
                                 struct err *e)
{
    struct recipe theirs;
    struct err why = {0};
    char diff[160];
    recipe_init(&theirs);
    if (recipe_parse(&theirs, text, strlen(text), "recipe", true, &why))
        return err_set(e, ERR_INPUT, "%s: %s", path, why.msg);
    if (checkpoint_diff(&m->r, &theirs, diff, sizeof diff))
        return err_set(e, ERR_INPUT, "%s: of another recipe: %s", path, diff);
    return ERR_OK;
}

static bool parse_size(const char *text, size_t *out)
{
    char *end;
    unsigned long long v = strtoull(text, &end, 10);
    *out = (size_t)v;
    return *text >= '0' && *text <= '9' && !*end && v <= SIZE_MAX / 2;
}

struct counters {
    size_t step, snapshots, qat;
};

static bool parse_state(const char *const value[METAS], struct checkpoint *c, struct counters *n)
{
    char *end;
    c->elapsed_ms = strtod(value[META_ELAPSED], &end);
    snprintf(c->pos.name, sizeof c->pos.name, "%s", value[META_NAME]);
    return !*end && c->elapsed_ms >= 0 && c->elapsed_ms < 1e15 &&
           parse_size(value[META_STEP], &n->step) &&
           parse_size(value[META_SNAPSHOTS], &n->snapshots) &&
           parse_size(value[META_QAT], &n->qat) && n->qat <= 1 &&
           parse_size(value[META_SHARD], &c->pos.shard) &&
           parse_size(value[META_POS], &c->pos.pos) &&
           parse_size(value[META_SHARDS], &c->pos.shards) &&
           parse_size(value[META_TOKENS], &c->pos.shard_tokens);
}

enum err_code checkpoint_read(const char *path, struct step *s, struct checkpoint *c, struct err *e)
{
    struct st_file f = {0};
    struct block b[BLOCKS];
    size_t count = blocks_of(s, b), bytes = s->m->floats * sizeof(float);
    struct counters n;
    const char *value[METAS], *recipe;
    char hex[17];
    enum err_code rc = st_open(&f, path, e);
    if (rc)
        return rc;
    /* The recipe first: a size that differs is better explained by the setting behind it. */
    recipe = st_meta(&f, meta_key[META_RECIPE]);
    if ((recipe && (rc = same_recipe(s->m, recipe, path, e))) ||
        (rc = read_metas(&f, path, b, count, bytes, value, e)))
        goto out;
    if (strcmp(value[META_LAYOUT], hash_hex(layout_hash(s->m), hex)) != 0) {
        rc = err_set(e, ERR_INPUT, "%s: written by a version whose model has other tensors", path);
        goto out;
    }
    if (!parse_state(value, c, &n)) {
        rc = err_set(e, ERR_INPUT, "%s: its metadata hold impossible numbers", path);
        goto out;
    }
    for (size_t i = 0; i < count; i++)
        s->k->upload(s->k, b[i].at, tensor_find(f.tensor, f.count, b[i].name)->data, bytes);
    s->opt.step = n.step;
    s->snapshots = n.snapshots;
    s->qat = n.qat && s->quant;
    rc = s->k->sync(s->k, e);
out:
    st_close(&f);
    return rc;
}
