/*
 * loader.c - the first bytes of a submission: check the file, unpack the runner, start it.
 *
 * The file is this ELF program followed by a header and sections (stub/format.h). The loader maps
 * the whole file, checks the hash of the header and of every section behind it, decodes the runner
 * into a memory file, and executes that with the same arguments and environment. It has no libc and
 * no data of its own; stub/loader.ld lays it out, headers included, and says how many bytes it has.
 *
 * Either the runner starts, or there is one line on standard error and exit status 3 (the file is
 * damaged) or 4 (the kernel refused something; its error number is printed).
 *
 * Built with LOADER_HOSTED the same code is an ordinary function, load(), that tests run under the
 * sanitizers; only the two definitions below differ.
 */
#include <stddef.h>
#include <stdint.h>

#include "stub/format.h"
#include "stub/lzma_dec.c"
#include "stub/xxh64.c"

/* System calls by number, and the few constants they need, as <sys/syscall.h> and friends have
 * them. */
enum {
    SYS_WRITE = 1,
    SYS_OPEN = 2,
    SYS_LSEEK = 8,
    SYS_MMAP = 9,
    SYS_EXIT_GROUP = 231,
    SYS_MEMFD_CREATE = 319,
    SYS_EXECVEAT = 322,
    SEEK_TO_END = 2,
    PAGES_READ = 1,
    PAGES_WRITE = 2,
    PAGES_PRIVATE = 2,
    PAGES_ANONYMOUS = 32,
    MEMFD_CLOEXEC = 1,
    MEMFD_EXEC = 16, /* since Linux 6.3; before that the flag is refused and not needed */
    FD_ITSELF = 0x1000,
    STDERR = 2,
    STATUS_DAMAGED = 3,
    STATUS_REFUSED = 4,
};

#ifdef LOADER_HOSTED
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>
static long sys(long number, long a, long b, long c, long d, long e)
{
    long r = syscall(number, a, b, c, d, e, 0L);
    return r == -1 ? -errno : r;
}
#else
/* A sixth argument, where the kernel looks for one (an offset), is 0. */
static inline long sys(long number, long a, long b, long c, long d, long e)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = 0;
    __asm__ volatile("syscall"
                     : "+a"(number)
                     : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return number;
}
#endif

/* Say something of n bytes; finally leave. */
SMALL void say(const char *text, size_t n)
{
    sys(SYS_WRITE, STDERR, (long)text, (long)n, 0, 0);
}

SMALL _Noreturn void leave(int status)
{
    for (;;)
        sys(SYS_EXIT_GROUP, status, 0, 0, 0, 0);
}

#define DAMAGED "submission: file is damaged\n"
#define REFUSED "submission: cannot start, errno "

/* A system call that has to work. */
SMALL long need(long a, long b, long c, long number, long e, long d)
{
    long result = sys(number, a, b, c, d, e);
    if ((unsigned long)result > -4096ul) {
        unsigned left = (unsigned)-result;
        char digits[4] = {0, 0, 0, '\n'};
        for (int i = 3; i--; left /= 10)
            digits[i] = (char)('0' + left % 10);
        say(REFUSED, sizeof REFUSED - 1);
        say(digits, sizeof digits);
        leave(STATUS_REFUSED);
    }
    return result;
}

/* path is the submission; the header is loader_bytes into it. Does not return. */
static _Noreturn void load(const char *path, size_t loader_bytes, char **argv, char **envp)
{
    long fd = need((long)path, 0, 0, SYS_OPEN, 0, 0);
    long file_size = need(fd, 0, SEEK_TO_END, SYS_LSEEK, 0, 0);
    const uint8_t *file =
        (const uint8_t *)need(0, file_size, PAGES_READ, SYS_MMAP, fd, PAGES_PRIVATE);
    const uint8_t *end = file + file_size;

    /* Room for the largest header: a shorter file cannot hold a runner either. */
    const uint8_t *header = file + loader_bytes;
    if (end - header < HDR_BYTES + SECTIONS_MAX * SEC_BYTES)
        goto damaged;
    uint32_t count = load32(header + HDR_COUNT);
    if (count - SECTIONS_MIN > SECTIONS_MAX - SECTIONS_MIN)
        goto damaged;
    size_t tail = HDR_ENTRIES + count * SEC_BYTES;
    if (xxh64(header, tail) != load64(header + tail))
        goto damaged;

    /* Behind the header sections must be contiguous, and the last one must end with the file. */
    const uint8_t *runner = header + HDR_ENTRIES + (KIND_RUNNER - 1) * SEC_BYTES;
    const uint8_t *at = header + tail + HDR_TAIL, *s = runner;
    do {
        size_t size = load64(s + SEC_SIZE);
        if (load64(s + SEC_OFFSET) != (size_t)(at - file) || size > (size_t)(end - at) ||
            xxh64(at, size) != load64(s + SEC_XXH64))
            goto damaged;
        at += size;
        s += SEC_BYTES;
    } while (s != header + tail);
    if (at != end)
        goto damaged;

    struct lzma work;
    size_t raw = load64(runner + SEC_RAW_SIZE);
    uint8_t *out = (uint8_t *)need(0, (long)raw, PAGES_READ | PAGES_WRITE, SYS_MMAP, -1,
                                   PAGES_PRIVATE | PAGES_ANONYMOUS);
    size_t size = load64(runner + SEC_SIZE);
    if (lzma_dec(&work, out, raw, header + tail + HDR_TAIL, size, load32(runner + SEC_PARAMS)) !=
        size) {
    damaged:
        say(DAMAGED, sizeof DAMAGED - 1);
        leave(STATUS_DAMAGED);
    }
    if (runner[SEC_PARAMS + PARAM_FILTER])
        x86_undo(out, raw);
    __builtin_memcpy(out + RUNNER_FD_AT, &fd,
                     4); /* a mapping has at least a page, whatever raw is */

    long memory = sys(SYS_MEMFD_CREATE, (long)"", MEMFD_CLOEXEC | MEMFD_EXEC, 0, 0, 0);
    if (memory < 0)
        memory = need((long)"", MEMFD_CLOEXEC, 0, SYS_MEMFD_CREATE, 0, 0);
    need(memory, (long)out, (long)raw, SYS_WRITE, 0, 0);
    for (;;)
        need(memory, (long)"", (long)argv, SYS_EXECVEAT, FD_ITSELF, (long)envp);
}

#ifndef LOADER_HOSTED
extern const char loader_bytes[]; /* its address is the number; from stub/loader.ld */

/* The kernel leaves argc, argv and the environment on the stack, which _start hands over. */
__attribute__((used)) static _Noreturn void begin(long *stack)
{
    char **argv = (char **)(stack + 1);
    load("/proc/self/exe", (size_t)loader_bytes, argv, argv + *stack + 1);
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n call begin");
#endif
