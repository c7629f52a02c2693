/* blob.c - see blob.h; writing first, then reading. */
#include "packer/blob.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "kernels/cpu/pool.h"
#include "model/file.h"
#include "model/reader.h"
#include "stub/code_dec.h"
#include "stub/lzma_dec.h"
#include "stub/weights_dec.h"
#include "stub/xxh64.h"

const char *blob_kind_name(uint32_t kind)
{
    static const char *const name[] = {[KIND_LOADER] = "loader",         [KIND_HEADER] = "header",
                                       [KIND_RUNNER] = "runner",         [KIND_WEIGHTS] = "weights",
                                       [KIND_BYTE_TABLE] = "byte_table", [KIND_RECIPE] = "recipe",
                                       [KIND_SOURCE] = "source",         [KIND_CUDA] = "cuda"};
    return kind >= KIND_LOADER && kind <= KIND_CUDA ? name[kind] : "unknown";
}

const struct blob_section *blob_find(const struct blob *b, enum kind kind)
{
    for (size_t i = 0; i < b->count; i++)
        if (b->section[i].kind == (uint32_t)kind)
            return &b->section[i];
    return NULL;
}

/* ---- writing ----------------------------------------------------------------------------------
 */

static void put_section(struct blob *b, uint32_t kind, const void *data, size_t n)
{
    struct blob_section *s = &b->section[b->count++];
    s->kind = kind;
    s->codec = CODEC_NONE;
    s->offset = b->size;
    s->size = s->raw_size = n;
    s->data = data;
    s->xxh64 = data ? xxh64(data, n) : 0;
    b->size += n;
}

void blob_layout(struct blob *b, const void *loader, size_t loader_n,
                 const struct coded *const *part, size_t nparts)
{
    size_t sections = 2;
    memset(b, 0, sizeof *b);
    for (size_t i = 0; i < nparts; i++)
        sections += part[i] != NULL;
    put_section(b, KIND_LOADER, loader, loader_n);
    put_section(b, KIND_HEADER, NULL, HDR_BYTES + sections * SEC_BYTES);
    for (size_t i = 0; i < nparts; i++) {
        if (!part[i])
            continue;
        put_section(b, KIND_RUNNER + (uint32_t)i, part[i]->data, part[i]->size);
        struct blob_section *s = &b->section[b->count - 1];
        s->codec = part[i]->codec;
        s->raw_size = part[i]->raw_size;
        memcpy(s->params, part[i]->params, sizeof s->params);
    }
    b->known_loader = true;
}

/* The header of a laid out blob into h, and its size. */
static size_t put_header(uint8_t h[HDR_BYTES + SECTIONS_MAX * SEC_BYTES], const struct blob *b)
{
    size_t n = b->section[KIND_HEADER - 1].size;
    memset(h, 0, n);
    put_le64(h + HDR_MAGIC, FORMAT_MAGIC);
    put_le32(h + HDR_VERSION, FORMAT_VERSION);
    put_le32(h + HDR_COUNT, (uint32_t)b->count);
    put_le32(h + HDR_SIZE, (uint32_t)n);
    put_le64(h + HDR_FILE_SIZE, b->size);
    for (size_t i = 0; i < b->count; i++) {
        const struct blob_section *s = &b->section[i];
        uint8_t *at = h + HDR_ENTRIES + i * SEC_BYTES;
        put_le32(at + SEC_KIND, s->kind);
        put_le32(at + SEC_CODEC, s->codec);
        put_le64(at + SEC_OFFSET, s->offset);
        put_le64(at + SEC_SIZE, s->size);
        put_le64(at + SEC_RAW_SIZE, s->raw_size);
        put_le64(at + SEC_XXH64, s->xxh64);
        memcpy(at + SEC_PARAMS, s->params, sizeof s->params);
    }
    put_le64(h + n - HDR_TAIL, xxh64(h, n - HDR_TAIL));
    return n;
}

enum err_code blob_write(const char *path, const struct blob *b, struct err *e)
{
    uint8_t header[HDR_BYTES + SECTIONS_MAX * SEC_BYTES];
    struct atomic_file a;
    put_header(header, b);
    enum err_code rc = atomic_open(&a, path, e);
    if (rc)
        return rc;
    for (size_t i = 0; i < b->count; i++) {
        const struct blob_section *s = &b->section[i];
        const uint8_t *data = s->data ? s->data : header;
        if (fwrite(data, 1, s->size, a.f) != s->size) {
            rc = err_set(e, ERR_RESOURCE, "%s: cannot write the %s, %zu bytes at %zu of %zu: %s",
                         path, blob_kind_name(s->kind), s->size, s->offset, b->size,
                         strerror(errno));
            atomic_abort(&a);
            return rc;
        }
    }
    return atomic_commit(&a, 0755, e);
}

