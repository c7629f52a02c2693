/*
 * pickle_test.c - exists for the day somebody's weights are a program: a pickle can name any
 * function of Python and call it. Each way of doing that must be refused by name, every value must
 * come out as Python means it, and no damage may lead outside the input or past the bounds.
 */
#include "model/reader.h"
#include "packer/pickle.h"
#include "tests/unit/util.h"

#define BYTES(s) s, sizeof(s) - 1

static const struct pickle_global allowed[] = {{"data.thing", PICKLE_AS_CALL},
                                               {"collections.OrderedDict", PICKLE_AS_DICT},
                                               {"_codecs.encode", PICKLE_AS_BYTES},
                                               {"torch.Size", PICKLE_AS_SAME},
                                               {NULL, PICKLE_AS_CALL}};

/* ---- values, as Python prints them ---- */

static void show(char **at, char *end, const struct pickle_value *v, unsigned depth);

static void put(char **at, char *end, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(*at, (size_t)(end - *at), fmt, ap);
    va_end(ap);
    *at += n < end - *at ? n : end - *at - 1;
}

static void show_items(char **at, char *end, const struct pickle_value *v, unsigned depth)
{
    for (size_t i = 0; i < v->n; i++) {
        put(at, end, i ? ", " : "");
        if (v->kind == PICKLE_DICT) {
            show(at, end, v->item[2 * i], depth);
            put(at, end, ": ");
            show(at, end, v->item[2 * i + 1], depth);
        } else {
            show(at, end, v->item[i], depth);
        }
    }
}

static void show(char **at, char *end, const struct pickle_value *v, unsigned depth)
{
    if (depth == 8) {
        put(at, end, "...");
        return;
    }
    switch (v->kind) {
    case PICKLE_NONE:
        put(at, end, "None");
        break;
    case PICKLE_BOOL:
        put(at, end, v->i ? "True" : "False");
        break;
    case PICKLE_INT:
        put(at, end, "%lld", (long long)v->i);
        break;
    case PICKLE_FLOAT:
        put(at, end, "%g", v->f);
        break;
    case PICKLE_STR:
        put(at, end, "\"%s\"", v->text);
        break;
    case PICKLE_BYTES:
        put(at, end, "b\"%.*s\"", (int)v->n, v->text);
        break;
    case PICKLE_TUPLE:
        put(at, end, "(");
        show_items(at, end, v, depth + 1);
        put(at, end, v->n == 1 ? ",)" : ")");
        break;
    case PICKLE_LIST:
        put(at, end, "[");
        show_items(at, end, v, depth + 1);
        put(at, end, "]");
        break;
    case PICKLE_DICT:
        put(at, end, "{");
        show_items(at, end, v, depth + 1);
        put(at, end, "}");
        break;
    case PICKLE_GLOBAL:
        put(at, end, "%s", allowed[v->i].name);
        break;
    case PICKLE_CALL:
        put(at, end, "%s", allowed[v->i].name);
        show_items(at, end, v, depth + 1);
        break;
    case PICKLE_PERSID:
        put(at, end, "stored ");
        show(at, end, v->item[0], depth + 1);
        break;
    }
}

