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
#include <stddef.h>

#include "kernels/err.h"

/*
 * json_keys_check - refuse an object whose keys are no plain statement of the known ones.
 *
 *   text   [n] what root was parsed from
 *   key    [keys] the keys that the caller is going to read; others may be as they like
 *
 * Fails: ERR_INPUT for a key of the list that occurs twice; for one that reads like one of the list
 * and has characters other than printable ASCII; for an escaped NUL anywhere in the text.
 */
enum err_code json_keys_check(const cJSON *root, const char *text, size_t n, const char *const *key,
                              size_t keys, const char *path, struct err *e);

#endif