/* ---- reading ----------------------------------------------------------------------------------
 */

/* Offsets inside the two ELF headers that stub/loader.ld writes. */
enum {
    ELF_MAGIC = 0x464C457F,
    ELF_PHOFF = 32,
    ELF_PHNUM = 56,
    ELF_HEADERS = 64 + 56,
    PHDR_TYPE = 64,
    PHDR_OFFSET = 64 + 8,
    PHDR_FILESZ = 64 + 32,
    PT_LOAD = 1,
};

/* The size of the loader, from its only program header; 0 when the file does not begin with one. */
static size_t loader_size(const uint8_t *p, size_t n)
{
    if (n < ELF_HEADERS || le32(p) != ELF_MAGIC || le64(p + ELF_PHOFF) != PHDR_TYPE ||
        le16(p + ELF_PHNUM) != 1 || le32(p + PHDR_TYPE) != PT_LOAD || le64(p + PHDR_OFFSET) != 0)
        return 0;
    uint64_t size = le64(p + PHDR_FILESZ);
    return size >= ELF_HEADERS && size <= n ? (size_t)size : 0;
}

/* What small sections are stored with; lzma in files of before. */
enum { TEXT_CODECS = 1 << CODEC_NONE | 1 << CODEC_LZMA | 1 << CODEC_CODE };

/* Which codecs a kind may have, as bits, and how large it may be unpacked. */
static const struct {
    uint32_t codecs;
    size_t raw_max;
} rule[] = {
    [KIND_LOADER] = {1u << CODEC_NONE, 1 << 20},
    [KIND_HEADER] = {1u << CODEC_NONE, HDR_BYTES + SECTIONS_MAX *SEC_BYTES},
    [KIND_RUNNER] = {1u << CODEC_LZMA | 1u << CODEC_CODE, RUNNER_RAW_MAX},
    [KIND_WEIGHTS] = {1u << CODEC_NONE | 1u << CODEC_LZMA | 1u << CODEC_ZSTD | 1u << CODEC_RANGE |
                          1u << CODEC_CM,
                      WEIGHTS_RAW_MAX},
    [KIND_BYTE_TABLE] = {TEXT_CODECS, BYTE_TABLE_RAW_MAX},
    [KIND_RECIPE] = {TEXT_CODECS, RECIPE_RAW_MAX},
    [KIND_SOURCE] = {TEXT_CODECS, SOURCE_RAW_MAX},
    [KIND_CUDA] = {1u << CODEC_CODE, CUDA_RAW_MAX},
};

static bool params_sound(const struct blob_section *s)
{
    static const uint8_t zero[8];
    switch (s->codec) {
    case CODEC_LZMA:
    case CODEC_RANGE:
    case CODEC_CM: /* of the stream's head */
        return s->params[PARAM_LC] + s->params[PARAM_LP] <= LCLP_MAX &&
               s->params[PARAM_PB] <= PB_MAX &&
               s->params[PARAM_FILTER] <= (s->kind == KIND_RUNNER ? FILTER_X86 : FILTER_NONE);
    default:
        return memcmp(s->params, zero, sizeof zero) == 0;
    }
}

/* Entry number i, and that it belongs exactly where it says. `at` is where the section must begin.
 */
