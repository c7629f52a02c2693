/*
 * rd_report.h - what QUANTIZER=rd did, tensor by tensor; for people, and for programs
 * (quant_report_write in trainer/quant.h).
 */
#ifndef TRAINER_RD_REPORT_H
#define TRAINER_RD_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct rd_line {
    char name[48];
    size_t numel;
    double bits;   /* entropy per weight, without step exponents */
    double bytes;  /* at that entropy, with 5 bits for each step exponent */
    double rel;    /* ||w - stored|| / ||w|| */
    double damage; /* estimated share of the divergence, nats per token */
    double sense;  /* sensitivity: damage of unit errors in all weights, nats per token */
    double step;   /* geometric mean */
    double tuned;  /* multiplier of the steps that tuning gave */
    double plain;  /* share of the elements outside the trellis */
    double gain;   /* damage that another 1000 bytes here would take away (at a bit per weight a
                      factor of 4, so damage * ln 4 * 8000 / numel) */
};

/* What is stored as fp16 has bits 16, and only numel and bytes beside it. */
struct rd_report {
    struct rd_line *line; /* in file order */
    size_t count;
    uint64_t numel;         /* their weights */
    uint64_t half;          /* weights that stay fp16 */
    double bits;            /* mean entropy per weight */
    double damage;          /* sum of the estimates */
    double kl;              /* measured divergence, nats per token */
    uint64_t bytes, target; /* of the finished file */
    bool measured;          /* bytes are real; otherwise an estimate */
    bool finest;            /* steps could not be made finer: the file is smaller than wanted */
};

void rd_report_free(struct rd_report *r); /* accepts a zeroed struct */

/* rd_report_gain - divergence that another 1000 bytes would take away, spent where they help most:
 * of the measured divergence, as the bits per weight say. */
double rd_report_gain(const struct rd_report *r);

void rd_report_print(const struct rd_report *r, FILE *out);

#endif
