/*
 * json_keys.h - tricks with the keys of a JSON object.
 *
 * A claim that two readers understand differently is no claim. JSON allows a key twice (one reader
 * takes the first value, the next one the last), characters that look like Latin letters, or that
 * show nothing at all, and a NUL, behind which C stops reading.
 */
#ifndef VERIFY_JSON_KEYS_H
#define VERIFY_JSON_KEYS_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"

/*
 * json_key_like - could somebody take `have` (UTF-8) for `want` (ASCII, at most 62 letters)?
 *
 * True as well when they are equal. A character stands for the letter that it looks like: Cyrillic
 * and Greek ones as in Unicode's confusables.txt (UTS #39), 1 and I for l, 0 for o; letters with
 * marks, fullwidth and mathematical ones for any one letter; blanks, controls, zero-width and
 * direction marks for none. Scripts that nobody takes for Latin (CJK, kana, Arabic, ...) for
 * nothing, so that an honest key in them is no look-alike.
 */
bool json_key_like(const char *have, const char *want);

/* json_key_odd - the code point where a look-alike leaves what it looks like, for a message; 0
 * where it ends. */
uint32_t json_key_odd(const char *have, const char *want);

/* json_key_shown - a key for a message, cut to cap - 1 bytes: all but printable ASCII as '?'. */
void json_key_shown(char *out, size_t cap, const char *key);

/* json_escaped_nul - the place of an escaped NUL in n bytes of JSON, NULL when there is none. */
const char *json_escaped_nul(const char *text, size_t n);

/*
 * json_keys_check - refuse an object whose keys are no plain statement of the known ones.
 *
 *   text   [n] what root was parsed from
 *   key    [keys] the keys that the caller is going to read; others may be as they like
 *
 * Fails: ERR_INPUT for a key of the list that occurs twice; for one that reads like one of the list
 * and is another one; for an escaped NUL anywhere in the text.
 */
enum err_code json_keys_check(const cJSON *root, const char *text, size_t n, const char *const *key,
                              size_t keys, const char *path, struct err *e);

#endif
