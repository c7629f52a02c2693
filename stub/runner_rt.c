/*
 * runner_rt.c - what the runner has instead of the big parts of libc.
 *
 * err_set without stdio, settings without strtod, system calls without errno, threads without
 * storage of their own, and an allocator that asks the kernel for every block: the runner allocates
 * a few dozen times, mostly large, so pages are the right unit. What remains of musl are its
 * headers and its string functions. It saves about 25 KB, in every submission.
 */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "kernels/err.h"
#include "model/file.h"
#include "model/number.h"
#include "model/recipe.h"
#include "model/text.h"

enum err_code err_set(struct err *e, enum err_code code, const char *fmt, ...)
{
    if (e && e->code == ERR_OK) {
        struct text t = {e->msg, 0, sizeof e->msg};
        va_list ap;
        e->code = code;
        va_start(ap, fmt);
        text_format(&t, fmt, ap);
        va_end(ap);
    }
    return code;
}

enum err_code err_memory(struct err *e)
{
    return err_set(e, ERR_RESOURCE, "out of memory");
}

/* ---- memory ---- */

enum { HEAD = 64 }; /* in front of every block: its mapped size; keeps blocks on cache lines */

void *malloc(size_t n)
{
    size_t *p;
    if (n > SIZE_MAX - HEAD)
        return NULL;
    p = mmap(NULL, n + HEAD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    *p = n + HEAD;
    return (char *)p + HEAD;
}

void free(void *p)
{
    if (p) {
        size_t *head = (size_t *)(void *)((char *)p - HEAD);
        munmap(head, *head);
    }
}

void *calloc(size_t n, size_t size)
{
    return size && n > SIZE_MAX / size ? NULL : malloc(n * size); /* fresh pages are zero */
}

void *aligned_alloc(size_t align, size_t n)
{
    return align <= HEAD ? malloc(n) : NULL;
}

void *realloc(void *p, size_t n)
{
    void *q = malloc(n);
    if (q && p) {
        size_t old = *(size_t *)(void *)((char *)p - HEAD) - HEAD;
        memcpy(q, p, old < n ? old : n);
        free(p);
    }
    return q;
}

/* ---- settings ---- */

/*
 * All keys and their defaults as lines TYPE KEY=VALUE, where a type has three letters and no blank
 * follows it. The fields of struct recipe have the same order and nothing between them.
 */
#define KEY(type, key, field, def, help) #type #key "=" #def "\n"
static const char keys[] = RECIPE_MODEL_KEYS(KEY) RECIPE_EVAL_KEYS(KEY);

struct known {
    RECIPE_MODEL_KEYS(RECIPE_FIELD)
    RECIPE_EVAL_KEYS(RECIPE_FIELD)
};
_Static_assert(sizeof(struct known) % 8 == 0 && sizeof(int64_t) == sizeof(double),
               "a field of struct recipe is 8 bytes or RECIPE_STR, a multiple of 8");

/* value ends at n; the default of a text is written with its quotes, and so may a value be. */
static bool assign(char *field, char type, const char *value, size_t n)
{
    char buf[RECIPE_STR];
    double v;
    if (n >= 2 && *value == '"') {
        value++;
        n -= 2;
    }
    if (n >= sizeof buf)
        return false;
    memcpy(buf, value, n);
    buf[n] = 0;
    if (type == 'S') {
        memcpy(field, buf, n + 1);
        return true;
    }
    if (!number_parse(buf, &v))
        return false;
    if (type == 'N')
        *(double *)(void *)field = v;
    else if (v != (double)(*(int64_t *)(void *)field = (int64_t)v))
        return false;
    return true;
}

/* One line KEY=VALUE of n bytes. Keys that only matter for training are skipped. */
static bool set(struct recipe *r, const char *line, size_t n)
{
    char *field = (char *)r;
    for (const char *k = keys; *k; k = strchr(k, '\n') + 1) {
        char type = *k;
        k += 3;
        size_t name = (size_t)(strchr(k, '=') + 1 - k);
        if (name <= n && !memcmp(line, k, name))
            return assign(field, type, line + name, n - name);
        field += type == 'S' ? (size_t)RECIPE_STR : sizeof(double);
    }
    return true;
}

void recipe_init(struct recipe *r)
{
    memset(r, 0, sizeof *r);
    for (const char *k = keys, *end; *k; k = end + 1) {
        end = strchr(k, '\n');
        set(r, k + 3, (size_t)(end - k - 3));
    }
}

/* The recipe section is what recipe_print wrote: KEY=VALUE lines, nothing else. */
enum err_code recipe_parse(struct recipe *r, const char *text, size_t n, const char *where,
                           bool lenient, struct err *e)
{
    (void)lenient;
    for (size_t i = 0, from = 0; i <= n; i++)
        if (i == n || text[i] == '\n') {
            if (!set(r, text + from, i - from))
                return err_set(e, ERR_USAGE, "%s: byte %zu: not understood", where, from);
            from = i + 1;
        }
    return ERR_OK;
}

/* ---- strings ---- */

/* libc's look at eight bytes at a time; these are a third of their size. */
size_t strlen(const char *s)
{
    size_t n = 0;
    for (; s[n]; n++)
        __asm__("" : "+r"(n)); /* or gcc would see a strlen here, and call this very function */
    return n;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const unsigned char *p = a, *q = b;
    for (; n && *p == *q; n--)
        p++, q++;
    return n ? *p - *q : 0;
}

int strncmp(const char *a, const char *b, size_t n)
{
    size_t i = 0;
    while (i < n && a[i] && a[i] == b[i])
        i++;
    return i < n ? (unsigned char)a[i] - (unsigned char)b[i] : 0;
}

int strcmp(const char *a, const char *b)
{
    return strncmp(a, b, SIZE_MAX / 2);
}

char *strchr(const char *s, int c)
{
    for (; *s != (char)c; s++)
        if (!*s)
            return NULL;
    return (char *)(uintptr_t)s;
}

/* ---- system calls ---- */

/*
 * The few calls of libc that the runner makes, straight to the kernel. None of them leaves an error
 * number behind (nobody here reads errno), so threads need no storage of their own, and the
 * start-up code of libc is not needed either.
 */
static long sys6(long n, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "+a"(n)
                     : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return n;
}

static long sys3(long n, long a, long b, long c)
{
    long r = sys6(n, a, b, c, 0, 0, 0);
    return r < 0 ? -1 : r;
}

long syscall(long n, ...)
{
    va_list ap;
    long a[6];
    va_start(ap, n);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(ap, long);
    va_end(ap);
    return sys6(n, a[0], a[1], a[2], a[3], a[4], a[5]);
}

void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t off)
{
    long p = sys6(SYS_mmap, (long)at, (long)n, prot, flags, fd, off);
    return p < 0 ? MAP_FAILED : (void *)p;
}

