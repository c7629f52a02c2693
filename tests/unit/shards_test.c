/*
 * shards_test.c - guards against token shards that look right and are not: a document in the wrong
 * split, a token lost at a buffer or shard border, a count that does not match; against a reader
 * that accepts a damaged shard; and against half-written files that stay behind when a write fails.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/reader.h"
#include "trainer/data/shards.h"

static char dir[64]; /* a fresh directory for every test */

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/shards_test.XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

/* The number of files in dir, temporary ones included; with `remove` they are unlinked. */
static int files_in_dir(bool remove)
{
    int n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (const struct dirent *f; (f = readdir(d));)
        if (strcmp(f->d_name, ".") != 0 && strcmp(f->d_name, "..") != 0) {
            n++;
            if (remove)
                assert_int_equal(unlinkat(dirfd(d), f->d_name, 0), 0);
        }
    closedir(d);
    return n;
}

static int remove_dir(void **state)
{
    (void)state;
    files_in_dir(true);
    return rmdir(dir);
}

static struct shards_plan plan_for(uint32_t shard_tokens)
{
    return (struct shards_plan){
        .dir = dir, .name = "t", .vocab = 1024, .bos = SHARDS_BOS, .shard_tokens = shard_tokens};
}

static enum err_code write_text(const struct shards_plan *plan, const char *text, size_t n,
                                struct shards_stats *st, struct err *e)
{
    FILE *in = n ? fmemopen((void *)(uintptr_t)text, n, "r") : fopen("/dev/null", "r");
    assert_non_null(in);
    enum err_code rc = shards_write(plan, in, "input", st, e);
    fclose(in);
    return rc;
}

/* All tokens of a split in shard order, read without the code under test; the caller frees. */
static uint16_t *tokens_of(const char *word, size_t *count, unsigned *files)
{
    uint16_t *all = malloc(1);
    *count = 0;
    for (*files = 0;; ++*files) {
        char path[256];
        uint8_t head[SHARDS_HEADER_BYTES], two[2];
        snprintf(path, sizeof path, "%s/t_%s_%06u.bin", dir, word, *files);
        FILE *f = fopen(path, "rb");
        if (!f)
            return all;
        assert_int_equal(fread(head, 1, sizeof head, f), sizeof head);
        assert_int_equal(le32(head), 20240520);
        assert_int_equal(le32(head + 4), 1);
        for (size_t i = 12; i < sizeof head; i++)
            assert_int_equal(head[i], 0);
        uint32_t n = le32(head + 8);
        all = realloc(all, (*count + n + 1) * sizeof *all);
        assert_non_null(all);
        for (uint32_t i = 0; i < n; i++) {
            assert_int_equal(fread(two, 1, 2, f), 2);
            all[(*count)++] = le16(two);
        }
        assert_int_equal(fread(two, 1, 1, f), 0); /* nothing after the last token */
        fclose(f);
    }
}

