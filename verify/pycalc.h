/*
 * pycalc.h - a calculator for the constant expressions of a Python script.
 *
 * It walks the statements in the order of the text, every branch once and no loop twice, and
 * computes what it can: literals, names bound to known values, joining, slicing, text codecs,
 * decompressors, calls of the script's own functions, and reads of the script itself (`__file__`).
 * Anything else is unknown, and unknown stays unknown. Nothing is imported, opened or run; steps,
 * depth and memory are bounded.
 *
 * What it is for are three lists: what was decoded from constants, what of it was run, and what
 * stood in the way.
 */
#ifndef VERIFY_PYCALC_H
#define VERIFY_PYCALC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"
#include "verify/pytoken.h"

enum {
    PYCALC_RESULTS = 64,
    PYCALC_NOTES = 32,
    PYCALC_FAMILY = 96,
    PYCALC_STEPS = 2 << 20,   /* operations before the rest counts as unknown */
    PYCALC_BYTES = 128 << 20, /* of all values together, likewise */
    PYCALC_SHORT = 256,       /* a decoded text shorter than this counts only when it is run */
};

/* Decoded from constants, and not decoded any further. */
struct pycalc_result {
    const uint8_t *p; /* n bytes, until pycalc_free */
    size_t n;
    char family[PYCALC_FAMILY]; /* "lzma-xz+b85": packer first, as it was made */
    size_t line;                /* of the call that decoded it, or that ran it */
    size_t coded, packed;       /* characters of literal; bytes between text codec and packer */
    bool run;                   /* reached exec, eval or compile */
    bool marshal;               /* given to marshal.loads: compiled code */
    bool used;                  /* was decoded further: not a result (kept for bookkeeping) */
};

struct pycalc_note {
    size_t line;
    char text[160];
};

struct pycalc {
    struct pycalc_result result[PYCALC_RESULTS];
    size_t results;
    struct pycalc_note note[PYCALC_NOTES];
    size_t notes, notes_dropped;
    bool bomb, other_file, exhausted;
    void *own;
};

/*
 * pycalc - walk the tokens of s.
 *
 *   file, n   the script's bytes as they lie on disk: what reading __file__ gives
 *   cap       bytes that one decoded value may have
 *
 * ERR_RESOURCE: out of memory. Release with pycalc_free in every case.
 */
enum err_code pycalc(struct pycalc *c, const struct py_source *s, const uint8_t *file, size_t n,
                     size_t cap, struct err *e);
void pycalc_free(struct pycalc *c);

#endif
