/*
 * unwrap_test.c - self-extracting scripts. Guards against a wrapper whose source the auditor does
 * not see (so that it counts and judges the wrong text), against one that makes it run out of
 * memory or time, and against false finds in scripts that only contain the words.
 */
#include "verify/unwrap.h"

#include <brotli/encode.h>
#include <cjson/cJSON.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include "tests/unit/util.h"
#include "verify/pycodec.h"

enum { BIG = 1 << 20 };

/* ---- making wrappers ---- */

struct buf {
    uint8_t *p;
    size_t n;
};

static struct buf buf_new(size_t cap)
{
    struct buf b = {calloc(1, cap + 1), 0};
    if (!b.p)
        abort();
    return b;
}

static void put(struct buf *b, const void *p, size_t n)
{
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

static void puts_(struct buf *b, const char *s)
{
    put(b, s, strlen(s));
}

/* A script that is worth wrapping: repetitive, of the given number of lines. */
static struct buf program(size_t lines)
{
    struct buf b = buf_new(80 * lines + 80);
    puts_(&b, "import os, sys\ndef main():\n    x = 1\n");
    for (size_t i = 0; i < lines; i++)
        b.n += (size_t)sprintf((char *)b.p + b.n, "    x = x * %zu + len('a \"b\" \\'%zu')\n",
                               i % 7, i * i % 1000);
    puts_(&b, "    return x\nif __name__ == '__main__':\n    main()\n");
    return b;
}

static struct buf lzma_with(lzma_filter *f, bool xz, const uint8_t *p, size_t n)
{
    struct buf b = buf_new(BIG);
    lzma_ret r = xz ? lzma_stream_buffer_encode(f, LZMA_CHECK_CRC64, NULL, p, n, b.p, &b.n, BIG)
                    : lzma_raw_buffer_encode(f, NULL, p, n, b.p, &b.n, BIG);
    assert_int_equal(r, LZMA_OK);
    return b;
}

static struct buf deflate_with(int wbits, const uint8_t *p, size_t n)
{
    struct buf b = buf_new(BIG);
    z_stream z = {.next_in = (Bytef *)(uintptr_t)p, .avail_in = (uInt)n};
    z.next_out = b.p;
    z.avail_out = BIG;
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, wbits, 9, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    b.n = BIG - z.avail_out;
    deflateEnd(&z);
    return b;
}

enum how { ZLIB, DEFLATE, GZIP, XZ, ALONE, LZMA2, LZMA1, DELTA, BROTLI, ZSTD, PLAIN };

static struct buf packed(enum how how, const uint8_t *p, size_t n)
{
    lzma_options_lzma o;
    lzma_options_delta d = {.type = LZMA_DELTA_TYPE_BYTE, .dist = 1};
    lzma_filter one[] = {{LZMA_FILTER_LZMA2, &o}, {LZMA_VLI_UNKNOWN, NULL}};
    lzma_filter old[] = {{LZMA_FILTER_LZMA1, &o}, {LZMA_VLI_UNKNOWN, NULL}};
    lzma_filter two[] = {
        {LZMA_FILTER_DELTA, &d}, {LZMA_FILTER_LZMA2, &o}, {LZMA_VLI_UNKNOWN, NULL}};
    struct buf b;
    lzma_lzma_preset(&o, 6);
    switch (how) {
    case ZLIB:
        return deflate_with(15, p, n);
    case DEFLATE:
        return deflate_with(-15, p, n);
    case GZIP:
        return deflate_with(31, p, n);
    case XZ:
        return lzma_with(one, true, p, n);
    case LZMA2:
        return lzma_with(one, false, p, n);
    case LZMA1:
        o.lc = 2;
        return lzma_with(old, false, p, n);
    case DELTA:
        return lzma_with(two, false, p, n);
    case ALONE: {
        lzma_stream z = LZMA_STREAM_INIT;
        b = buf_new(BIG);
        assert_int_equal(lzma_alone_encoder(&z, &o), LZMA_OK);
        z.next_in = p;
        z.avail_in = n;
        z.next_out = b.p;
        z.avail_out = BIG;
        assert_int_equal(lzma_code(&z, LZMA_FINISH), LZMA_STREAM_END);
        b.n = BIG - z.avail_out;
        lzma_end(&z);
        return b;
    }
    case BROTLI:
        b = buf_new(BIG);
        b.n = BIG;
        assert_true(BrotliEncoderCompress(11, 22, BROTLI_MODE_TEXT, n, p, &b.n, b.p));
        return b;
    case ZSTD:
        b = buf_new(BIG);
        b.n = ZSTD_compress(b.p, BIG, p, n, 19);
        assert_false(ZSTD_isError(b.n));
        return b;
    case PLAIN:
        break;
    }
    b = buf_new(n);
    put(&b, p, n);
    return b;
}

/* The inverse of text_decode, from the same tables of digits but in the other direction. */
static struct buf coded(enum text_codec c, const uint8_t *p, size_t n)
{
    static const char *const digits[] = {
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~",
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#",
        "!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstu",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567",
        "0123456789abcdef"};
    struct buf b = buf_new(2 * n + 16);
    unsigned bits = c == TEXT_B32 ? 5 : c == TEXT_HEX ? 4 : 6, have = 0;
    uint32_t acc = 0;
    if (c <= TEXT_A85) {
        for (size_t i = 0; i < n; i += 4) {
            size_t left = n - i < 4 ? n - i : 4;
            uint32_t v = 0;
            char five[5];
            for (size_t k = 0; k < 4; k++)
                v = v << 8 | (k < left ? p[i + k] : 0);
            for (size_t k = 5; k--; v /= 85)
                five[k] = digits[c][v % 85];
            put(&b, five, left + 1);
        }
        return b;
    }
    for (size_t i = 0; i < n; i++) {
        acc = acc << 8 | p[i];
        for (have += 8; have >= bits; have -= bits)
            b.p[b.n++] = (uint8_t)digits[c][acc >> (have - bits) & ((1u << bits) - 1)];
    }
    if (have)
        b.p[b.n++] = (uint8_t)digits[c][acc << (bits - have) & ((1u << bits) - 1)];
    while (c != TEXT_HEX && b.n % (c == TEXT_B32 ? 8 : 4))
        b.p[b.n++] = '=';
    return b;
}

enum literal { ONE, BYTES, ADJACENT, TRIPLE, PLUS, LIST, HEXED, LATIN };

static void character(struct buf *out, uint8_t ch, enum literal how)
{
    if (how == HEXED || ch < ' ' || ch > '~')
        out->n += (size_t)sprintf((char *)out->p + out->n, "\\x%02x", ch);
    else if (ch == '"' || ch == '\\' || ch == '\'')
        out->n += (size_t)sprintf((char *)out->p + out->n, "\\%c", ch);
    else
        out->p[out->n++] = ch;
}

static void literal(struct buf *out, const struct buf *text, enum literal how)
{
    static const char *const start[] = {"\"", "b'", "(\"", "'''\n", "(\"", "[\"", "\"", "\""};
    static const char *const cut[] = {"", "", "\"\n  '", "\n", "\"+\"", "\",\"", "", ""};
    static const char *const end[] = {"\"", "'", "')", "'''", "\")", "\"]", "\"", "\""};
    puts_(out, start[how]);
    for (size_t i = 0; i < text->n; i++) {
        if (i && i % 400 == 0) /* ADJACENT changes the kind of quote at its one cut */
            puts_(out, how == ADJACENT && i != 400 ? "" : cut[how]);
        character(out, text->p[i], how);
    }
    puts_(out, how == ADJACENT && text->n <= 400 ? "\")" : end[how]);
}

/* The form with its @ replaced by the literal. */
static struct buf wrapped(const char *form, const struct buf *text, enum literal how)
{
    struct buf out = buf_new(8 * text->n + strlen(form) + 4096);
    for (; *form; form++)
        if (*form == '@')
            literal(&out, text, how);
        else
            out.p[out.n++] = (uint8_t)*form;
    return out;
}

/* ---- families ---- */

#define LZ "import lzma as L,base64 as B\n"
#define Z  "import zlib,base64\n"

static const struct {
    const char *name;
    enum how how;
    int codec; /* -1: none */
    enum literal literal;
    const char *form, *family;
    bool guessed;
} cases[] = {
    {"xz, base85", XZ, TEXT_B85, ONE, LZ "exec(L.decompress(B.b85decode(@)))", "lzma-xz+b85",
     false},
    {"raw LZMA2", LZMA2, TEXT_B85, ONE,
     LZ
     "exec(L.decompress(B.b85decode(@),format=L.FORMAT_RAW,filters=[{\"id\":L.FILTER_LZMA2}]))\n",
     "lzma2-raw+b85", false},
    {"raw LZMA1 with properties", LZMA1, TEXT_B85, BYTES,
     LZ
     "exec(L.decompress(B.b85decode(@),L.FORMAT_RAW,None,[{'id':L.FILTER_LZMA1,'lc':2,'lp':0}]))",
     "lzma1-raw+b85", false},
    {"delta in front", DELTA, TEXT_B64, ONE,
     LZ "F=[dict(),{'id':3,'dist':1},{'id':33}][1:]\n"
        "exec(L.decompress(B.b64decode(@),format=3,filters=F))",
     "delta.lzma2-raw+b64", false},
    {"LZMA-alone", ALONE, TEXT_B85, ADJACENT, LZ "exec(L.decompress(B.b85decode(@)))",
     "lzma-alone+b85", false},
    {"LZMADecompressor", LZMA2, TEXT_B85, ONE,
     LZ "exec(L.LZMADecompressor(L.FORMAT_RAW,filters=[{'id':L.FILTER_LZMA2}])"
        ".decompress(B.b85decode(@)))",
     "lzma2-raw+b85", false},
    {"zlib, base64", ZLIB, TEXT_B64, TRIPLE,
     Z "exec(zlib.decompress(base64.b64decode(@)).decode())", "zlib+b64", false},
    {"raw deflate", DEFLATE, TEXT_B85, PLUS,
     Z "exec(zlib.decompress(base64.b85decode(@), wbits=-15))", "deflate-raw+b85", false},
    {"decompressobj", GZIP, TEXT_B64, ONE,
     Z "d=zlib.decompressobj(16+zlib.MAX_WBITS)\nexec(d.decompress(base64.b64decode(@)))",
     "gzip+b64", false},
    {"gzip", GZIP, TEXT_HEX, ONE, "import gzip\nexec(gzip.decompress(bytes.fromhex(@)))",
     "gzip+hex", false},
    {"unhexlify", ZLIB, TEXT_HEX, ONE,
     "import zlib,binascii\nexec(zlib.decompress(binascii.unhexlify(@)))", "zlib+hex", false},
    {"brotli", BROTLI, TEXT_B85, ONE,
     "import brotli as B,base64 as A\nexec(B.decompress(A.b85decode(@)))\n", "brotli+b85", false},
    {"zstd, ascii85", ZSTD, TEXT_A85, ONE,
     "import zstandard,base64\n"
     "exec(zstandard.ZstdDecompressor().decompress(base64.a85decode(@),max_output_size=1<<20))",
     "zstd+a85", false},
    {"base32", ZLIB, TEXT_B32, ONE, Z "exec(zlib.decompress(base64.b32decode(@)))", "zlib+b32",
     false},
    {"z85", ZLIB, TEXT_Z85, ONE, Z "exec(zlib.decompress(base64.z85decode(@)))", "zlib+z85", false},
    {"bytes as they are", ZLIB, -1, BYTES, "import zlib\nexec(zlib.decompress(@))", "zlib+bytes",
     false},
    {"characters below 256", ZLIB, -1, LATIN,
     "import zlib\nexec(zlib.decompress(@.encode('latin-1')))", "zlib+bytes", false},
    {"every character escaped", ZLIB, TEXT_B64, HEXED,
     Z "exec(zlib.decompress(base64.b64decode(@)))", "zlib+b64", false},
    {"from import, other names", XZ, TEXT_B85, ONE,
     "from lzma import decompress as d\nfrom base64 import (b85decode as b,)\ne=exec\ne(d(b(@)))",
     "lzma-xz+b85", false},
    {"star import", ZLIB, TEXT_B64, ONE,
     "from zlib import *\nimport base64\nexec(decompress(base64.b64decode(@)))", "zlib+b64", false},
    {"__import__", ZLIB, TEXT_B64, ONE,
     "exec(__import__('zlib').decompress(__import__('base64').b64decode(@)))", "zlib+b64", false},
    {"getattr", ZLIB, TEXT_B64, ONE,
     Z "exec(getattr(zlib,'decom'+'press')(getattr(base64,'b64decode')(@)))", "zlib+b64", false},
    {"steps with names and compile", XZ, TEXT_B85, ONE,
     LZ "raw: bytes = B.b85decode(@)\nsrc = L.decompress(raw).decode('utf-8')\n"
        "code = compile(src, __file__, 'exec')\nif __name__ == '__main__':\n    exec(code, "
        "globals())\n",
     "lzma-xz+b85", false},
    {"a function of its own", ZLIB, TEXT_B64, ONE,
     Z
     "def un(s, n=1):\n    '''doc'''\n    t = base64.b64decode(s)\n    return zlib.decompress(t)\n"
     "def main():\n    exec(un(DATA))\nDATA = @\nmain()\n",
     "zlib+b64", false},
    {"a lambda", ZLIB, TEXT_B64, ONE,
     Z "u=lambda s:zlib.decompress(base64.b64decode(s))\nexec(u(@))", "zlib+b64", false},
    {"joined pieces", ZLIB, TEXT_B64, LIST, Z "exec(zlib.decompress(base64.b64decode(''.join(@))))",
     "zlib+b64", false},
    {"blanks taken out", XZ, TEXT_B85, TRIPLE,
     LZ "exec(L.decompress(B.b85decode(''.join(@.split()))))", "lzma-xz+b85", false},
    {"lines taken out", XZ, TEXT_B85, TRIPLE,
     LZ "exec(L.decompress(B.b85decode(@.replace('\\n',''))))", "lzma-xz+b85", false},
    {"walrus and subscript", ZLIB, TEXT_B64, ONE,
     Z "t={'a':[zlib.decompress,base64.b64decode]}\n(d:=t['a'][0])\nexec(d(t['a'][1](@)))",
     "zlib+b64", false},
    {"two names at once", ZLIB, TEXT_B64, ONE,
     Z "d,b=zlib.decompress,base64.b64decode;exec(d(b(@)))", "zlib+b64", false},
    {"codecs", ZLIB, TEXT_HEX, ONE,
     "import codecs\nexec(codecs.decode(codecs.decode(@,'hex'),'zlib'))", "zlib+hex", false},
    {"written to a file and run", ZLIB, TEXT_B64, ONE,
     Z "import runpy\nopen('/tmp/m.py','wb').write(zlib.decompress(base64.b64decode(@)))\n"
       "runpy.run_path('/tmp/m.py')\n",
     "zlib+b64", false},
    {"linecache", XZ, TEXT_B85, ONE,
     LZ "import linecache\ns=L.decompress(B.b85decode(@)).decode()\n"
        "linecache.cache[__file__]=(len(s),None,s.splitlines(True),__file__)\n"
        "exec(compile(s,__file__,'exec'))\n",
     "lzma-xz+b85", false},
    {"documentation string", ZLIB, TEXT_B64, ONE,
     "@\nimport zlib,base64\n"
     "exec(zlib.decompress(base64.b64decode(__doc__)))\n",
     "zlib+b64", false},
    {"comment of the file itself", ZLIB, TEXT_B64, ONE,
     Z "exec(zlib.decompress(base64.b64decode(open(__file__).read().split('#'+'#')[1])))\n##",
     "self", false},
    {"last line of the file itself", ZLIB, TEXT_B64, ONE,
     Z "from pathlib import Path\nt=Path(__file__).read_text().splitlines()[-1][1:]\n"
       "exec(zlib.decompress(base64.b64decode(t)))\n#",
     "self", false},
    {"a decoder that is not known", XZ, TEXT_B85, ONE, "import mine\nrun = mine.start(@)\n",
     "lzma-xz+b85", true},
    {"not known, raw LZMA2", LZMA2, TEXT_B85, ONE, "import mine\nmine.start(@)\n", "lzma2-raw+b85",
     true},
    {"not known, brotli", BROTLI, TEXT_B64, ONE, "import mine\nmine.start(@)\n", "brotli+b64",
     true},
};

static void families(void **state)
{
    (void)state;
    struct buf src = program(150);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct unwrap u;
        struct err e = {0};
        char family[128];
        struct buf pk = packed(cases[i].how, src.p, src.n);
        struct buf text =
            cases[i].codec < 0 ? pk : coded((enum text_codec)cases[i].codec, pk.p, pk.n);
        bool self = !strcmp(cases[i].family, "self");
        struct buf file = wrapped(cases[i].form, &text, cases[i].literal);
        if (self) /* the payload stands behind the code, in a comment */
            put(&file, text.p, text.n);
        EXPECT(cases[i].name, ERR_OK, "", unwrap(&u, file.p, file.n, "t.py", &e), e);
        unwrap_family(&u, family, sizeof family);
        if (u.parts != 2 || u.main != 1)
            fail_msg("%s: %zu parts, main %zu, note \"%s\"", cases[i].name, u.parts, u.main,
                     u.notes ? u.note[0].text : "");
        if (strcmp(family, self ? "zlib+b64+self" : cases[i].family) ||
            u.part[1].guessed != cases[i].guessed || !u.part[1].python)
            fail_msg("%s: family %s, guessed %d", cases[i].name, family, u.part[1].guessed);
        if (u.part[1].size != src.n || memcmp(u.part[1].text, src.p, src.n) ||
            u.part[1].packed != pk.n)
            fail_msg("%s: %zu bytes from %zu, expected %zu from %zu", cases[i].name, u.part[1].size,
                     u.part[1].packed, src.n, pk.n);
        if (!cases[i].guessed && !self && cases[i].codec >= 0 && cases[i].literal != TRIPLE &&
            u.part[1].coded != text.n)
            fail_msg("%s: %zu characters, expected %zu", cases[i].name, u.part[1].coded, text.n);
        unwrap_free(&u);
        free(file.p);
        if (cases[i].codec >= 0)
            free(text.p);
        free(pk.p);
    }
    free(src.p);
}

