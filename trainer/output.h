/*
 * output.h - the directory that a run writes.
 *
 *   train.log                 log.h
 *   checkpoint                checkpoint.h
 *   model.safetensors         final weights (the EMA when there is one), F32, state-dict names
 *   model.quant.safetensors   the same, quantised (quant.h)
 *   byte_table.bin            bytes per token (model/bytes.h), which packer and verify need
 *
 * Both weight files carry in their metadata: format ("pt", as PyTorch's loaders want), recipe (all
 * groups), tokenizer_xxh64, seed, step, train_ms, val_loss, val_bpb. Each file appears complete or
 * not at all.
 */
#ifndef TRAINER_OUTPUT_H
#define TRAINER_OUTPUT_H

#include "model/score.h"
#include "trainer/corpus.h"
#include "trainer/quant.h"

enum { OUTPUT_PATH = 1024, OUTPUT_METAS = 8, OUTPUT_RECIPE = 1 << 16 };

struct output {
    char dir[OUTPUT_PATH - 64];
};

/* output_open - make the directory and try it: ERR_RESOURCE when nothing can be written there, or
 * when fewer than `need` bytes are free, with both numbers. */
enum err_code output_open(struct output *o, const char *dir, unsigned long long need,
                          struct err *e);

/* output_path - DIR/name into buf[OUTPUT_PATH]; returns buf. */
const char *output_path(const struct output *o, const char *name, char *buf);

/* What the metadata says about the run. */
struct output_facts {
    const struct corpus *c;
    size_t step;
    double train_ms, val_loss, val_bpb;
    const struct quant_with *with; /* for the quantiser, NULL when it needs nothing (no metadata) */
};

/* output_weights - model.safetensors, model.quant.safetensors and byte_table.bin from host weights.
 * *q receives the report of the quantiser (quant_report_free). ERR_RESOURCE: disk or memory. */
enum err_code output_weights(const struct output *o, const struct gpt *m, const float *params,
                             const struct output_facts *facts, struct quant_report *q,
                             struct err *e);

/* output_reload - read model.quant.safetensors back into params (host). */
enum err_code output_reload(const struct output *o, const struct gpt *m, float *params,
                            struct err *e);

/* output_size - bytes of DIR/name, 0 when it is not there. */
unsigned long long output_size(const struct output *o, const char *name);

#endif