/* Every protocol's pickle of the same list, as CPython 3.11 writes it. */
static const struct {
    const char *name, *data;
    size_t n;
} protocols[] = {
    {"protocol 0",
     BYTES("(lp0\nI1\naI-2\naI300\naI70000\naI-5\naL1099511627776L\naL-4611686018427387904L"
           "\naI01\naI00\naNaF1.5\naVabc\np1\na(ta(I1\ntp2\na(I1\nI2\ntp3\na(I1\nI2\nI3\ntp4"
           "\na(I1\nI2\nI3\nI4\ntp5\na(lp6\na(dp7\na(dp8\nVa\np9\nI1\nsa(dp10\ng9\n(lp11\nI1"
           "\nasVb\np12\n(dp13\nsa.")},
    {"protocol 1",
     BYTES("]q\x00(K\x01J\xfe\xff\xff\xffM,\x01Jp\x11\x01\x00J\xfb\xff\xff\xffL1099511627776"
           "L\nL-4611686018427387904L\nI01\nI00\nNG\x3f\xf8\x00\x00\x00\x00\x00\x00X\x03\x00"
           "\x00\x00"
           "abcq\x01)(K\x01tq\x02(K\x01K\x02tq\x03(K\x01K\x02K\x03tq\x04(K\x01K"
           "\x02K\x03K\x04tq\x05]q\x06}q\x07}q\x08X\x01\x00\x00\x00"
           "aq\x09K\x01s}q\n(h\x09]"
           "q\x0bK\x01"
           "aX\x01\x00\x00\x00"
           "bq\x0c}q\x0due.")},
    {"protocol 2",
     BYTES("\x80\x02]q\x00(K\x01J\xfe\xff\xff\xffM,\x01Jp\x11\x01\x00J\xfb\xff\xff\xff\x8a"
           "\x06\x00\x00\x00\x00\x00\x01\x8a\x08\x00\x00\x00\x00\x00\x00\x00\xc0\x88\x89NG"
           "\x3f\xf8\x00\x00\x00\x00\x00\x00X\x03\x00\x00\x00"
           "abcq\x01)K\x01\x85q\x02K\x01K"
           "\x02\x86q\x03K\x01K\x02K\x03\x87q\x04(K\x01K\x02K\x03K\x04tq\x05]q\x06}q\x07}q"
           "\x08X\x01\x00\x00\x00"
           "aq\x09K\x01s}q\n(h\x09]q\x0bK\x01"
           "aX\x01\x00\x00\x00"
           "bq"
           "\x0c}q\x0due.")},
    {"protocol 3",
     BYTES("\x80\x03]q\x00(K\x01J\xfe\xff\xff\xffM,\x01Jp\x11\x01\x00J\xfb\xff\xff\xff\x8a"
           "\x06\x00\x00\x00\x00\x00\x01\x8a\x08\x00\x00\x00\x00\x00\x00\x00\xc0\x88\x89NG"
           "\x3f\xf8\x00\x00\x00\x00\x00\x00X\x03\x00\x00\x00"
           "abcq\x01)K\x01\x85q\x02K\x01K"
           "\x02\x86q\x03K\x01K\x02K\x03\x87q\x04(K\x01K\x02K\x03K\x04tq\x05]q\x06}q\x07}q"
           "\x08X\x01\x00\x00\x00"
           "aq\x09K\x01s}q\n(h\x09]q\x0bK\x01"
           "aX\x01\x00\x00\x00"
           "bq"
           "\x0c}q\x0due.")},
    {"protocol 4",
     BYTES("\x80\x04\x95y\x00\x00\x00\x00\x00\x00\x00]\x94(K\x01J\xfe\xff\xff\xffM,\x01Jp"
           "\x11\x01\x00J\xfb\xff\xff\xff\x8a\x06\x00\x00\x00\x00\x00\x01\x8a\x08\x00\x00"
           "\x00\x00\x00\x00\x00\xc0\x88\x89NG\x3f\xf8\x00\x00\x00\x00\x00\x00\x8c\x03"
           "abc"
           "\x94)K\x01\x85\x94K\x01K\x02\x86\x94K\x01K\x02K\x03\x87\x94(K\x01K\x02K\x03K\x04"
           "t\x94]\x94}\x94}\x94\x8c\x01"
           "a\x94K\x01s}\x94(h\x09]\x94K\x01"
           "a\x8c\x01"
           "b\x94"
           "}\x94ue.")},
    {"protocol 5",
     BYTES("\x80\x05\x95y\x00\x00\x00\x00\x00\x00\x00]\x94(K\x01J\xfe\xff\xff\xffM,\x01Jp"
           "\x11\x01\x00J\xfb\xff\xff\xff\x8a\x06\x00\x00\x00\x00\x00\x01\x8a\x08\x00\x00"
           "\x00\x00\x00\x00\x00\xc0\x88\x89NG\x3f\xf8\x00\x00\x00\x00\x00\x00\x8c\x03"
           "abc"
           "\x94)K\x01\x85\x94K\x01K\x02\x86\x94K\x01K\x02K\x03\x87\x94(K\x01K\x02K\x03K\x04"
           "t\x94]\x94}\x94}\x94\x8c\x01"
           "a\x94K\x01s}\x94(h\x09]\x94K\x01"
           "a\x8c\x01"
           "b\x94"
           "}\x94ue.")},
};