/* bzip2 1.0.8 made these from "import os\n" and forty times "print('bz2 7')\n". */
static const char bz2_hex[] =
    "425a683931415926535963dc9edf0000b55980001040e010801023dc10200050a1a698000a95064d034f5371"
    "19b88fb023023511811423911a88e6847908ab66c236114bd08a11f8bb9229c284831ee4f6f8";

static void bzip2(void **state)
{
    (void)state;
    char form[1024];
    struct unwrap u;
    struct err e = {0};
    snprintf(form, sizeof form, "import bz2\nexec(bz2.decompress(bytes.fromhex('%s')))\n", bz2_hex);
    assert_int_equal(unwrap(&u, form, strlen(form), "t.py", &e), ERR_OK);
    if (u.parts != 2 || u.part[1].size != 10 + 40 * 15 ||
        memcmp(u.part[1].text, "import os\nprint('bz2 7')\nprint(", 31))
        fail_msg("bz2: %zu parts, note \"%s\"", u.parts, u.notes ? u.note[0].text : "");
    assert_string_equal(u.part[1].family, "bz2+hex");
    unwrap_free(&u);
    for (size_t i = 0; i < strlen(bz2_hex); i++) { /* a flipped bit never passes the checksum */
        char *at = form + 43 + i, was = *at;
        *at = was == '0' ? '1' : '0';
        assert_int_equal(unwrap(&u, form, strlen(form), "t.py", &e), ERR_OK);
        if (u.parts > 1 && memcmp(u.part[1].text, "import os\nprint('bz2 7')\n", 25))
            fail_msg("digit %zu of the bz2 stream changed, and it was taken", i);
        unwrap_free(&u);
        *at = was;
    }
}