int munmap(void *p, size_t n)
{
    return (int)sys3(SYS_munmap, (long)p, (long)n, 0);
}

int open(const char *path, int flags, ...)
{
    return (int)sys3(SYS_open, (long)path, flags, 0666);
}

int close(int fd)
{
    return (int)sys3(SYS_close, fd, 0, 0);
}

ssize_t write(int fd, const void *p, size_t n)
{
    return sys3(SYS_write, fd, (long)p, (long)n);
}

int mkdir(const char *path, mode_t mode)
{
    return (int)sys3(SYS_mkdir, (long)path, mode, 0);
}

/* musl's struct stat has the kernel's layout on x86-64. */
int fstat(int fd, struct stat *st)
{
    return (int)sys3(SYS_fstat, fd, (long)st, 0);
}

int stat(const char *restrict path, struct stat *restrict st)
{
    return (int)sys3(SYS_stat, (long)path, (long)st, 0);
}

int isatty(int fd)
{
    char state[64]; /* struct termios of the kernel: 36 bytes */
    return sys3(SYS_ioctl, fd, 0x5401, (long)state) == 0; /* TCGETS */
}

int clock_gettime(clockid_t clock, struct timespec *t)
{
    return (int)sys3(SYS_clock_gettime, clock, (long)t, 0);
}

