/*
 * checkpoint.h - everything that a run needs to go on bit-exactly, in one safetensors file.
 *
 *   tensors   params, momentum, variance, and when the recipe has them ema and swa (the sum of
 *             the snapshots): F32, [floats], with the layout of the parameter block
 *   metadata  checkpoint (version of this layout, "2"), recipe (all groups), layout (XXH64 of the
 *             parameters' names and shapes), step, elapsed_ms, swa_snapshots, late_qat (1: on),
 *             where the training stream stands
 *             (shard_name, shard, shard_pos, shards, shard_tokens), xxh64 over everything else
 *
 * The file is replaced atomically. The recipe of a resumed run must be the checkpoint's, except for
 * keys that only say when to look, to stop or where things are (checkpoint.c lists them), and for
 * the EVAL and QUANT groups, of which training reads nothing; with late QAT it reads QUANT_BITS,
 * QUANT_SCALE_FLOOR and QUANT_KEEP_NUMEL, which must then be the same.
 */
#ifndef TRAINER_CHECKPOINT_H
#define TRAINER_CHECKPOINT_H

#include "trainer/loader.h"
#include "trainer/step.h"

/* What is not in struct step. */
struct checkpoint {
    double elapsed_ms;
    struct loader_pos pos;
};

/*
 * checkpoint_write, checkpoint_read - called by all ranks. Rank 0 has the file; the pieces of the
 * others' state come and go through s->grads, so no rank needs more memory. The file does not tell
 * how many ranks there were. What fails is an error of the rank where it fails (all of them must
 * hear of it by comm_agree), and keeps no rank waiting.
 *
 * checkpoint_write - ERR_RESOURCE: no memory or disk; an older file at path is then still whole.
 * ERR_INPUT: a weight is not finite (nothing is written).
 */
enum err_code checkpoint_write(const char *path, struct step *s, const struct checkpoint *c,
                               struct err *e);

/* checkpoint_read - into a step of the same recipe. ERR_INPUT: missing, damaged, or of another
 * recipe or shape, with the first difference; s is then unchanged. */
enum err_code checkpoint_read(const char *path, struct step *s, struct checkpoint *c,
                              struct err *e);

/* checkpoint_diff - the first key in which training under a and b would differ, with both values,
 * into buf; false when there is none. */
bool checkpoint_diff(const struct recipe *a, const struct recipe *b, char *buf, size_t cap);

#endif
