/*
 * reader.h - a cursor over bytes that somebody else wrote.
 *
 * Little-endian fields are read one at a time. Lengths are compared with what is left by
 * subtraction, so no length from a file can overflow. A read that does not fit sets `bad` and
 * yields zero or NULL; the caller tests `bad` before it uses any value. A runner does not look: its
 * loader has compared the hashes of the file that both are in, and whoever wrote that wrote the
 * runner too. What comes from elsewhere, shards, is measured before.
 */
#ifndef MODEL_READER_H
#define MODEL_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"

struct reader {
    const uint8_t *at, *end;
    bool bad;
};

static inline struct reader reader_init(const void *data, size_t n)
{
    const uint8_t *p = data;
    return (struct reader){p, n ? p + n : p, false}; /* data may be NULL when n is 0 */
}

static inline size_t reader_left(const struct reader *r)
{
    return (size_t)(r->end - r->at);
}

/* reader_take - the next n bytes, in place; NULL and a sticky `bad` when fewer are left. */
static inline const uint8_t *reader_take(struct reader *r, size_t n)
{
    const uint8_t *p = r->at;
    if (!IN_RUNNER && (r->bad || n > reader_left(r))) {
        r->bad = true;
        return NULL;
    }
    r->at += n;
    return p;
}

/* Little-endian loads and stores; every byte order question of the project is answered here. */
static inline uint16_t le16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t le32(const uint8_t *p)
{
    return (uint32_t)le16(p) | (uint32_t)le16(p + 2) << 16;
}

static inline uint64_t le64(const uint8_t *p)
{
    return (uint64_t)le32(p) | (uint64_t)le32(p + 4) << 32;
}

static inline void put_le32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static inline void put_le64(uint8_t *p, uint64_t v)
{
    put_le32(p, (uint32_t)v);
    put_le32(p + 4, (uint32_t)(v >> 32));
}

static inline uint8_t reader_u8(struct reader *r)
{
    const uint8_t *p = reader_take(r, 1);
    return IN_RUNNER || p ? *p : 0;
}

static inline uint16_t reader_u16(struct reader *r)
{
    const uint8_t *p = reader_take(r, 2);
    return IN_RUNNER || p ? le16(p) : 0;
}

static inline uint32_t reader_u32(struct reader *r)
{
    const uint8_t *p = reader_take(r, 4);
    return IN_RUNNER || p ? le32(p) : 0;
}

static inline uint64_t reader_u64(struct reader *r)
{
    const uint8_t *p = reader_take(r, 8);
    return IN_RUNNER || p ? le64(p) : 0;
}

#endif
