/*
 * parity.h - what the parts of the parity program share: a fixture being checked, and its verdict.
 *
 * A fixture is a file of inputs and of what the challenge's reference scripts made of them. The
 * program computes the same with the project's own code and compares. Which comparisons a file asks
 * for is decided by its metadata (KIND) and by the tensors that it holds, not by its name.
 *
 * Tolerances are those of the fixtures' own README; each check_* call states the one it uses.
 */
#ifndef TESTS_PARITY_PARITY_H
#define TESTS_PARITY_PARITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "model/bytes.h"
#include "model/gpt.h"
#include "model/recipe.h"
#include "model/safetensors.h"

enum { CHECK_TEXT = 4096 };

struct check {
    struct kern *k;
    /* 0 on the CPU. A card multiplies numbers of 8 bits: there tensors are held to a share of their
     * norm, single numbers to a share of the largest of those they are compared with (main.c). */
    double loose, single;
    const char *dir, *path; /* directory given by the user, file in it */
    struct st_file st;      /* empty when the fixture is no safetensors file */
    bool compared;          /* at least one comparison was made */
    size_t fails;
    char notes[CHECK_TEXT];   /* what was compared, with worst errors */
    char fail[CHECK_TEXT];    /* the first failures */
    char missing[CHECK_TEXT]; /* what the project cannot do yet */
    char skipped[CHECK_TEXT]; /* what is left out on purpose */
};

/* Each appends one phrase. check_fail counts; everything behind the first two failures is only
 * counted. */
void check_fail(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void check_note(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void check_missing(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void check_skipped(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* parity_alloc - zeroed memory, or the end of the program (exit status 4). Release with free. */
void *parity_alloc(size_t count, size_t size);

/* find - the fixture's tensor whose name is the formatted string, or NULL. */
const struct tensor_view *find(const struct check *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* need - the same, and a failure when it is not there or has fewer than `elems` elements. */
const struct tensor_view *need(struct check *c, size_t elems, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* tensor_at - element i of a tensor of any type, as a double. */
double tensor_at(const struct tensor_view *t, size_t i);
/* tensor_floats - all elements as fp32, malloc'ed. */
float *tensor_floats(const struct tensor_view *t);
/* tensor_tokens - all elements as token ids below `vocab`, malloc'ed; NULL and a failure otherwise.
 */
uint16_t *tensor_tokens(struct check *c, const struct tensor_view *t, size_t vocab);

/* tensor_slice - elements from..from+n of t as one axis. */
struct tensor_view tensor_slice(const struct tensor_view *t, size_t from, size_t n);

/* meta_num - a number from the metadata, or `other` when the key is not there. */
double meta_num(const struct check *c, const char *key, double other);
/* name_part - "big" from "out.big.0" with prefix "out." : the part between prefix and the next dot,
 * or, when `suffix` is not NULL, between prefix and suffix. False when the name has another form.
 */
bool name_part(const char *name, const char *prefix, const char *suffix, char *part, size_t cap);

/* The worst element of a group of tensors, measured in tolerances. */
struct group {
    const char *what;
    size_t tensors;
    double worst; /* error / tolerance */
    double error, tol;
    char tensor[96];
};

/*
 * group_floats - compare got[0..n) with a tensor; error |got - want|, tolerance tol (0: exact).
 * With c->loose it is group_norm with that tolerance. group_doubles - the same for doubles (then
 * c->single of the largest value). A NaN, a different number of elements or an error above the
 * tolerance is a failure that names tensor, index and both values.
 */
void group_floats(struct check *c, struct group *g, const float *got, size_t n,
                  const struct tensor_view *want, double tol);
void group_doubles(struct check *c, struct group *g, const double *got, size_t n,
                   const struct tensor_view *want, double tol);
/* group_norm - the same with one error for the whole tensor, ||got - want|| / ||want||. */
void group_norm(struct check *c, struct group *g, const float *got, size_t n,
                const struct tensor_view *want, double tol);
/* group_error - the same when the error is known: `name` is off by a share of its norm. */
void group_error(struct check *c, struct group *g, const char *name, double error, double tol);
/* group_end - note "what worst 3.1e-06 (tol 5e-05)", naming the tensor when there were several. */
void group_end(struct check *c, struct group *g);

/* tensor_max - the largest magnitude, for tolerances relative to it. */
double tensor_max(const struct tensor_view *t);

/*
 * parity_gpt - the model of a fixture: recipe from its upper-case metadata, parameters from
 * "param.*".
 *
 * Banks of the #549 lineage are taken apart into the matrices of the blocks. False when the project
 * cannot build it yet (check_missing says why) or when it is damaged (check_fail). On success the
 * caller releases m with gpt_free and *params (host) with free.
 */
bool parity_gpt(struct check *c, struct gpt *m, float **params);

/* unbank - the tensors whose names start with prefix, without it, banks taken apart; names belong
 * to *names. Release both with free. Returns how many there are. */
size_t unbank(const struct check *c, const char *prefix, bool banks, struct tensor_view **out,
              char **names);

/* The kinds, one file each. */
void parity_model(struct check *c);
void parity_train(struct check *c);
void parity_rope(struct check *c);
void parity_optimizer(struct check *c);
void parity_schedule(struct check *c);
void parity_quant(struct check *c);
void parity_qat(struct check *c);
void parity_gptq(struct check *c);
void parity_hessian(struct check *c);
void parity_prune(struct check *c);
void parity_pack(struct check *c);
/* parity_ptz - a packed file. parity_pack_files - those that a fixture lists, with what the
 * reference loaded from them. parity_byteshuffle - the byte shuffle before compression. */
void parity_ptz(struct check *c);
void parity_pack_files(struct check *c, const char *files);
void parity_byteshuffle(struct check *c);
void parity_eval(struct check *c);
/* parity_tokenizer - a .json file of text[n]. ERR_INPUT when it is no such file. */
enum err_code parity_tokenizer(struct check *c, const char *text, size_t n, struct err *e);

#endif
