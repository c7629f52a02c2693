/*
 * overlap_test - guards against validation text in the training shards that goes unseen: in another
 * order, across the border of two shards, as the last document; and against documents that only
 * begin alike being called the same.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/shard.h"
#include "trainer/overlap.h"

static char dir[64];

/* A document for each letter: the id 1, then `long` tokens that only this letter has; a capital is
 * the same with another last token. '|' begins the next shard, '.' is a document too short to
 * count, '-' one token without a document. */
static void write_split(const char *kind, const char *docs)
{
    enum { LONG = 40 };
    for (int shard = 0; docs; shard++) {
        uint16_t tok[2048];
        int32_t head[256] = {SHARD_MAGIC, SHARD_VERSION};
        size_t n = 0;
        const char *next = strchr(docs, '|');
        for (; *docs && *docs != '|'; docs++) {
            int len = *docs == '.' ? 3 : *docs == '-' ? 0 : LONG;
            if (*docs == '/') { /* the shard's border falls into this document */
                tok[n++] = 1;
                for (int i = 0; i < LONG / 2; i++)
                    tok[n++] = (uint16_t)(100 * 'x' % 60000 + i);
                continue;
            }
            if (*docs == '\\') { /* and this is the rest of it */
                for (int i = LONG / 2; i < LONG; i++)
                    tok[n++] = (uint16_t)(100 * 'x' % 60000 + i);
                continue;
            }
            tok[n++] = *docs == '-' ? 7 : 1;
            int letter = *docs | 32;
            for (int i = 0; i < len; i++)
                tok[n++] = (uint16_t)(100 * letter % 60000 + i);
            if (*docs >= 'A' && *docs <= 'Z')
                tok[n - 1] = 9;
        }
        char path[128];
        head[2] = (int32_t)n;
        snprintf(path, sizeof path, "%s/t_%s_%06d.bin", dir, kind, shard);
        FILE *f = fopen(path, "wb");
        assert_non_null(f);
        fwrite(head, 4, 256, f);
        fwrite(tok, 2, n, f);
        fclose(f);
        docs = next ? next + 1 : NULL;
    }
}

static void clear(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
}

static void splits(void **state)
{
    static const struct {
        const char *name, *val, *train;
        uint64_t docs, shared;
    } cases[] = {
        {"none", "ab", "cd", 2, 0},
        {"one", "ab", "cad", 2, 1},
        {"all, in another order", "abc", "cba", 3, 3},
        {"the last one", "ab", "cb", 2, 1},
        {"another last token", "ab", "AB", 2, 0},
        {"twice in one split", "aab", "ca", 3, 2},
        {"twice in the other", "ab", "aa", 2, 1},
        {"across a border", "x", "a/|\\b", 1, 1},
        {"across a border of the validation", "a/|\\b", "cx", 3, 1},
        {"too short", ".a", ".b", 1, 0},
        {"tokens in front of the first document", "-a", "-a", 1, 1},
    };
    size_t wrong = 0;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct overlap o;
        struct err e = {0};
        strcpy(dir, "/tmp/overlap_testXXXXXX");
        assert_non_null(mkdtemp(dir));
        write_split("val", cases[i].val);
        write_split("train", cases[i].train);
        enum err_code rc = overlap_find(&o, dir, 1, &e);
        if (rc || o.docs != cases[i].docs || o.shared != cases[i].shared ||
            o.tokens != 41 * o.shared) {
            print_message("%s: %d %s, %llu of %llu, %llu tokens\n", cases[i].name, (int)rc, e.msg,
                          (unsigned long long)o.shared, (unsigned long long)o.docs,
                          (unsigned long long)o.tokens);
            wrong++;
        }
        clear();
    }
    assert_int_equal(wrong, 0);
}

static void missing(void **state)
{
    struct overlap o;
    struct err e = {0};
    (void)state;
    strcpy(dir, "/tmp/overlap_testXXXXXX");
    assert_non_null(mkdtemp(dir));
    write_split("val", "a");
    assert_int_equal(overlap_find(&o, dir, 1, &e), ERR_INPUT);
    assert_non_null(strstr(e.msg, "_train_"));
    clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(splits), cmocka_unit_test(missing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