static const char list[] =
    "[1, -2, 300, 70000, -5, 1099511627776, -4611686018427387904, True, False, None, 1.5, \"abc\", "
    "(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], {}, {\"a\": 1}, {\"a\": [1], \"b\": {}}]";

static const struct {
    const char *name, *data;
    size_t n;
    const char *want;
} values[] = {
    {"bytes and sets",
     BYTES("\x80\x05\x95&\x00\x00\x00\x00\x00\x00\x00]\x94("
           "C\x02xy\x94\x96\x01\x00\x00\x00\x00\x00\x00"
           "\x00z\x94\x8f\x94(K\x01\x90(K\x02\x91\x94\x8c\x01x\x94h\x05"
           "e."),
     "[b\"xy\", b\"z\", [1], [2], \"x\", \"x\"]"},
    {"call",
     BYTES("\x80\x02"
           "cdata\nthing\nK\x01\x85R."),
     "data.thing(1,)"},
    {"call and state",
     BYTES("\x80\x02"
           "cdata\nthing\n)R}b."),
     "data.thing(), {}"},
    {"global by name",
     BYTES("\x80\x04\x8c\x04"
           "data\x8c\x05thing\x93."),
     "data.thing"},
    {"ordered",
     BYTES("\x80\x02"
           "ccollections\nOrderedDict\n)RK\x01K\x02s}b."),
     "{1: 2}"},
    {"stored", BYTES("\x80\x02K\x07Q."), "stored 7"},
    {"stored, in text", BYTES("Pname\n."), "stored \"name\""},
    {"itself",
     BYTES("\x80\x02]q\x00h\x00"
           "a."),
     "[[[[[[[[...]]]]]]]]"},
    {"thrown away",
     BYTES("\x80\x02(K\x01K\x02"
           "1K\x03K\x04"
           "0"
           "2\x86."),
     "(3, 3)"},
    {"old strings",
     BYTES("\x80\x02U\x01"
           "aT\x01\x00\x00\x00"
           "b\x86."),
     "(\"a\", \"b\")"},
    {"long strings",
     BYTES("\x80\x04\x8d\x01\x00\x00\x00\x00\x00\x00\x00"
           "a."),
     "\"a\""},
    {"bytes as protocol 2 has them",
     BYTES("\x80\x02"
           "c_codecs\nencode\nX\x05\x00\x00\x00"
           "a\xc3\xbf\xc2\x80X\x06\x00\x00\x00latin1\x86R."),
     "b\"a\xff\x80\""},
    {"no bytes",
     BYTES("\x80\x02"
           "c_codecs\nencode\n)R."),
     "b\"\""},
    {"bytes of bytes",
     BYTES("\x80\x03"
           "c_codecs\nencode\nC\x01"
           "a\x85R."),
     "b\"a\""},
    {"size",
     BYTES("\x80\x02"
           "ctorch\nSize\nK\x02K\x03\x86\x85R."),
     "(2, 3)"},
    {"no number", BYTES("\x80\x02\x8a\x00."), "0"},
    {"a negative byte", BYTES("\x80\x02\x8a\x01\xff."), "-1"},
    {"what follows", BYTES("\x80\x02N.garbage"), "None"},
};

