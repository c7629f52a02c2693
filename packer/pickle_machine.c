/* pickle_machine.c - see pickle_machine.h. */
#include "packer/pickle_machine.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Values live in blocks that are released together; a block is at least this large. */
enum { BLOCK = 64 * 1024 };

struct pickle_arena {
    struct pickle_arena *next;
    size_t used, cap;
    max_align_t data[];
};

enum err_code machine_fail(struct machine *m, const char *fmt, ...)
{
    char why[180];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    if (!m->rc)
        m->rc = err_set(m->e, ERR_INPUT, "%s: pickle, byte %zu: %s", m->what, m->op_at, why);
    return m->rc;
}

static void *no_memory(struct machine *m, size_t n)
{
    if (!m->rc)
        m->rc = err_nomem(m->e, "pickle", n);
    return NULL;
}

/* n bytes that live as long as the values. */
static void *take_memory(struct machine *m, size_t n)
{
    struct pickle_arena *a = m->arena;
    n = (n + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
    if (!a || n > a->cap - a->used) {
        size_t cap = n > BLOCK ? n : BLOCK;
        a = malloc(sizeof *a + cap);
        if (!a)
            return no_memory(m, cap);
        *a = (struct pickle_arena){.next = m->arena, .cap = cap};
        m->arena = a;
    }
    void *p = (uint8_t *)a->data + a->used;
    a->used += n;
    return p;
}

struct pickle_value *machine_new(struct machine *m, enum pickle_kind kind)
{
    struct pickle_value *v = m->rc ? NULL : take_memory(m, sizeof *v);
    if (v)
        *v = (struct pickle_value){.kind = kind};
    return v;
}

const char *machine_text(struct machine *m, const uint8_t *at, size_t n)
{
    char *s = take_memory(m, n + 1); /* n bytes of input: no overflow */
    if (!s)
        return "";
    memcpy(s, at, n);
    s[n] = 0;
    return s;
}

struct pickle_value *machine_latin1(struct machine *m, const struct pickle_value *text)
{
    const uint8_t *in = (const uint8_t *)text->text;
    /* A text that is encoded again and again would make a small input large. */
    if (text->n > (size_t)(m->r.end - m->start) - m->encoded) {
        machine_fail(m, "more bytes are made of text than the input has");
        return NULL;
    }
    struct pickle_value *v = machine_new(m, PICKLE_BYTES);
    uint8_t *out = v ? take_memory(m, text->n + 1) : NULL;
    if (!out)
        return NULL;
    v->text = (char *)out;
    for (size_t i = 0; i < text->n; i++) {
        bool two = (in[i] == 0xc2 || in[i] == 0xc3) && i + 1 < text->n && in[i + 1] >> 6 == 2;
        if (in[i] >= 0x80 && !two) {
            machine_fail(m, "a text that should be bytes has other characters");
            return NULL;
        }
        out[v->n++] = (uint8_t)(two ? in[i] << 6 | (in[i + 1] & 63) : in[i]);
        i += two;
    }
    m->encoded += text->n;
    return v;
}

/* Room for `want` items: arrays have sizes of powers of two, so their number of items tells theirs.
 */
static bool grow_items(struct machine *m, struct pickle_value *v, size_t have, size_t want)
{
    size_t cap = 1, old = 1;
    while (old < have)
        old *= 2;
    while (cap < want)
        cap *= 2;
    if (have && cap == old)
        return true;
    struct pickle_value **item = take_memory(m, cap * sizeof *item);
    if (!item)
        return false;
    if (have)
        memcpy(item, v->item, have * sizeof *item);
    v->item = item;
    return true;
}

void machine_add(struct machine *m, struct pickle_value *v, struct pickle_value *const *item,
                 size_t n)
{
    size_t per = v->kind == PICKLE_DICT ? 2 : 1, have = per * v->n;
    if (m->rc || !n || !grow_items(m, v, have, have + n))
        return;
    for (size_t i = 0; i < n; i++) {
        v->item[have + i] = item[i];
        if (item[i]->depth >= v->depth)
            v->depth = item[i]->depth + 1;
    }
    v->n += n / per;
    if (v->depth > PICKLE_MAX_DEPTH)
        machine_fail(m, "more than %d levels of nesting", PICKLE_MAX_DEPTH);
}

enum err_code machine_push_old(struct machine *m, struct pickle_value *v)
{
    if (m->rc)
        return m->rc;
    if (m->pushes++ == PICKLE_MAX_VALUES)
        return machine_fail(m, "more than %d values", PICKLE_MAX_VALUES);
    if (m->depth == m->cap) {
        size_t cap = m->cap ? 2 * m->cap : 64;
        struct pickle_value **stack = realloc(m->stack, cap * sizeof *stack);
        if (!stack) {
            no_memory(m, cap * sizeof *stack);
            return m->rc;
        }
        m->stack = stack;
        m->cap = cap;
    }
    m->stack[m->depth++] = v;
    return ERR_OK;
}

struct pickle_value *machine_push(struct machine *m, enum pickle_kind kind)
{
    struct pickle_value *v = machine_new(m, kind);
    return v && !machine_push_old(m, v) ? v : NULL;
}

/* How many values lie above the topmost mark. */
static size_t reachable(const struct machine *m)
{
    return m->depth - (m->marks ? m->mark[m->marks - 1] : 0);
}

struct pickle_value *machine_top(struct machine *m)
{
    if (m->rc)
        return NULL;
    if (!reachable(m)) {
        machine_fail(m, "a value is missing on the stack");
        return NULL;
    }
    return m->stack[m->depth - 1];
}

struct pickle_value *machine_pop_any(struct machine *m)
{
    struct pickle_value *v = machine_top(m);
    if (v)
        m->depth--;
    return v;
}

struct pickle_value *machine_pop(struct machine *m, enum pickle_kind kind)
{
    struct pickle_value *v = machine_pop_any(m);
    if (v && v->kind != kind) {
        machine_fail(m, "a value is of the wrong kind");
        return NULL;
    }
    return v;
}

struct pickle_value **machine_take(struct machine *m, size_t n)
{
    if (m->rc)
        return NULL;
    if (n > reachable(m)) {
        machine_fail(m, "a value is missing on the stack");
        return NULL;
    }
    m->depth -= n;
    return n ? m->stack + m->depth : NULL;
}

enum err_code machine_mark(struct machine *m)
{
    if (m->marks == PICKLE_MAX_DEPTH)
        return machine_fail(m, "more than %d levels of nesting", PICKLE_MAX_DEPTH);
    m->mark[m->marks++] = m->depth;
    return ERR_OK;
}

size_t machine_marked(struct machine *m)
{
    if (!m->marks) {
        machine_fail(m, "a mark is missing on the stack");
        return 0;
    }
    return m->depth - m->mark[--m->marks];
}

enum err_code machine_put(struct machine *m, size_t slot)
{
    struct pickle_value *v = machine_top(m);
    if (!v)
        return m->rc;
    if (slot >= PICKLE_MAX_VALUES)
        return machine_fail(m, "memo slot %zu, at most %d are accepted", slot, PICKLE_MAX_VALUES);
    if (slot >= m->memo_cap) {
        size_t cap = m->memo_cap ? m->memo_cap : 64;
        while (cap <= slot)
            cap *= 2;
        struct pickle_value **memo = realloc(m->memo, cap * sizeof *memo);
        if (!memo) {
            no_memory(m, cap * sizeof *memo);
            return m->rc;
        }
        memset(memo + m->memo_cap, 0, (cap - m->memo_cap) * sizeof *memo);
        m->memo = memo;
        m->memo_cap = cap;
    }
    m->memoized += !m->memo[slot];
    m->memo[slot] = v;
    return ERR_OK;
}

enum err_code machine_get(struct machine *m, size_t slot)
{
    if (slot >= m->memo_cap || !m->memo[slot])
        return machine_fail(m, "memo slot %zu holds nothing", slot);
    return machine_push_old(m, m->memo[slot]);
}

struct pickle_arena *machine_end(struct machine *m)
{
    free(m->stack);
    free(m->memo);
    return m->arena;
}

void pickle_free(struct pickle *p)
{
    for (struct pickle_arena *a = p->arena, *next; a; a = next) {
        next = a->next;
        free(a);
    }
    *p = (struct pickle){0};
}

bool pickle_is(const struct pickle_value *v, const char *s)
{
    return v && v->kind == PICKLE_STR && v->n == strlen(s) && !strcmp(v->text, s);
}

const struct pickle_value *pickle_get(const struct pickle_value *d, const char *key)
{
    if (!d || d->kind != PICKLE_DICT)
        return NULL;
    for (size_t i = d->n; i-- > 0;)
        if (pickle_is(d->item[2 * i], key))
            return d->item[2 * i + 1];
    return NULL;
}
