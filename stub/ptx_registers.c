/*
 * ptx_registers.c - gives the registers of PTX new names, so that the text becomes small: a filter
 * that the build runs behind cuda_ptx.awk.
 *
 * nvcc gives every value a register of its own, thousands in a kernel, and their numbers are most
 * of what a compressed text holds. Here a value gets the lowest number that no value needs
 * meanwhile. Unrolled code then looks the same each time round, and the text takes little more than
 * half of the bytes. ptxas chooses the machine's registers itself, from the values again.
 *
 * A value is needed from its first to its last place in the text; by data flow over the blocks of
 * the kernel, also through all of the blocks that it only passes. Of an instruction the first
 * operand is written, unless it is an address or the instruction has no result; with a predicate it
 * may keep what it holds. Registers that a block in braces declares for itself (inline assembly)
 * become registers of the kernel.
 *
 * After the choice every instruction is looked at once more: none may write to a register that
 * holds a value which is needed behind it. A kernel with something unknown in it stays as it is,
 * and a line on standard error says so. Exit status 1 where the choice is wrong, 2 where the text
 * is none.
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLASSES = 8, TOKENS = 32 /* registers in a line */, INNER = 8, LETTERS = 4 };

/* Registers of a type: %name0, %name1, ... */
struct class
{
    char name[LETTERS + 1], type[8];
    size_t count, first; /* how many; the number of the first among all of the kernel */
    size_t used;         /* as renamed */
};

struct reg {
    size_t class, from, to; /* the interval, in half lines: SIZE_MAX, 0: in none */
    size_t name;
};

struct token {
    const char *at;
    size_t len, reg;
    bool written;
};

struct line {
    const char *at;
    size_t len;
    struct token token[TOKENS];
    size_t tokens;
    bool keeps;    /* has a predicate: what it writes may stay what it was */
    bool gone;     /* a declaration, or a brace of a block */
    bool ends;     /* control may not go on to the next line */
    size_t target; /* line that it may jump to, or SIZE_MAX */
};

struct block {
    size_t from, to, next[2]; /* lines; the blocks behind it, or SIZE_MAX */
    uint64_t *in, *out;       /* sets of registers that are needed */
};

struct kernel {
    struct class class[CLASSES];
    size_t classes;
    struct reg *reg;
    size_t regs, words; /* words of a set */
    struct line *line;
    size_t lines;
    struct block *block;
    size_t blocks;
};

