/*
 * util.h - what the tests of the model room share: a folder of their own, files in it, buffers that
 * end at an unmapped page, random numbers, and the data that lies beside the project when it does.
 *
 * Functions are static inline, so that a test may leave some unused. Anything that fails here ends
 * the test program: it is no result.
 */
#ifndef TESTS_UNIT_UTIL_H
#define TESTS_UNIT_UTIL_H

#include <dirent.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/err.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* splitmix64 (Steele, Lea and Flood, 2014). */
static inline uint64_t util_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Uniform in [0, n). */
static inline size_t util_below(uint64_t *state, size_t n)
{
    return (size_t)(util_next(state) % n);
}

/* Uniform in (-1, 1). */
static inline double util_uniform(uint64_t *state)
{
    return ((double)(util_next(state) >> 11) + 0.5) * 0x1p-52 - 1;
}

/* ---- a folder that is gone after the tests ---- */

/* The path of `name` in this program's folder, made at the first call. Sixteen results live at a
 * time. */
static inline const char *util_path(const char *name)
{
    static char dir[64], path[16][512];
    static unsigned turn;
    if (!*dir) {
        strcpy(dir, "/tmp/pgolf_test_XXXXXX");
        if (!mkdtemp(dir))
            abort();
    }
    turn = (turn + 1) % 16;
    snprintf(path[turn], sizeof path[turn], "%s%s%s", dir, *name ? "/" : "", name);
    return path[turn];
}

static inline int util_remove(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

/* Group teardown. */
static inline int util_cleanup(void **state)
{
    (void)state;
    return nftw(util_path(""), util_remove, 16, FTW_DEPTH | FTW_PHYS);
}

/* How many entries a folder has: nothing half-written may stay behind. */
static inline size_t util_entries(const char *path)
{
    size_t n = 0;
    DIR *d = opendir(path);
    if (!d)
        abort();
    for (struct dirent *x; (x = readdir(d));)
        n += x->d_name[0] != '.';
    closedir(d);
    return n;
}

/* Write a file as it is, without the code under test. */
static inline void util_spill(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f))
        abort();
}

/* Read one back; malloc'ed, NUL behind the end. NULL when there is none. */
static inline uint8_t *util_slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    uint8_t *p;
    if (!f)
        return NULL;
    if (fstat(fileno(f), &st) || !(p = malloc((size_t)st.st_size + 1)))
        abort();
    *n = fread(p, 1, (size_t)st.st_size, f);
    p[*n] = 0;
    fclose(f);
    return p;
}

/* ---- a buffer whose end is the end of the world ---- */

struct guarded {
    uint8_t *p; /* n bytes; p[n] is not mapped */
    void *map;
    size_t bytes;
};

/* A copy of data[0..n) (data NULL: zeros). Libraries that no sanitizer watches crash here as well.
 */
static inline struct guarded guarded_new(const void *data, size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (n + page - 1) / page * page;
    struct guarded g = {.bytes = body + page};
    g.map = mmap(NULL, g.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.map == MAP_FAILED || mprotect((char *)g.map + body, page, PROT_NONE))
        abort();
    g.p = (uint8_t *)g.map + body - n;
    if (data && n)
        memcpy(g.p, data, n);
    return g;
}

static inline void guarded_free(struct guarded *g)
{
    munmap(g->map, g->bytes);
}

/* ---- errors ---- */

/* The call must have ended with `want`, and said why in one line that contains `part`. */
#define EXPECT(label, want, part, rc, e)                                                           \
    do {                                                                                           \
        enum err_code expect_rc_ = (rc);                                                           \
        if (expect_rc_ != (want) || ((want) && (e).code != (want)) ||                              \
            ((want) && !strstr((e).msg, (part))) || strchr((e).msg, '\n'))                         \
            fail_msg("%s: status %d \"%s\", expected %d with \"%s\"", (label), (int)expect_rc_,    \
                     (e).msg, (int)(want), (part));                                                \
    } while (0)

/* ---- data beside the project ---- */

/* A path below ../shared when it is there; otherwise NULL, and the test says what it did not check.
 */
static inline const char *util_shared(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "../shared/%s", name);
    if (!access(path, R_OK))
        return path;
    printf("%s: not here, its check is skipped\n", path);
    return NULL;
}

#endif
