/*
 * runner_rt.c - what the runner has instead of the big parts of libc.
 *
 * Messages without stdio, settings without strtod, system calls without errno, threads without
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
#include "model/recipe.h"
#include "model/shard.h"
#include "model/text.h"

/* %s, %u, %d and numbers of 64 bits (%zu, %llu, %lld), none of them negative. */
static void format(struct text *t, const char *fmt, va_list ap)
{
    for (; *fmt; fmt++) {
        if (*fmt != '%') {
            text_char(t, *fmt);
        } else if (*++fmt == 's') {
            text_str(t, va_arg(ap, const char *));
        } else {
            size_t v = va_arg(ap, size_t);
            if (*fmt == 'u' || *fmt == 'd')
                v = (unsigned)v;
            else
                fmt += *fmt == 'z' ? 1 : 2;
            text_u64(t, v);
        }
    }
}

enum err_code err_exit(enum err_code code, const char *fmt, ...)
{
    char line[512];
    struct text t = {line, 0, sizeof line - 1};
    va_list ap;
    va_start(ap, fmt);
    text_str(&t, "submission: ");
    format(&t, fmt, ap);
    line[t.n] = '\n';
    write(2, line, t.n + 1);
    exit(code);
}

enum err_code err_damaged(void)
{
    err_exit(ERR_INPUT, "this file is damaged");
}

enum err_code err_memory(void)
{
    err_exit(ERR_RESOURCE, "out of memory");
}

/* ---- memory ---- */

enum { HEAD = 64 }; /* in front of every block: its mapped size; keeps blocks on cache lines */

