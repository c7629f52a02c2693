/* unwrap_binary.c - scripts that are no text: zip archives that Python runs, and compiled code. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <zip.h>

#include "model/reader.h"
#include "verify/pymarshal.h"
#include "verify/unwrap_parts.h"

enum {
    ENTRIES = 1024, /* of an archive that are looked at */
    EOCD = 22,      /* end of central directory record (APPNOTE 4.3.16), without its comment */
};

bool unwrap_zip(const uint8_t *p, size_t n, size_t *start)
{
    size_t least = n > EOCD + 65535 ? n - EOCD - 65535 : 0;
    for (size_t at = n >= EOCD ? n - EOCD + 1 : 0; at-- > least;) {
        if (memcmp(p + at, "PK\5\6", 4) || le16(p + at + 20) != n - EOCD - at)
            continue;
        /* Offsets count from the archive's first byte, wherever it stands in the file. */
        uint64_t behind = (uint64_t)le32(p + at + 12) + le32(p + at + 16);
        if (behind > at)
            return false;
        *start = at - (size_t)behind;
        return le16(p + at + 10) > 0;
    }
    return false;
}

static bool ends(const char *s, const char *tail)
{
    size_t n = strlen(s), t = strlen(tail);
    return n >= t && !strcasecmp(s + n - t, tail);
}

/* One entry as a part. Damage, encryption and bombs are notes. *spent: bytes unpacked so far, of
 * which entries that hold the same take their share as well. */
static enum err_code entry(struct unwrap *u, size_t at, zip_t *z, zip_uint64_t i, size_t *spent,
                           struct err *e)
{
    zip_stat_t st;
    const zip_uint64_t need = ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE;
    if (zip_stat_index(z, i, ZIP_FL_ENC_RAW, &st) || (st.valid & need) != need)
        return ERR_OK;
    bool python = ends(st.name, ".py"), compiled = ends(st.name, ".pyc");
    if (!python && !compiled)
        return ERR_OK;
    if (st.size > UNWRAP_MAX || st.size > UNWRAP_TOTAL - *spent) {
        u->bomb = true;
        unwrap_say(u, at, 0, "zip entry %.80s of %llu bytes: too large", st.name,
                   (unsigned long long)st.size);
        return ERR_OK;
    }
    *spent += st.size;
    struct unwrap_part p = {.parent = at, .coded = st.comp_size, .packed = st.comp_size};
    bool runs = !strcasecmp(st.name, "__main__.py");
    uint8_t *text = malloc(st.size + 1);
    if (!text)
        return err_nomem(e, "zip entry", st.size);
    zip_file_t *f = zip_fopen_index(z, i, 0);
    zip_int64_t got = f ? zip_fread(f, text, st.size + 1) : -1;
    bool sound = got >= 0 && (zip_uint64_t)got == st.size;
    zip_error_t *ze = f ? zip_file_get_error(f) : zip_get_error(z);
    bool nomem = zip_error_code_zip(ze) == ZIP_ER_MEMORY;
    if (f && zip_fclose(f))
        sound = false;
    enum err_code rc = ERR_OK;
    if (!sound && nomem) {
        rc = err_nomem(e, "zip entry", st.size);
    } else if (!sound) {
        unwrap_say(u, at, 0, "zip entry %.80s: damaged or encrypted", st.name);
    } else {
        p.text = text;
        p.size = st.size;
        p.python = python && (runs || unwrap_python(text, st.size));
        /* All of the archive belongs to what Python runs. */
        p.coded = runs ? u->part[at].size : p.coded;
        snprintf(p.family, sizeof p.family, "zip:%.60s", st.name);
        rc = unwrap_add(u, p, e);
    }
    free(text);
    return rc;
}

/* Bytes in front of the archive, where they are more than the line that names the interpreter.
 * Offsets that count them (as zipapp writes them) leave `start` at 0. */
static size_t in_front(const uint8_t *p, size_t n, size_t start)
{
    const uint8_t *first = start ? p + start : memmem(p, n, "PK\3\4", 4);
    size_t front = first ? (size_t)(first - p) : 0;
    const uint8_t *line = front && p[0] == '#' && p[1] == '!' ? memchr(p, '\n', front) : NULL;
    return line && line + 1 == p + front ? 0 : front;
}

enum err_code unwrap_zip_parts(struct unwrap *u, size_t at, size_t start, struct err *e)
{
    const uint8_t *p = u->part[at].text + start;
    size_t n = u->part[at].size - start;
    zip_error_t ze;
    enum err_code rc = ERR_OK;
    zip_error_init(&ze);
    zip_source_t *s = zip_source_buffer_create(p, n, 0, &ze);
    zip_t *z = s ? zip_open_from_source(s, ZIP_RDONLY, &ze) : NULL;
    if (!z) {
        bool nomem = zip_error_code_zip(&ze) == ZIP_ER_MEMORY;
        unwrap_say(u, at, 0, "zip archive of %zu bytes: %.80s", n, zip_error_strerror(&ze));
        if (s)
            zip_source_free(s);
        zip_error_fini(&ze);
        return nomem ? err_nomem(e, "zip archive", n) : ERR_OK;
    }
    zip_error_fini(&ze);
    zip_int64_t entries = zip_get_num_entries(z, 0);
    size_t spent = 0;
    bool runs = zip_name_locate(z, "__main__.py", 0) >= 0,
         compiled = zip_name_locate(z, "__main__.pyc", 0) >= 0;
    size_t front = in_front(u->part[at].text, u->part[at].size, start);
    if (front && (runs || compiled))
        unwrap_say(u, at, 0,
                   "ends in a zip archive: Python runs its __main__, not the %zu bytes in front",
                   front);
    if (entries > ENTRIES)
        unwrap_say(u, at, 0, "zip archive of %lld entries: %d are looked at", (long long)entries,
                   ENTRIES);
    for (zip_int64_t i = 0; i < entries && i < ENTRIES && !rc; i++)
        rc = entry(u, at, z, (zip_uint64_t)i, &spent, e);
    zip_discard(z);
    /* What runs is not the text in front, if that is text at all. */
    u->part[at].python = u->part[at].python && !runs && !compiled;
    return rc;
}

enum err_code unwrap_marshal_parts(struct unwrap *u, size_t at, size_t skip, struct err *e)
{
    struct pymarshal m;
    const uint8_t *p = u->part[at].text + skip;
    size_t n = u->part[at].size - skip;
    enum err_code rc = pymarshal_read(&m, p, n, e);
    u->part[at].python = false;
    if (rc == ERR_INPUT) {
        unwrap_say(u, at, 0, "compiled code of %zu bytes: not read: %s", n, m.why);
        *e = (struct err){0};
        rc = ERR_OK;
    } else if (!rc) {
        struct unwrap_part q = {.parent = at,
                                .coded = n,
                                .packed = n,
                                .text = (const uint8_t *)m.listing,
                                .size = m.n,
                                .listing = true};
        snprintf(q.family, sizeof q.family, "%s", skip ? "pyc" : "marshal");
        unwrap_say(
            u, at, 0,
            "compiled code%s%s: %zu functions, %zu names, %zu constants; the bytecode is not "
            "read",
            *m.version ? " of " : "", m.version, m.codes, m.names, m.constants);
        rc = unwrap_add(u, q, e);
        for (size_t i = 0; i < m.blobs && !rc; i++)
            rc = unwrap_guess(u, at, 0, m.blob[i].p, m.blob[i].n, m.blob[i].text, e);
    }
    pymarshal_free(&m);
    return rc;
}
