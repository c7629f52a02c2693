/*
 * file_test - guards against half a file under a good name: a full disk, a size limit, a folder
 * without write permission or a kill between two writes must leave the old file or none. Also
 * against readers that wait forever or take a folder for a file, and against a device that is
 * replaced by a file.
 */
#include <signal.h>
#include <sys/resource.h>

#include "model/file.h"
#include "tests/unit/util.h"

static const char old_text[] = "the older file";

/* A folder with one older file in it; *path names the file. */
static const char *older(const char **path)
{
    const char *dir = util_path("w");
    mkdir(dir, 0755);
    *path = util_path("w/out");
    util_spill(*path, old_text, strlen(old_text));
    return dir;
}

static void expect_old(const char *label, const char *dir, const char *path)
{
    size_t n;
    uint8_t *p = util_slurp(path, &n);
    if (!p || n != strlen(old_text) || memcmp(p, old_text, n))
        fail_msg("%s: the older file is gone", label);
    if (util_entries(dir) != 1)
        fail_msg("%s: %zu entries in the folder", label, util_entries(dir));
    free(p);
}

/* ---- reading ---- */

static void maps(void **state)
{
    static const size_t sizes[] = {1, 2, 4095, 4096, 4097, 100000};
    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        const char *path = util_path("m");
        struct err e = {0};
        uint8_t *data = malloc(sizes[i]);
        const void *map;
        size_t n;
        for (size_t j = 0; j < sizes[i]; j++)
            data[j] = (uint8_t)(j % 251);
        util_spill(path, data, sizes[i]);
        EXPECT("map", ERR_OK, "", file_map(path, &map, &n, &e), e);
        assert_int_equal(n, sizes[i]);
        assert_memory_equal(map, data, n);
        file_unmap(map, n);
        free(data);
    }
}

static void what_cannot_be_mapped(void **state)
{
    const char *fifo = util_path("fifo");
    const struct {
        const char *path, *says;
    } cases[] = {
        {util_path("none"), "none: cannot open: No such file"},
        {util_path(""), "not a regular file"},
        {"/dev/null", "/dev/null: not a regular file"},
        {fifo, "fifo: not a regular file"}, /* must not wait for a writer */
        {"", "cannot open"},
    };
    const void *map;
    size_t n;
    struct err ok = {0};
    (void)state;
    assert_int_equal(mkfifo(fifo, 0600), 0);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct err e = {0};
        EXPECT(cases[i].path, ERR_INPUT, cases[i].says, file_map(cases[i].path, &map, &n, &e), e);
        assert_null(map);
        assert_int_equal(n, 0);
        file_unmap(map, n);
    }
    util_spill(util_path("empty"), "", 0);
    EXPECT("empty", ERR_OK, "", file_map(util_path("empty"), &map, &n, &ok), ok);
    assert_null(map);
    assert_int_equal(n, 0);
}

/* ---- writing ---- */

static void writes(void **state)
{
    const char *path, *dir = older(&path);
    struct err e = {0};
    struct stat st;
    size_t n;
    (void)state;
    EXPECT("replace", ERR_OK, "", file_write(path, "new", 3, &e), e);
    uint8_t *p = util_slurp(path, &n);
    assert_int_equal(n, 3);
    assert_memory_equal(p, "new", 3);
    free(p);
    assert_int_equal(util_entries(dir), 1);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0644);
    EXPECT("empty", ERR_OK, "", file_write(path, "", 0, &e), e);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 0);
}

static void nothing_appears_before_commit(void **state)
{
    const char *path, *dir = older(&path);
    struct atomic_file a;
    struct err e = {0};
    size_t n;
    (void)state;
    EXPECT("open", ERR_OK, "", atomic_open(&a, path, &e), e);
    fwrite("new", 1, 3, a.f);
    fflush(a.f);
    uint8_t *p = util_slurp(path, &n);
    assert_string_equal((char *)p, old_text);
    free(p);
    atomic_abort(&a);
    expect_old("abort", dir, path);
    atomic_abort(&a); /* twice is fine, and so is one that was never opened */
    memset(&a, 0, sizeof a);
    atomic_abort(&a);
    EXPECT("open", ERR_OK, "", atomic_open(&a, path, &e), e);
    EXPECT("commit", ERR_OK, "", atomic_commit(&a, 0755, &e), e);
    atomic_abort(&a);
    assert_int_equal(access(path, X_OK), 0);
    assert_int_equal(util_entries(dir), 1);
}

