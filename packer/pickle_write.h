/*
 * pickle_write.h - writes pickles of protocol 2 as CPython's own pickler does, byte for byte for
 * the values below, so that a packed record has the size that Python would have given it.
 *
 * CPython remembers every object that it has written in a numbered memo and refers to it when the
 * same object comes again. Two equal strings may be two objects, so there are two functions for
 * them.
 */
#ifndef PACKER_PICKLE_WRITE_H
#define PACKER_PICKLE_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A growing buffer. When memory runs out, `failed` is set, data is released and nothing more
 * happens. Zero it first; free(data) at the end. */
struct bytes_out {
    uint8_t *data;
    size_t n, cap;
    bool failed;
};
void bytes_out_put(struct bytes_out *b, const void *data, size_t n);
void bytes_out_fill(struct bytes_out *b, uint8_t value, size_t n);
void bytes_out_le(struct bytes_out *b, uint64_t value, unsigned nbytes);

enum { PICKLE_SHARED = 4096 };

struct pickle_out {
    struct bytes_out out;
    unsigned memo; /* slots used */
    struct {
        const char *text;
        unsigned slot;
    } * shared; /* [PICKLE_SHARED], strings and globals written so far */
    size_t nshared;
};

/* pickle_out_begin - the protocol's header. pickle_out_end - STOP; the bytes are in out.data, for
 * the caller to free; releases the rest. */
void pickle_out_begin(struct pickle_out *p);
void pickle_out_end(struct pickle_out *p);

void pickle_out_op(struct pickle_out *p, uint8_t op); /* one opcode without operands */
void pickle_out_memo(struct pickle_out *p);           /* what was just written into the memo */
void pickle_out_int(struct pickle_out *p, uint64_t v);

/* A string that is an object of its own; one that is the same object wherever it occurs (text must
 * live until pickle_out_end); a global "module\nname\n" likewise. */
void pickle_out_str(struct pickle_out *p, const char *text);
void pickle_out_shared(struct pickle_out *p, const char *text);
void pickle_out_global(struct pickle_out *p, const char *lines);

/* A tuple of counts. */
void pickle_out_counts(struct pickle_out *p, const size_t *v, size_t n);

/* A dictionary of n pairs: begin, the pairs (key, value), end. */
void pickle_out_dict(struct pickle_out *p, size_t n);
void pickle_out_dict_end(struct pickle_out *p, size_t n);

#endif
