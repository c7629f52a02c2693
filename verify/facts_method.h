/*
 * facts_method.h - what the two halves of "how does it score" share: facts_method.c finds the
 * functions and whether they are used, facts_judge.c holds their text against the four conditions.
 */
#ifndef VERIFY_FACTS_METHOD_H
#define VERIFY_FACTS_METHOD_H

#include "verify/facts.h"

/* What a function does, by the first token where it does it; `end` of the function: it does not. */
struct deeds {
    const struct facts_func *f;
    size_t score;  /* adds to the sums of losses or bytes */
    size_t train;  /* backward, step, autograd */
    size_t update; /* counts what it has seen: update, scatter_add_, add.at */
    size_t guard;  /* no_grad, inference_mode */
    size_t stride; /* cuts off what an earlier window has scored */
    size_t val;    /* names validation data */
};

/* facts_deeds - look at f, and `deep` calls deep at what it calls: a helper's deeds are done where
 * it is called. */
struct deeds facts_deeds(const struct facts_walk *w, const struct facts_func *f, unsigned deep);

/* facts_scores_at - does f score at token i, itself or by a helper that trains nothing? */
bool facts_scores_at(const struct facts_walk *w, const struct facts_func *f, size_t i);

/* facts_reference - the next reference to f outside of itself, from token i on: a call, or its name
 * handed to another function. The number of tokens when there is none. */
size_t facts_reference(const struct facts_walk *w, const struct facts_func *f, size_t i);

/* facts_number - the first of these settings (NULL-ended) that is a number above 0, or 0. */
long facts_number(const struct facts_walk *w, const char *const *names);

/* facts_mixes - does f, whatever its name, handle what only this method has? */
bool facts_mixes(const struct facts_walk *w, const struct facts_func *f, enum method m);

/* facts_evaluates - does the name of f say that it evaluates? */
bool facts_evaluates(const struct facts_walk *w, const struct facts_func *f);

/* facts_judge - fill cond, why and form of m, whose function did d. */
void facts_judge(struct facts_walk *w, struct method_facts *m, const struct deeds *d);

#endif
