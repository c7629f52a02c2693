/* mixed.c - see mixed.h. */
#include "trainer/mixed.h"

void mixed_choose(bool *fewer, const double *sensitivity, size_t n, size_t keep)
{
    for (size_t i = 0; i < n; i++) {
        size_t before = 0; /* place of i in a stable descending order; n is about a hundred */
        for (size_t j = 0; j < n; j++)
            before +=
                sensitivity[j] > sensitivity[i] || (sensitivity[j] == sensitivity[i] && j < i);
        fewer[i] = before >= keep;
    }
}