/* ---- wrappers in wrappers ---- */

static void nested(void **state)
{
    (void)state;
    struct buf src = program(100), inner = src;
    char family[256];
    struct unwrap u;
    struct err e = {0};
    for (int depth = 1; depth <= UNWRAP_DEPTH + 1; depth++) {
        struct buf pk = packed(depth % 2 ? XZ : ZLIB, inner.p, inner.n),
                   text = coded(TEXT_B85, pk.p, pk.n);
        struct buf file = wrapped(depth % 2 ? LZ "exec(L.decompress(B.b85decode(@)))"
                                            : Z "exec(zlib.decompress(base64.b85decode(@)))",
                                  &text, ONE);
        if (inner.p != src.p)
            free(inner.p);
        inner = file;
        free(pk.p);
        free(text.p);
        assert_int_equal(unwrap(&u, file.p, file.n, "t.py", &e), ERR_OK);
        unwrap_family(&u, family, sizeof family);
        if (depth == 2)
            assert_string_equal(family, "zlib+b85 > lzma-xz+b85");
        bool whole = u.part[u.main].size == src.n && !memcmp(u.part[u.main].text, src.p, src.n);
        /* beyond the limit it says so and does not go on */
        if (whole != (depth <= UNWRAP_DEPTH) || (!whole && !u.notes))
            fail_msg("%d wrappers: %zu parts, %zu bytes", depth, u.parts, u.part[u.main].size);
        unwrap_free(&u);
    }
    free(inner.p);
    free(src.p);
}

