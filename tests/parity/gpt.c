/* gpt.c - the model of a fixture: recipe from metadata and contents, parameters under the project's
 * names. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/parity/parity.h"

/* Switches of the records, with the value that leaves the model as it is without them. XSA, for
 * one, has no parameters: a file that asks for it must not be compared with a model that lacks it.
 */
static const struct {
    const char *key, *neutral;
} features[] = {
    {"GATED_ATTENTION", "0"},
    {"VALUE_RESIDUAL", "0"},
    {"PARALLEL_RESIDUAL", "0"},
};
enum { FEATURES = sizeof features / sizeof features[0] };

struct lookup {
    const char *key;
    bool found;
};

static void match_key(void *ctx, const char *key, const char *def, const char *help)
{
    struct lookup *l = ctx;
    (void)def;
    (void)help;
    l->found |= !strcmp(key, l->key);
}

static bool recipe_knows(const char *key)
{
    struct lookup l = {key, false};
    recipe_help(match_key, &l);
    return l.found;
}

static void set(struct check *c, struct recipe *r, const char *key, const char *value)
{
    char setting[RECIPE_STR + 64];
    struct err e = {0};
    snprintf(setting, sizeof setting, "%s=%s", key, value);
    if (recipe_set(r, setting, "metadata", &e))
        check_fail(c, "%s", e.msg);
}

/* One metadata pair into the recipe, or a note that the project lacks what it asks for. */
static void take_pair(struct check *c, struct recipe *r, const char *key, const char *value)
{
    const char *active = st_meta(&c->st, "RECURRENCE_ACTIVE");
    if (!strcmp(key, "RECUR_LAYERS") && active && !strcmp(active, "0"))
        return;
    if (recipe_knows(key)) {
        set(c, r, key, value);
        return;
    }
    for (size_t i = 0; i < FEATURES; i++)
        if (!strcmp(key, features[i].key) && strcmp(value, features[i].neutral))
            check_missing(c, "needs %s=%s", key, value);
}

/* What the scripts hard-code shows in the parameters: SmearGate or banks are #549's lineage, skip
 * gates #1296's, neither the baseline's. */
static bool fixture_recipe(struct check *c, struct recipe *r)
{
    bool of549 = find(c, "param.smear.gate") || find(c, "param.qo_bank");
    bool of1296 = find(c, "param.skip_gates") != NULL;
    recipe_init(r);
    for (size_t i = 0; i < c->st.nmeta; i++)
        take_pair(c, r, c->st.meta[2 * i], c->st.meta[2 * i + 1]);
    set(c, r, "MLP_SLOPE", of549 || of1296 ? "0.5" : "0");
    set(c, r, "ROPE_TRAIN_LEN", of549 ? "1024" : of1296 ? "0" : "-1");
    set(c, r, "UNET_SKIPS", find(c, "param.skip_weights") ? "1" : "0");
    set(c, r, "SMEAR_GATE", find(c, "param.smear.gate") ? "1" : "0");
    set(c, r, "PARALLEL_LANES", find(c, "param.lane_merge") ? "merge" : "off");
    set(c, r, "SKIP_REUSE_LAST", of1296 && !find(c, "param.lane_merge") ? "1" : "0");
    return !c->missing[0] && !c->fails;
}

/* Slice i of a bank of n layers is blocks.{i % n}.WHAT, the first or the second half's. */
static const struct {
    const char *bank, *what[2];
} banks_of[] = {
    {"qo_bank", {"attn.c_q.weight", "attn.proj.weight"}},
    {"kv_bank", {"attn.c_k.weight", "attn.c_v.weight"}},
    {"mlp_up_bank", {"mlp.fc.weight", NULL}},
    {"mlp_down_bank", {"mlp.proj.weight", NULL}},
};
enum { BANKS = sizeof banks_of / sizeof banks_of[0], NAME = 128 };

static size_t take_apart(const struct check *c, const struct tensor_view *t, size_t bank,
                         struct tensor_view *out, char (*names)[NAME])
{
    size_t layers = (size_t)meta_num(c, "NUM_LAYERS", 1), n = t->shape[0];
    for (size_t i = 0; i < n; i++) {
        const char *what = banks_of[bank].what[layers && i >= layers];
        snprintf(names[i], NAME, "blocks.%zu.%s", layers ? i % layers : i, what ? what : "?");
        out[i] = *t;
        out[i].name = names[i];
        out[i].ndim = t->ndim - 1;
        memmove(out[i].shape, out[i].shape + 1, out[i].ndim * sizeof out[i].shape[0]);
        out[i].nbytes = t->nbytes / n;
        out[i].data = t->data + i * out[i].nbytes;
    }
    return n;
}

size_t unbank(const struct check *c, const char *prefix, bool banks, struct tensor_view **out,
              char **names)
{
    size_t len = strlen(prefix), most = 0, n = 0;
    for (size_t i = 0; i < c->st.count; i++)
        most += c->st.tensor[i].ndim == 3 ? c->st.tensor[i].shape[0] : 1;
    *out = parity_alloc(most, sizeof **out);
    *names = parity_alloc(most, NAME);
    char(*name)[NAME] = (char(*)[NAME]) * names;
    for (size_t i = 0; i < c->st.count; i++) {
        const struct tensor_view *t = &c->st.tensor[i];
        size_t bank = 0;
        if (strncmp(t->name, prefix, len) || !tensor_elems(t))
            continue;
        while (bank < BANKS && strcmp(t->name + len, banks_of[bank].bank))
            bank++;
        if (banks && bank < BANKS && t->ndim == 3) {
            n += take_apart(c, t, bank, *out + n, name + n);
            continue;
        }
        snprintf(name[n], NAME, "%s", t->name + len);
        (*out)[n] = *t;
        (*out)[n].name = name[n];
        n++;
    }
    return n;
}

bool parity_gpt(struct check *c, struct gpt *m, float **params)
{
    struct recipe r;
    struct err e = {0};
    struct tensor_view *t = NULL;
    char *names = NULL;
    *params = NULL;
    *m = (struct gpt){0};
    if (!fixture_recipe(c, &r))
        return false;
    if (gpt_init(m, &r, &e)) {
        check_fail(c, "%s", e.msg);
        return false;
    }
    size_t n = unbank(c, "param.", !gpt_find(m, "qo_bank"), &t, &names), unknown = 0;
    for (size_t i = 0; i < n; i++) {
        const struct gpt_param *p = gpt_find(m, t[i].name);
        if (!p && !unknown++)
            check_missing(c, "needs parameter %s", t[i].name);
        if (p && !t[i].ndim && p->size == 1) { /* scalars of the reference have no axis */
            t[i].ndim = p->ndim;
            memcpy(t[i].shape, p->shape, sizeof p->shape);
        }
    }
    *params = parity_alloc(m->floats, sizeof **params);
    if (!unknown && gpt_load(m, *params, t, n, c->path, &e))
        check_fail(c, "%s", e.msg);
    free(t);
    free(names);
    if (!unknown && !c->fails)
        return true;
    free(*params);
    *params = NULL;
    gpt_free(m);
    return false;
}
