/*
 * pyvalue.h - the values of the calculator (verify/pycalc.h), and what its two halves share:
 * pycalc.c walks statements and expressions, pycall*.c knows functions and methods.
 */
#ifndef VERIFY_PYVALUE_H
#define VERIFY_PYVALUE_H

#include "verify/pycalc.h"
#include "verify/pycodec.h"

enum pv_kind {
    PV_UNKNOWN,
    PV_NONE,
    PV_INT,     /* i; booleans as well */
    PV_STR,     /* p[0..n), UTF-8 */
    PV_BYTES,   /* p[0..n) */
    PV_LIST,    /* item[0..n); tuples as well */
    PV_DICT,    /* item[0..2n): key, value, ... */
    PV_NAME,    /* p[0..n): a dotted name, "lzma.decompress" */
    PV_METHOD,  /* self.p: an attribute of a value */
    PV_FUNC,    /* a function or lambda of the script; i: index of the token behind its name */
    PV_FILE,    /* an open file: of the script itself (self set: its bytes), else p: its name */
    PV_PATH,    /* a path: of the script itself (self set), else p: its last part */
    PV_OUTSIDE, /* text that lies in another file; p: its name */
    PV_PACKER,  /* a decompressor object; self: the arguments it was made with, i: enum packer */
};

/* Where a value came from. */
struct pv_origin {
    char family[PYCALC_FAMILY];
    size_t coded, packed;
    int result; /* index into the results, -1: no decoder yet */
};

struct pv {
    enum pv_kind kind;
    bool lambda; /* of a PV_FUNC */
    long long i;
    const uint8_t *p;
    size_t n;
    const struct pv **item;
    const struct pv *self;
    const struct pv_origin *from;
};

struct pv_arg {
    const char *kw; /* NULL: by position */
    size_t kw_n;
    const struct pv *v;
};

enum { PV_ARGS = 16, PV_BINDINGS = 4096, PV_STARS = 8, PV_DEPTH = 120, PV_CALLS = 12 };

struct pv_binding {
    const char *name;
    uint32_t n, hash;
    const struct pv *v;
};

struct pv_block {
    struct pv_block *next;
    size_t used, size;
    uint8_t bytes[];
};

struct pv_walk {
    struct pycalc *out;
    const struct py_source *s;
    const struct pv *file; /* the script's own bytes */
    size_t cap;
    size_t at; /* token index */
    size_t steps, bytes;
    unsigned depth, calls;
    long long active[PV_CALLS]; /* functions that are being called: they are not entered again */
    bool fail;                  /* the expression could not be parsed: skip the statement */
    struct pv_binding *bind;
    size_t binds, frame;
    const char *star[PV_STARS];
    size_t stars;
    size_t seek; /* where the script's own file was last positioned */
    const struct pv *ret;
    struct pv_block *block;
    bool nomem;
};

extern const struct pv pv_unknown;

/* pyvalue.c */
void *pv_alloc(struct pv_walk *w, size_t n); /* NULL: budget or memory is used up */
const struct pv *pv_int(struct pv_walk *w, long long i);
const struct pv *pv_text(struct pv_walk *w, enum pv_kind kind, const void *p, size_t n,
                         const struct pv_origin *from); /* p is not copied */
const struct pv *pv_copy(struct pv_walk *w, enum pv_kind kind, const void *p, size_t n,
                         const struct pv_origin *from); /* p is copied */
const struct pv *pv_list(struct pv_walk *w, enum pv_kind kind, const struct pv *const *item,
                         size_t n);                 /* items are copied; n pairs for a PV_DICT */
bool pv_is_text(const struct pv *v);                /* PV_STR or PV_BYTES */
bool pv_same(const struct pv *v, const char *text); /* a PV_STR, PV_BYTES or PV_NAME of this text */
bool pv_ascii(const struct pv *v);
bool pv_number(const struct pv *v, long long *i); /* a PV_INT, or a named constant of lzma, zlib */
const struct pv *pv_add(struct pv_walk *w, const struct pv *a, const struct pv *b);
const struct pv *pv_slice(struct pv_walk *w, const struct pv *v, const struct pv *const part[3],
                          bool colon);
const struct pv *pv_dict_get(const struct pv *d, const char *key);
void pv_note(struct pv_walk *w, size_t line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* pycalc.c */
const struct pv *pv_lookup(struct pv_walk *w, const char *name, size_t n);
const struct pv *pv_call_own(struct pv_walk *w, const struct pv *f, const struct pv_arg *arg,
                             size_t args);

/* pycall.c */
const struct pv *pv_attribute(struct pv_walk *w, const struct pv *v, const char *name, size_t n);
const struct pv *pv_call(struct pv_walk *w, const struct pv *f, const struct pv_arg *arg,
                         size_t args, size_t line);
const struct pv *pv_arg(const struct pv_arg *arg, size_t args, size_t pos, const char *kw);

/* pycall_text.c */
const struct pv *pv_text_method(struct pv_walk *w, const struct pv *v, const char *name, size_t n,
                                const struct pv_arg *arg, size_t args);

/* pycall_decode.c: decoders by dotted name; NULL when the name is none. */
const struct pv *pv_decoder(struct pv_walk *w, const char *name, const struct pv_arg *arg,
                            size_t args, size_t line);
const struct pv *pv_unpack(struct pv_walk *w, enum packer p, const struct pv *how,
                           const struct pv *data, size_t line);
/* The value reached exec, eval or compile. */
void pv_run(struct pv_walk *w, const struct pv *v, const char *what, size_t line);

#endif