static enum err_code parse_entry(struct blob *b, size_t i, size_t at, const uint8_t *file,
                                 const uint8_t *entry, const char *path, struct err *e)
{
    struct blob_section *s = &b->section[i];
    s->kind = le32(entry + SEC_KIND);
    s->codec = le32(entry + SEC_CODEC);
    uint64_t offset = le64(entry + SEC_OFFSET), size = le64(entry + SEC_SIZE);
    uint64_t raw_size = le64(entry + SEC_RAW_SIZE);
    s->xxh64 = le64(entry + SEC_XXH64);
    memcpy(s->params, entry + SEC_PARAMS, sizeof s->params);

    /* Behind those that every file has, kinds may be left out. */
    size_t least = i ? b->section[i - 1].kind + 1 : KIND_LOADER;
    const char *name = blob_kind_name((uint32_t)least);
    if (s->kind > KIND_CUDA || (i < SECTIONS_MIN ? s->kind != least : s->kind < least))
        return err_set(e, ERR_INPUT, "%s: section %zu: kind %u (%s), expected %zu (%s)", path, i,
                       s->kind, blob_kind_name(s->kind), least, name);
    name = blob_kind_name(s->kind);
    if (offset != at)
        return err_set(e, ERR_INPUT, "%s: %s: begins at %llu, the section before it ends at %zu",
                       path, name, (unsigned long long)offset, at);
    if (size > b->size - at)
        return err_set(e, ERR_INPUT, "%s: %s: %llu bytes at %zu do not fit into the file's %zu",
                       path, name, (unsigned long long)size, at, b->size);
    if (s->codec >= 32 || !(rule[s->kind].codecs >> s->codec & 1))
        return err_set(e, ERR_INPUT, "%s: %s: codec %u (%s) is not allowed here", path, name,
                       s->codec, codec_name(s->codec));
    if (!params_sound(s))
        return err_set(e, ERR_INPUT, "%s: %s: codec parameters out of range", path, name);
    if (raw_size > rule[s->kind].raw_max)
        return err_set(e, ERR_INPUT, "%s: %s: claims to unpack to %llu bytes, the limit is %zu",
                       path, name, (unsigned long long)raw_size, rule[s->kind].raw_max);
    if (s->codec == CODEC_NONE && raw_size != size)
        return err_set(e, ERR_INPUT, "%s: %s: is not compressed, but has two sizes: %llu and %llu",
                       path, name, (unsigned long long)size, (unsigned long long)raw_size);
    if (raw_size == 0)
        return err_set(e, ERR_INPUT, "%s: %s: is empty", path, name);
    s->offset = at;
    s->size = (size_t)size;
    s->raw_size = (size_t)raw_size;
    s->data = file + at;
    uint64_t hash = s->kind == KIND_HEADER ? 0 : xxh64(s->data, s->size);
    if (hash != s->xxh64)
        return err_set(e, ERR_INPUT, "%s: %s: damaged, hash %016llx, expected %016llx", path, name,
                       (unsigned long long)hash, (unsigned long long)s->xxh64);
    return ERR_OK;
}

/* The fields before the entries, and the hash after them. The header is at h, `left` bytes to the
 * file's end. */
static enum err_code parse_header(struct blob *b, const uint8_t *h, size_t left, const char *path,
                                  struct err *e)
{
    if (left < HDR_BYTES || le64(h + HDR_MAGIC) != FORMAT_MAGIC)
        return err_set(e, ERR_INPUT, "%s: no submission: no header behind the loader", path);
    uint32_t version = le32(h + HDR_VERSION), flags = le32(h + HDR_FLAGS),
             count = le32(h + HDR_COUNT);
    if (version != FORMAT_VERSION)
        return err_set(e, ERR_INPUT, "%s: format version %u, this program reads %d", path, version,
                       FORMAT_VERSION);
    if (flags != 0)
        return err_set(e, ERR_INPUT, "%s: header: flags %u, expected 0", path, flags);
    if (count < SECTIONS_MIN || count > SECTIONS_MAX)
        return err_set(e, ERR_INPUT, "%s: header: %u sections, expected %d to %d", path, count,
                       SECTIONS_MIN, SECTIONS_MAX);
    size_t size = HDR_BYTES + count * SEC_BYTES;
    if (le32(h + HDR_SIZE) != size || size > left)
        return err_set(e, ERR_INPUT,
                       "%s: header: says %u bytes, %u sections need %zu, %zu are left", path,
                       le32(h + HDR_SIZE), count, size, left);
    if (le64(h + HDR_FILE_SIZE) != b->size)
        return err_set(e, ERR_INPUT, "%s: the file has %zu bytes, its header says %llu", path,
                       b->size, (unsigned long long)le64(h + HDR_FILE_SIZE));
    uint64_t hash = xxh64(h, size - HDR_TAIL), want = le64(h + size - HDR_TAIL);
    if (hash != want)
        return err_set(e, ERR_INPUT, "%s: header: damaged, hash %016llx, expected %016llx", path,
                       (unsigned long long)hash, (unsigned long long)want);
    b->count = count;
    return ERR_OK;
}