static void check_value(const char *name, const char *data, size_t n, const char *want)
{
    char text[1024], *at = text;
    struct guarded g = guarded_new(data, n);
    struct pickle p;
    struct err e = {0};
    EXPECT(name, ERR_OK, "", pickle_parse(&p, g.p, n, allowed, "file", &e), e);
    show(&at, text + sizeof text, p.root, 0);
    if (strcmp(text, want))
        fail_msg("%s: %s, expected %s", name, text, want);
    pickle_free(&p);
    pickle_free(&p);
    guarded_free(&g);
}

static void reads_values(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(protocols); i++)
        check_value(protocols[i].name, protocols[i].data, protocols[i].n, list);
    for (size_t i = 0; i < COUNT(values); i++)
        check_value(values[i].name, values[i].data, values[i].n, values[i].want);
}

static void finds_keys(void **state)
{
    static const char data[] = "\x80\x02}(X\x01\x00\x00\x00"
                               "aK\x01X\x01\x00\x00\x00"
                               "bK\x02X\x01\x00\x00\x00"
                               "aK\x03u.";
    struct pickle p;
    struct err e = {0};
    (void)state;
    EXPECT("dict", ERR_OK, "", pickle_parse(&p, BYTES(data), allowed, "file", &e), e);
    assert_int_equal(pickle_get(p.root, "a")->i, 3);
    assert_int_equal(pickle_get(p.root, "b")->i, 2);
    assert_null(pickle_get(p.root, "c"));
    assert_null(pickle_get(NULL, "a"));
    assert_null(pickle_get(pickle_get(p.root, "a"), "a"));
    assert_true(pickle_is(p.root->item[0], "a"));
    assert_false(pickle_is(p.root->item[0], "ab"));
    assert_int_equal(p.used, sizeof data - 1);
    pickle_free(&p);
}

/* ---- what must be refused, and what the message must name ---- */