static void die(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3), noreturn));
static void die(int status, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("ptx_registers: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    exit(status);
}

static void *fresh(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    if (!p)
        die(2, "no memory");
    return p;
}

static bool starts(const char *s, const char *with)
{
    return !strncmp(s, with, strlen(with));
}

static bool in_set(const uint64_t *set, size_t i)
{
    return set[i / 64] >> i % 64 & 1;
}

static void put(uint64_t *set, size_t i)
{
    set[i / 64] |= (uint64_t)1 << i % 64;
}

static void drop(uint64_t *set, size_t i)
{
    set[i / 64] &= ~((uint64_t)1 << i % 64);
}

/* ---- reading ---- */

/* Registers of a block in braces, until it ends. */
struct inner {
    char name[16];
    size_t reg;
};

static size_t new_reg(struct kernel *k, size_t class)
{
    k->reg = realloc(k->reg, (k->regs + 1) * sizeof *k->reg);
    if (!k->reg)
        die(2, "no memory");
    k->reg[k->regs] = (struct reg){.class = class, .from = SIZE_MAX};
    return k->regs++;
}

/* ".reg .type %name<count>;" of the kernel. */
static bool declare(struct kernel *k, const char *s)
{
    struct class *c = &k->class[k->classes];
    if (k->classes == CLASSES ||
        sscanf(s, ".reg %7[.a-z0-9] %%%4[a-z]<%zu>;", c->type, c->name, &c->count) != 3)
        return false;
    c->first = k->regs;
    for (size_t i = 0; i < c->count; i++)
        new_reg(k, k->classes);
    k->classes++;
    return true;
}

/* ".reg .type %name;" of a block in braces. */
static bool declare_inner(struct kernel *k, const char *s, struct inner inner[INNER], size_t *n)
{
    char type[8];
    if (*n == INNER || sscanf(s, ".reg %7[.a-z0-9] %15[%a-z0-9];", type, inner[*n].name) != 2 ||
        inner[*n].name[0] != '%')
        return false;
    for (size_t c = 0; c < k->classes; c++)
        if (!strcmp(type, k->class[c].type)) {
            inner[(*n)++].reg = new_reg(k, c);
            return true;
        }
    return false;
}

/* The register whose name is s[len], or SIZE_MAX: it is one of the machine's, like %tid. */
static size_t find_reg(const struct kernel *k, const char *s, size_t len, const struct inner *inner,
                       size_t n)
{
    size_t letters = 1, number;
    for (size_t i = n; i-- > 0;)
        if (strlen(inner[i].name) == len && !strncmp(inner[i].name, s, len))
            return inner[i].reg;
    while (letters < len && !isdigit((unsigned char)s[letters]))
        letters++;
    if (letters == len || letters - 1 > LETTERS)
        return SIZE_MAX;
    number = strtoul(s + letters, NULL, 10);
    for (size_t c = 0; c < k->classes; c++)
        if (strlen(k->class[c].name) == letters - 1 &&
            !strncmp(k->class[c].name, s + 1, letters - 1))
            return number < k->class[c].count ? k->class[c].first + number : SIZE_MAX;
    return SIZE_MAX;
}

/* Where the first operand ends; it begins at s. Braces hold a vector. */
static const char *operand_end(const char *s, const char *end)
{
    char stop = *s == '{' ? '}' : ',';
    while (s < end && *s != stop)
        s++;
    return s;
}

/* An instruction's registers. False: it is none of those that this program knows. */
static bool read_line(const struct kernel *k, struct line *l, const struct inner *inner, size_t n)
{
    const char *s = l->at, *end = l->at + l->len, *op = s, *first, *after;
    if (*s == '@') {
        l->keeps = true;
        op = memchr(s, ' ', l->len);
        if (!op)
            return false;
        op++;
    }
    first = memchr(op, ' ', (size_t)(end - op));
    first = first ? first + 1 : end;
    if (starts(op, "call") || starts(op, "brx"))
        return false;
    after = first < end && *first != '[' && !starts(op, "bar.sync") && !starts(op, "bar.arrive")
                ? operand_end(first, end)
                : first;
    for (; s < end; s++) {
        const char *e = s + 1;
        size_t reg;
        if (*s != '%')
            continue;
        while (e < end && isalnum((unsigned char)*e))
            e++;
        reg = find_reg(k, s, (size_t)(e - s), inner, n);
        if (reg == SIZE_MAX)
            continue;
        if (l->tokens == TOKENS)
            return false;
        l->token[l->tokens++] = (struct token){s, (size_t)(e - s), reg, s >= first && s < after};
        s = e - 1;
    }
    l->ends = !l->keeps &&
              (starts(op, "ret") || starts(op, "bra") || starts(op, "exit") || starts(op, "trap"));
    return true;
}

/* Lines of a kernel, from behind its brace; `end` is its own closing brace. */
static bool read_kernel(struct kernel *k, const char *s, const char *end)
{
    struct inner inner[INNER];
    size_t n = 0, depth = 0, room = 0;
    for (const char *p = s; p < end; p++)
        room += *p == '\n';
    k->line = fresh(room, sizeof *k->line);
    for (const char *stop; s < end; s = stop + 1) {
        struct line *l = &k->line[k->lines++];
        stop = memchr(s, '\n', (size_t)(end - s));
        *l = (struct line){.at = s, .len = (size_t)(stop - s), .target = SIZE_MAX};
        if (starts(s, ".reg")) {
            l->gone = true;
            if (depth ? !declare_inner(k, s, inner, &n) : !declare(k, s))
                return false;
        } else if (l->len == 1 && (*s == '{' || *s == '}')) {
            l->gone = true;
            depth += *s == '{' ? 1 : (size_t)-1;
            n = depth ? n : 0;
        } else if (*s == '{' || depth > 1) {
            return false;
        } else if (*s != '.' && *s != '$' && !read_line(k, l, inner, n)) {
            return false;
        }
    }
    return true;
}

/* ---- blocks ---- */

static bool is_label(const struct line *l)
{
    return *l->at == '$';
}

static size_t find_label(const struct kernel *k, const char *s)
{
    size_t len = strcspn(s, ";:\n");
    for (size_t i = 0; i < k->lines; i++)
        if (is_label(&k->line[i]) && k->line[i].len == len + 1 && !strncmp(k->line[i].at, s, len))
            return i;
    return SIZE_MAX;
}

/* Jumps end a block, labels begin one. */
static bool find_blocks(struct kernel *k)
{
    size_t *of = fresh(k->lines + 1, sizeof *of);
    bool good = true;
    for (size_t i = 0; i < k->lines; i++) {
        struct line *l = &k->line[i];
        const char *jump = is_label(l) ? NULL : memchr(l->at, '$', l->len);
        if (jump && (l->target = find_label(k, jump)) == SIZE_MAX)
            good = false;
        if (i == 0 || is_label(l) || k->line[i - 1].ends || k->line[i - 1].target != SIZE_MAX)
            k->blocks++;
        of[i] = k->blocks - 1;
    }
    of[k->lines] = SIZE_MAX;
    k->words = (k->regs + 63) / 64;
    k->block = fresh(k->blocks, sizeof *k->block);
    for (size_t i = k->lines; i-- > 0;)
        k->block[of[i]].from = i;
    for (size_t b = 0; b < k->blocks; b++) {
        struct block *x = &k->block[b];
        x->to = b + 1 < k->blocks ? k->block[b + 1].from : k->lines;
        const struct line *last = &k->line[x->to - 1];
        x->next[0] = last->ends ? SIZE_MAX : of[x->to];
        x->next[1] = last->target == SIZE_MAX ? SIZE_MAX : of[last->target];
        x->in = fresh(k->words, sizeof *x->in);
        x->out = fresh(k->words, sizeof *x->out);
    }
    free(of);
    return good;
}

/* What is needed before a line, from what is needed behind it. */
static void step_back(const struct line *l, uint64_t *set)
{
    for (size_t i = 0; i < l->tokens; i++)
        if (l->token[i].written && !l->keeps)
            drop(set, l->token[i].reg);
    for (size_t i = 0; i < l->tokens; i++)
        if (!l->token[i].written || l->keeps)
            put(set, l->token[i].reg);
}

static void find_needs(struct kernel *k)
{
    uint64_t *set = fresh(k->words, sizeof *set);
    for (bool more = true; more;) {
        more = false;
        for (size_t b = k->blocks; b-- > 0;) {
            struct block *x = &k->block[b];
            for (size_t j = 0; j < 2; j++)
                for (size_t w = 0; x->next[j] != SIZE_MAX && w < k->words; w++)
                    x->out[w] |= k->block[x->next[j]].in[w];
            memcpy(set, x->out, k->words * sizeof *set);
            for (size_t i = x->to; i-- > x->from;)
                step_back(&k->line[i], set);
            more |= memcmp(set, x->in, k->words * sizeof *set) != 0;
            memcpy(x->in, set, k->words * sizeof *set);
        }
    }
    free(set);
}

/* ---- choosing ---- */

static void widen(struct reg *r, size_t t)
{
    r->from = t < r->from ? t : r->from;
    r->to = t > r->to ? t : r->to;
}

/* Line i reads at 2i and writes at 2i + 1, so what it reads last and writes may have one name. */
static void find_intervals(struct kernel *k)
{
    for (size_t b = 0; b < k->blocks; b++)
        for (size_t r = 0; r < k->regs; r++) {
            if (in_set(k->block[b].in, r))
                widen(&k->reg[r], 2 * k->block[b].from);
            if (in_set(k->block[b].out, r))
                widen(&k->reg[r], 2 * k->block[b].to);
        }
    for (size_t i = 0; i < k->lines; i++)
        for (size_t j = 0; j < k->line[i].tokens; j++)
            widen(&k->reg[k->line[i].token[j].reg], 2 * i + k->line[i].token[j].written);
}

/* The lowest name that is free from the start of r's interval on. until[class][name]. */
static void name_reg(struct kernel *k, struct reg *r, size_t *until[CLASSES])
{
    size_t name = 0;
    struct class *c = &k->class[r->class];
    while (name < c->used && until[r->class][name] >= r->from)
        name++;
    c->used += name == c->used;
    until[r->class][name] = r->to;
    r->name = name;
}

static const struct kernel *compared;

/* By the start of the interval, then as they are numbered. */
static int earlier(const void *x, const void *y)
{
    size_t a = *(const size_t *)x, b = *(const size_t *)y;
    size_t from = compared->reg[a].from, to = compared->reg[b].from;
    return from != to ? (from < to ? -1 : 1) : a < b ? -1 : a > b;
}

static void choose(struct kernel *k)
{
    size_t *order = fresh(k->regs, sizeof *order), *until[CLASSES];
    for (size_t r = 0; r < k->regs; r++)
        order[r] = r;
    compared = k;
    qsort(order, k->regs, sizeof *order, earlier);
    for (size_t c = 0; c < k->classes; c++)
        until[c] = fresh(k->regs, sizeof **until);
    for (size_t i = 0; i < k->regs && k->reg[order[i]].from != SIZE_MAX; i++)
        name_reg(k, &k->reg[order[i]], until);
    for (size_t c = 0; c < k->classes; c++)
        free(until[c]);
    free(order);
}

/* Does the line write to a name whose value is needed behind it, or twice to one? */
static bool spoils(const struct kernel *k, const struct line *l, const uint64_t *behind)
{
    for (size_t i = 0; i < l->tokens; i++) {
        size_t w = l->token[i].reg;
        for (size_t r = 0; l->token[i].written && r < k->regs; r++) {
            bool other = in_set(behind, r);
            for (size_t j = 0; j < l->tokens && !other; j++)
                other = l->token[j].written && l->token[j].reg == r;
            if (other && r != w && k->reg[r].class == k->reg[w].class &&
                k->reg[r].name == k->reg[w].name)
                return true;
        }
    }
    return false;
}

static void check(const struct kernel *k)
{
    uint64_t *set = fresh(k->words, sizeof *set);
    for (size_t b = 0; b < k->blocks; b++) {
        const struct block *x = &k->block[b];
        memcpy(set, x->out, k->words * sizeof *set);
        for (size_t i = x->to; i-- > x->from;) {
            if (spoils(k, &k->line[i], set))
                die(1, "%.*s: a value is lost", (int)k->line[i].len, k->line[i].at);
            step_back(&k->line[i], set);
        }
    }
    free(set);
}

/* ---- writing ---- */

/* nvcc's names have up to two letters; one is enough. */
static char letter(const struct class *c)
{
    static const char types[][2][8] = {{".pred", "p"}, {".b16", "h"}, {".b32", "r"},
                                       {".b64", "d"},  {".f32", "f"}, {".f64", "e"}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (!strcmp(c->type, types[i][0]))
            return types[i][1][0];
    die(2, "registers of type %s", c->type);
}

static void write_kernel(const struct kernel *k)
{
    for (size_t c = 0; c < k->classes; c++)
        if (k->class[c].used)
            printf(".reg %s %%%c<%zu>;\n", k->class[c].type, letter(&k->class[c]),
                   k->class[c].used);
    for (size_t i = 0; i < k->lines; i++) {
        const struct line *l = &k->line[i];
        const char *s = l->at, *end = l->at + l->len;
        for (size_t j = 0; j < l->tokens && !l->gone; j++) {
            const struct reg *r = &k->reg[l->token[j].reg];
            printf("%.*s%%%c%zu", (int)(l->token[j].at - s), s, letter(&k->class[r->class]),
                   r->name);
            s = l->token[j].at + l->token[j].len;
        }
        if (!l->gone) /* a line ends where an instruction does not */
            printf("%.*s%s", (int)(end - s), s, end > s && end[-1] == ';' ? "" : "\n");
    }
}

static void free_kernel(struct kernel *k)
{
    for (size_t b = 0; b < k->blocks; b++) {
        free(k->block[b].in);
        free(k->block[b].out);
    }
    free(k->block);
    free(k->line);
    free(k->reg);
}

/* The kernel between two braces, of which `s` is behind the first. */
static void rename_kernel(const char *s, const char *end)
{
    struct kernel k = {0};
    if (read_kernel(&k, s, end) && k.lines && find_blocks(&k)) {
        find_needs(&k);
        find_intervals(&k);
        choose(&k);
        check(&k);
        write_kernel(&k);
    } else {
        fprintf(stderr, "ptx_registers: %.*s: left as it is\n",
                k.lines ? (int)k.line[k.lines - 1].len : 0, k.lines ? k.line[k.lines - 1].at : "");
        printf("%.*s", (int)(end - s), s);
    }
    free_kernel(&k);
}

static char *read_all(FILE *f)
{
    size_t n = 0, cap = 1 << 16;
    char *text = NULL;
    for (;;) {
        text = realloc(text, cap);
        if (!text)
            die(2, "no memory");
        n += fread(text + n, 1, cap - 1 - n, f);
        if (n < cap - 1)
            break;
        cap *= 2;
    }
    text[n] = 0;
    return text;
}

int main(void)
{
    char *text = read_all(stdin), *s = text, *open;
    while ((open = strstr(s, "\n{\n"))) {
        char *end = open + 3;
        /* Its closing brace is the first that no brace within it has opened. */
        for (int depth = 0; *end && (depth || !starts(end, "}\n"));) {
            depth += starts(end, "{\n") ? 1 : starts(end, "}\n") ? -1 : 0;
            end += strcspn(end, "\n");
            end += *end == '\n';
        }
        if (!*end)
            die(2, "a kernel without an end");
        printf("%.*s", (int)(open + 3 - s), s);
        rename_kernel(open + 3, end);
        s = end;
    }
    printf("%s", s);
    free(text);
    return fflush(stdout) || ferror(stdout) ? 2 : 0;
}
