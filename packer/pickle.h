/*
 * pickle.h - reads Python pickles as data and nothing else (protocols 0 to 5).
 *
 * A pickle is a program for a small stack machine that can name and call any Python function. Here
 * it can only build values: numbers, strings, bytes, tuples, lists, dictionaries. A global is
 * accepted when its name is in the caller's list, and "calling" it only records the name and the
 * arguments (PICKLE_CALL), or does one of the few harmless things of enum pickle_as; what a
 * recorded call means is for the caller. Everything else is refused by name. Nothing is ever looked
 * up, imported or run.
 *
 * Format: Lib/pickletools.py of CPython documents every opcode.
 *
 * Bounds: at most PICKLE_MAX_VALUES values and memo slots, PICKLE_MAX_DEPTH levels; strings are
 * copied once, and bytes made of text are together no longer than the input, so memory is bounded
 * by the input's size and these two. Values may be shared and,
 * through lists and dictionaries, may contain themselves: walk them to a known depth only.
 */
#ifndef PACKER_PICKLE_H
#define PACKER_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"

enum { PICKLE_MAX_VALUES = 1 << 20, PICKLE_MAX_DEPTH = 64, PICKLE_NAME = 128 };

enum pickle_kind {
    PICKLE_NONE,
    PICKLE_BOOL,   /* i: 0 or 1 */
    PICKLE_INT,    /* i; integers beyond 64 bits are refused */
    PICKLE_FLOAT,  /* f */
    PICKLE_STR,    /* text, NUL-terminated; n is its length, which a NUL inside does not end */
    PICKLE_BYTES,  /* text, inside the input when the protocol allows; n bytes */
    PICKLE_TUPLE,  /* item[n] */
    PICKLE_LIST,   /* item[n]; sets too, in the order written */
    PICKLE_DICT,   /* item[2*n]: key, value, ...; OrderedDict too */
    PICKLE_GLOBAL, /* i: index into the caller's list */
    PICKLE_CALL, /* global i applied to the tuple item[0]; item[1] is what BUILD gave it, or NULL */
    PICKLE_PERSID, /* item[0]: the id of an object that is stored elsewhere */
};

struct pickle_value {
    enum pickle_kind kind;
    unsigned depth; /* of what was below it when it was made */
    int64_t i;
    double f;
    size_t n;
    const char *text;
    struct pickle_value **item;
};

struct pickle_arena;
struct pickle {
    const struct pickle_value *root;
    const struct pickle_value *stored; /* a list of all PICKLE_PERSID made, or NULL: none */
    size_t used;                       /* bytes of the input up to and with STOP */
    struct pickle_arena *arena;
};

/* What calling a global does. */
enum pickle_as {
    PICKLE_AS_CALL,  /* nothing: a PICKLE_CALL remembers it */
    PICKLE_AS_DICT,  /* without arguments: an empty dictionary */
    PICKLE_AS_BYTES, /* (text, "latin1"): its bytes, as protocols below 3 write them; (bytes): the
                        same bytes; without arguments: none */
    PICKLE_AS_SAME,  /* (tuple or list): that value */
};

/* A global that may appear. */
struct pickle_global {
    const char *name; /* "module.attribute" */
    enum pickle_as as;
};

/*
 * pickle_parse - the value that the pickle at data[0..n) stands for.
 *
 *   allowed  the globals that may be named, ended by an entry without a name
 *   what     names the input in errors
 *
 * The input must outlive p. Fails: ERR_INPUT naming the global, opcode or bound in the way, and the
 * offset; ERR_RESOURCE without memory. On failure nothing is held.
 */
enum err_code pickle_parse(struct pickle *p, const void *data, size_t n,
                           const struct pickle_global *allowed, const char *what, struct err *e);
void pickle_free(struct pickle *p); /* accepts a zeroed struct */

/* pickle_get - the value stored under a string in a dictionary, or NULL; NULL too when d is NULL or
 * no dictionary. Of equal keys the last one counts, as in Python. */
const struct pickle_value *pickle_get(const struct pickle_value *d, const char *key);

/* pickle_is - whether v (may be NULL) is the string s. */
bool pickle_is(const struct pickle_value *v, const char *s);

#endif
