/*
 * html_sound.h - what no page may have, whatever is in the files that it is about, and texts that
 * try.
 */
#ifndef TESTS_UNIT_HTML_SOUND_H
#define TESTS_UNIT_HTML_SOUND_H

#include <cjson/cJSON.h>

#include "tests/unit/util.h"
#include "tests/unit/xml_check.h"

static const char evil[] = "\"><script>alert(1)</script><img src=x onerror=y>&\x80\xE2\x80\xAE'";

/* What a page may not have, whatever is in the file. */
static inline void sound(const char *name, const char *page)
{
    static const char *const never[] = {"<script", "<img",       "<link",   "<iframe",
                                        "<object", "onerror=y>", "@import", "src=\"",
                                        "href=",   "nan",        "inf,",    "-inf"};
    const char *why = xml_check(page);
    if (*why)
        fail_msg("%s: %s", name, why);
    for (size_t i = 0; i < COUNT(never); i++)
        if (strstr(page, never[i]))
            fail_msg("%s: has %s: %.60s", name, never[i], strstr(page, never[i]) - 20);
    for (const char *at = page; (at = strstr(at, "url(")); at++)
        if (at[4] != '#')
            fail_msg("%s: loads something: %.60s", name, at);
    for (const char *at = page; (at = strstr(at, "http")); at++)
        if (strncmp(at, "http-equiv", 10) != 0)
            fail_msg("%s: an address: %.60s", name, at);
}

/* Every text that can come from outside, replaced by markup. */
static inline void poison(cJSON *o)
{
    cJSON *v;
    cJSON_ArrayForEach(v, o)
    {
        if (cJSON_IsString(v) &&
            (!v->string || (strcmp(v->string, "command") && strcmp(v->string, "key"))))
            cJSON_SetValuestring(v, evil);
        poison(v);
    }
}

#endif
