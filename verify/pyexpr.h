/*
 * pyexpr.h - expressions of the calculator: from tokens to a value. Each function takes the tokens
 * of its expression from w->at on; w->fail says that they make no expression.
 */
#ifndef VERIFY_PYEXPR_H
#define VERIFY_PYEXPR_H

#include "verify/pyvalue.h"

/* py_expression - one expression (conditional, lambda and := included), no comma. */
const struct pv *py_expression(struct pv_walk *w);

/* py_expressions - several with commas are a tuple. */
const struct pv *py_expressions(struct pv_walk *w);

/* pv_bind - give a name a value in the current frame (pycalc.c). */
void pv_bind(struct pv_walk *w, const char *name, size_t n, const struct pv *v);

#endif
