/*
 * bytes_test - guards against a wrong denominator: bits per byte divides by the bytes of text that
 * the tokens stand for, so one piece counted wrongly flatters every score. Pieces of every type are
 * made here as SentencePiece writes them; the challenge's own tokeniser is compared with the tables
 * of the reference where both lie beside the project. Damaged models and tables must be refused.
 */
#include <cjson/cJSON.h>

#include "model/bytes.h"
#include "model/reader.h"
#include "tests/unit/util.h"

/* ---- a small protobuf writer ---- */

struct out {
    uint8_t b[70000 * 8];
    size_t n;
};

static void varint(struct out *o, uint64_t v)
{
    for (; v > 127; v >>= 7)
        o->b[o->n++] = (uint8_t)(v | 128);
    o->b[o->n++] = (uint8_t)v;
}

static void bytes(struct out *o, unsigned field, const void *data, size_t n)
{
    varint(o, field << 3 | 2);
    varint(o, n);
    memcpy(o->b + o->n, data, n);
    o->n += n;
}

/* One piece: text, score (as SentencePiece always writes it), type (0: left out, which means
 * normal). */
static void piece(struct out *o, const char *text, unsigned type)
{
    struct out *p = calloc(1, sizeof *p);
    if (!p)
        abort();
    bytes(p, 1, text, strlen(text));
    varint(p, 2 << 3 | 5);
    p->n += 4;
    if (type) {
        varint(p, 3 << 3 | 0);
        varint(p, type);
    }
    bytes(o, 1, p->b, p->n);
    free(p);
}

/* With pieces, and behind them a field as long as a trainer specification. */
static struct out *model(void (*fill)(struct out *))
{
    static struct out o;
    o.n = 0;
    fill(&o);
    bytes(&o, 2, "trainer spec", 12);
    return &o;
}

static enum err_code load(struct byte_table *b, const void *data, size_t n, struct err *e)
{
    util_spill(util_path("t.model"), data, n);
    return bytes_from_tokenizer(b, util_path("t.model"), e);
}

/* ---- the rule ---- */

static const struct {
    const char *text;
    unsigned type;
    uint8_t base, flags;
} pieces[] = {
    {"<pad>", 3, 0, BYTES_BOUNDARY},
    {"<unk>", 2, 0, BYTES_BOUNDARY},
    {"unused", 5, 0, BYTES_BOUNDARY},
    {"<0x41>", 6, 1, 0},
    {"a", 1, 1, 0},
    {"abc", 0, 3, 0}, /* type left out */
    {"user", 4, 4, 0},
    {"\xe2\x96\x81", 1, 0, BYTES_LEAD},
    {"\xe2\x96\x81the", 1, 3, BYTES_LEAD},
    {"\xe2\x96\x81\xe2\x96\x81", 1, 3, BYTES_LEAD}, /* only the first stands for a space */
    {"a\xe2\x96\x81", 1, 4, 0},
    {"\xc3\xa9", 1, 2, 0},
    {"\xe2\x96\x80", 1, 3, 0}, /* a neighbour of U+2581 */
    {"\xe2\x96\x81", 3, 0, BYTES_BOUNDARY},
    {"", 1, 0, 0},
};

static void fill_pieces(struct out *o)
{
    for (size_t i = 0; i < COUNT(pieces); i++)
        piece(o, pieces[i].text, pieces[i].type);
}

static void every_type_of_piece(void **state)
{
    struct out *o = model(fill_pieces);
    struct byte_table b;
    struct err e = {0};
    (void)state;
    EXPECT("pieces", ERR_OK, "", load(&b, o->b, o->n, &e), e);
    assert_int_equal(b.vocab, COUNT(pieces));
    for (size_t i = 0; i < COUNT(pieces); i++)
        if (b.base[i] != pieces[i].base || b.flags[i] != pieces[i].flags)
            fail_msg("piece %zu \"%s\" type %u: %u bytes, flags %u", i, pieces[i].text,
                     pieces[i].type, b.base[i], b.flags[i]);
    /* The space of a piece counts unless the one before is a boundary. */
    assert_int_equal(bytes_of(&b, 4, 8), 4);
    assert_int_equal(bytes_of(&b, 0, 8), 3);
    assert_int_equal(bytes_of(&b, 8, 4), 1);
    assert_int_equal(bytes_of(&b, 3, 7), 1);
    assert_int_equal(bytes_of(&b, 1, 7), 0);
    assert_int_equal(bytes_of(&b, 4, 0), 0);
    bytes_free(&b);
    bytes_free(&b);
}

/* Unknown fields of every wire type, in and around pieces, are skipped; a repeated field's last
 * wins. */