enum err_code blob_parse(struct blob *b, const void *data, size_t n, const char *path,
                         const void *loader, size_t loader_n, struct err *e)
{
    const uint8_t *file = data;
    memset(b, 0, sizeof *b);
    b->size = n;
    size_t loader_end = loader_size(file, n);
    if (loader_end == 0)
        return err_set(
            e, ERR_INPUT,
            "%s: no submission: it does not begin with a loader (weights that a record's "
            "script packed: packer import)",
            path);
    const uint8_t *h = file + loader_end;
    enum err_code rc = parse_header(b, h, n - loader_end, path, e);
    size_t at = 0;
    for (size_t i = 0; !rc && i < b->count; i++) {
        rc = parse_entry(b, i, at, file, h + HDR_ENTRIES + i * SEC_BYTES, path, e);
        at += b->section[i].size;
    }
    if (rc)
        return rc;
    const struct blob_section *s = b->section;
    if (s[0].size != loader_end || s[1].size != HDR_BYTES + b->count * SEC_BYTES)
        return err_set(e, ERR_INPUT,
                       "%s: loader and header have %zu and %zu bytes, but claim %zu and %zu", path,
                       loader_end, HDR_BYTES + b->count * SEC_BYTES, s[0].size, s[1].size);
    if (at != n)
        return err_set(e, ERR_INPUT, "%s: %zu bytes behind the last section, which ends at %zu",
                       path, n - at, at);
    b->known_loader = loader && loader_n == loader_end && memcmp(loader, file, loader_n) == 0;
    return ERR_OK;
}

enum err_code blob_open(struct blob *b, const char *path, const void *loader, size_t loader_n,
                        struct err *e)
{
    const void *data;
    size_t n;
    memset(b, 0, sizeof *b);
    enum err_code rc = file_map(path, &data, &n, e);
    if (rc)
        return rc;
    rc = blob_parse(b, data, n, path, loader, loader_n, e);
    b->map = data;
    if (rc) {
        b->size = n;
        blob_close(b);
    }
    return rc;
}

void blob_close(struct blob *b)
{
    file_unmap(b->map, b->size);
    memset(b, 0, sizeof *b);
}

/* ---- decoding ---------------------------------------------------------------------------------
 */

static bool decode_lzma(uint8_t *out, const struct blob_section *s, struct lzma *work)
{
    if (lzma_dec(work, out, s->raw_size, s->data, s->size, le32(s->params)) != s->size)
        return false;
    if (s->params[PARAM_FILTER] == FILTER_X86)
        x86_undo(out, s->raw_size);
    return true;
}

static bool decode_code(uint8_t *out, const struct blob_section *s, void *work)
{
    return code_dec(work, out, s->raw_size, s->data, s->size) == 0;
}

/* One frame and nothing else: the library would skip frames that it is told to skip, and decode any
 * number of empty ones, which is room for bytes that no check sees. */
static bool decode_zstd(uint8_t *out, const struct blob_section *s, bool *nomem)
{
    if (ZSTD_getFrameContentSize(s->data, s->size) != s->raw_size ||
        ZSTD_findFrameCompressedSize(s->data, s->size) != s->size)
        return false;
    size_t n = ZSTD_decompress(out, s->raw_size, s->data, s->size);
    *nomem = ZSTD_isError(n) && ZSTD_getErrorCode(n) == ZSTD_error_memory_allocation;
    return n == s->raw_size;
}

static bool decode_weights(uint8_t *out, const struct blob_section *s, void *work, bool *nomem)
{
    struct weights_cursor c;
    struct tensor_view t;
    struct pool *pool = s->codec == CODEC_CM ? pool_for(CM_STREAMS_MAX) : NULL;
    bool ok = s->codec == CODEC_ZSTD ? decode_zstd(out, s, nomem)
                                     : weights_decode_on(pool, s->codec, s->params, s->data,
                                                         s->size, out, s->raw_size, work);
    pool_free(pool);
    if (!ok)
        return false;
    weights_open(&c, out, s->raw_size);
    while (weights_next(&c, &t))
        ;
    return !c.bad;
}

enum err_code blob_decode(uint8_t **data, const struct blob_section *s, const char *path,
                          struct err *e)
{
    *data = NULL;
    uint8_t *out = malloc(s->raw_size);
    void *work = s->codec == CODEC_CODE ? calloc(1, CODE_WORK) : malloc(WEIGHTS_WORK);
    enum err_code rc = ERR_OK;
    bool ok = true, nomem = !out || !work;
    if (nomem)
        ok = false;
    else if (s->kind == KIND_WEIGHTS)
        ok = decode_weights(out, s, work, &nomem);
    else if (s->codec == CODEC_CODE)
        ok = decode_code(out, s, work);
    else if (s->codec == CODEC_LZMA)
        ok = decode_lzma(out, s, work);
    else
        memcpy(out, s->data, s->size);
    if (nomem) {
        rc = err_nomem(e, blob_kind_name(s->kind), s->raw_size);
        goto out;
    }
    if (!ok) {
        rc = err_set(e, ERR_INPUT, "%s: %s: %zu bytes of %s do not unpack to %zu bytes", path,
                     blob_kind_name(s->kind), s->size, codec_name(s->codec), s->raw_size);
        goto out;
    }
    *data = out;
    out = NULL;
out:
    free(work);
    free(out);
    return rc;
}
