/* facts_size.c - what the weights are quantised and compressed with, and what is counted as code.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "verify/facts.h"

/* ---- compressor ---- */

static const struct {
    const char *target, *name;
} compressors[] = {
    {"brotli.compress", "brotli"},
    {"brotlicffi.compress", "brotli"},
    {"lzma.compress", "lzma"},
    {"lzma.LZMACompressor", "lzma"},
    {"zstandard.ZstdCompressor", "zstd"},
    {"zstandard.compress", "zstd"},
    {"zstd.ZstdCompressor", "zstd"},
    {"zstd.compress", "zstd"},
    {"pyzstd.compress", "zstd"},
    {"zlib.compress", "zlib"},
    {"zlib.compressobj", "zlib"},
    {"gzip.compress", "gzip"},
    {"bz2.compress", "bz2"},
    {"constriction.stream", "constriction"},
    {"blosc.compress", "blosc"},
    {"lz4.frame.compress", "lz4"},
    {"ZstdCompressor", "zstd"},
};
enum { NAMES = 9 };

/* Code of the script goes through a compressor as well, to be counted; that is not the weights'. */
static bool about_code(const struct facts_walk *w, size_t i)
{
    static const char *const words[] = {"code", "minif", "source", "script", "wrapper", NULL};
    const struct facts_func *f = facts_function(w, i);
    if (f && facts_has_any(w, f->name, words))
        return true;
    for (size_t k = i, end = facts_find(w, i, w->s.count, ")"); k < end; k++)
        if (w->s.tok[k].kind == PY_NAME && facts_has_any(w, k, words))
            return true;
    return false;
}

/* A variable that names the compressor: COMPRESSOR, COMPRESS_ALGO ... */
static const struct env_fact *chosen(const struct facts_walk *w)
{
    static const char *const keys[] = {"compressor", "compression",     "compress_algo",
                                       "codec",      "compress_method", "compression_method"};
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
        const struct env_fact *x = script_env(w->f, keys[k]);
        if (x && *x->value)
            return x;
    }
    return NULL;
}

static void compressor(struct facts_walk *w)
{
    const char *seen[NAMES];
    size_t n = 0, next, first = 0;
    bool fallback = false;
    char target[64];
    for (size_t i = 0; i < w->s.count; i++) {
        if (w->s.tok[i].kind != PY_NAME || (i && py_is(&w->s, i - 1, ".")))
            continue;
        facts_target(w, i, target, sizeof target, &next);
        for (size_t k = 0; k < sizeof compressors / sizeof *compressors; k++) {
            if (strcmp(target, compressors[k].target) || !py_is(&w->s, next, "(") ||
                about_code(w, next))
                continue;
            bool known = false;
            for (size_t j = 0; j < n; j++)
                known |= !strcmp(seen[j], compressors[k].name);
            if (!known && n < NAMES)
                seen[n++] = compressors[k].name;
            first = first ? first : i;
            facts_add(w, FACT_COMPRESSOR, i, "weights go through %s", compressors[k].name);
        }
    }
    for (size_t i = 0; i + 1 < w->s.count; i++) /* try: import zstandard, except: something else */
        if (py_is(&w->s, i, "import") && facts_has(w, i + 1, "zst") && i >= 3 &&
            (py_is(&w->s, i - 3, "try") || py_is(&w->s, i - 2, "try")))
            fallback = true;
    const struct env_fact *x = chosen(w);
    for (size_t j = 0; x && j < n; j++)
        if (!strcasecmp(x->value, seen[j])) {
            snprintf(w->f->compressor, sizeof w->f->compressor, "%s", seen[j]);
            return;
        }
    for (size_t j = 0, at = 0; j < n && at < sizeof w->f->compressor; j++)
        at += (size_t)snprintf(w->f->compressor + at, sizeof w->f->compressor - at, "%s%s",
                               j ? " or " : "", seen[j]);
    if (n > 1 && fallback)
        facts_add(w, FACT_COMPRESSOR, first,
                  "which compressor is used depends on what is installed");
}

