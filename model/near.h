/*
 * near.h - the nearest known word, for messages about one that is not known.
 */
#ifndef MODEL_NEAR_H
#define MODEL_NEAR_H

#include <stddef.h>

/* near_distance - how many letters must be inserted, deleted or replaced to get from a to b
 * (Levenshtein's distance); SIZE_MAX where b has 64 letters or more. */
size_t near_distance(const char *a, const char *b);

/* near_word - the nearest of n known words to `word`, when it is near enough to be meant: as the
 * beginning of it, or within a third of its letters. NULL when none is. */
const char *near_word(const char *word, const char *const *known, size_t n);

#endif