void *malloc(size_t n)
{
    size_t *p = mmap(NULL, n + HEAD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (n > SIZE_MAX / 2 || p == MAP_FAILED)
        err_memory();
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
    return malloc(n * size); /* fresh pages are zero */
}

void *aligned_alloc(size_t align, size_t n)
{
    (void)align; /* HEAD at most */
    return malloc(n);
}

void *realloc(void *p, size_t n)
{
    void *q = malloc(n);
    if (p) {
        size_t old = *(size_t *)(void *)((char *)p - HEAD) - HEAD;
        memcpy(q, p, old < n ? old : n);
        free(p);
    }
    return q;
}

/* ---- settings ---- */

/*
 * The recipe section is what recipe_print wrote: lines KEY=VALUE with all keys of a model and its
 * scoring, in their order. So the runner need not know their names, only their types.
 */
enum { TYPE_INT = 'I', TYPE_NUM = 'N', TYPE_STR = 'S' };
#define KEY(type, key, field, def, help) TYPE_##type,
static const char types[] = {RECIPE_MODEL_KEYS(KEY) RECIPE_EVAL_KEYS(KEY) 0};

struct known {
    RECIPE_MODEL_KEYS(RECIPE_FIELD)
    RECIPE_EVAL_KEYS(RECIPE_FIELD)
};
_Static_assert(sizeof(struct known) % 8 == 0 && sizeof(int64_t) == sizeof(double),
               "a field of struct recipe is 8 bytes or RECIPE_STR, a multiple of 8");

/* number_parse (model/number.h) of what recipe_print writes. */
static double number(const char *s)
{
    uint64_t digits = 0;
    int exp = 0, e = 0, point = 0;
    bool neg = *s == '-', eneg;
    double v, p = 1;
    for (s += neg; *s == '.' || (*s >= '0' && *s <= '9'); s++)
        if (*s == '.') {
            point = 1;
        } else {
            digits = digits * 10 + (uint64_t)(*s - '0');
            exp -= point;
        }
    if (*s++ == 'e') {
        for (eneg = *s == '-'; *++s;)
            e = e * 10 + (*s - '0');
        exp += eneg ? -e : e;
    }
    for (; exp > 22; exp--)
        digits *= 10;
    v = (double)digits;
    for (e = exp < 0 ? -exp : exp; e; e--)
        p *= 10; /* exact up to 10^22 */
    v = exp < 0 ? v / p : v * p;
    return neg ? -v : v;
}

void recipe_init(struct recipe *r)
{
    memset(r, 0, sizeof *r);
}

enum err_code recipe_parse(struct recipe *r, const char *text, size_t n, const char *where,
                           bool lenient, struct err *e)
{
    const char *end = text + n;
    char *field = (char *)r;
    (void)where;
    (void)lenient;
    (void)e;
    for (const char *type = types; *type; type++) {
        char value[RECIPE_STR] = {0};
        size_t used = 0;
        while (text < end && *text++ != '=')
            ;
        for (; text < end && *text != '\n'; text++)
            if (used < sizeof value - 1)
                value[used++] = *text;
        if (*type == TYPE_STR) {
            memcpy(field, value, sizeof value);
            field += sizeof value;
            continue;
        }
        if (*type == TYPE_NUM)
            *(double *)(void *)field = number(value);
        else
            *(int64_t *)(void *)field = (int64_t)number(value);
        field += sizeof(double);
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

char *strcpy(char *restrict to, const char *restrict from)
{
    size_t i = 0;
    while ((to[i] = from[i]))
        i++;
    return to;
}

char *strcat(char *restrict to, const char *restrict from)
{
    strcpy(to + strlen(to), from);
    return to;
}

/* ---- system calls ---- */

/*
 * The few calls of libc that the runner makes, straight to the kernel. None of them leaves an error
 * number behind (nobody here reads errno; what is negative has failed), so threads need no storage
 * of their own, and the start-up code of libc is not needed either.
 */
__attribute__((naked)) long syscall(__attribute__((unused)) long number, ...)
{
    __asm__("mov %rdi, %rax\n"
            "mov %rsi, %rdi\n"
            "mov %rdx, %rsi\n"
            "mov %rcx, %rdx\n"
            "mov %r8, %r10\n"
            "mov %r9, %r8\n"
            "xor %r9d, %r9d\n" /* no call here has a sixth argument but 0 */
            "syscall\n"
            "ret");
}

static long kernel3(long number, long a, long b, long c)
{
    return syscall(number, a, b, c, 0, 0);
}

_Noreturn void exit(int status)
{
    kernel3(SYS_exit_group, status, 0, 0);
    __builtin_unreachable();
}

void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t off)
{
    (void)off; /* always 0 */
    long p = syscall(SYS_mmap, (long)at, (long)n, prot, flags, fd);
    return p < 0 ? MAP_FAILED : (void *)p;
}

int munmap(void *p, size_t n)
{
    return (int)kernel3(SYS_munmap, (long)p, (long)n, 0);
}

int open(const char *path, int flags, ...)
{
    return (int)kernel3(SYS_open, (long)path, flags, 0666);
}

int close(int fd)
{
    return (int)kernel3(SYS_close, fd, 0, 0);
}

ssize_t write(int fd, const void *p, size_t n)
{
    return kernel3(SYS_write, fd, (long)p, (long)n);
}

int mkdir(const char *path, mode_t mode)
{
    return (int)kernel3(SYS_mkdir, (long)path, mode, 0);
}

/* musl's struct stat has the kernel's layout on x86-64. */
int fstat(int fd, struct stat *st)
{
    return (int)kernel3(SYS_fstat, fd, (long)st, 0);
}

int isatty(int fd)
{
    char state[64]; /* struct termios of the kernel: 36 bytes */
    return kernel3(SYS_ioctl, fd, 0x5401, (long)state) == 0; /* TCGETS */
}

int clock_gettime(clockid_t clock, struct timespec *t)
{
    return (int)kernel3(SYS_clock_gettime, clock, (long)t, 0);
}

int sched_getaffinity(pid_t pid, size_t n, cpu_set_t *set)
{
    memset(set, 0, n); /* the kernel fills in only as many bytes as it has processors for */
    return kernel3(SYS_sched_getaffinity, pid, (long)n, (long)set) < 0 ? -1 : 0;
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
        err_memory();
    *data = p;
    *n = (size_t)st.st_size;
    return ERR_OK;
}

void file_unmap(const void *data, size_t n)
{
    if (data)
        munmap((void *)(uintptr_t)data, n);
}

/* ---- shards ---- */

/* "..._val_....bin"? */
static bool is_val(const char *name)
{
    size_t n = strlen(name), i = 0;
    while (i < n && strncmp(name + i, "_val_", 5))
        i++;
    return i < n && !strcmp(name + n - 4, ".bin");
}

/* The name that comes next behind `name` among the shards of a directory, in its place; false when
 * there is none. The kernel's records have the layout of musl's struct dirent; see getdents64(2).
 */
static bool next_shard(const char *path, char *name)
{
    _Alignas(struct dirent) char buf[4096];
    int dir = open(path, O_RDONLY | O_DIRECTORY);
    char best[256] = "";
    long n;
    while ((n = syscall(SYS_getdents64, dir, buf, sizeof buf, 0, 0)) > 0)
        for (char *at = buf; at < buf + n;) {
            struct dirent *d = (struct dirent *)(void *)at;
            if (is_val(d->d_name) && strcmp(d->d_name, name) > 0 &&
                (!*best || strcmp(d->d_name, best) < 0))
                strcpy(best, d->d_name);
            at += d->d_reclen;
        }
    close(dir);
    strcpy(name, best);
    return *best;
}

/* Append one shard's tokens, as many as max still allows. */
static void append(uint16_t **tok, size_t *n, const char *path, size_t vocab, size_t max)
{
    struct shard s;
    shard_open(&s, path, vocab, NULL);
    size_t take = max && s.n > max - *n ? max - *n : s.n;
    *tok = realloc(*tok, (*n + take) * sizeof **tok);
    memcpy(*tok + *n, s.tok, take * sizeof **tok);
    *n += take;
    shard_close(&s);
}

/* kind is "val". The directory is read once for each shard: there are few. */
enum err_code shard_load(uint16_t **tok, size_t *n, const char *path, const char *kind,
                         size_t vocab, size_t max, struct err *e)
{
    char name[256] = "", full[4096];
    int dir = open(path, O_RDONLY);
    struct stat st;
    (void)kind;
    (void)e;
    *tok = NULL;
    *n = 0;
    if (dir < 0 || fstat(dir, &st))
        err_exit(ERR_INPUT, "%s: no such file or directory", path);
    close(dir);
    if (!S_ISDIR(st.st_mode)) {
        append(tok, n, path, vocab, max);
        return ERR_OK;
    }
    while ((!max || *n < max) && next_shard(path, name)) {
        struct text t = {full, 0, sizeof full};
        text_str(&t, path);
        text_char(&t, '/');
        text_str(&t, name);
        append(tok, n, full, vocab, max);
    }
    if (!*n)
        err_exit(ERR_INPUT, "%s: no *_val_*.bin shard in it", path);
    return ERR_OK;
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
    top[0] = (void *)(uintptr_t)fn;
    top[1] = arg;
    if (clone_thread(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
                         CLONE_SYSVSEM,
                     top) < 0)
        err_memory();
    return 0;
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
    exit(main((int)*stack, argv));
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n    and $-16, %rsp\n    call begin");
