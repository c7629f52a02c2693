/*
 * loader.c - the first bytes of a submission: check the file, unpack the runner, start it.
 *
 * The file is this ELF program followed by a header and sections (stub/format.h). The loader maps
 * the whole file, checks the hash of the header and of every section behind it, decodes the runner
 * into a memory file, and executes that with the same arguments and environment. It has no libc and
 * no data of its own; stub/loader.ld lays it out, headers included, and says how many bytes it has.
 *
 * Either the runner starts, or there is one line on standard error and exit status 3 (the file is
 * damaged) or 4 (the kernel refused something).
 *
 * The program that ships is written in assembly, for every byte of it counts: stub/start.S does
 * what load() does here, with stub/code_dec.S and stub/xxh64.S. Built with LOADER_HOSTED this file
 * is its definition, an ordinary function that tests run under the sanitizers.
 */
#include <stddef.h>
#include <stdint.h>

#include "stub/code_dec.h"
#include "stub/format.h"
#include "stub/tiny.h"
#include "stub/xxh64.h"

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

/* Out of line: the loader is built for size. */
#define SMALL static __attribute__((noinline))

#ifndef LOADER_HOSTED

_Static_assert(CODE_WORK == 46300000 && HDR_COUNT == 16 && HDR_ENTRIES == 32 && HDR_TAIL == 8 &&
                   SECTIONS_MIN == 6 && SECTIONS_MAX == 8 && KIND_RUNNER == 3 && SEC_OFFSET == 8 &&
                   SEC_SIZE == 16 && SEC_RAW_SIZE == 24 && SEC_XXH64 == 32 && SEC_BYTES == 48 &&
                   RUNNER_FD_AT == 12,
               "stub/start.S has these numbers too");
__asm__(".include \"stub/code_dec.S\"\n.include \"stub/xxh64.S\"\n.include \"stub/start.S\"");

#else

#define DECODE        code_dec
#define HASH(data, n) xxh64(data, n)
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>
static long sys5(long number, long a, long b, long c, long d, long e)
{
    long r = syscall(number, a, b, c, d, e, 0L);
    return r == -1 ? -errno : r;
}
static long sys3(long number, long a, long b, long c)
{
    return sys5(number, a, b, c, 0, 0);
}

#define DAMAGED "submission: damaged\n"
#define REFUSED "submission: refused\n"
_Static_assert(sizeof REFUSED == sizeof DAMAGED, "quit() knows one length");

SMALL _Noreturn void quit(long text, long status)
{
    sys3(SYS_WRITE, STDERR, text, sizeof DAMAGED - 1);
    sys3(SYS_EXIT_GROUP, status, 0, 0);
    __builtin_unreachable();
}

/* Passes on the result of a system call that has to work. */
SMALL long need(long result)
{
    if ((unsigned long)result > -4096ul)
        quit((long)REFUSED, STATUS_REFUSED);
    return result;
}

/* Two system calls that have to work. Their arguments are where the kernel wants them, nothing to
 * move. */
SMALL long need3(long a, long b, long c, long number)
{
    return need(sys3(number, a, b, c));
}

SMALL uint8_t *map(void *where, size_t n, long access, long flags, long fd)
{
    return (uint8_t *)need(sys5(SYS_MMAP, (long)where, (long)n, access, flags, fd));
}

/* The entry of the runner is this far into the header, those of the sections after it follow. */
enum { RUNNER_ENTRY = HDR_ENTRIES + (KIND_RUNNER - 1) * SEC_BYTES };

/*
 * Whether the file is sound: the header's hash fits, and behind the header there are sections whose
 * hashes fit, one after the other until the file ends.
 */
static int sound(const uint8_t *file, size_t file_size, size_t at)
{
    /* Room for the largest header: a shorter file cannot hold a runner either. */
    const uint8_t *header = file + at, *s = header + RUNNER_ENTRY;
    if (file_size < at + HDR_BYTES + SECTIONS_MAX * SEC_BYTES)
        return 0;
    uint32_t count = load32(header + HDR_COUNT);
    if (count - SECTIONS_MIN > SECTIONS_MAX - SECTIONS_MIN)
        return 0;
    size_t tail = HDR_ENTRIES + count * SEC_BYTES;
    at += tail + HDR_TAIL;
    if (HASH(header, tail) != load64(header + tail))
        return 0;
    while (s != header + tail) {
        size_t size = load64(s + SEC_SIZE);
        if (load64(s + SEC_OFFSET) != at || size > file_size - at ||
            HASH(file + at, size) != load64(s + SEC_XXH64))
            return 0;
        at += size;
        s += SEC_BYTES;
    }
    return at == file_size;
}

/*
 * path is the submission; the header is loader_bytes into it. args is what the kernel leaves on the
 * stack: argc, the arguments, NULL, the environment, NULL. Does not return.
 */
TINY _Noreturn void load(const char *path, size_t loader_bytes, const long *args)
{
    long fd;
    do /* started with standard input closed it is 0, which to the runner means that nobody set it
        */
        fd = need3((long)path, 0, 0, SYS_OPEN);
    while (fd == 0);
    size_t file_size = (size_t)need3(fd, 0, SEEK_TO_END, SYS_LSEEK);
    const uint8_t *file = map(NULL, file_size, PAGES_READ, PAGES_PRIVATE, fd);
    if (!sound(file, file_size, loader_bytes)) {
    damaged:
        quit((long)DAMAGED, STATUS_DAMAGED);
    }

    const uint8_t *s = file + loader_bytes + RUNNER_ENTRY;
    OPAQUE(s);
    size_t raw = load32(s + SEC_RAW_SIZE);
    /* The workspace, the runner, and room for the descriptor and a byte, should raw be too small.
     */
    uint8_t *work = map(NULL, CODE_WORK + raw + 4096, PAGES_READ | PAGES_WRITE,
                        PAGES_PRIVATE | PAGES_ANONYMOUS, -1);
    uint8_t *runner = work + CODE_WORK;
    if (DECODE(work, runner, raw, file + load64(s + SEC_OFFSET), load64(s + SEC_SIZE)))
        goto damaged;
    __builtin_memcpy(runner + RUNNER_FD_AT, &fd, 4);

    long memory, flags = MEMFD_CLOEXEC | MEMFD_EXEC;
    do /* without a descriptor, write has the error */
        memory = sys3(SYS_MEMFD_CREATE, (long)"", flags, 0);
    while (memory < 0 && (flags -= MEMFD_EXEC) > 0);
    if (need3(memory, (long)runner, (long)raw, SYS_WRITE) != (long)raw)
        need(-1); /* a limit on the size of files: execution would run off the end */
    need(sys5(SYS_EXECVEAT, memory, (long)"", (long)(args + 1), (long)(args + *args + 2),
              FD_ITSELF));
    __builtin_unreachable();
}

#endif