/* ---- quantiser ---- */

static void quantiser(struct facts_walk *w)
{
    static const struct {
        const char *part, *name;
        bool word; /* a name that stands for the method wherever it is defined */
    } widths[] = {{"int8", "int8", false}, {"int7", "int7", false},      {"int6", "int6", false},
                  {"int5", "int5", false}, {"int4", "int4", false},      {"int3", "int3", false},
                  {"int2", "int2", false}, {"ternary", "ternary", true}, {"binary", "binary", true},
                  {"xnor", "xnor", true},  {"fp8", "fp8", false},        {"float8", "fp8", false},
                  {"fp4", "fp4", false}},
      ways[] = {{"gptq", "GPTQ", true},
                {"awq", "AWQ", true},
                {"lqer", "LQER", true},
                {"qat", "QAT", true}};
    char *out = w->f->quantiser;
    size_t cap = sizeof w->f->quantiser, at = 0;
    const char *last = "";
    for (size_t k = 0; k < sizeof widths / sizeof *widths; k++)
        for (size_t i = 1; i < w->s.count; i++) {
            /* what makes it, not mentions: def quantize_int6, class TernaryLinear */
            bool word = widths[k].word;
            bool def = (py_is(&w->s, i - 1, "def") && (word || facts_has(w, i, "quant"))) ||
                       (word && py_is(&w->s, i - 1, "class"));
            if (!def || !facts_has(w, i, widths[k].part) || facts_has(w, i, "dequant") ||
                !strcmp(last, widths[k].name))
                continue;
            if (at < cap)
                at += (size_t)snprintf(out + at, cap - at, "%s%s", at ? " + " : "", widths[k].name);
            last = widths[k].name;
            facts_add(w, FACT_QUANTISER, i, "%s: %.*s", widths[k].name, (int)w->s.tok[i].len,
                      w->s.text + w->s.tok[i].at);
            break;
        }
    for (size_t i = 0; i < w->f->envs; i++) { /* MATRIX_BITS=6, EMBED_BITS=8 */
        const struct env_fact *x = &w->f->env[i];
        const char *name = *x->name ? x->name : x->attr;
        size_t n = strlen(name);
        if (n >= 5 && !strcasecmp(name + n - 5, "_bits") && facts_truth(x->value) == 1 &&
            !strcasestr(name, "table") && !strcasestr(name, "gram") && !strcasestr(name, "hash")) {
            facts_add_line(w, FACT_QUANTISER, x->line, "%s=%s", name, x->value);
            if (at < cap && strlen(x->value) < 3)
                at += (size_t)snprintf(out + at, cap - at, "%s%s-bit %.*s", at ? ", " : "",
                                       x->value, (int)(n - 5), name);
        }
    }
    for (size_t k = 0; k < sizeof ways / sizeof *ways; k++)
        for (size_t i = 1; i < w->s.count; i++)
            if (py_is(&w->s, i - 1, "def") && facts_has(w, i, ways[k].part)) {
                if (at < cap)
                    at +=
                        (size_t)snprintf(out + at, cap - at, "%s%s", at ? ", " : "", ways[k].name);
                facts_add(w, FACT_QUANTISER, i, "%s: %.*s", ways[k].name, (int)w->s.tok[i].len,
                          w->s.text + w->s.tok[i].at);
                break;
            }
}

/* ---- what is counted as code ---- */

/* A name for a number of bytes of code: code_bytes, code_size, bytes_code. */
static bool counts_code(const struct facts_walk *w, size_t i)
{
    static const char *const unit[] = {"bytes", "size", "len", "csz", NULL};
    return w->s.tok[i].kind == PY_NAME && facts_has(w, i, "code") && facts_has_any(w, i, unit) &&
           !facts_has(w, i, "encode") && !facts_has(w, i, "decode");
}

