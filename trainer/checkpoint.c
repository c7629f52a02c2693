/* checkpoint.c - see checkpoint.h. */
#include "trainer/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/safetensors.h"
#include "trainer/hash.h"

static const char VERSION[] = "2";
enum { BLOCKS = 5, RECIPE_TEXT = 1 << 16, NUMBER = 40, CHUNK = 1 << 20 };

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
    float *at;   /* backend */
    bool packed; /* a rank has its pieces only */
};

static size_t blocks_of(const struct step *s, struct block b[BLOCKS])
{
    b[0] = (struct block){"params", s->params, false};
    b[1] = (struct block){"momentum", s->opt.mom, true};
    b[2] = (struct block){"variance", s->opt.var, true};
    size_t n = 3;
    if (s->ema)
        b[n++] = (struct block){"ema", s->ema, true};
    if (s->swa)
        b[n++] = (struct block){"swa", s->swa, true};
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

/* The file on its way, on rank 0. */
struct out {
    struct st_writer w;
    struct tensor_view view[BLOCKS];
    size_t count;
    const char *value[METAS], *pair[2 * METAS];
    char number[METAS][NUMBER];
    uint64_t sum; /* XXH64 of the blocks so far */
    float *host;  /* [CHUNK] */
    char recipe[RECIPE_TEXT];
};

/* Everything but the hash, which has its length. */
static void describe(struct out *o, const struct step *s, const struct checkpoint *c,
                     const struct block *b, size_t count)
{
    const char **value = o->value;
    for (size_t i = 0; i < count; i++)
        o->view[i] = (struct tensor_view){.name = b[i].name,
                                          .dtype = ST_F32,
                                          .ndim = 1,
                                          .shape = {s->m->floats},
                                          .nbytes = s->m->floats * sizeof(float)};
    o->count = count;
    recipe_print(&s->m->r, RECIPE_MODEL | RECIPE_EVAL | RECIPE_TRAIN | RECIPE_QUANT, false,
                 o->recipe, RECIPE_TEXT);
    snprintf(o->number[META_ELAPSED], NUMBER, "%.17g", c->elapsed_ms);
    value[META_VERSION] = VERSION;
    value[META_RECIPE] = o->recipe;
    value[META_LAYOUT] = hash_hex(layout_hash(s->m), o->number[META_LAYOUT]);
    value[META_STEP] = print_size(o->number[META_STEP], s->opt.step);
    value[META_ELAPSED] = o->number[META_ELAPSED];
    value[META_SNAPSHOTS] = print_size(o->number[META_SNAPSHOTS], s->snapshots);
    value[META_QAT] = s->qat ? "1" : "0";
    value[META_NAME] = c->pos.name;
    value[META_SHARD] = print_size(o->number[META_SHARD], c->pos.shard);
    value[META_POS] = print_size(o->number[META_POS], c->pos.pos);
    value[META_SHARDS] = print_size(o->number[META_SHARDS], c->pos.shards);
    value[META_TOKENS] = print_size(o->number[META_TOKENS], c->pos.shard_tokens);
    value[META_XXH64] = hash_hex(0, o->number[META_XXH64]);
    for (size_t i = 0; i < METAS; i++) {
        o->pair[2 * i] = meta_key[i];
        o->pair[2 * i + 1] = value[i];
    }
}

static enum err_code out_begin(struct out **out, const char *path, const struct step *s,
                               const struct checkpoint *c, const struct block *b, size_t count,
                               struct err *e)
{
    struct out *o = *out = calloc(1, sizeof *o);
    if (!o || !(o->host = malloc(CHUNK * sizeof *o->host)))
        return err_nomem(e, "checkpoint", CHUNK * sizeof *o->host + sizeof *o);
    describe(o, s, c, b, count);
    return st_begin(&o->w, path, o->view, count, o->pair, METAS, e);
}

/* One whole block, from backend memory. */
static enum err_code out_block(struct out *o, const struct step *s, const float *block,
                               struct err *e)
{
    struct hash *h = hash_open(o->sum);
    enum err_code rc = h ? ERR_OK : err_nomem(e, "checkpoint's hash", sizeof *o);
    for (size_t at = 0, n; at < s->m->floats && !rc; at += n) {
        n = s->m->floats - at < CHUNK ? s->m->floats - at : CHUNK;
        s->k->download(s->k, o->host, block + at, n * sizeof *block);
        if (!(rc = s->k->sync(s->k, e))) {
            hash_add(h, o->host, n * sizeof *block);
            st_put(&o->w, o->host, n * sizeof *block);
        }
    }
    o->sum = hash_close(h);
    return rc;
}

static enum err_code out_end(struct out *o, struct err *e)
{
    hash_hex(hash_metas(o->value, o->sum), o->number[META_XXH64]);
    return st_end(&o->w, o->view, o->count, o->pair, METAS, e);
}

static void out_free(struct out *o)
{
    if (o) {
        st_abort(&o->w);
        free(o->host);
    }
    free(o);
}

/* What fails on rank 0 does not keep it from taking what the others send. */
enum err_code checkpoint_write(const char *path, struct step *s, const struct checkpoint *c,
                               struct err *e)
{
    struct block b[BLOCKS];
    struct out *o = NULL;
    size_t count = blocks_of(s, b);
    enum err_code rc = step_check(s, e), spread = ERR_OK;
    if (rc)
        return rc; /* on all ranks: they have the same weights */
    if (s->c->rank == 0)
        rc = out_begin(&o, path, s, c, b, count, e);
    for (size_t i = 0; i < count; i++) {
        const float *block = b[i].at;
        if (b[i].packed && s->c->size > 1) {
            if ((spread = spread_collect(&s->spread, s->grads, block, e)))
                break;
            block = s->grads;
        }
        if (s->c->rank == 0 && !rc)
            rc = out_block(o, s, block, e);
    }
    if (s->c->rank == 0 && !rc && !spread)
        rc = out_end(o, e);
    out_free(o);
    return rc ? rc : spread;
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

/* What rank 0 tells the others of the file. */
struct state {
    size_t good; /* 1: the file is in order and the blocks follow */
    size_t step, snapshots, qat;
    struct checkpoint c;
};

static bool parse_state(const char *const value[METAS], struct state *n)
{
    char *end;
    struct checkpoint *c = &n->c;
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

/* The file as far as it can be judged without changing anything. */
static enum err_code open_file(struct st_file *f, const char *path, const struct step *s,
                               const struct block *b, size_t count, struct state *n, struct err *e)
{
    const char *value[METAS], *recipe;
    char hex[17];
    enum err_code rc = st_open(f, path, e);
    if (rc)
        return rc;
    /* The recipe first: a size that differs is better explained by the setting behind it. */
    recipe = st_meta(f, meta_key[META_RECIPE]);
    if ((recipe && (rc = same_recipe(s->m, recipe, path, e))) ||
        (rc = read_metas(f, path, b, count, s->m->floats * sizeof(float), value, e)))
        return rc;
    if (strcmp(value[META_LAYOUT], hash_hex(layout_hash(s->m), hex)) != 0)
        return err_set(e, ERR_INPUT, "%s: written by a version whose model has other tensors",
                       path);
    if (!parse_state(value, n))
        return err_set(e, ERR_INPUT, "%s: its metadata hold impossible numbers", path);
    n->good = 1;
    return ERR_OK;
}

/* Rank 0's n for everybody. */
static enum err_code tell(const struct step *s, struct state *n, struct err *e)
{
    struct state *all = calloc(s->c->size, sizeof *all);
    if (!all)
        return err_nomem(e, "checkpoint", s->c->size * sizeof *all);
    enum err_code rc = comm_gather(s->c, all, n, sizeof *n, e);
    *n = all[0];
    free(all);
    return rc;
}

/* Block b from its bytes in the file, which rank 0 alone has. */
static enum err_code take_block(struct step *s, const struct block *b, const uint8_t *data,
                                struct err *e)
{
    bool through = b->packed && s->c->size > 1;
    if (s->c->rank == 0)
        s->k->upload(s->k, through ? s->grads : b->at, data, s->m->floats * sizeof(float));
    enum err_code rc = s->k->sync(s->k, e);
    if (rc)
        return rc;
    return through ? spread_deal(&s->spread, s->grads, b->at, e)
                   : spread_same(&s->spread, b->at, s->m->floats, e);
}

enum err_code checkpoint_read(const char *path, struct step *s, struct checkpoint *c, struct err *e)
{
    struct st_file f = {0};
    struct block b[BLOCKS];
    struct state n = {0};
    size_t count = blocks_of(s, b);
    enum err_code rc = ERR_OK, told;
    if (s->c->rank == 0)
        rc = open_file(&f, path, s, b, count, &n, e);
    if ((told = tell(s, &n, e)))
        rc = told;
    else if (!rc && !n.good)
        rc = err_set(e, ERR_INPUT, "%s: refused by rank 0", path);
    for (size_t i = 0; i < count && !rc; i++) {
        const struct tensor_view *t = tensor_find(f.tensor, f.count, b[i].name);
        rc = take_block(s, &b[i], t ? t->data : NULL, e);
    }
    if (!rc) {
        *c = n.c;
        s->opt.step = n.step;
        s->snapshots = n.snapshots;
        s->qat = n.qat && s->quant;
        rc = s->k->sync(s->k, e);
    }
    st_close(&f);
    return rc;
}
