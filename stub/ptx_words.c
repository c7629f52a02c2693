/*
 * ptx_words.c - abbreviates PTX: a filter that the build runs behind ptx_registers.c.
 *
 * Output: up to 128 words, each ended by a zero byte; a zero byte; the text, in which byte 128 + i
 * stands for word i; a zero byte. The runner writes the words out again before the driver sees them
 * (stub/cuda_kern.c). So fewer than half as many bytes are decoded, and where the model of
 * CODEC_CODE looks back three bytes it sees up to three words.
 *
 * A word is the name of an instruction with the space behind it, or what stands between the numbers
 * of two registers: a comma, braces, the next register's type. Those with most to save are taken.
 */
#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CANDIDATES = 4096, WORDS = 96 /* 64 and 128 make larger files */, FIRST = 128 };

struct word {
    const char *at; /* in the text */
    size_t len, count;
};

static struct word word[CANDIDATES];
static size_t words;

/* The word that begins at s, of the text's `begin`: its length, or 0. */
static size_t word_at(const char *s, const char *begin)
{
    char before = s > begin ? s[-1] : '\n';
    size_t n = 0;
    if (islower((unsigned char)*s)) {
        bool behind_predicate = before == ' ' && s - 1 > begin && isdigit((unsigned char)s[-2]);
        if (before != ';' && before != '\n' && !behind_predicate)
            return 0;
        n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_.");
        return n + (s[n] == ' ');
    }
    while (s[n] && !isalnum((unsigned char)s[n]) && !strchr(".$_%", s[n]))
        n++;
    return s[n] == '%' && islower((unsigned char)s[n + 1]) && isdigit((unsigned char)s[n + 2])
               ? n + 2
               : 0;
}

static struct word *find(const char *s, size_t len)
{
    for (size_t i = 0; i < words; i++)
        if (word[i].len == len && !memcmp(word[i].at, s, len))
            return &word[i];
    return NULL;
}

static void count(const char *s, size_t len)
{
    struct word *w = find(s, len);
    if (!w && words < CANDIDATES) {
        w = &word[words++];
        *w = (struct word){s, len, 0};
    }
    if (w)
        w->count++;
}

/* By what they save, then by place: the same text gives the same words. */
static int better(const void *x, const void *y)
{
    const struct word *a = x, *b = y;
    size_t of_a = a->count * (a->len - 1), of_b = b->count * (b->len - 1);
    return of_a != of_b ? (of_a > of_b ? -1 : 1) : a->at < b->at ? -1 : a->at > b->at;
}

static char *read_all(FILE *f)
{
    size_t n = 0, cap = 1 << 16;
    char *text = NULL;
    do {
        cap *= 2;
        text = realloc(text, cap);
        if (!text)
            exit(2);
        n += fread(text + n, 1, cap - 1 - n, f);
    } while (n == cap - 1);
    text[n] = 0;
    return text;
}

int main(void)
{
    char *text = read_all(stdin);
    for (const char *s = text; *s;) {
        size_t n = word_at(s, text);
        if (n)
            count(s, n);
        s += n ? n : 1;
    }
    qsort(word, words, sizeof *word, better);
    words = words < WORDS ? words : WORDS;
    for (size_t i = 0; i < words; i++)
        printf("%.*s%c", (int)word[i].len, word[i].at, 0);
    putchar(0);
    for (const char *s = text; *s;) {
        size_t n = word_at(s, text);
        const struct word *w = n ? find(s, n) : NULL;
        if ((unsigned char)*s >= FIRST) {
            fputs("ptx_words: the text is not ASCII\n", stderr);
            return 2;
        }
        if (w)
            putchar(FIRST + (int)(w - word));
        else
            printf("%.*s", (int)(n ? n : 1), s);
        s += n ? n : 1;
    }
    putchar(0);
    free(text);
    return fflush(stdout) || ferror(stdout) ? 2 : 0;
}
