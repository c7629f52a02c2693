/*
 * tokenizer.c - the byte table of a SentencePiece model, read from its protobuf.
 *
 * Only three fields matter: ModelProto.pieces (field 1, repeated message), and in a piece its text
 * (field 1, string) and type (field 3, enum: 1 normal, 2 unknown, 3 control, 4 user defined, 5
 * unused, 6 byte; google/sentencepiece, sentencepiece_model.proto). Everything else is skipped by
 * wire type.
 */
#include <stdlib.h>
#include <string.h>

#include "model/bytes.h"
#include "model/file.h"
#include "model/reader.h"

enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_LEN = 2, WIRE_32 = 5 };
enum piece_type {
    PIECE_NORMAL = 1,
    PIECE_UNKNOWN = 2,
    PIECE_CONTROL = 3,
    PIECE_UNUSED = 5,
    PIECE_BYTE = 6
};

static uint64_t varint(struct reader *r)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t b = reader_u8(r);
        v |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80))
            return v;
    }
    r->bad = true;
    return 0;
}

/* A length-delimited field as a reader of its own. */
static struct reader message(struct reader *r)
{
    uint64_t n = varint(r);
    const uint8_t *p = n <= reader_left(r) ? reader_take(r, (size_t)n) : NULL;
    if (!p) {
        r->bad = true;
        return reader_init("", 0);
    }
    return reader_init(p, (size_t)n);
}

static void skip(struct reader *r, uint64_t key)
{
    switch ((enum wire)(key & 7)) {
    case WIRE_VARINT:
        varint(r);
        break;
    case WIRE_64:
        reader_take(r, 8);
        break;
    case WIRE_LEN:
        message(r);
        break;
    case WIRE_32:
        reader_take(r, 4);
        break;
    default:
        r->bad = true;
    }
}

/* One piece: the challenge's rule in bytes.h. */
static void piece(struct reader r, uint8_t *base, uint8_t *flags, bool *bad)
{
    struct reader text = reader_init("", 0);
    uint64_t type = PIECE_NORMAL;
    size_t n;
    while (reader_left(&r) && !r.bad) {
        uint64_t key = varint(&r);
        if (key == (1 << 3 | WIRE_LEN))
            text = message(&r);
        else if (key == (3 << 3 | WIRE_VARINT))
            type = varint(&r);
        else
            skip(&r, key);
    }
    *bad |= r.bad;
    *base = 0;
    *flags = BYTES_BOUNDARY;
    if (type == PIECE_UNKNOWN || type == PIECE_CONTROL || type == PIECE_UNUSED)
        return;
    *flags = 0;
    n = reader_left(&text);
    if (type == PIECE_BYTE) {
        n = 1;
    } else if (n >= 3 && !memcmp(text.at, "\xe2\x96\x81", 3)) { /* U+2581 */
        *flags = BYTES_LEAD;
        n -= 3;
    }
    *bad |= n > 255;
    *base = (uint8_t)n;
}

static enum err_code parse(struct byte_table *b, const void *data, size_t n, const char *path,
                           struct err *e)
{
    struct reader r = reader_init(data, n);
    bool bad = false;
    enum { MAX = 65536 };
    b->base = malloc(2 * MAX);
    if (!b->base)
        return err_nomem(e, "byte table", 2 * MAX);
    b->flags = b->base + MAX;
    while (reader_left(&r) && !r.bad && !bad) {
        uint64_t key = varint(&r);
        if (key != (1 << 3 | WIRE_LEN)) {
            skip(&r, key);
            continue;
        }
        if (b->vocab == MAX)
            return err_set(e, ERR_INPUT, "%s: more than %d pieces", path, MAX);
        piece(message(&r), &b->base[b->vocab], &b->flags[b->vocab], &bad);
        b->vocab++;
    }
    if (r.bad || bad || !b->vocab)
        return err_set(e, ERR_INPUT,
                       "%s: not a SentencePiece model: stops making sense at byte %zu, piece %zu",
                       path, n - reader_left(&r), b->vocab);
    return ERR_OK;
}

enum err_code bytes_from_tokenizer(struct byte_table *b, const char *path, struct err *e)
{
    const void *data;
    size_t n;
    enum err_code rc = file_map(path, &data, &n, e);
    memset(b, 0, sizeof *b);
    if (rc)
        return rc;
    rc = parse(b, data, n, path, e);
    file_unmap(data, n);
    if (rc)
        bytes_free(b);
    return rc;
}
