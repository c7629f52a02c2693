/*
 * nomem.h - an allocator that fails where it is told to, and the loop that lets every allocation of
 * an operation fail: the n-th one, for every n until the operation succeeds, once alone and once
 * with all that follow it. Each run must end with ERR_RESOURCE or succeed, and give back what it
 * took.
 *
 * The allocator's functions are defined here and pass on to the next ones (the C library's, or the
 * sanitizer's), so that allocations inside libraries fail as well: for one file of a test program.
 * The idea is SQLite's ("How SQLite Is Tested", section 3.1).
 */
#ifndef TESTS_NOMEM_H
#define TESTS_NOMEM_H

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>

#include "tests/unit/util.h"

/* ---- the allocator that fails ---- */

static atomic_size_t live;
/* Of the thread that tests; what the C library allocates in others to start them never fails. */
static _Thread_local size_t calls, fail_at; /* fail_at 0: never */
static _Thread_local bool fail_on;          /* and all that follow */

static struct {
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void *(*aligned_alloc)(size_t, size_t);
    void (*free)(void *);
} next;

/* What dlsym itself allocates comes from here and is never released. */
static _Alignas(64) char early[65536];
static size_t early_used;

static void *early_alloc(size_t n)
{
    void *p = early + early_used;
    early_used += (n + 63) / 64 * 64;
    if (early_used > sizeof early)
        abort();
    return p;
}

static bool is_early(const void *p)
{
    return (uintptr_t)p - (uintptr_t)early < sizeof early;
}

/* False while the functions behind these are not known. */
static bool ready(void)
{
    static bool asked;
    if (!asked) {
        asked = true;
        *(void **)&next.malloc = dlsym(RTLD_NEXT, "malloc");
        *(void **)&next.calloc = dlsym(RTLD_NEXT, "calloc");
        *(void **)&next.realloc = dlsym(RTLD_NEXT, "realloc");
        *(void **)&next.aligned_alloc = dlsym(RTLD_NEXT, "aligned_alloc");
        *(void **)&next.free = dlsym(RTLD_NEXT, "free");
    }
    return next.free != NULL;
}

/* Does this allocation fail? */
static bool fails(void)
{
    size_t n;
    if (!fail_at)
        return false;
    n = ++calls;
    if (n != fail_at && !(fail_on && n > fail_at))
        return false;
    errno = ENOMEM;
    return true;
}

static void *counted(void *p)
{
    live += p != NULL;
    return p;
}

void *malloc(size_t n)
{
    if (!ready())
        return early_alloc(n);
    return fails() ? NULL : counted(next.malloc(n));
}

void *calloc(size_t n, size_t size)
{
    if (!ready())
        return early_alloc(n * size); /* static memory is zero */
    return fails() ? NULL : counted(next.calloc(n, size));
}

void *realloc(void *p, size_t n)
{
    if (!ready() || is_early(p))
        abort();
    if (fails())
        return NULL;
    return p ? next.realloc(p, n) : counted(next.realloc(p, n));
}

void *aligned_alloc(size_t align, size_t n)
{
    return !ready() || fails() ? NULL : counted(next.aligned_alloc(align, n));
}

void free(void *p)
{
    if (!p || is_early(p))
        return;
    live--;
    next.free(p);
}

char *strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = malloc(n);
    return p ? memcpy(p, s, n) : NULL;
}

/* ---- operations ---- */

struct job {
    const char *name;
    enum err_code (*run)(struct err *e);
    /* A library keeps what it allocates: the C library for threads; libzip 1.7 loses a block where
     * an entry cannot be opened. */
    bool keeps;
};

/* The leak checker, where the program is built with it: it does not look at what is allocated
 * between the two. */
__attribute__((weak)) void __lsan_disable(void);
__attribute__((weak)) void __lsan_enable(void);

static inline enum err_code run_job(const struct job *job, struct err *e)
{
    bool hidden = job->keeps && __lsan_disable;
    enum err_code rc;
    if (hidden)
        __lsan_disable();
    rc = job->run(e);
    if (hidden)
        __lsan_enable();
    return rc;
}

static inline void every_allocation_fails(const struct job *jobs, size_t count)
{
    for (size_t j = 0; j < count; j++) {
        struct err warm = {0};
        EXPECT(jobs[j].name, ERR_OK, "", run_job(&jobs[j], &warm), warm);
        for (int mode = 0; mode < 2; mode++) {
            size_t n = 1, before, after;
            for (;; n++) {
                struct err e = {0};
                enum err_code rc;
                before = live;
                calls = 0;
                fail_on = mode;
                fail_at = n;
                rc = run_job(&jobs[j], &e);
                fail_at = 0;
                after = live;
                if (rc != ERR_OK && (rc != ERR_RESOURCE || e.code != rc || !*e.msg))
                    fail_msg("%s: allocation %zu fails%s: status %d \"%s\"", jobs[j].name, n,
                             mode ? " and all behind it" : "", rc, e.msg);
                if (after != before && !jobs[j].keeps)
                    fail_msg("%s: allocation %zu fails%s: %td blocks leak", jobs[j].name, n,
                             mode ? " and all behind it" : "", (ptrdiff_t)(after - before));
                if (calls < n) {
                    EXPECT(jobs[j].name, ERR_OK, "", rc, e);
                    break;
                }
                if (n > 5000)
                    fail_msg("%s: never ends", jobs[j].name);
            }
            printf("%s: %zu allocations%s\n", jobs[j].name, n - 1,
                   mode ? ", all behind failing too" : "");
        }
    }
}

#endif