static const char *print_tokens(const char *word)
{
    static char text[512];
    size_t count, at = 0;
    unsigned files;
    uint16_t *tok = tokens_of(word, &count, &files);
    text[0] = 0;
    for (size_t i = 0; i < count; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%u", i ? " " : "", tok[i]);
    snprintf(text + at, sizeof text - at, " /%u", files);
    free(tok);
    return text;
}

/* ---- what is written; "1 5 6 /2" means these tokens in two files ---- */

static const struct {
    const char *name, *text;
    uint32_t shard_tokens;
    uint64_t val_docs, val_tokens;
    double val_fraction;
    const char *val, *train;
    uint64_t empty_lines;
} written[] = {
    {"one token", "5\n", 100, 0, 0, 0, " /0", "1 5 /1", 0},
    {"no newline at the end", "5 6\n7 8", 100, 0, 0, 0, " /0", "1 5 6 1 7 8 /1", 0},
    {"blanks of all kinds", "\t5  6 \r\n 7\r\n", 100, 0, 0, 0, " /0", "1 5 6 1 7 /1", 0},
    {"empty lines", "\n5\n\n \n6\n\n", 100, 0, 0, 0, " /0", "1 5 1 6 /1", 4},
    {"leading zeros and the largest id", "0005 1023\n", 100, 0, 0, 0, " /0", "1 5 1023 /1", 0},
    {"id 0", "0 0\n", 100, 0, 0, 0, " /0", "1 0 0 /1", 0},
    {"a shard exactly full", "5 6\n", 3, 0, 0, 0, " /0", "1 5 6 /1", 0},
    {"a document across shards", "5 6 7 8 9\n", 4, 0, 0, 0, " /0", "1 5 6 7 8 9 /2", 0},
    {"shards of one token", "5 6\n7\n", 1, 0, 0, 0, " /0", "1 5 6 1 7 /5", 0},
    {"first document held out", "5\n6 7\n8\n", 100, 1, 0, 0, "1 5 /1", "1 6 7 1 8 /1", 0},
    {"empty lines are not counted", "\n5\n\n6\n", 100, 1, 0, 0, "1 5 /1", "1 6 /1", 2},
    {"more held out than there are", "5\n6\n", 100, 9, 0, 0, "1 5 1 6 /1", " /0", 0},
    {"held out by tokens", "5 6\n7\n8\n", 100, 0, 4, 0, "1 5 6 1 7 /1", "1 8 /1", 0},
    {"held out by tokens, met exactly", "5 6\n7\n8\n", 100, 0, 3, 0, "1 5 6 /1", "1 7 1 8 /1", 0},
    {"half, spread", "5\n6\n7\n8\n", 100, 0, 0, 0.5, "1 6 1 8 /1", "1 5 1 7 /1", 0},
    {"all", "5\n6\n", 100, 0, 0, 1, "1 5 1 6 /1", " /0", 0},
    {"both splits over several shards", "5 6\n7 8\n5\n6\n", 2, 2, 0, 0, "1 5 6 1 7 8 /3",
     "1 5 1 6 /2", 0},
};

static void test_written(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof written / sizeof *written; i++) {
        struct err e = {0};
        struct shards_stats st = {0};
        struct shards_plan p = plan_for(written[i].shard_tokens);
        p.val_docs = written[i].val_docs;
        p.val_tokens = written[i].val_tokens;
        p.val_fraction = written[i].val_fraction;
        if (write_text(&p, written[i].text, strlen(written[i].text), &st, &e))
            fail_msg("%s: %s", written[i].name, e.msg);
        const char *val = print_tokens("val");
        if (strcmp(val, written[i].val) != 0)
            fail_msg("%s: val %s, expected %s", written[i].name, val, written[i].val);
        const char *train = print_tokens("train");
        if (strcmp(train, written[i].train) != 0)
            fail_msg("%s: train %s, expected %s", written[i].name, train, written[i].train);
        if (st.empty_lines != written[i].empty_lines)
            fail_msg("%s: %d empty lines", written[i].name, (int)st.empty_lines);
        if ((uint64_t)files_in_dir(true) != st.val.files + st.train.files)
            fail_msg("%s: files left beside the shards", written[i].name);
    }
}

/* ---- what is refused, and that nothing stays behind ---- */

