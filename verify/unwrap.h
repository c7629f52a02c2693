/*
 * unwrap.h - a self-extracting Python script, taken apart without running it.
 *
 * To save counted bytes, record scripts are often compressed and put into a literal of a short
 * wrapper: exec(lzma.decompress(base64.b85decode("..."))), with many spellings (users.md counts
 * raw LZMA2, xz, zlib and brotli behind base85 or base64, and scripts that execute another file).
 * Nothing of a script is ever executed here. Its expressions over constants are computed by a
 * calculator (verify/pycalc.h) that knows literals, names bound to constants, joining, slicing, the
 * text codecs and the decompressors; what it does not know is unknown, and is reported as such.
 *
 * Files that Python runs and that are no text are taken apart as well: zip archives with a
 * __main__.py (PEP 441), whatever stands in front of them, and compiled code (.pyc files, and what
 * a script gives to marshal.loads), of which names and constants are listed (verify/pymarshal.h).
 *
 * A script is taken as wrapped when text that came out of a decoder, or that was read from the
 * script itself, reaches something that runs or stores code: exec, eval, compile, a write to a
 * file, a module's table. Where the calculator gets stuck, large literals are tried with every
 * codec, told apart by the magic numbers of the containers; such a result says "guessed".
 */
#ifndef VERIFY_UNWRAP_H
#define VERIFY_UNWRAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"

enum {
    UNWRAP_PARTS = 32,       /* texts found in one file, itself included; more are only noted */
    UNWRAP_NOTES = 32,       /* things that could not be decoded; more are counted */
    UNWRAP_DEPTH = 8,        /* wrappers inside wrappers; deeper is noted, not decoded */
    UNWRAP_MAX = 16 << 20,   /* bytes of one decoded text: more is called a bomb */
    UNWRAP_TOTAL = 64 << 20, /* bytes over everything decoded from one file */
};

/* One text: part 0 is the file as it is, every other one came out of a part before it. */
struct unwrap_part {
    size_t parent;   /* index of the part that carries it; 0 for part 0 */
    char family[96]; /* how it was made, packer first: "lzma-xz+b85", "zlib+b64+zlib+b64"; "" for
                        part 0. "zip:NAME": an entry of an archive; "marshal", "pyc": a listing
                        of compiled code. "+bytes": no text codec; "+self": read from the script's
                        file; "text": a plain literal that is run */
    size_t line;     /* 1-based line in the parent of what runs or stores it; 0 for part 0 */
    size_t coded;    /* characters of the literals that it came from */
    size_t packed;   /* bytes behind the text codec (base85...), what was compressed */
    const uint8_t *text; /* size bytes, NUL behind them (not counted) */
    size_t size;
    bool python;  /* reached exec, eval, compile, or parses into tokens like Python */
    bool marshal; /* compiled code, as marshal writes it */
    bool listing; /* not a text of the script's: names and constants of compiled code */
    bool guessed; /* found by trying codecs, not by following the script */
};

/* What was seen and could not be decoded, or should be known: "line 3: marshal.loads of 812 bytes:
 * compiled code is not decompiled". */
struct unwrap_note {
    size_t part, line; /* line 1-based in that part, 0: nowhere special */
    char text[160];
};

struct unwrap {
    struct unwrap_part part[UNWRAP_PARTS];
    size_t parts; /* at least 1 after success */
    size_t main;  /* the part that is the script proper: part 0 when nothing is wrapped */
    struct unwrap_note note[UNWRAP_NOTES];
    size_t notes;         /* in note[] */
    size_t notes_dropped; /* beyond it */
    bool bomb;            /* something was refused for its decoded size */
    bool other_file;      /* runs a file or text that is not part of this one (a note says which) */
    size_t total;         /* bytes of all parts */
    void *own;            /* everything that unwrap_free releases */
};

/*
 * unwrap - take the n bytes at `data` apart.
 *
 *   u     result; release with unwrap_free in every case. Texts live until then; part 0's text is a
 *         copy of data.
 *   name  of the file, for messages
 *
 * A file that is no wrapper, is damaged, or is a bomb is no error: parts is 1, main 0, and the
 * notes say what was seen. ERR_INPUT: more than UNWRAP_MAX bytes; ERR_RESOURCE: out of memory.
 */
enum err_code unwrap(struct unwrap *u, const void *data, size_t n, const char *name, struct err *e);
void unwrap_free(struct unwrap *u);

/*
 * unwrap_family - the wrapper in one phrase: "none", or the families of the layers from the outside
 * in to the main part, joined by " > ". The spelling is "lzma-xz+b85", "lzma2-raw+b85", "zlib+b64".
 * Written to out (cap bytes, always ended). Returns out.
 */
const char *unwrap_family(const struct unwrap *u, char *out, size_t cap);

#endif