/* One expression decodes twice: the family names both, packer by packer. */
static void twice(void **state)
{
    (void)state;
    struct buf src = program(100), pk = packed(ZLIB, src.p, src.n), t = coded(TEXT_B64, pk.p, pk.n);
    struct buf pk2 = packed(XZ, t.p, t.n), t2 = coded(TEXT_B85, pk2.p, pk2.n);
    struct buf file = wrapped("import lzma as L,base64 as B,zlib\n"
                              "exec(zlib.decompress(B.b64decode(L.decompress(B.b85decode(@)))))",
                              &t2, ONE);
    struct unwrap u;
    struct err e = {0};
    assert_int_equal(unwrap(&u, file.p, file.n, "t.py", &e), ERR_OK);
    assert_int_equal(u.parts, 2);
    assert_string_equal(u.part[1].family, "zlib+b64+lzma-xz+b85");
    assert_int_equal(u.part[1].size, src.n);
    unwrap_free(&u);
    free(file.p);
    free(t2.p);
    free(pk2.p);
    free(t.p);
    free(pk.p);
    free(src.p);
}

/* ---- what is no wrapper, or cannot be decoded ---- */

static const struct {
    const char *name, *text, *note;
    bool other;
} refused[] = {
    {"empty", "", NULL, false},
    {"plain", "import os\nprint('hello')\n", NULL, false},
    {"a comment", "# exec(lzma.decompress(base64.b85decode('abc')))\nx = 1\n", NULL, false},
    {"a string", "s = \"exec(zlib.decompress(base64.b64decode('eJw=')))\"\n", NULL, false},
    {"weights", "import lzma\nd = lzma.decompress(open('model.ptz','rb').read())\n", NULL, false},
    {"method eval", "model.eval()\nimport re\nr = re.compile('a')\n", NULL, false},
    {"not readable", "exec(input())\n", "cannot be told", false},
    {"another file", "exec(open('other.py').read())\n", "other.py", true},
    {"another file by its neighbour", "exec(open(__file__.replace('a.py','b.py')).read())\n",
     "b.py", true},
    {"a path", "from pathlib import Path\nexec((Path(__file__).parent/'x.py').read_text())", "x.py",
     true},
    {"runpy", "import runpy\nrunpy.run_path('y.py')\n", "y.py", true},
    {"subprocess", "import subprocess, sys\nsubprocess.run([sys.executable, 'z.py'])\n", "z.py",
     true},
    {"damaged", "import zlib\nexec(zlib.decompress(bytes.fromhex('789c010203')))\n", "damaged",
     false},
    {"pickle", "import pickle\nf = pickle.loads(b'\\x80\\x04')\n", "not looked into", false},
    {"unbalanced", "exec((((('\n\x00\xff\xfe)]}", NULL, false},
    {"deep", NULL, NULL, false},
};

