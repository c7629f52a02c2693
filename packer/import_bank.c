/* import_bank.c - see import_layout.h: banks become the matrices of blocks. */
#include <string.h>

#include "packer/import_layout.h"

/* Slice i of a bank belongs to block i % NUM_LAYERS; what[0] is the first half's, what[1] the
 * second's (#549: qo_bank[i] is Q of layer i, qo_bank[n+i] its output projection). */
static const struct {
    const char *bank, *what[2];
} banks[] = {
    {"qo_bank", {"attn.c_q.weight", "attn.proj.weight"}},
    {"kv_bank", {"attn.c_k.weight", "attn.c_v.weight"}},
    {"mlp_up_bank", {"mlp.fc.weight", NULL}},
    {"mlp_down_bank", {"mlp.proj.weight", NULL}},
};
enum { BANKS = sizeof banks / sizeof *banks };

/* Which bank f is of, and its suffix; BANKS: none. */
static size_t bank_of(const struct found *f, const char **suffix)
{
    for (size_t b = 0; b < BANKS; b++) {
        size_t n = strlen(banks[b].bank);
        *suffix = f->name + n;
        if (!strncmp(f->name, banks[b].bank, n) &&
            (!**suffix || !strcmp(*suffix, ".q") || !strcmp(*suffix, ".scale")))
            return b;
    }
    return BANKS;
}

static enum err_code unbank(struct import *im, const struct found *f, size_t bank,
                            const char *suffix, struct err *e)
{
    size_t layers = (size_t)im->r->num_layers, n = layers * (banks[bank].what[1] ? 2 : 1);
    const struct tensor_view *t = &f->view;
    bool scale = !strcmp(suffix, ".scale"), one = scale && tensor_elems(t) == 1;
    if (scale ? !one && tensor_elems(t) % n : t->ndim != 3 || t->shape[0] != n) {
        import_problem(im, "tensor %s: no bank of %zu matrices, as NUM_LAYERS=%zu wants", f->name,
                       n, layers);
        return ERR_OK;
    }
    for (size_t i = 0; i < n; i++) {
        struct found slice = *f;
        snprintf(slice.name, sizeof slice.name, "blocks.%zu.%s%s", i % layers,
                 banks[bank].what[i / layers], suffix);
        slice.view.nbytes = one ? t->nbytes : t->nbytes / n;
        slice.view.data = t->data + (one ? 0 : i * slice.view.nbytes);
        if (!scale || (t->ndim == 3 && t->shape[0] == n)) {
            slice.view.ndim = 2; /* scales of groups keep [rows][groups] */
            slice.view.shape[0] = t->shape[1];
            slice.view.shape[1] = t->shape[2];
        } else {
            slice.view.ndim = 1;
            slice.view.shape[0] = one ? 1 : tensor_elems(t) / n;
        }
        enum err_code rc = import_add(im, &slice, e);
        if (rc)
            return rc;
    }
    return ERR_OK;
}

enum err_code import_unbank(struct import *im, struct err *e)
{
    enum err_code rc = ERR_OK;
    for (size_t i = 0; !rc && i < im->count;) {
        const char *suffix;
        size_t b = bank_of(&im->found[i], &suffix);
        if (b == BANKS) {
            i++;
            continue;
        }
        struct found bank = im->found[i];
        bank_of(&bank, &suffix);
        memmove(&im->found[i], &im->found[i + 1], (--im->count - i) * sizeof *im->found);
        rc = unbank(im, &bank, b, suffix, e);
    }
    return rc;
}