static void other_fields(void **state)
{
    struct out *p = calloc(1, sizeof *p), *o = calloc(1, sizeof *o);
    struct byte_table b;
    struct err e = {0};
    (void)state;
    varint(p, 9 << 3 | 0);
    varint(p, UINT64_MAX);
    varint(p, 10 << 3 | 1);
    p->n += 8;
    bytes(p, 1, "first", 5);
    bytes(p, 1, "last one", 8);
    varint(p, 11 << 3 | 5);
    p->n += 4;
    bytes(p, 200, "x", 1);
    varint(o, 15 << 3 | 1);
    o->n += 8;
    varint(o, 16 << 3 | 0);
    varint(o, 300);
    bytes(o, 1, p->b, p->n);
    bytes(o, 3, "normaliser", 10);
    bytes(o, 1, "", 0);
    EXPECT("fields", ERR_OK, "", load(&b, o->b, o->n, &e), e);
    assert_int_equal(b.vocab, 2);
    assert_int_equal(b.base[0], 8);
    assert_int_equal(b.base[1], 0);
    assert_int_equal(b.flags[1], 0);
    bytes_free(&b);
    free(p);
    free(o);
}

/* ---- damage ---- */

static void every_truncation(void **state)
{
    struct out *o = model(fill_pieces);
    size_t good = 0;
    (void)state;
    for (size_t cut = 0; cut < o->n; cut++) {
        struct byte_table b;
        struct err e = {0};
        char label[64];
        snprintf(label, sizeof label, "first %zu of %zu bytes", cut, o->n);
        enum err_code rc = load(&b, o->b, cut, &e);
        if (rc) {
            EXPECT(label, ERR_INPUT, "t.model: not a SentencePiece model", rc, e);
            assert_null(b.base);
            continue;
        }
        /* Protobuf has no length of its own: a cut between two pieces is a smaller model, which the
         * vocabulary of a recipe then refuses. What is there must be the beginning of the table. */
        good++;
        for (size_t i = 0; i < b.vocab; i++)
            if (b.base[i] != pieces[i].base || b.flags[i] != pieces[i].flags)
                fail_msg("%s: piece %zu changed", label, i);
        bytes_free(&b);
    }
    assert_int_equal(good, COUNT(pieces));
}