static const struct {
    const char *name, *text;
    enum err_code code;
    const char *message;
} refused[] = {
    {"nothing", "", ERR_INPUT, "no documents"},
    {"only empty lines", "\n \n\n", ERR_INPUT, "no documents"},
    {"a word", "5 6\n7 hello\n", ERR_INPUT, "line 2: byte 'h'"},
    {"a minus", "5 -6\n", ERR_INPUT, "line 1: byte '-'"},
    {"a byte over 127", "5 \xc3\xa4\n", ERR_INPUT, "byte 0xc3"},
    {"an id at the vocabulary", "5 1024\n", ERR_INPUT, "id 1024, expected ids below 1024"},
    {"an id over 32 bits", "4294967297\n", ERR_INPUT, "over 4294967295"},
    {"an id over 64 bits", "99999999999999999999999999\n", ERR_INPUT, "over 4294967295"},
    {"bos in the text", "5\n1 5\n", ERR_INPUT, "line 2: id 1 opens a document"},
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct err e = {0};
        struct shards_stats st;
        struct shards_plan p = plan_for(1);
        enum err_code rc = write_text(&p, refused[i].text, strlen(refused[i].text), &st, &e);
        if (rc != refused[i].code || e.code != rc || !strstr(e.msg, refused[i].message))
            fail_msg("%s: code %d, message \"%s\"", refused[i].name, (int)rc, e.msg);
        if (files_in_dir(false) != 0)
            fail_msg("%s: files were left behind", refused[i].name);
    }
}

static void test_wrong_plans(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t vocab, bos, shard_tokens;
        uint64_t val_docs, val_tokens;
        double val_fraction;
    } wrong[] = {
        {"no vocabulary", 0, 1, 10, 0, 0, 0},
        {"vocabulary over uint16", 65537, 1, 10, 0, 0, 0},
        {"bos outside the vocabulary", 4, 4, 10, 0, 0, 0},
        {"empty shards", 4, 1, 0, 0, 0, 0},
        {"shards over int32", 4, 1, 2147483648u, 0, 0, 0},
        {"two rules", 4, 1, 10, 1, 1, 0},
        {"fraction over 1", 4, 1, 10, 0, 0, 1.5},
        {"fraction below 0", 4, 1, 10, 0, 0, -0.1},
        {"fraction not a number", 4, 1, 10, 0, 0, (double)NAN},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct err e = {0};
        struct shards_stats st;
        struct shards_plan p = plan_for(wrong[i].shard_tokens);
        p.vocab = wrong[i].vocab;
        p.bos = wrong[i].bos;
        p.val_docs = wrong[i].val_docs;
        p.val_tokens = wrong[i].val_tokens;
        p.val_fraction = wrong[i].val_fraction;
        if (write_text(&p, "2\n", 2, &st, &e) != ERR_USAGE)
            fail_msg("%s: was accepted", wrong[i].name);
    }
}

/* A long input with ids and lines across every buffer border, against the same made directly. */
static void test_long_input(void **state)
{
    (void)state;
    enum { DOCS = 400, IDS = 300000 };
    char *text = malloc(IDS * 5 + DOCS + 16);
    uint16_t *expected = malloc((IDS + DOCS) * sizeof *expected);
    size_t at = 0, n = 0;
    uint32_t seed = 7;
    assert_true(text && expected);
    for (int i = 0; i < IDS; i++) {
        seed = seed * 1664525u + 1013904223u;
        uint16_t id = (uint16_t)(2 + (seed >> 8) % 1022);
        /* the first line alone is longer than the buffer */
        bool opens = i == 0 || (i > 100000 && i % 500 == 0);
        if (opens) {
            if (i)
                text[at++] = '\n';
            expected[n++] = SHARDS_BOS;
        }
        at += (size_t)sprintf(text + at, opens ? "%u" : " %u", id);
        expected[n++] = id;
    }
    struct err e = {0};
    struct shards_stats st = {0};
    struct shards_plan p = plan_for(77777);
    if (write_text(&p, text, at, &st, &e))
        fail_msg("%s", e.msg);
    size_t count;
    unsigned files;
    uint16_t *got = tokens_of("train", &count, &files);
    assert_int_equal(count, n);
    assert_int_equal(st.train.tokens, n);
    assert_int_equal(files, (n + 77776) / 77777);
    for (size_t i = 0; i < n; i++)
        if (got[i] != expected[i])
            fail_msg("token %zu of %zu: %u, expected %u", i, n, got[i], expected[i]);

    /* the check must count the same */
    struct shards_count sum = {0};
    for (unsigned i = 0; i < files; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/t_train_%06u.bin", dir, i);
        if (shards_check(path, 1024, SHARDS_BOS, &sum, &e))
            fail_msg("%s", e.msg);
    }
    assert_memory_equal(&sum, &st.train, sizeof sum);
    free(got);
    free(expected);
    free(text);
}