static void refusals(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(refused); i++) {
        struct unwrap u;
        struct err e = {0};
        struct buf deep = buf_new(200000);
        memset(deep.p, '(', 100000); /* brackets, and lambdas that hold lambdas */
        for (size_t k = 0; k < 12000; k++)
            memcpy(deep.p + 100000 + 7 * k, "lambda:", 7);
        memcpy(deep.p, "exec(", 5);
        const char *text = refused[i].text ? refused[i].text : (char *)deep.p;
        EXPECT(refused[i].name, ERR_OK, "", unwrap(&u, text, strlen(text), "t.py", &e), e);
        bool noted = false;
        for (size_t k = 0; k < u.notes; k++)
            noted |= refused[i].note && strstr(u.note[k].text, refused[i].note);
        if (u.parts != 1 || u.main || noted != (refused[i].note != NULL) ||
            u.other_file != refused[i].other)
            fail_msg("%s: %zu parts, other file %d, %zu notes, first \"%s\"", refused[i].name,
                     u.parts, u.other_file, u.notes, u.notes ? u.note[0].text : "");
        unwrap_free(&u);
        free(deep.p);
    }
}

/* Forty megabytes of zeros in forty kilobytes, ten times over, and a value doubled again and again.
 */
static void bombs(void **state)
{
    (void)state;
    struct buf zeros = buf_new((size_t)40 << 20), pk, text, file;
    struct unwrap u;
    struct err e = {0};
    zeros.n = (size_t)40 << 20;
    pk = deflate_with(15, zeros.p, zeros.n);
    text = coded(TEXT_B85, pk.p, pk.n);
    file = wrapped(Z "s=@\nfor i in (1,2,3):\n    exec(zlib.decompress(base64.b85decode(s)))\n"
                     "exec(zlib.decompress(base64.b85decode(s)))\nexec(zlib.decompress("
                     "base64.b85decode(s)))\nexec(zlib.decompress(base64.b85decode(s)))\n",
                   &text, ONE);
    assert_int_equal(unwrap(&u, file.p, file.n, "t.py", &e), ERR_OK);
    assert_true(u.bomb);
    assert_int_equal(u.parts, 1);
    unwrap_free(&u);
    file.n = (size_t)sprintf((char *)file.p, "a='x'*1000000\n");
    for (int i = 0; i < 60; i++)
        puts_(&file, "a=a+a\nb=a*9\n");
    puts_(&file, "exec(a)\ndef f(x): return f(x+'y')+f(x)\nexec(f('z'))\n");
    assert_int_equal(unwrap(&u, file.p, file.n, "t.py", &e), ERR_OK);
    unwrap_free(&u);
    EXPECT("too long", ERR_INPUT, "more than any script",
           unwrap(&u, zeros.p, (size_t)UNWRAP_MAX + 1, "t.py", &e), e);
    unwrap_free(&u);
    free(file.p);
    free(text.p);
    free(pk.p);
    free(zeros.p);
}

