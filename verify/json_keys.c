/* json_keys.c - see json_keys.h. */
#include "verify/json_keys.h"

#include <string.h>

/* Letters of other alphabets that are drawn like Latin ones. Where a letter has a capital that
 * looks like another letter, both stand here. */
static const struct {
    uint16_t cp;
    char latin[3];
} twins[] = {
    {0x0430, "a"}, {0x0435, "e"},  {0x043E, "o"}, {0x0440, "p"},  {0x0441, "c"},  {0x0443, "y"},
    {0x0445, "x"}, {0x0455, "s"},  {0x0456, "i"}, {0x0458, "j"},  {0x04BB, "h"},  {0x0501, "d"},
    {0x051B, "q"}, {0x051D, "w"},  {0x0475, "v"}, {0x0432, "b"},  {0x044C, "b"},  {0x042C, "b"},
    {0x0412, "b"}, {0x0433, "r"},  {0x0442, "t"}, {0x043F, "n"},  {0x043C, "m"},  {0x043A, "k"},
    {0x0448, "w"}, {0x0438, "u"},  {0x043D, "h"}, {0x04CF, "li"}, {0x04C0, "li"}, {0x0454, "e"},
    {0x03B1, "a"}, {0x03B2, "b"},  {0x03BF, "o"}, {0x03C1, "p"},  {0x03BD, "v"},  {0x03C4, "t"},
    {0x03C5, "u"}, {0x03B9, "i"},  {0x03BA, "k"}, {0x03B7, "n"},  {0x03B3, "y"},  {0x03C9, "w"},
    {0x03C7, "x"}, {0x03C3, "o"},  {0x03B5, "e"}, {0x03F2, "c"},  {0x03F3, "j"},  {0x0399, "li"},
    {0x0561, "w"}, {0x0570, "h"},  {0x0578, "n"}, {0x057D, "u"},  {0x0585, "o"},  {0x0581, "g"},
    {0x0584, "p"}, {0x056C, "li"},
};

/* Ranges of other scripts and of pictures: never one of our letters, whatever stands in them. */
static const struct {
    uint32_t from, to;
} foreign[] = {
    {0x0370, 0x058F}, {0x0590, 0x10FF},   {0x1100, 0x139F},   {0x1400, 0x1C7F},   {0x2500, 0x2BFF},
    {0x2E80, 0xA63F}, {0xA800, 0xAB2F},   {0xABC0, 0xFAFF},   {0xFB50, 0xFDFF},   {0xFE30, 0xFEFE},
    {0xFF65, 0xFFDC}, {0x10000, 0x1D3FF}, {0x1D800, 0x1F0FF}, {0x1F200, 0xDFFFF},
};

/* Characters that show nothing, or a blank. */
static bool invisible(uint32_t c)
{
    return c <= ' ' || (c >= 0x7F && c <= 0xA0) || c == 0xAD || c == 0x34F || c == 0x61C ||
           c == 0x115F || c == 0x1160 || c == 0x17B4 || c == 0x17B5 || c == 0x180E ||
           (c >= 0x2000 && c <= 0x200F) || (c >= 0x2028 && c <= 0x202F) ||
           (c >= 0x205F && c <= 0x206F) || c == 0x3000 || c == 0x3164 || c == 0xFEFF ||
           (c >= 0xFE00 && c <= 0xFE0F) || c == 0xFFA0 || c >= 0xE0000;
}

/* The next code point of a NUL-terminated text; a byte that is no UTF-8 by itself. */
static uint32_t next_point(const char **s)
{
    const unsigned char *p = (const unsigned char *)*s;
    size_t more = *p >= 0xF0 ? 3 : *p >= 0xE0 ? 2 : *p >= 0xC0 ? 1 : 0;
    uint32_t c = more == 3 ? *p & 7u : more == 2 ? *p & 15u : more ? *p & 31u : *p;
    for (size_t i = 1; i <= more; i++) {
        if ((p[i] & 0xC0) != 0x80) {
            ++*s;
            return *p;
        }
        c = c << 6 | (p[i] & 63u);
    }
    *s += more + 1;
    return c;
}

/* What the character may be taken for: letters of `out` (filled, with a NUL), or any when false. */
static bool letters_of(uint32_t c, char out[4])
{
    size_t n = 0;
    if (c < 0x80) {
        out[n++] = (char)c;
        if (c == '1' || c == 'I' || c == '|')
            out[n++] = 'l';
        if (c == '0' || c == 'O')
            out[n++] = 'o';
        out[n] = 0;
        return true;
    }
    for (size_t i = 0; i < sizeof twins / sizeof *twins; i++)
        if (twins[i].cp == c) {
            memcpy(out, twins[i].latin, sizeof twins[i].latin);
            return true;
        }
    out[0] = 0;
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (c >= foreign[i].from && c <= foreign[i].to)
            return true;
    return false;
}

bool json_key_like(const char *have, const char *want)
{
    /* Bit p of `at`: what was read may be the first p letters of want. */
    size_t letters = strlen(want);
    uint64_t at = 1, end = (uint64_t)1 << letters;
    while (*have && at) {
        char as[4];
        uint32_t c = next_point(&have);
        uint64_t next = 0;
        if (invisible(c)) {
            next = at;
        } else if (!letters_of(c, as)) {
            next = (at | at << 1) & (2 * end - 1); /* a letter, or a mark over the one before */
        } else {
            for (size_t p = 0; p < letters; p++)
                next |= strchr(as, want[p]) ? (at & (uint64_t)1 << p) << 1 : 0;
        }
        at = next;
    }
    return at & end;
}

uint32_t json_key_odd(const char *have, const char *want)
{
    while (*have && *have == *want) {
        have++;
        want++;
    }
    return *have ? next_point(&have) : 0;
}

const char *json_escaped_nul(const char *text, size_t n)
{
    for (size_t i = 0; i + 1 < n; i++) {
        if (text[i] != '\\')
            continue;
        if (text[i + 1] == 'u' && n - i >= 6 && !memcmp(text + i + 2, "0000", 4))
            return text + i;
        i++; /* an escaped backslash is no beginning */
    }
    return NULL;
}

void json_key_shown(char *out, size_t cap, const char *key)
{
    size_t n = 0;
    while (*key && n + 1 < cap) {
        uint32_t c = next_point(&key);
        out[n++] = (char)(c >= ' ' && c <= '~' ? c : '?');
    }
    out[n] = 0;
}

enum err_code json_keys_check(const cJSON *root, const char *text, size_t n, const char *const *key,
                              size_t keys, const char *path, struct err *e)
{
    const cJSON *item;
    const char *nul = json_escaped_nul(text, n);
    if (nul)
        return err_set(e, ERR_INPUT, "%s: an escaped NUL at byte %zu", path, (size_t)(nul - text));
    for (size_t k = 0; k < keys; k++) {
        size_t times = 0;
        cJSON_ArrayForEach(item, root)
        {
            const char *have = item->string;
            char safe[64];
            if (!have || !json_key_like(have, key[k]))
                continue;
            json_key_shown(safe, sizeof safe, have);
            if (strcmp(have, key[k]))
                return err_set(e, ERR_INPUT, "%s: the key \"%s\" looks like %s and is another one",
                               path, safe, key[k]);
            if (++times == 2)
                return err_set(e, ERR_INPUT, "%s: the key %s occurs twice", path, key[k]);
        }
    }
    return ERR_OK;
}