/* ---- directories ---- */

static void test_replace(void **state)
{
    (void)state;
    struct err e = {0};
    struct shards_stats st;
    struct shards_plan p = plan_for(2);
    p.val_docs = 1;
    assert_int_equal(write_text(&p, "2\n3\n4\n5\n", 8, &st, &e), ERR_OK);
    assert_int_equal(files_in_dir(false), 4);

    /* without replace: refused, all as before */
    assert_int_equal(write_text(&p, "7\n", 2, &st, &e), ERR_USAGE);
    assert_string_equal(print_tokens("train"), "1 3 1 4 1 5 /3");

    /* a failing run with replace keeps the old ones */
    p.replace = true;
    e = (struct err){0};
    assert_int_equal(write_text(&p, "7\n8\nx\n", 6, &st, &e), ERR_INPUT);
    assert_int_equal(files_in_dir(false), 4);
    assert_string_equal(print_tokens("train"), "1 3 1 4 1 5 /3");

    /* a shorter run removes what the longer one left, and only shards of its own name */
    char other[256];
    snprintf(other, sizeof other, "%s/u_train_000007.bin", dir);
    fclose(fopen(other, "w"));
    e = (struct err){0};
    assert_int_equal(write_text(&p, "7\n8\n", 4, &st, &e), ERR_OK);
    assert_string_equal(print_tokens("val"), "1 7 /1");
    assert_string_equal(print_tokens("train"), "1 8 /1");
    assert_int_equal(files_in_dir(false), 3);
}

static void test_directory_that_cannot_be_written(void **state)
{
    (void)state;
    static const char *const dirs[] = {"/proc/nothing", "/dev/null", "/nowhere/below"};
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
        struct err e = {0};
        struct shards_stats st;
        struct shards_plan p = plan_for(10);
        p.dir = dirs[i];
        if (write_text(&p, "5\n", 2, &st, &e) != ERR_RESOURCE || !strstr(e.msg, dirs[i]))
            fail_msg("%s: message \"%s\"", dirs[i], e.msg);
    }
    struct err e = {0};
    struct shards_stats st;
    struct shards_plan p = plan_for(10);
    assert_int_equal(chmod(dir, 0555), 0);
    enum err_code rc = write_text(&p, "5\n", 2, &st, &e);
    assert_int_equal(chmod(dir, 0755), 0);
    if (geteuid() != 0) /* root writes there all the same */
        assert_int_equal(rc, ERR_RESOURCE);
}

/* The first write finds no space: the temporary name is a link to /dev/full. */
static void test_full_disk(void **state)
{
    (void)state;
    char link[256];
    struct err e = {0};
    struct shards_stats st;
    struct shards_plan p = plan_for(10);
    snprintf(link, sizeof link, "%s/.t_train_000000.bin.tmp", dir);
    assert_int_equal(symlink("/dev/full", link), 0);
    assert_int_equal(write_text(&p, "5\n", 2, &st, &e), ERR_RESOURCE);
    assert_non_null(strstr(e.msg, "No space left"));
    assert_int_equal(files_in_dir(false), 0);
}