/* Cut off anywhere, or with one byte changed, a wrapper gives the source or nothing of it. */
static void damage(void **state)
{
    (void)state;
    struct buf src = program(30), pk = packed(XZ, src.p, src.n), text = coded(TEXT_B85, pk.p, pk.n);
    struct buf file = wrapped(LZ "exec(L.decompress(B.b85decode(@)))", &text, ONE);
    uint64_t seed = 7;
    for (size_t i = 0; i < file.n + 400; i++) {
        struct unwrap u;
        struct err e = {0};
        size_t n = i < file.n ? i : file.n;
        struct guarded g = guarded_new(file.p, n);
        if (i >= file.n)
            g.p[util_below(&seed, n)] ^= (uint8_t)(1 + util_below(&seed, 255));
        assert_int_equal(unwrap(&u, g.p, n, "t.py", &e), ERR_OK);
        for (size_t k = 1; k < u.parts; k++)
            if (u.part[k].python &&
                (u.part[k].size != src.n || memcmp(u.part[k].text, src.p, src.n)))
                fail_msg("damage %zu: %zu bytes of something else", i, u.part[k].size);
        unwrap_free(&u);
        guarded_free(&g);
    }
    free(file.p);
    free(text.p);
    free(pk.p);
    free(src.p);
}

/* A large script that carries a small helper is the main part itself. */
static void helper(void **state)
{
    (void)state;
    struct buf src = program(60), pk = packed(ZLIB, src.p, src.n),
               text = coded(TEXT_B64, pk.p, pk.n);
    struct buf file = wrapped(
        Z "h = zlib.decompress(base64.b64decode(@))\nopen('h.py','wb').write(h)\n", &text, ONE);
    struct buf large = program(400);
    struct unwrap u;
    struct err e = {0};
    struct buf both = buf_new(file.n + large.n);
    put(&both, file.p, file.n);
    put(&both, large.p, large.n);
    assert_int_equal(unwrap(&u, both.p, both.n, "t.py", &e), ERR_OK);
    assert_int_equal(u.parts, 2);
    assert_int_equal(u.main, 0);
    assert_int_equal(u.part[1].size, src.n);
    unwrap_free(&u);
    free(both.p);
    free(large.p);
    free(file.p);
    free(text.p);
    free(pk.p);
    free(src.p);
}

