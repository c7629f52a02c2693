/*
 * piece.h - the parameter block cut into pieces: what the optimiser updates, and who owns what.
 *
 * A piece is a matrix of Muon's (of a 3-D parameter: a slice), or at most PIECE_FLOATS floats of
 * neighbours that AdamW updates alike. The list depends on the model alone. Each piece has one
 * owner among the ranks, who adds up its gradient, keeps its optimiser state and averages and sends
 * its new weights to the others; a rank's state is packed, piece behind piece.
 *
 * Owners are chosen by cost, largest piece first, each to the rank with the least so far. The cost
 * is that of the update (Newton-Schulz, and a share for what passes over each float), so memory is
 * only about even: with more ranks than matrices some ranks own nothing.
 *
 * The class of a parameter (model/gpt.h) decides its group:
 *
 *   OPTIM_MUON    PARAM_MATRIX             Muon   MATRIX_LR, MUON_WD
 *   OPTIM_EMBED   PARAM_EMBED              AdamW  TIED_EMBED_LR (EMBED_LR when untied), EMBED_WD
 *   OPTIM_HEAD    PARAM_HEAD               AdamW  HEAD_LR, EMBED_WD
 *   OPTIM_SCALAR  PARAM_CONTROL            AdamW  SCALAR_LR, ADAM_WD
 *   PARAM_PROJ goes to OPTIM_MUON (#1296, #1263), with PROJ_OPTIMIZER=adamw to OPTIM_SCALAR (#549)
 */
#ifndef TRAINER_PIECE_H
#define TRAINER_PIECE_H

#include "model/gpt.h"

enum optim_group { OPTIM_MUON, OPTIM_EMBED, OPTIM_HEAD, OPTIM_SCALAR, OPTIM_GROUPS };
extern const char *const optim_group_name[OPTIM_GROUPS]; /* "muon", "embed", "head", "scalar" */

/* optim_group_of - the group of a parameter. */
enum optim_group optim_group_of(const struct recipe *r, const struct gpt_param *p);

enum { PIECE_FLOATS = 1 << 17 };

struct piece {
    enum optim_group group;
    size_t at, n;      /* floats of the parameter block */
    size_t rows, cols; /* OPTIM_MUON only: n = rows*cols */
    size_t owner;
    size_t local; /* place in the owner's packed blocks */
};

/* Neighbouring pieces of one owner, which are neighbours in its packed blocks as well. */
struct stretch {
    size_t owner, at, local, n;
};

struct piece_list {
    struct piece *piece; /* in the order of the block, without gaps */
    struct stretch *stretch;
    size_t pieces, stretches;
    size_t rank, ranks; /* for whom this list is */
    size_t floats;      /* of a packed block of this rank */
    size_t most;        /* pieces that the rank with the most of them owns */
};

/* piece_list - for rank `rank` of `ranks`. Only m->r, m->param and m->nparams are read. Alone, a
 * rank's packed blocks have the layout of the parameter block. ERR_RESOURCE: memory. */
enum err_code piece_list(struct piece_list *l, const struct gpt *m, size_t rank, size_t ranks,
                         struct err *e);
void piece_free(struct piece_list *l); /* accepts a zeroed struct */

#endif
