/*
 * fuzz.h - what the fuzz targets share: an input as a file for readers that take a path, and
 * reading every byte that a reader handed out, so that a view outside its file is seen.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* The path of a file in memory that holds the input; the same one every time. */
static inline const char *fuzz_file(const uint8_t *data, size_t n)
{
    static char path[32];
    static int fd = -1;
    if (fd < 0) {
        fd = memfd_create("fuzz", MFD_CLOEXEC);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    if (fd < 0 || ftruncate(fd, 0) || pwrite(fd, data, n, 0) != (ssize_t)n)
        abort();
    return path;
}

/* The sum has to end somewhere, or the compiler leaves the reads out. */
static inline void fuzz_read(const void *p, size_t n)
{
    const uint8_t *b = p;
    unsigned sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += b[i];
    __asm__ volatile("" : : "r"(sum));
}

#endif