int sched_getaffinity(pid_t pid, size_t n, cpu_set_t *set)
{
    memset(set, 0, n); /* the kernel fills in only as many bytes as it has processors for */
    return sys3(SYS_sched_getaffinity, pid, (long)n, (long)set) < 0 ? -1 : 0;
}

/* ---- directories ---- */

/* The kernel's records have the layout of musl's struct dirent; see getdents64(2). */
struct __dirstream {
    int fd;
    long at, end;
    _Alignas(struct dirent) char buf[4096];
};

DIR *opendir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY);
    DIR *d = fd < 0 ? NULL : malloc(sizeof *d);
    if (d) {
        d->fd = fd;
        d->at = d->end = 0;
    }
    return d;
}

struct dirent *readdir(DIR *d)
{
    struct dirent *e;
    if (d->at == d->end) {
        d->at = 0;
        d->end = sys3(SYS_getdents64, d->fd, (long)d->buf, sizeof d->buf);
        if (d->end <= 0) {
            d->end = 0;
            return NULL;
        }
    }
    e = (struct dirent *)(void *)(d->buf + d->at);
    d->at += e->d_reclen;
    return e;
}

int closedir(DIR *d)
{
    close(d->fd);
    free(d);
    return 0;
}

/* ---- files ---- */

enum err_code file_map(const char *path, const void **data, size_t *n, struct err *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    void *p = NULL;
    *n = 0;
    if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode))
        return err_set(e, ERR_INPUT, "%s: cannot read it", path);
    if (st.st_size > 0)
        p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (p == MAP_FAILED)
        return err_set(e, ERR_RESOURCE, "%s: cannot map it", path);
    *data = p;
    *n = (size_t)st.st_size;
    return ERR_OK;
}

void file_unmap(const void *data, size_t n)
{
    if (data)
        munmap((void *)(uintptr_t)data, n);
}

/* ---- threads ---- */

/*
 * A thread is a stack and a function: memory, files and signal handling are shared, and there is no
 * thread-local storage. The new thread finds its function and argument on top of its stack, calls,
 * and ends itself; nobody joins, because the program's end is the threads' end.
 */
enum { STACK = 1 << 20 };

long clone_thread(long flags, void **stack); /* below, in assembly */
__asm__(".globl clone_thread\n"
        "clone_thread:\n"
        "    mov $56, %eax\n" /* SYS_clone */
        "    syscall\n"
        "    test %rax, %rax\n"
        "    jnz 1f\n"
        "    pop %rax\n" /* the new thread: function, argument */
        "    pop %rdi\n"
        "    call *%rax\n"
        "    mov $60, %eax\n" /* SYS_exit ends this thread alone */
        "    syscall\n"
        "1:  ret\n");

int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attr,
                   void *(*fn)(void *), void *restrict arg)
{
    char *stack = malloc(STACK);
    void **top = (void **)(void *)(stack + STACK - 32 - HEAD % 16);
    (void)attr;
    *thread = 0;
    if (!stack)
        return 11; /* EAGAIN */
    top[0] = (void *)(uintptr_t)fn;
    top[1] = arg;
    return clone_thread(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
                            CLONE_SYSVSEM,
                        top) < 0
               ? 11
               : 0;
}

int pthread_join(pthread_t thread, void **result)
{
    (void)thread;
    (void)result;
    return 0;
}

/* ---- environment and start ---- */

static char **environment;

char *getenv(const char *name)
{
    size_t n = strlen(name);
    for (char **e = environment; *e; e++)
        if (!strncmp(*e, name, n) && (*e)[n] == '=')
            return *e + n + 1;
    return NULL;
}

int main(int argc, char **argv);

/* The kernel leaves argc, argv and the environment on the stack. */
__attribute__((used)) static _Noreturn void begin(long *stack)
{
    char **argv = (char **)(stack + 1);
    environment = argv + *stack + 1;
    sys3(SYS_exit_group, main((int)*stack, argv), 0, 0);
    for (;;)
        ;
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n    and $-16, %rsp\n    call begin");