static const struct {
    const char *name, *data;
    size_t n;
    const char *part;
} hostile[] = {
    {"os.system", BYTES("cos\nsystem\n(S'id'\ntR."), "the global os.system is not accepted"},
    {"posix.system", BYTES("\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x85R."),
     "the global posix.system is not accepted"},
    {"eval",
     BYTES("\x80\x02"
           "cbuiltins\neval\nX\x01\x00\x00\x00"
           "1\x85R."),
     "the global builtins.eval"},
    {"attribute of an allowed name",
     BYTES("\x80\x04\x8c\x04"
           "data\x8c\x0bthing.other\x93."),
     "the global data.thing.other"},
    {"split elsewhere", BYTES("cdat\na.thing\n."), "the global dat.a.thing"},
    {"module only", BYTES("cdata\n\n."), "the global data. "},
    {"INST", BYTES("(S'id'\nios\nsystem\n."), "INST"},
    {"OBJ", BYTES("(cdata\nthing\no."), "OBJ"},
    {"NEWOBJ",
     BYTES("\x80\x02"
           "cdata\nthing\n)\x81."),
     "NEWOBJ"},
    {"NEWOBJ_EX",
     BYTES("\x80\x04"
           "cdata\nthing\n)}\x92."),
     "NEWOBJ_EX"},
    {"EXT1", BYTES("\x80\x02\x82\x01."), "EXT1"},
    {"NEXT_BUFFER", BYTES("\x80\x05\x97."), "NEXT_BUFFER"},
    {"READONLY_BUFFER", BYTES("\x80\x05N\x98."), "READONLY_BUFFER"},
    {"calling a string",
     BYTES("\x80\x02X\x01\x00\x00\x00"
           "a)R."),
     "wrong kind"},
    {"calling a call",
     BYTES("\x80\x02"
           "cdata\nthing\n)R)R."),
     "wrong kind"},
    {"arguments that are no tuple",
     BYTES("\x80\x02"
           "cdata\nthing\n]R."),
     "wrong kind"},
    {"OrderedDict of something",
     BYTES("\x80\x02"
           "ccollections\nOrderedDict\nN\x85R."),
     "with arguments"},
    {"bytes with other letters",
     BYTES("\x80\x02"
           "c_codecs\nencode\nX\x02\x00\x00\x00\xc4\x80X\x06\x00\x00\x00latin1\x86R."),
     "other characters"},
    {"bytes with half a letter",
     BYTES("\x80\x02"
           "c_codecs\nencode\nX\x01\x00\x00\x00\xc3X\x06\x00\x00\x00latin1\x86R."),
     "other characters"},
    {"bytes by another codec",
     BYTES("\x80\x02"
           "c_codecs\nencode\nX\x01\x00\x00\x00"
           "aX\x05\x00\x00\x00rot13\x86R."),
     "_codecs.encode with arguments"},
    {"size of a number",
     BYTES("\x80\x02"
           "ctorch\nSize\nK\x02\x85R."),
     "torch.Size with arguments"},
    {"state of a number", BYTES("\x80\x02K\x01}b."), "BUILD"},
    {"state twice",
     BYTES("\x80\x02"
           "cdata\nthing\n)R}b}b."),
     "BUILD"},
    {"unknown opcode", BYTES("\x80\x02\xff."), "0xff is no opcode"},
    {"protocol 6", BYTES("\x80\x06N."), "protocol 6"},
    {"nothing", BYTES(""), "end in the middle"},
    {"no STOP", BYTES("\x80\x02N"), "end in the middle"},
    {"nothing to return", BYTES("\x80\x02."), "missing on the stack"},
    {"across a mark", BYTES("\x80\x02N(\x85."), "missing on the stack"},
    {"no mark", BYTES("\x80\x02t."), "mark is missing"},
    {"empty slot", BYTES("\x80\x02h\x05."), "slot 5 holds nothing"},
    {"far slot", BYTES("\x80\x02Nr\xff\xff\xff\xff."), "slot 4294967295"},
    {"negative slot", BYTES("Np-1\n."), "no number"},
    {"key without value", BYTES("\x80\x02}(K\x01u."), "key and no value"},
    {"dict of three", BYTES("(I1\nI2\nI3\nd."), "key and no value"},
    {"append to a tuple",
     BYTES("\x80\x02)K\x01"
           "a."),
     "no list"},
    {"item of a list", BYTES("\x80\x02]K\x01K\x02s."), "no dictionary"},
    {"wide integer", BYTES("\x80\x02\x8a\x09\x01\x00\x00\x00\x00\x00\x00\x00\x01."), "9 bytes"},
    {"wide decimal", BYTES("L99999999999999999999L\n."), "no integer of 64 bits"},
    {"no decimal", BYTES("Ix\n."), "no integer"},
    {"no float", BYTES("Fx\n."), "no number"},
    {"escapes", BYTES("S'\\x41'\n."), "escapes"},
    {"no quotes", BYTES("Sabc\n."), "quotes"},
    {"string of 2 GB",
     BYTES("\x80\x02X\xff\xff\xff\x7f"
           "ab."),
     "end in the middle"},
    {"string of 2^63",
     BYTES("\x80\x04\x8d\x00\x00\x00\x00\x00\x00\x00\x80"
           "ab."),
     "end in the middle"},
    {"bytes of 2^64-1", BYTES("\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xff."),
     "end in the middle"},
};

static void refuses(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(hostile); i++) {
        struct guarded g = guarded_new(hostile[i].data, hostile[i].n);
        struct pickle p;
        struct err e = {0};
        EXPECT(hostile[i].name, ERR_INPUT, hostile[i].part,
               pickle_parse(&p, g.p, hostile[i].n, allowed, "file", &e), e);
        assert_null(p.arena);
        guarded_free(&g);
    }
}

