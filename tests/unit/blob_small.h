/*
 * blob_small.h - a small valid submission in memory, for tests that damage it.
 */
#ifndef TESTS_BLOB_SMALL_H
#define TESTS_BLOB_SMALL_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "packer/blob.h"
#include "packer/code.h"
#include "packer/payload.h"
#include "stub/xxh64.h"
#include "tests/unit/tiny_elf.h"

struct small {
    uint8_t *file;
    size_t size;
    struct blob b; /* its layout; data pointers are NULL */
};

static const char small_recipe[] = "VOCAB_SIZE=4\nNUM_LAYERS=1\n";

/* A payload of a matrix, its scales and a scalar. */
static inline enum err_code small_payload(uint8_t **p, size_t *n, struct err *e)
{
    static const uint8_t q[12] = {1, 2, 255, 0, 31, 225, 0, 0, 3, 253, 1, 1};
    static const uint8_t scale[6] = {0, 60, 0, 56, 1, 60}, one[4] = {0, 0, 128, 63};
    struct tensor_view t[] = {
        {"w.q", ST_I8, 2, {3, 4}, q, sizeof q},
        {"w.scale", ST_F16, 1, {3}, scale, sizeof scale},
        {"gain", ST_F32, 0, {0}, one, sizeof one},
    };
    struct st_file f = {.tensor = t, .count = 3};
    return payload_new(p, n, &f, "small", e);
}

/*
 * A whole file. loader [loader_n], or NULL for headers that only look like one; runner likewise,
 * NULL for tiny_runner. Aborts on failure: these are inputs, not what is tested.
 */
static inline struct small small_new(const uint8_t *loader, size_t loader_n, int codec)
{
    static const uint8_t byte_table[] = {4, 0, 0, 0, 0, 2, 1, 0, 3, 1, 2, 0};
    uint8_t fake[TINY_HEADERS], runner[TINY_RUNNER], *payload = NULL;
    size_t payload_n = 0;
    struct coded c[4] = {{0}};
    const struct coded *part[4] = {&c[0], &c[1], &c[2], &c[3]};
    struct small s = {0};
    struct err e = {0};
    if (!loader) {
        tiny_headers(fake, sizeof fake);
        loader = fake;
        loader_n = sizeof fake;
    }
    tiny_runner(runner);
    if (small_payload(&payload, &payload_n, &e) ||
        coded_code(&c[0], runner, sizeof runner, &e) ||
        coded_weights(&c[1], payload, payload_n, codec, &e) ||
        coded_small(&c[2], byte_table, sizeof byte_table, &e) ||
        coded_small(&c[3], small_recipe, sizeof small_recipe - 1, &e))
        abort();
    blob_layout(&s.b, loader, loader_n, part, 4);
    s.size = s.b.size;
    s.file = malloc(s.size);
    char path[] = "/tmp/blob_small.XXXXXX";
    int fd = mkstemp(path);
    FILE *f;
    if (!s.file || fd < 0 || blob_write(path, &s.b, &e) || !(f = fopen(path, "rb")) ||
        fread(s.file, 1, s.size, f) != s.size)
        abort();
    fclose(f);
    close(fd);
    unlink(path);
    for (size_t i = 0; i < s.b.count; i++)
        s.b.section[i].data = NULL;
    for (int i = 0; i < 4; i++)
        coded_free(&c[i]);
    free(payload);
    return s;
}

/* The header of the file, and its entry of a kind. */
static inline uint8_t *small_header(const struct small *s)
{
    return s->file + s->b.section[KIND_HEADER - 1].offset;
}

static inline uint8_t *small_entry(const struct small *s, enum kind kind)
{
    return small_header(s) + HDR_ENTRIES + ((size_t)kind - 1) * SEC_BYTES;
}

/* Make the header's hash right again, so that what it says is judged and not only its hash. */
static inline void small_seal(const struct small *s)
{
    uint8_t *h = small_header(s);
    size_t n = s->b.section[KIND_HEADER - 1].size - HDR_TAIL;
    put_le64(h + n, xxh64(h, n));
}

#endif
