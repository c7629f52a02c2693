/* record_keys.c - see record_keys.h. */
#include "verify/record_keys.h"

#include <ctype.h>
#include <string.h>

#include "verify/json_keys.h"

/* Keys of one object that are compared with each other; of more, the rest go unchecked. The work
 * is their square, and metadata have some dozens. */
enum { OBJECT_KEYS = 512 };

bool json_key_next(const char *text, size_t n, size_t *at, size_t *line, int *depth,
                   struct json_key *k)
{
    while (*at < n) {
        char c = text[(*at)++];
        if (c == '\n')
            ++*line;
        else if (c == '{' || c == '[')
            ++*depth;
        else if (c == '}' || c == ']')
            --*depth;
        if (c != '"')
            continue;
        *k = (struct json_key){*at, 0, *line, *depth};
        while (*at < n && text[*at] != '"') {
            if (text[*at] == '\n')
                ++*line;
            *at += text[*at] == '\\' ? 2 : 1;
        }
        if (*at > n)
            *at = n;
        k->n = *at - k->at;
        *at += *at < n;
        size_t p = *at;
        while (p < n && isspace((unsigned char)text[p]))
            p++;
        if (p < n && text[p] == ':')
            return true;
    }
    return false;
}

/* Keys are met in the same order in the tree (parents before children) and in the text. */
struct walk {
    const char *text;
    size_t n, at, line;
    int depth;
    const char *const *known;
    struct key_trick *out;
    size_t tricks;
};

static struct key_trick *add(struct walk *w, enum key_trick_kind kind, size_t line, const char *key)
{
    if (w->tricks == KEY_TRICKS)
        return NULL;
    struct key_trick *t = &w->out[w->tricks++];
    *t = (struct key_trick){.kind = kind, .line = line};
    json_key_shown(t->key, sizeof t->key, key);
    return t;
}

static void lookalike(struct walk *w, const cJSON *item, size_t line)
{
    const char *const *k = w->known;
    while (*k && strcmp(item->string, *k))
        k++;
    if (*k)
        return; /* it is one of them: the likeness of two known keys is no trick */
    for (k = w->known; *k; k++) {
        struct key_trick *t;
        if (!json_key_like(item->string, *k) || !(t = add(w, KEY_LOOKALIKE, line, item->string)))
            continue;
        t->like = *k;
        t->odd = json_key_odd(item->string, *k);
        return;
    }
}

/* cJSON refuses texts of more than 1,000 levels: the recursion is bounded. */
static void object(struct walk *w, const cJSON *o)
{
    const cJSON *item, *before;
    size_t i = 0;
    cJSON_ArrayForEach(item, o)
    {
        struct json_key k;
        if (cJSON_IsObject(o) && item->string &&
            json_key_next(w->text, w->n, &w->at, &w->line, &w->depth, &k)) {
            before = o->child;
            for (size_t j = 0; j < i && i < OBJECT_KEYS; j++, before = before->next)
                if (before->string && !strcmp(before->string, item->string)) {
                    add(w, KEY_TWICE, k.line, item->string);
                    break;
                }
            lookalike(w, item, k.line);
        }
        object(w, item);
        i++;
    }
}

size_t json_tricks(const cJSON *root, const char *text, size_t n, const char *const *known,
                   struct key_trick out[KEY_TRICKS])
{
    struct walk w = {.text = text, .n = n, .line = 1, .known = known, .out = out};
    const char *nul = json_escaped_nul(text, n);
    object(&w, root);
    if (nul) {
        size_t line = 1;
        for (const char *c = text; c < nul; c++)
            line += *c == '\n';
        add(&w, KEY_NUL, line, "");
    }
    return w.tricks;
}
