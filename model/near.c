/* near.c - see near.h. */
#include "model/near.h"

#include <stdint.h>
#include <string.h>

size_t near_distance(const char *a, const char *b)
{
    size_t row[64], m = strlen(b);
    if (m >= 64)
        return SIZE_MAX;
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diag = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = diag + (a[i - 1] != b[j - 1]);
            diag = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[m];
}

const char *near_word(const char *word, const char *const *known, size_t n)
{
    const char *best = NULL;
    size_t least = SIZE_MAX, letters = strlen(word);
    for (size_t i = 0; i < n && letters; i++) {
        size_t d = near_distance(word, known[i]);
        if (!strncmp(word, known[i], letters))
            d = 0;
        if (d < least && d <= (strlen(known[i]) + 1) / 3) {
            least = d;
            best = known[i];
        }
    }
    return best;
}
