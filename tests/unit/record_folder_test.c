/*
 * record_folder_test - guards against an audit that leaves the folder: symbolic links that are
 * followed, pipes that hang it, trees without end, and file names that forge lines.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/file.h"
#include "verify/record_folder.h"

static char root[64];

static const char *path_of(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", root, name);
    return path;
}

static void put(const char *name, const char *text)
{
    struct err e = {0};
    char dir[512];
    snprintf(dir, sizeof dir, "%s", path_of(name));
    *strrchr(dir, '/') = 0;
    assert_int_equal(dir_make(dir, &e), ERR_OK);
    assert_int_equal(file_write(path_of(name), text, strlen(text), &e), ERR_OK);
}

static int setup(void **state)
{
    (void)state;
    strcpy(root, "/tmp/record_folder_XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int teardown(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

static void kinds(void **state)
{
    static const struct {
        const char *name;
        enum record_kind kind;
    } cases[] = {
        {"README.md", RECORD_README},
        {"submission.json", RECORD_META},
        {"train.log", RECORD_LOG},
        {"logs/train0.txt", RECORD_LOG},
        {"requirements.txt", RECORD_OTHER},
        {"train_gpt.py", RECORD_SCRIPT},
        {"ngram/kernel.cpp", RECORD_CODE},
        {"run.sh", RECORD_CODE},
        {"model.int6.ptz", RECORD_WEIGHTS},
        {"x.model", RECORD_TOKENIZER},
        {"pic.png", RECORD_OTHER},
        {"sub/submission.json", RECORD_OTHER},
        {"a b c/train seed.LOG", RECORD_LOG},
    };
    struct record_folder f;
    struct err e = {0};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        put(cases[i].name, "text");
    put(".git/config", "hidden");
    assert_int_equal(record_folder_read(&f, path_of("/"), &e), ERR_OK);
    assert_int_equal(f.files, sizeof cases / sizeof *cases);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct record_file *r = record_folder_find(&f, cases[i].name);
        if (!r || r->kind != cases[i].kind || r->size != 4)
            fail_msg("%s: kind %d", cases[i].name, r ? (int)r->kind : -1);
    }
    assert_null(record_folder_find(&f, "pic.png")->text);
    assert_string_equal(record_folder_find(&f, "train.log")->text, "text");
    assert_int_equal(f.notes, 0);
    record_folder_free(&f);
}

static void nothing_outside(void **state)
{
    struct record_folder f;
    struct err e = {0};
    (void)state;
    put("train.log", "x");
    assert_int_equal(symlink("/etc/passwd", path_of("submission.json")), 0);
    assert_int_equal(symlink("/", path_of("logs")), 0);
    assert_int_equal(symlink("train.log", path_of("b.log")), 0);
    assert_int_equal(mkfifo(path_of("pipe.log"), 0600), 0);
    assert_int_equal(record_folder_read(&f, root, &e), ERR_OK);
    assert_int_equal(f.files, 1);
    assert_int_equal(f.notes, 4);
    record_folder_free(&f);
}

static void deep(void **state)
{
    char name[256] = "train.log";
    struct record_folder f;
    struct err e = {0};
    (void)state;
    for (int i = 0; i < RECORD_DEPTH + 3; i++) {
        put(name, "x");
        memmove(name + 2, name, strlen(name) + 1);
        memcpy(name, "d/", 2);
    }
    assert_int_equal(record_folder_read(&f, root, &e), ERR_OK);
    assert_int_equal(f.files, RECORD_DEPTH + 1);
    assert_int_equal(f.notes, 1);
    record_folder_free(&f);
}

static void large(void **state)
{
    struct record_folder f;
    struct err e = {0};
    (void)state;
    put("train.log", "x");
    assert_int_equal(truncate(path_of("train.log"), (off_t)RECORD_TEXT_MAX + 1), 0);
    assert_int_equal(record_folder_read(&f, root, &e), ERR_OK);
    assert_null(f.file[0].text);
    assert_int_equal(f.notes, 1);
    record_folder_free(&f);
}

static void names(void **state)
{
    struct record_folder f;
    struct err e = {0};
    (void)state;
    put("a\nnot contradicted\x1b[2J.log", "x");
    assert_int_equal(record_folder_read(&f, root, &e), ERR_OK);
    assert_string_equal(f.file[0].path, "a?not contradicted?[2J.log");
    record_folder_free(&f);
}

static void trees(void **state)
{
    char **list;
    size_t n;
    struct err e = {0};
    (void)state;
    assert_int_equal(record_folders(&list, &n, root, &e), ERR_INPUT);
    put("README.md", "x");
    put("track_10min_16mb/b/train.log", "x");
    put("track_10min_16mb/a/submission.json", "{}");
    put("track_10min_16mb/a/sub/train_gpt.py", "");
    put("track_10min_16mb/notes/ideas.txt", "");
    assert_int_equal(symlink("/", path_of("track_10min_16mb/out")), 0);
    e = (struct err){0};
    assert_int_equal(record_folders(&list, &n, path_of("/"), &e), ERR_OK);
    assert_int_equal(n, 2);
    assert_string_equal(strrchr(list[0], '/'), "/a");
    assert_string_equal(strrchr(list[1], '/'), "/b");
    record_folders_free(list, n);
    assert_int_equal(record_folders(&list, &n, path_of("track_10min_16mb/notes"), &e), ERR_OK);
    assert_int_equal(n, 1); /* asked for by name, whatever it is */
    record_folders_free(list, n);
    assert_int_equal(record_folders(&list, &n, path_of("nowhere"), &e), ERR_INPUT);
    struct record_folder f;
    e = (struct err){0};
    assert_int_equal(record_folder_read(&f, path_of("README.md"), &e), ERR_INPUT);
    record_folder_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(kinds, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_outside, setup, teardown),
        cmocka_unit_test_setup_teardown(deep, setup, teardown),
        cmocka_unit_test_setup_teardown(large, setup, teardown),
        cmocka_unit_test_setup_teardown(names, setup, teardown),
        cmocka_unit_test_setup_teardown(trees, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
