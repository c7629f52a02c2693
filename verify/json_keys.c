/* json_keys.c - see json_keys.h. */
#include "verify/json_keys.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static bool ascii(char c)
{
    return c >= ' ' && c <= '~';
}

/* Could somebody take `have` for `want` (at most 62 letters)? A character that is not printable
 * ASCII stands for one letter (which it looks like) or for none (it shows nothing). Bit p of `at`:
 * what was read may be the first p letters of want. */
static bool reads_like(const char *have, const char *want)
{
    size_t letters = strlen(want);
    uint64_t at = 1, end = (uint64_t)1 << letters;
    for (; *have && at; have++) {
        uint64_t next = 0;
        if (((unsigned char)*have & 0xC0) == 0x80) /* inside a character of several bytes */
            continue;
        if (ascii(*have)) {
            for (size_t p = 0; p < letters; p++)
                next |= want[p] == *have ? (at & (uint64_t)1 << p) << 1 : 0;
        } else {
            next = (at | at << 1) & (2 * end - 1);
        }
        at = next;
    }
    return at & end;
}

/* The place of an escaped NUL; NULL when there is none. An escaped backslash is no beginning. */
static const char *escaped_nul(const char *text, size_t n)
{
    for (size_t i = 0; i + 1 < n; i++) {
        if (text[i] != '\\')
            continue;
        if (text[i + 1] == 'u' && n - i >= 6 && !memcmp(text + i + 2, "0000", 4))
            return text + i;
        i++;
    }
    return NULL;
}

/* A key for a message: what cannot be seen, or is not what it looks like, as '?'. */
static void shown(char *out, size_t cap, const char *key)
{
    size_t n = 0;
    for (; *key && n + 1 < cap; key++)
        out[n++] = ascii(*key) ? *key : '?';
    out[n] = 0;
}

enum err_code json_keys_check(const cJSON *root, const char *text, size_t n, const char *const *key,
                              size_t keys, const char *path, struct err *e)
{
    const cJSON *item;
    const char *nul = escaped_nul(text, n);
    if (nul)
        return err_set(e, ERR_INPUT, "%s: an escaped NUL at byte %zu", path, (size_t)(nul - text));
    for (size_t k = 0; k < keys; k++) {
        size_t times = 0;
        cJSON_ArrayForEach(item, root)
        {
            const char *have = item->string;
            char safe[64];
            if (!have || !reads_like(have, key[k]))
                continue;
            shown(safe, sizeof safe, have);
            if (strcmp(have, key[k]))
                return err_set(e, ERR_INPUT, "%s: the key \"%s\" looks like %s and is another one",
                               path, safe, key[k]);
            if (++times == 2)
                return err_set(e, ERR_INPUT, "%s: the key %s occurs twice", path, key[k]);
        }
    }
    return ERR_OK;
}