/* The disk is full after `limit` bytes, for every limit below the size: RLIMIT_FSIZE stands for it.
 */
static void the_disk_is_full(void **state)
{
    static char data[20000];
    const char *path, *dir = older(&path);
    struct rlimit keep, r;
    (void)state;
    memset(data, 'x', sizeof data);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &keep), 0);
    for (size_t limit = 0; limit < sizeof data; limit += limit < 20 ? 1 : 1999) {
        struct err e = {0};
        enum err_code rc;
        r = keep;
        r.rlim_cur = limit;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
        rc = file_write(path, data, sizeof data, &e);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &keep), 0);
        EXPECT("limit", ERR_RESOURCE, "out: cannot write: File too large", rc, e);
        expect_old("limit", dir, path);
    }
}

static void devices_are_not_replaced(void **state)
{
    struct err e = {0}, f = {0};
    struct stat st;
    (void)state;
    EXPECT("/dev/full", ERR_RESOURCE, "/dev/full: cannot write: No space left on device",
           file_write("/dev/full", "x", 1, &e), e);
    assert_true(!stat("/dev/full", &st) && S_ISCHR(st.st_mode));
    EXPECT("/dev/null", ERR_OK, "", file_write("/dev/null", "x", 1, &f), f);
    assert_true(!stat("/dev/null", &st) && S_ISCHR(st.st_mode));
    assert_int_equal(st.st_mode & 0111, 0);
}

static void where_nothing_can_be_written(void **state)
{
    static char longest[1100];
    const char *path, *dir = older(&path);
    const struct {
        const char *path;
        enum err_code want;
        const char *says;
    } cases[] = {
        {util_path("no/such/dir"), ERR_RESOURCE, "cannot write: No such file"},
        {util_path("w"), ERR_RESOURCE, "cannot write: Is a directory"},
        {"/proc/version.new", ERR_RESOURCE, "cannot write"},
        {longest, ERR_USAGE, "path too long"},
    };
    (void)state;
    memset(longest, 'p', sizeof longest - 1);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct err e = {0};
        struct atomic_file a;
        EXPECT(cases[i].path, cases[i].want, cases[i].says, atomic_open(&a, cases[i].path, &e), e);
        atomic_abort(&a);
    }
    expect_old("a folder's name", dir, path);
}

/* The superuser may write anywhere, so the test becomes nobody for a moment. */
static void a_folder_without_permission(void **state)
{
    const char *path, *dir = older(&path);
    bool root = geteuid() == 0;
    struct err e = {0};
    enum err_code rc;
    (void)state;
    chmod(util_path(""), 0755);
    chmod(dir, 0555);
    if (root)
        assert_int_equal(seteuid(65534), 0);
    rc = file_write(path, "new", 3, &e);
    if (root)
        assert_int_equal(seteuid(0), 0);
    EXPECT("read-only folder", ERR_RESOURCE, "out: cannot write: Permission denied", rc, e);
    expect_old("read-only folder", dir, path);
    chmod(dir, 0755);
}

static void folders(void **state)
{
    const struct {
        const char *path;
        enum err_code want;
    } cases[] = {
        {util_path("d"), ERR_OK},
        {util_path("d"), ERR_OK},
        {util_path("d/e/f/g"), ERR_OK},
        {util_path("d//e/./f/"), ERR_OK},
        {"/", ERR_OK},
        {util_path("file"), ERR_RESOURCE},
        {util_path("file/d"), ERR_RESOURCE},
        {"/proc/pgolf/d", ERR_RESOURCE},
        {"", ERR_RESOURCE},
    };
    (void)state;
    util_spill(util_path("file"), "x", 1);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct err e = {0};
        EXPECT(cases[i].path, cases[i].want, "", dir_make(cases[i].path, &e), e);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(maps),
        cmocka_unit_test(what_cannot_be_mapped),
        cmocka_unit_test(writes),
        cmocka_unit_test(nothing_appears_before_commit),
        cmocka_unit_test(the_disk_is_full),
        cmocka_unit_test(devices_are_not_replaced),
        cmocka_unit_test(where_nothing_can_be_written),
        cmocka_unit_test(a_folder_without_permission),
        cmocka_unit_test(folders),
    };
    return cmocka_run_group_tests(tests, NULL, util_cleanup);
}
