/*
 * record_keys.h - where the keys of a JSON text stand, and tricks with them.
 *
 * Metadata that two readers understand differently are worth a finding, whatever they say: a key
 * that an object has twice (cJSON takes the first value, Python the last), a key that looks like
 * one that is read and is another one, an escaped NUL, behind which C stops reading.
 */
#ifndef VERIFY_RECORD_KEYS_H
#define VERIFY_RECORD_KEYS_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KEY_TRICKS = 8 };

enum key_trick_kind { KEY_TWICE, KEY_LOOKALIKE, KEY_NUL };

struct key_trick {
    enum key_trick_kind kind;
    size_t line;      /* 1-based */
    char key[40];     /* printable ASCII, the rest as '?' */
    const char *like; /* a look-alike: of which key, one of `known` */
    uint32_t odd;     /* a look-alike: the code point that gives it away, 0: it only goes on */
};

/* One key of the text: where it stands, how deep, and the key without its escapes undone. */
struct json_key {
    size_t at, n, line;
    int depth; /* 1: of the outermost object */
};

/* json_key_next - the next string that is followed by a colon, at or behind *at; *at, *line and
 * *depth (0, 1, 0 at the start) move along. False at the end. Any bytes are accepted. */
bool json_key_next(const char *text, size_t n, size_t *at, size_t *line, int *depth,
                   struct json_key *k);

/*
 * json_tricks - the first KEY_TRICKS tricks in n bytes of JSON, in their order.
 *
 *   root   what the text was parsed into, all of it
 *   known  keys that are going to be read, NULL at the end: look-alikes of others are no trick
 *
 * Returns how many.
 */
size_t json_tricks(const cJSON *root, const char *text, size_t n, const char *const *known,
                   struct key_trick out[KEY_TRICKS]);

#endif