/* Every write in turn fails, by a limit on the size of a file that grows until none does. */
static void test_every_write_fails(void **state)
{
    (void)state;
    enum { IDS = 50000, STEP = 4099 }; /* the file is 101,026 bytes; STEP is prime */
    char *text = malloc(IDS * 2 + 1);
    struct rlimit old, limit;
    bool done = false;
    assert_non_null(text);
    for (int i = 0; i < IDS; i++)
        memcpy(text + 2 * i, "7 ", 3);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, SIG_IGN);
    limit = old;
    for (rlim_t at = 0; !done; at += STEP) {
        struct err e = {0};
        struct shards_stats st;
        struct shards_plan p = plan_for(1000000);
        limit.rlim_cur = at;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        enum err_code rc = write_text(&p, text, IDS * 2, &st, &e);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        done = rc == ERR_OK;
        if (done != (at >= SHARDS_HEADER_BYTES + 2 * (IDS + 1)) || (!done && rc != ERR_RESOURCE))
            fail_msg("limit %d: code %d, message \"%s\"", (int)at, (int)rc, e.msg);
        if (!done && files_in_dir(false) != 0)
            fail_msg("limit %d: files were left behind", (int)at);
    }
    free(text);
}

static void test_stop(void **state)
{
    (void)state;
    static volatile sig_atomic_t stop = 1;
    struct err e = {0};
    struct shards_stats st;
    struct shards_plan p = plan_for(1);
    p.stop = &stop;
    assert_int_equal(write_text(&p, "5 6 7\n", 6, &st, &e), ERR_RESOURCE);
    assert_int_equal(files_in_dir(false), 0);
}

/* ---- checking ---- */

static enum err_code check_bytes(const uint8_t *data, size_t n, uint32_t vocab, struct err *e)
{
    char path[256];
    struct shards_count sum = {0};
    snprintf(path, sizeof path, "%s/x.bin", dir);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    enum err_code rc = shards_check(path, vocab, SHARDS_BOS, &sum, e);
    assert_int_equal(sum.files, rc == ERR_OK);
    return rc;
}

static void test_damaged_shards(void **state)
{
    (void)state;
    enum { TOKENS = 5, BYTES = SHARDS_HEADER_BYTES + 2 * TOKENS };
    uint8_t good[BYTES + 2] = {0};
    struct err e = {0};
    put_le32(good, SHARDS_MAGIC);
    put_le32(good + 4, SHARDS_VERSION);
    put_le32(good + 8, TOKENS);
    good[SHARDS_HEADER_BYTES] = SHARDS_BOS;
    good[BYTES - 1] = 3; /* the last token is 768 */
    assert_int_equal(check_bytes(good, BYTES, 1024, &e), ERR_OK);

    for (size_t n = 0; n < BYTES; n++) {
        e = (struct err){0};
        if (check_bytes(good, n, 1024, &e) != ERR_INPUT)
            fail_msg("cut to %zu bytes: was accepted", n);
    }
    e = (struct err){0};
    assert_int_equal(check_bytes(good, BYTES + 1, 1024, &e), ERR_INPUT);
    assert_int_equal(check_bytes(good, BYTES + 2, 1024, &e), ERR_INPUT);
    for (size_t bit = 0; bit < 12 * 8; bit++) {
        e = (struct err){0};
        good[bit / 8] ^= (uint8_t)(1 << bit % 8);
        if (check_bytes(good, BYTES, 1024, &e) != ERR_INPUT)
            fail_msg("header bit %zu flipped: was accepted", bit);
        good[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    e = (struct err){0};
    assert_int_equal(check_bytes(good, BYTES, 769, &e), ERR_OK);
    assert_int_equal(check_bytes(good, BYTES, 768, &e), ERR_INPUT);
    assert_non_null(strstr(e.msg, "token 4 has id 768"));

    struct shards_count sum = {0};
    e = (struct err){0};
    assert_int_equal(shards_check("/nowhere/x.bin", 1024, 1, &sum, &e), ERR_INPUT);
    e = (struct err){0};
    assert_int_equal(shards_check(dir, 1024, 1, &sum, &e), ERR_INPUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_written, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_refused, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_wrong_plans, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_long_input, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_replace, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_directory_that_cannot_be_written, make_dir,
                                        remove_dir),
        cmocka_unit_test_setup_teardown(test_full_disk, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_every_write_fails, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_stop, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_damaged_shards, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
