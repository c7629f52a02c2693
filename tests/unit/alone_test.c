/*
 * alone_test.c - exists for the stand-ins of `make test-gpu` (tests/gpu/alone) that are not what
 * they stand for: a hash of another value, a header that is read or written otherwise, an access
 * beyond the end. cjson.c is a part of this program, so safetensors.c uses it here, not the
 * library.
 */
#include "tests/gpu/alone/cjson.c"
#include "tests/gpu/alone/xxhash.h"

#include "model/safetensors.h"
#include "tests/unit/util.h"
#include "trainer/hash.h"

/* All lengths around the steps of 1, 4, 8 and 32 bytes, at once and in pieces: the library's. */
static void hashes(void **state)
{
    uint8_t data[300];
    uint64_t s = 1;
    (void)state;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)util_next(&s);
    for (size_t n = 0; n <= sizeof data; n++) {
        XXH64_state_t *h = XXH64_createState();
        uint64_t want = hash_bytes(data, n, n % 3), got;
        assert_non_null(h);
        XXH64_reset(h, n % 3);
        for (size_t at = 0, more; at < n; at += more) {
            more = util_below(&s, 70) + 1;
            more = more < n - at ? more : n - at;
            XXH64_update(h, data + at, more);
        }
        got = XXH64_digest(h);
        XXH64_freeState(h);
        if (XXH64(data, n, n % 3) != want || got != want)
            fail_msg("%zu bytes: %016llx, in pieces %016llx", n,
                     (unsigned long long)XXH64(data, n, n % 3), (unsigned long long)got);
    }
}

/* What is read, printed again; NULL: refused. */
static const struct {
    const char *text, *printed;
} texts[] = {
    {"{}", "{}"},
    {" [ ] ", "[]"},
    {"{\"a\": [1, -2.5e1, 9007199254740992]}", "{\"a\":[1,-25,9007199254740992]}"},
    {"{\"a\": {\"b\" : \"\"} , \"c\":[[\"d\"]]}", "{\"a\":{\"b\":\"\"},\"c\":[[\"d\"]]}"},
    {"[\"\\\"\\\\\\/\\n\\u0041\\u00e9\\u20ac\\ud83d\\ude00\"]",
     "[\"\\\"\\\\/\\u000aA\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"]"},
    {"", NULL},
    {"{", NULL},
    {"[1,]", NULL},
    {"[1 2]", NULL},
    {"{\"a\"}", NULL},
    {"{\"a\":}", NULL},
    {"{1:2}", NULL},
    {"[\"a]", NULL},
    {"[\"\\q\"]", NULL},
    {"[\"\\u12g4\"]", NULL},
    {"[\"\\ud83d\"]", NULL},
    {"[\"\\ud83d\\u0041\"]", NULL},
    {"[+1]", NULL},
    {"[.5]", NULL},
    {"[tru]", NULL},
};

static void json(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        struct guarded g = guarded_new(texts[i].text, strlen(texts[i].text));
        cJSON *j = cJSON_ParseWithLength((const char *)g.p, strlen(texts[i].text));
        char *printed = cJSON_PrintUnformatted(j);
        if (!printed != !texts[i].printed || (printed && strcmp(printed, texts[i].printed) != 0))
            fail_msg("%s: %s, expected %s", texts[i].text, printed ? printed : "refused",
                     texts[i].printed ? texts[i].printed : "refused");
        free(printed);
        cJSON_Delete(j);
        guarded_free(&g);
    }
}

static void deep(void **state)
{
    char text[2 * DEPTH + 20];
    (void)state;
    for (size_t n = DEPTH - 2; n < DEPTH + 6; n++) {
        memset(text, '[', n);
        memset(text + n, ']', n);
        cJSON *j = cJSON_ParseWithLength(text, 2 * n);
        if (!j != (n > DEPTH + 1))
            fail_msg("%zu levels: %s", n, j ? "read" : "refused");
        cJSON_Delete(j);
    }
}

/* A file as trainer writes it, whole, cut anywhere, and with each byte changed: read or refused. */
static void headers(void **state)
{
    const float x[6] = {1, 2, 3, 4, 5, 6};
    const struct tensor_view t[2] = {{.name = "a.weight",
                                      .dtype = ST_F32,
                                      .ndim = 2,
                                      .shape = {2, 2},
                                      .data = (const uint8_t *)x,
                                      .nbytes = 16},
                                     {.name = "b\"\\",
                                      .dtype = ST_F32,
                                      .ndim = 1,
                                      .shape = {2},
                                      .data = (const uint8_t *)(x + 4),
                                      .nbytes = 8}};
    const char *const meta[] = {"recipe", "A=1\nB=\"2\"\n"};
    struct st_file f;
    struct err e = {0};
    const char *path = util_path("alone.safetensors");
    size_t n = 0;
    (void)state;
    EXPECT("write", ERR_OK, "", st_write(path, t, 2, meta, 1, &e), e);
    uint8_t *data = util_slurp(path, &n);
    assert_non_null(data);
    EXPECT("read", ERR_OK, "", st_parse(&f, data, n, "file", &e), e);
    assert_int_equal(f.count, 2);
    assert_string_equal(f.tensor[1].name, t[1].name);
    assert_string_equal(st_meta(&f, "recipe"), meta[1]);
    assert_memory_equal(f.tensor[0].data, x, 16);
    st_close(&f);
    for (size_t i = 0; i < n; i++) {
        struct guarded g = guarded_new(data, i);
        EXPECT("cut", ERR_INPUT, "", st_parse(&f, g.p, i, "file", &e), e);
        guarded_free(&g);
        g = guarded_new(data, n);
        g.p[i] ^= (uint8_t)(1u << i % 8);
        if (!st_parse(&f, g.p, n, "file", &e))
            st_close(&f);
        guarded_free(&g);
    }
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(hashes), cmocka_unit_test(json),
                                       cmocka_unit_test(deep), cmocka_unit_test(headers)};
    return cmocka_run_group_tests(tests, NULL, util_cleanup);
}
