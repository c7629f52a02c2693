/*
 * pickle_machine.h - stack, memo and values of the pickle reader: private to packer/pickle*.c.
 *
 * Functions that fail record it in m->e and m->rc and return NULL or the code; the first failure
 * wins.
 */
#ifndef PACKER_PICKLE_MACHINE_H
#define PACKER_PICKLE_MACHINE_H

#include "model/reader.h"
#include "packer/pickle.h"

struct machine {
    struct reader r;
    const uint8_t *start;
    size_t op_at; /* offset of the opcode being executed, for errors */
    const struct pickle_global *allowed;
    const char *what;
    struct err *e;
    enum err_code rc;

    struct pickle_arena *arena;
    size_t pushes;               /* so far: what PICKLE_MAX_VALUES bounds */
    struct pickle_value **stack; /* [cap], of which depth are in use */
    size_t depth, cap;
    size_t marks, mark[PICKLE_MAX_DEPTH]; /* stack depths */
    struct pickle_value **memo;           /* [memo_cap], NULL where nothing was put */
    size_t memo_cap, memoized;            /* memoized: slots in use, where MEMOIZE puts the next */
    size_t encoded;                       /* bytes made of text so far */
    struct pickle_value *stored;          /* struct pickle's */
};

enum err_code machine_fail(struct machine *m, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* A new empty value, not yet on the stack; a NUL-terminated copy of n bytes. */
struct pickle_value *machine_new(struct machine *m, enum pickle_kind kind);
const char *machine_text(struct machine *m, const uint8_t *at, size_t n);

/* The bytes that a text in UTF-8 has in Latin-1, as a new value; fails for other characters. */
struct pickle_value *machine_latin1(struct machine *m, const struct pickle_value *text);

/* More items for a container: n values, which for a dictionary are keys and values in turn. */
void machine_add(struct machine *m, struct pickle_value *v, struct pickle_value *const *item,
                 size_t n);

/* A new empty value on the stack; one that exists already. */
struct pickle_value *machine_push(struct machine *m, enum pickle_kind kind);
enum err_code machine_push_old(struct machine *m, struct pickle_value *v);

/* The topmost value, left there or taken (and of a certain kind). Never across a mark. */
struct pickle_value *machine_top(struct machine *m);
struct pickle_value *machine_pop_any(struct machine *m);
struct pickle_value *machine_pop(struct machine *m, enum pickle_kind kind);

/* Takes the topmost n values; where they lie, lowest first, until something is pushed;
 * NULL when n is 0 (and on failure: look at m->rc). */
struct pickle_value **machine_take(struct machine *m, size_t n);

/* Sets a mark; forgets the topmost one and says how many values lie above it. */
enum err_code machine_mark(struct machine *m);
size_t machine_marked(struct machine *m);

enum err_code machine_put(struct machine *m, size_t slot); /* the topmost value into the memo */
enum err_code machine_get(struct machine *m, size_t slot);

/* Releases everything but the values. */
struct pickle_arena *machine_end(struct machine *m);

#endif
