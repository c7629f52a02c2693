/*
 * replay.c - runs a fuzz target without libFuzzer: every file given (or every file of a folder
 * given), and
 * `-r N` random changes of each. For regression in the unit tests and for compilers without a
 * fuzzer.
 *
 *   replay [-r N] FILE_OR_FOLDER...      exit status 0 when nothing crashed; crashes end the
 * program, and the input that did it is then in ./crash-replay
 */
#include <dirent.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"

enum { MAX = 1 << 20 };

static uint64_t seed = 1;

/* splitmix64 (Steele, Lea and Flood, 2014). */
static uint64_t next(void)
{
    uint64_t z = seed += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Written before the run, because afterwards there may be nobody to do it. */
static void run(const uint8_t *data, size_t n)
{
    uint8_t *exact = malloc(n ? n : 1); /* the sanitizer sees the end of it */
    FILE *f = fopen("crash-replay", "wb");
    if (!exact || !f)
        abort();
    memcpy(exact, data, n);
    fwrite(data, 1, n, f);
    fclose(f);
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
}

static size_t change(uint8_t *p, size_t n)
{
    static const uint8_t loud[] = {0, 1, 0x7f, 0x80, 0xff};
    for (uint64_t times = 1 + next() % 4; times; times--) {
        size_t at = n ? (size_t)(next() % n) : 0, len = (size_t)(next() % 16);
        switch (next() % 6) {
        case 0:
            if (n)
                p[at] ^= (uint8_t)(1 << next() % 8);
            break;
        case 1:
            if (n)
                p[at] = loud[next() % sizeof loud];
            break;
        case 2:
            n = at; /* cut */
            break;
        case 3: /* leave out */
            if (len <= n - at) {
                memmove(p + at, p + at + len, n - at - len);
                n -= len;
            }
            break;
        case 4: /* twice */
            if (len <= n - at && n + len <= MAX) {
                memmove(p + at + len, p + at, n - at);
                n += len;
            }
            break;
        default: /* from elsewhere */
            if (len <= n - at)
                memmove(p + at, p + next() % (n - len + 1), len);
        }
    }
    return n;
}

static void one(const char *path, unsigned long changes)
{
    static uint8_t data[MAX], work[MAX];
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        exit(3);
    }
    size_t n = fread(data, 1, sizeof data, f);
    fclose(f);
    run(data, n);
    for (unsigned long i = 0; i < changes; i++) {
        memcpy(work, data, n);
        run(work, change(work, n));
    }
}

int main(int argc, char **argv)
{
    unsigned long changes = 0, files = 0;
    for (int i = 1; i < argc; i++) {
        DIR *d;
        if (!strcmp(argv[i], "-r") && i + 1 < argc) {
            changes = strtoul(argv[++i], NULL, 10);
            continue;
        }
        if (!(d = opendir(argv[i]))) {
            one(argv[i], changes);
            files++;
            continue;
        }
        for (struct dirent *x; (x = readdir(d));) {
            char path[4096];
            if (x->d_name[0] == '.')
                continue;
            snprintf(path, sizeof path, "%s/%s", argv[i], x->d_name);
            one(path, changes);
            files++;
        }
        closedir(d);
    }
    remove("crash-replay");
    printf("%lu inputs, %lu changes of each\n", files, changes);
    return files ? 0 : 2;
}