/* One opcode many times: levels, values, memory. */
static void bounds(void **state)
{
    static const struct {
        const char *name, *before, *again, *after;
        size_t times;
        const char *part; /* NULL: accepted */
    } cases[] = {
        {"marks at the bound", "", "(", "", PICKLE_MAX_DEPTH, "mid"},
        {"marks", "", "(", ".", PICKLE_MAX_DEPTH + 1, "levels"},
        {"tuples at the bound", ")", "\x85", ".", PICKLE_MAX_DEPTH, NULL},
        {"tuples", ")", "\x85", ".", PICKLE_MAX_DEPTH + 1, "levels"},
        {"lists", "]",
         "]q\x01"
         "0"
         "(h\x01"
         "e",
         ".", 100, NULL},
        {"values at the bound", "N", "0N", ".", PICKLE_MAX_VALUES - 1, NULL},
        {"values", "", "N", ".", PICKLE_MAX_VALUES + 1, "values"},
        {"copies", "N", "2", ".", PICKLE_MAX_VALUES, "values"},
        {"one list", "]", "Na", ".", PICKLE_MAX_VALUES - 1, NULL},
        {"text as bytes",
         "c_codecs\nencode\nq\x01"
         "0Vabcdefgh\nq\x02"
         "0Vlatin1\nq\x03"
         "0",
         "h\x01h\x02h\x03\x86R0", "N.", 1000, NULL},
        {"text as bytes, longer than all of it",
         "c_codecs\nencode\nq\x01"
         "0Vabcdefghijklmnopqrstuvwxyz\nq\x02"
         "0Vlatin1\nq\x03"
         "0",
         "h\x01h\x02h\x03\x86R0", "N.", 1000, "more bytes are made of text"},
        {"itself", "]q\x01",
         "h\x01"
         "a",
         ".", 1000, "levels"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        size_t a = strlen(cases[i].before), b = strlen(cases[i].again), c = strlen(cases[i].after);
        size_t n = a + b * cases[i].times + c;
        char *data = malloc(n + 1), *at = data;
        struct pickle p;
        struct err e = {0};
        assert_non_null(data);
        memcpy(at, cases[i].before, a), at += a;
        for (size_t k = 0; k < cases[i].times; k++, at += b)
            memcpy(at, cases[i].again, b);
        memcpy(at, cases[i].after, c);
        enum err_code want = cases[i].part ? ERR_INPUT : ERR_OK;
        EXPECT(cases[i].name, want, cases[i].part ? cases[i].part : "",
               pickle_parse(&p, data, n, allowed, "file", &e), e);
        pickle_free(&p);
        free(data);
    }
}

/* ---- damage by machine ---- */

static void every_truncation(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(protocols); i++)
        for (size_t cut = 0; cut < protocols[i].n; cut++) {
            struct guarded g = guarded_new(protocols[i].data, cut);
            struct pickle p;
            struct err e = {0};
            char label[64];
            snprintf(label, sizeof label, "%s, first %zu bytes", protocols[i].name, cut);
            EXPECT(label, ERR_INPUT, "file: pickle, byte ",
                   pickle_parse(&p, g.p, cut, allowed, "file", &e), e);
            guarded_free(&g);
        }
}

static void every_bit(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(protocols); i++) {
        struct guarded g = guarded_new(protocols[i].data, protocols[i].n);
        for (size_t bit = 0; bit < 8 * protocols[i].n; bit++) {
            char text[1024], *at = text;
            struct pickle p;
            struct err e = {0};
            g.p[bit / 8] ^= (uint8_t)(1 << bit % 8);
            enum err_code rc = pickle_parse(&p, g.p, protocols[i].n, allowed, "file", &e);
            if (rc != ERR_OK && rc != ERR_INPUT)
                fail_msg("%s, bit %zu: status %d \"%s\"", protocols[i].name, bit, rc, e.msg);
            if (!rc)
                show(&at, text + sizeof text, p.root, 0);
            pickle_free(&p);
            g.p[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        guarded_free(&g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_values),     cmocka_unit_test(finds_keys),
        cmocka_unit_test(refuses),          cmocka_unit_test(bounds),
        cmocka_unit_test(every_truncation), cmocka_unit_test(every_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