/* Does the function compress something and measure what comes out? */
static bool measures_copy(struct facts_walk *w, const struct facts_func *f)
{
    static const char *const minifiers[] = {"minif", "unparse", NULL};
    static const char *const names[] = {"code", "script", "source", "minif", NULL};
    bool compress = false, minify = false;
    if (!facts_has_any(w, f->name, names))
        return false;
    for (size_t i = f->body; i < f->end; i++) {
        compress |= facts_has(w, i, "compress") && !facts_has(w, i, "decompress");
        minify |= facts_has_any(w, i, minifiers);
    }
    size_t except = facts_find(w, f->body, f->end, "except");
    if (compress && minify && except < f->end) {
        w->f->minifier_fallback = true;
        facts_add(w, FACT_CODE_COUNT, except,
                  "counts a larger size where the minifier is not installed");
    }
    return compress;
}

static enum code_count judge(struct facts_walk *w, size_t eq, size_t end, long long *constant)
{
    bool own = false, file = false;
    for (size_t i = eq; i < end; i++) {
        const struct facts_func *f = facts_called(w, i);
        if (f && py_is(&w->s, i + 1, "(") && measures_copy(w, f))
            return CODE_COUNT_COMPRESSED;
        own |= facts_has(w, i, "__file__");
        file |= facts_has(w, i, "code") || facts_has(w, i, "source") || facts_has(w, i, "script");
    }
    if (end == eq + 1 && py_kind_at(&w->s, eq) == PY_NUMBER) {
        char *stop, text[24] = "";
        size_t n = 0;
        for (uint32_t k = 0; k < w->s.tok[eq].len && n + 1 < sizeof text; k++)
            if (w->s.text[w->s.tok[eq].at + k] != '_')
                text[n++] = w->s.text[w->s.tok[eq].at + k];
        *constant = strtoll(text, &stop, 10);
        return *stop ? CODE_COUNT_OTHER : *constant ? CODE_COUNT_CONSTANT : CODE_COUNT_NONE;
    }
    size_t len = facts_find(w, eq, end, "len"), size = facts_find(w, eq, end, "getsize");
    size_t stat = facts_find(w, eq, end, "st_size");
    if (own || (file && (len < end || size < end || stat < end)))
        return CODE_COUNT_FILE;
    return CODE_COUNT_OTHER;
}

static void code_count(struct facts_walk *w)
{
    static const char *const text[] = {"none", "the size of the running file",
                                       "a compressed copy of the script made for counting",
                                       "a number written into the script", "not understood"};
    for (size_t i = 0; i + 1 < w->s.count; i++) {
        long long constant = 0;
        if (!counts_code(w, i) || (i && py_is(&w->s, i - 1, ".")))
            continue;
        size_t first = facts_statement(w, i), eq = i + 1, end;
        while (py_is(&w->s, eq, ",") && py_kind_at(&w->s, eq + 1) == PY_NAME)
            eq += 2; /* a, code_bytes = f(code) */
        if (!py_is(&w->s, eq, "=") || w->s.tok[eq].depth != w->s.tok[first].depth)
            continue;
        for (end = ++eq; end < w->s.count && w->s.tok[end].kind != PY_NEWLINE &&
                         !(py_is(&w->s, end, ";") && w->s.tok[end].depth == w->s.tok[eq].depth);)
            end++;
        enum code_count c = judge(w, eq, end, &constant);
        if (c == CODE_COUNT_NONE)
            continue;
        facts_add(w, FACT_CODE_COUNT, i, "code is counted as: %s", text[c]);
        /* a compressed copy outranks the plain size that is printed beside it */
        if (w->f->count == CODE_COUNT_NONE || c == CODE_COUNT_COMPRESSED ||
            (w->f->count == CODE_COUNT_OTHER && c != CODE_COUNT_OTHER)) {
            w->f->count = c;
            w->f->count_line = facts_line(w, i);
            w->f->count_constant = c == CODE_COUNT_CONSTANT ? constant : 0;
        }
    }
}

void facts_sizes(struct facts_walk *w)
{
    compressor(w);
    quantiser(w);
    code_count(w);
}
