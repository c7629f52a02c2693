/*
 * facts.h - what the files behind script_facts.h share: the tokens with their functions, imports
 * and constants, and small questions about them. script_facts.c drives, facts_*.c look for one
 * thing each.
 */
#ifndef VERIFY_FACTS_H
#define VERIFY_FACTS_H

#include "verify/pytoken.h"
#include "verify/script_facts.h"

/* A def: tokens [body, end); nested ones have their own entry as well. */
struct facts_func {
    size_t name, body, end; /* tokens; name: the identifier */
};

/* What a name stands for: `import lzma as L` binds L to "lzma", `from lzma import compress` binds
 * compress to "lzma.compress", A = "text" binds A to a constant. */
struct facts_alias {
    size_t tok; /* the identifier */
    char target[64];
    bool constant;
};

struct facts_walk {
    struct py_source s;
    struct script_facts *f;
    uint32_t *start; /* of each token's statement */
    struct facts_func *func;
    size_t funcs, func_cap;
    struct facts_alias *alias;
    size_t aliases, alias_cap;
    const struct script_setting *setting;
    size_t settings;
    size_t fact_cap, env_cap;
    bool nomem;
};

/* facts_grow - room for one more of `size` bytes behind *p; false and w->nomem when there is none.
 */
bool facts_grow(struct facts_walk *w, void *p, size_t count, size_t *cap, size_t size);

/* facts_add - a fact with the line of token i. The same text is added once. */
void facts_add(struct facts_walk *w, enum fact_kind kind, size_t i, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* facts_add_line - the same for a line that is known otherwise. */
void facts_add_line(struct facts_walk *w, enum fact_kind kind, size_t line, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* facts_has - does the identifier (or string) at token i contain `part`, letter case aside? */
bool facts_has(const struct facts_walk *w, size_t i, const char *part);
bool facts_has_any(const struct facts_walk *w, size_t i, const char *const *parts); /* NULL-ended */

/* facts_same - are identifiers i and k spelt the same? */
bool facts_same(const struct facts_walk *w, size_t i, size_t k);

/* facts_find - the first token in [from, to) that is exactly `text`; `to` when there is none. */
size_t facts_find(const struct facts_walk *w, size_t from, size_t to, const char *text);

/* facts_text - the value of the string at token i, or of the constant that the name there stands
 * for, cut to out[cap]. False when it has none. */
bool facts_text(const struct facts_walk *w, size_t i, char *out, size_t cap);

/* facts_target - the dotted name that starts at token i with its alias resolved, "lzma.compress",
 * into out[cap]; *next is the token behind it. Empty when i is no name. */
const char *facts_target(const struct facts_walk *w, size_t i, char *out, size_t cap, size_t *next);

/* facts_statement - the first token of the simple statement that holds token i. */
size_t facts_statement(const struct facts_walk *w, size_t i);

/* facts_line - the line of token i. */
size_t facts_line(const struct facts_walk *w, size_t i);

/* facts_function - the innermost def whose body holds token i, or NULL. */
const struct facts_func *facts_function(const struct facts_walk *w, size_t i);

/* facts_called - the function that is called or handed over at token i, or NULL. */
const struct facts_func *facts_called(const struct facts_walk *w, size_t i);

/* facts_truth - is a setting's value on (1), off (0), or can it not be told (-1)? */
int facts_truth(const char *value);

/* One subject each. */
void facts_settings(struct facts_walk *w); /* facts_env.c: environment variables */
void facts_methods(struct facts_walk *w);  /* facts_method.c: how it scores */
void facts_sizes(struct facts_walk *w);    /* facts_size.c: compressor, quantiser, code count */
void facts_outside(struct facts_walk *w);  /* facts_outside.c: imports, files, network, programs */
void facts_bytes(struct facts_walk *w);    /* facts_bytes.c: how bytes are counted */

#endif