static void every_bit(void **state)
{
    struct out *o = model(fill_pieces);
    (void)state;
    for (size_t bit = 0; bit < 8 * o->n; bit++) {
        struct byte_table b;
        struct err e = {0};
        o->b[bit / 8] ^= (uint8_t)(1 << bit % 8);
        enum err_code rc = load(&b, o->b, o->n, &e);
        if (rc != ERR_OK && rc != ERR_INPUT)
            fail_msg("bit %zu: status %d %s", bit, rc, e.msg);
        bytes_free(&b);
        o->b[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static void fill_255(struct out *o)
{
    char text[256] = {0};
    memset(text, 'x', 255);
    piece(o, text, 1);
}

static void fill_256(struct out *o)
{
    char text[257] = {0};
    memset(text, 'x', 256);
    piece(o, text, 1);
}

static void fill_65536(struct out *o)
{
    for (size_t i = 0; i < 65536; i++)
        bytes(o, 1, "", 0);
}

static void fill_65537(struct out *o)
{
    fill_65536(o);
    bytes(o, 1, "", 0);
}

static void limits(void **state)
{
    static const struct {
        const char *name;
        void (*fill)(struct out *);
        enum err_code want;
        const char *says;
    } cases[] = {
        {"255 bytes", fill_255, ERR_OK, ""},
        {"256 bytes", fill_256, ERR_INPUT, "not a SentencePiece model"},
        {"65536 pieces", fill_65536, ERR_OK, ""},
        {"65537 pieces", fill_65537, ERR_INPUT, "more than 65536 pieces"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct out *o = model(cases[i].fill);
        struct byte_table b;
        struct err e = {0};
        EXPECT(cases[i].name, cases[i].want, cases[i].says, load(&b, o->b, o->n, &e), e);
        bytes_free(&b);
    }
}

static void models_that_are_none(void **state)
{
    static const struct {
        const char *name, *data;
        size_t n;
    } cases[] = {
        {"empty", "", 0},
        {"text", "# a recipe\nSEED=1\n", 18},
        {"no piece", "\x12\x01x", 3},
        {"length beyond the end", "\x0a\x7f", 2},
        {"length of 2^64-1", "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11},
        {"endless number", "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 13},
        {"group", "\x0a\x00\x0b\x0c", 4},
        {"wire type 7", "\x0a\x00\x0f", 3},
        {"bad piece", "\x0a\x02\x0a\x05", 4},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct byte_table b;
        struct err e = {0};
        EXPECT(cases[i].name, ERR_INPUT, "t.model: not a SentencePiece model",
               load(&b, cases[i].data, cases[i].n, &e), e);
    }
    struct byte_table b;
    struct err e = {0};
    EXPECT("missing", ERR_INPUT, "cannot open",
           bytes_from_tokenizer(&b, util_path("none.model"), &e), e);
}

/* ---- the serialised table ---- */

static void table_round_trip(void **state)
{
    struct out *o = model(fill_pieces);
    uint8_t buf[4 + 2 * COUNT(pieces)];
    struct byte_table b, c;
    struct err e = {0};
    (void)state;
    EXPECT("pieces", ERR_OK, "", load(&b, o->b, o->n, &e), e);
    bytes_serialise(&b, buf);
    assert_int_equal(le32(buf), COUNT(pieces));
    EXPECT("table", ERR_OK, "", bytes_parse(&c, buf, sizeof buf, "t", &e), e);
    assert_int_equal(c.vocab, b.vocab);
    assert_memory_equal(c.base, b.base, b.vocab);
    assert_memory_equal(c.flags, b.flags, b.vocab);
    bytes_free(&b);
    bytes_free(&c);
}

static void tables_that_are_refused(void **state)
{
    uint8_t good[4 + 2 * 5] = {5, 0, 0, 0, 1, 0, 2, 1, 3, 2, 4, 3, 5, 0};
    (void)state;
    for (size_t n = 0; n <= sizeof good; n++) {
        struct guarded g = guarded_new(good, n);
        struct byte_table b;
        struct err e = {0};
        enum err_code rc = bytes_parse(&b, g.p, n, "table", &e);
        if (n < sizeof good)
            EXPECT("truncated", ERR_INPUT, "table: not a byte table", rc, e);
        else
            EXPECT("whole", ERR_OK, "", rc, e);
        bytes_free(&b);
        guarded_free(&g);
    }
    static const struct {
        const char *name;
        size_t at;
        uint8_t value;
        const char *says;
    } cases[] = {
        {"one piece more", 0, 6, "says 6 pieces, holds 14 bytes"},
        {"one piece less", 0, 4, "says 4 pieces"},
        {"zero pieces", 0, 0, "says 0 pieces"},
        {"65541 pieces", 2, 1, "says 65541 pieces"},
        {"2^31 pieces", 3, 0x80, "says 2147483653 pieces"},
        {"unknown flag", 5, 4, "piece 0: unknown flags"},
        {"all flags", 13, 255, "piece 4: unknown flags"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        uint8_t bad[sizeof good];
        struct byte_table b;
        struct err e = {0};
        memcpy(bad, good, sizeof good);
        bad[cases[i].at] = cases[i].value;
        EXPECT(cases[i].name, ERR_INPUT, cases[i].says,
               bytes_parse(&b, bad, sizeof bad, "table", &e), e);
        assert_null(b.base);
    }
}

/* ---- the challenge's tokeniser ---- */

static void check_column(const cJSON *root, const char *name, const uint8_t *base,
                         const uint8_t *flags, unsigned flag)
{
    const cJSON *v = cJSON_GetObjectItem(root, name)->child;
    for (size_t i = 0; v; v = v->next, i++) {
        int have = base ? base[i] : (flags[i] & flag) != 0;
        if (have != v->valueint)
            fail_msg("%s of piece %zu: %d, the reference has %d", name, i, have, v->valueint);
    }
}

static void the_challenges_tokenizer(void **state)
{
    struct byte_table b;
    struct err e = {0};
    size_t n;
    const char *path = util_shared("tokenizers/fineweb_1024_bpe.model");
    (void)state;
    if (!path)
        skip();
    EXPECT("tokeniser", ERR_OK, "", bytes_from_tokenizer(&b, path, &e), e);
    assert_int_equal(b.vocab, 1024);
    path = util_shared("fixtures/parity/tokenizer_1024.json");
    uint8_t *text = path ? util_slurp(path, &n) : NULL;
    cJSON *root = text ? cJSON_Parse((char *)text) : NULL;
    if (root) {
        check_column(root, "base_bytes", b.base, NULL, 0);
        check_column(root, "has_leading_space", NULL, b.flags, BYTES_LEAD);
        check_column(root, "is_boundary", NULL, b.flags, BYTES_BOUNDARY);
        /* And the sums over whole strings, which start after the beginning-of-document token. */
        const cJSON *s = cJSON_GetObjectItem(root, "encode")->child;
        for (; s; s = s->next) {
            const cJSON *id = cJSON_GetObjectItem(s, "ids")->child;
            int sum = 0, want = cJSON_GetObjectItem(s, "lut_bytes_after_bos")->valueint;
            for (uint16_t prev = 1; id; prev = (uint16_t)id->valueint, id = id->next)
                sum += (int)bytes_of(&b, prev, (uint16_t)id->valueint);
            if (sum != want)
                fail_msg("\"%s\": %d bytes, the reference has %d",
                         cJSON_GetObjectItem(s, "text")->valuestring, sum, want);
        }
    }
    cJSON_Delete(root);
    free(text);
    bytes_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_of_piece),
        cmocka_unit_test(other_fields),
        cmocka_unit_test(every_truncation),
        cmocka_unit_test(every_bit),
        cmocka_unit_test(limits),
        cmocka_unit_test(models_that_are_none),
        cmocka_unit_test(table_round_trip),
        cmocka_unit_test(tables_that_are_refused),
        cmocka_unit_test(the_challenges_tokenizer),
    };
    return cmocka_run_group_tests(tests, NULL, util_cleanup);
}
