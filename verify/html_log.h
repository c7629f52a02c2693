/*
 * html_log.h - what a training log and a quantiser's table say, for the pictures of a report.
 *
 * Both are texts that nobody has checked: the page calls what comes from them "reported". Lines are
 * looked at one by one; what is not understood is passed over; the number of things kept is
 * limited.
 *
 *   step:20/300 train_loss:5.0226 train_time:92605ms ...         a point of the loss curve
 *   step:300/300 val_loss:3.8489 val_bpb:2.2927 ...              likewise, on validation data
 *   final_int6_roundtrip_exact val_loss:3.857 val_bpb:2.297      a figure: NAME val_loss: val_bpb:
 *   tensor    bits    weights    mse relative  entropy ...       the quantiser's table
 *   divergence from the float model: 0.008792 nats per token ... figure of QUANTIZER=rd
 *
 * A step that is not above the one before begins a new run, or goes on with one at a checkpoint:
 * points from that step on are dropped, so the curve is that of the last run. Of a table the
 * columns `tensor`, `entropy` (or `bits` where there is no entropy), `relative` and `damage` are
 * read; trainer/quant.h and trainer/rd_report.h describe them. The last table counts.
 */
#ifndef VERIFY_HTML_LOG_H
#define VERIFY_HTML_LOG_H

#include <stddef.h>

#include "kernels/err.h"

enum {
    LOG_POINTS = 1 << 16,
    LOG_FIGURES = 24,
    LOG_ROWS = 4096,
    LOG_NAME = 128,
    LOG_BYTES = 64 << 20
};

struct log_point {
    double step, loss;
};

struct log_figure {
    char name[LOG_NAME];
    double loss, bpb; /* NAN: not said */
};

struct log_row {
    char name[LOG_NAME];
    double bits, relative, damage; /* NAN: no such column, or "-" */
};

/* Zero-initialise; page_log_free releases. */
struct page_log {
    struct log_point *train, *val; /* [ntrain], [nval], ascending steps; owned */
    size_t ntrain, nval;
    double steps; /* N of step:M/N; 0: no curve */
    struct log_figure figure[LOG_FIGURES];
    size_t figures;
    double divergence;   /* nats per token; 0: not said */
    struct log_row *row; /* [rows]; owned */
    size_t rows;
};
void page_log_free(struct page_log *l); /* accepts a zeroed struct */

/* page_log_parse - add what n bytes of text say. ERR_RESOURCE: memory. */
enum err_code page_log_parse(struct page_log *l, const char *text, size_t n, struct err *e);

/* page_log_read - the same for a file. ERR_INPUT: it cannot be read, or is above LOG_BYTES. */
enum err_code page_log_read(struct page_log *l, const char *path, struct err *e);

/* page_log_row - the table's row for a tensor, or NULL. */
const struct log_row *page_log_row(const struct page_log *l, const char *name);

#endif
