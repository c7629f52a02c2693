/* pickle_write.c - see pickle_write.h. */
#include "packer/pickle_write.h"

#include <stdlib.h>
#include <string.h>

#include "model/reader.h"

/* ---- bytes ---- */

static bool room(struct bytes_out *b, size_t n)
{
    if (b->failed || n <= b->cap - b->n)
        return !b->failed;
    size_t cap = b->cap ? b->cap : 4096;
    while (cap - b->n < n)
        cap *= 2;
    uint8_t *data = realloc(b->data, cap);
    if (!data) {
        free(b->data);
        *b = (struct bytes_out){.failed = true};
        return false;
    }
    b->data = data;
    b->cap = cap;
    return true;
}

void bytes_out_put(struct bytes_out *b, const void *data, size_t n)
{
    if (!n || !room(b, n))
        return;
    memcpy(b->data + b->n, data, n);
    b->n += n;
}

void bytes_out_fill(struct bytes_out *b, uint8_t value, size_t n)
{
    if (!n || !room(b, n))
        return;
    memset(b->data + b->n, value, n);
    b->n += n;
}

void bytes_out_le(struct bytes_out *b, uint64_t value, unsigned nbytes)
{
    uint8_t le[8];
    put_le64(le, value);
    bytes_out_put(b, le, nbytes);
}

/* ---- pickle ---- */

void pickle_out_op(struct pickle_out *p, uint8_t op)
{
    bytes_out_put(&p->out, &op, 1);
}

static void op_le(struct pickle_out *p, uint8_t op, uint64_t v, unsigned nbytes)
{
    pickle_out_op(p, op);
    bytes_out_le(&p->out, v, nbytes);
}

void pickle_out_begin(struct pickle_out *p)
{
    *p = (struct pickle_out){0};
    p->shared = calloc(PICKLE_SHARED, sizeof *p->shared);
    p->out.failed = !p->shared;
    op_le(p, 0x80, 2, 1); /* PROTO */
}

void pickle_out_end(struct pickle_out *p)
{
    pickle_out_op(p, '.');
    free(p->shared);
    p->shared = NULL;
}

void pickle_out_memo(struct pickle_out *p)
{
    unsigned slot = p->memo++;
    op_le(p, slot < 256 ? 'q' : 'r', slot, slot < 256 ? 1 : 4);
}

void pickle_out_int(struct pickle_out *p, uint64_t v)
{
    unsigned n = 1;
    if (v < 1 << 8) {
        op_le(p, 'K', v, 1);
    } else if (v < 1 << 16) {
        op_le(p, 'M', v, 2);
    } else if (v <= INT32_MAX) {
        op_le(p, 'J', v, 4);
    } else { /* LONG1: the shortest two's complement */
        while (n < 8 && v >> (8 * n - 1))
            n++;
        op_le(p, 0x8a, n, 1);
        bytes_out_le(&p->out, v, n);
    }
}

void pickle_out_str(struct pickle_out *p, const char *text)
{
    size_t n = strlen(text);
    op_le(p, 'X', n, 4);
    bytes_out_put(&p->out, text, n);
    pickle_out_memo(p);
}

/* Refers to an object that was written already, or notes that this one will be next. */
static bool again(struct pickle_out *p, const char *text)
{
    for (size_t i = 0; i < p->nshared; i++)
        if (!strcmp(p->shared[i].text, text)) {
            unsigned slot = p->shared[i].slot;
            op_le(p, slot < 256 ? 'h' : 'j', slot, slot < 256 ? 1 : 4);
            return true;
        }
    if (p->shared && p->nshared < PICKLE_SHARED) {
        p->shared[p->nshared].text = text;
        p->shared[p->nshared++].slot = p->memo;
    }
    return false;
}

void pickle_out_shared(struct pickle_out *p, const char *text)
{
    if (!again(p, text))
        pickle_out_str(p, text);
}

void pickle_out_global(struct pickle_out *p, const char *lines)
{
    if (again(p, lines)) /* no string of ours contains a line feed */
        return;
    pickle_out_op(p, 'c');
    bytes_out_put(&p->out, lines, strlen(lines));
    pickle_out_memo(p);
}

void pickle_out_counts(struct pickle_out *p, const size_t *v, size_t n)
{
    static const uint8_t tuple[] = {')', 0x85, 0x86, 0x87};
    if (n > 3)
        pickle_out_op(p, '(');
    for (size_t i = 0; i < n; i++)
        pickle_out_int(p, v[i]);
    pickle_out_op(p, n > 3 ? 't' : tuple[n]);
    if (n)
        pickle_out_memo(p);
}

void pickle_out_dict(struct pickle_out *p, size_t n)
{
    pickle_out_op(p, '}');
    pickle_out_memo(p);
    if (n > 1)
        pickle_out_op(p, '(');
}

void pickle_out_dict_end(struct pickle_out *p, size_t n)
{
    if (n)
        pickle_out_op(p, n > 1 ? 'u' : 's');
}