/* A Latin-1 script holds its packed bytes in a literal as they are; PEP 263. */
static void latin(void **state)
{
    (void)state;
    struct buf src = program(80), pk = packed(DEFLATE, src.p, src.n), file = buf_new(4 * BIG);
    struct unwrap u;
    struct err e = {0};
    puts_(&file, "#coding:L1\nimport zlib\nexec(zlib.decompress(bytes('");
    for (size_t i = 0; i < pk.n; i++)
        if (pk.p[i] == '\r' || pk.p[i] == '\n' || !pk.p[i] || pk.p[i] == '\\' || pk.p[i] == '\'')
            character(&file, pk.p[i], HEXED);
        else
            file.p[file.n++] = pk.p[i];
    puts_(&file, "','L1'),-9))\n");
    assert_int_equal(unwrap(&u, file.p, file.n, "t.py", &e), ERR_OK);
    if (u.parts != 2 || u.part[1].size != src.n || memcmp(u.part[1].text, src.p, src.n))
        fail_msg("Latin-1: %zu parts, note \"%s\"", u.parts, u.notes ? u.note[0].text : "");
    unwrap_free(&u);
    free(file.p);
    free(pk.p);
    free(src.p);
}

/* ---- the wrapped scripts among the recorded folders ---- */

static void records(void **state)
{
    (void)state;
    const char *path = util_shared("fixtures/records/expected.json");
    size_t n = 0, seen = 0;
    if (!path)
        return;
    char *json = (char *)util_slurp(path, &n);
    cJSON *all = cJSON_Parse(json);
    const cJSON *f;
    cJSON_ArrayForEach(f, cJSON_GetObjectItem(all, "folders"))
    {
        const cJSON *code = cJSON_GetObjectItem(f, "code"),
                    *w = cJSON_GetObjectItem(code, "wrapper");
        const char *folder = cJSON_GetObjectItem(f, "folder")->valuestring;
        const cJSON *script = cJSON_GetObjectItem(code, "main");
        char file[700], family[128];
        struct unwrap u;
        struct err e = {0};
        if (!cJSON_IsString(script))
            continue;
        snprintf(file, sizeof file, "../shared/fixtures/records/%s/%s", folder,
                 script->valuestring);
        uint8_t *text = util_slurp(file, &n);
        assert_non_null(text);
        EXPECT(folder, ERR_OK, "", unwrap(&u, text, n, file, &e), e);
        unwrap_family(&u, family, sizeof family);
        const char *kind = w ? cJSON_GetObjectItem(w, "kind")->valuestring : "none";
        size_t bytes = w ? (size_t)cJSON_GetObjectItem(w, "decoded_bytes")->valuedouble : n;
        if (strcmp(family, kind) || u.part[u.main].size != bytes || u.notes)
            fail_msg("%s: %s, %zu bytes, %zu notes; expected %s, %zu bytes", folder, family,
                     u.part[u.main].size, u.notes, kind, bytes);
        seen += w != NULL;
        unwrap_free(&u);
        free(text);
    }
    assert_true(seen >= 2);
    cJSON_Delete(all);
    free(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families), cmocka_unit_test(bzip2),    cmocka_unit_test(nested),
        cmocka_unit_test(twice),    cmocka_unit_test(refusals), cmocka_unit_test(bombs),
        cmocka_unit_test(damage),   cmocka_unit_test(helper),   cmocka_unit_test(latin),
        cmocka_unit_test(records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
