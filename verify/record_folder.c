/* record_folder.c - see record_folder.h. */
#include "verify/record_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "verify/report.h"

static bool ends(const char *s, const char *tail)
{
    size_t n = strlen(s), t = strlen(tail);
    return n >= t && !strcasecmp(s + n - t, tail);
}

static bool ends_in(const char *s, const char *const *tails)
{
    for (; *tails; tails++)
        if (ends(s, *tails))
            return true;
    return false;
}

static enum record_kind kind_of(const char *path)
{
    static const char *const log[] = {".log", ".txt", ".out", NULL};
    static const char *const code[] = {".c",  ".cc", ".cpp", ".cxx", ".cu", ".cuh", ".h",   ".hpp",
                                       ".sh", ".rs", ".go",  ".jl",  ".so", ".a",   ".pyc", NULL};
    static const char *const weights[] = {".ptz", ".pt",  ".pth", ".bin",  ".npz",
                                          ".npy", ".pkl", ".xz",  ".lzma", ".safetensors",
                                          ".zst", ".br",  ".lrz", ".zlib", NULL};
    static const char *const pieces[] = {".model", ".vocab", NULL};
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (!slash && !strcasecmp(name, "README.md"))
        return RECORD_README;
    if (!slash && ends(name, ".json"))
        return RECORD_META;
    if (ends_in(name, log))
        return !strncasecmp(name, "requirements", 12) || !strncasecmp(name, "readme", 6)
                   ? RECORD_OTHER
                   : RECORD_LOG;
    if (ends(name, ".py") || ends(name, ".pyz"))
        return RECORD_SCRIPT;
    return ends_in(name, code)      ? RECORD_CODE
           : ends_in(name, weights) ? RECORD_WEIGHTS
           : ends_in(name, pieces)  ? RECORD_TOKENIZER
                                    : RECORD_OTHER;
}

const char *record_file_name(const struct record_file *f)
{
    const char *slash = strrchr(f->path, '/');
    return slash ? slash + 1 : f->path;
}

static void note(struct record_folder *f, const char *path, const char *why)
{
    if (f->notes < RECORD_NOTES)
        snprintf(f->note[f->notes++], sizeof *f->note, "%.100s: %s", path, why);
}

static char *copy(const char *s, size_t n)
{
    char *p = malloc(n + 1);
    if (p) {
        if (n)
            memcpy(p, s, n);
        p[n] = 0;
    }
    return p;
}

/* Room for one more file, or an error. */
static enum err_code push(struct record_folder *f, const char *path, uint64_t size,
                          struct record_file **out, struct err *e)
{
    if (f->files >= RECORD_FILES)
        return err_set(e, ERR_INPUT, "%s: more than %d files", f->dir ? f->dir : "folder",
                       RECORD_FILES);
    struct record_file *grown = realloc(f->file, (f->files + 1) * sizeof *grown);
    if (!grown)
        return err_nomem(e, "a list of files", (f->files + 1) * sizeof *grown);
    f->file = grown;
    grown[f->files] = (struct record_file){.kind = kind_of(path), .size = size};
    grown[f->files].path = copy(path, strlen(path));
    if (!grown[f->files].path)
        return err_nomem(e, "a file name", strlen(path));
    report_clean(grown[f->files].path); /* it was opened already; from here on it is only shown */
    *out = &grown[f->files++];
    return ERR_OK;
}

/* The first bytes of a file of no known kind: is it a program? */
static void sniff(struct record_file *r, const void *head, size_t n)
{
    if ((r->kind == RECORD_OTHER || r->kind == RECORD_WEIGHTS) && n >= 4 &&
        !memcmp(head,
                "\x7f"
                "ELF",
                4))
        r->kind = RECORD_PROGRAM;
}

enum err_code record_folder_add(struct record_folder *f, const char *path, const void *text,
                                size_t n, struct err *e)
{
    struct record_file *r;
    enum err_code rc = push(f, path, n, &r, e);
    if (rc)
        return rc;
    sniff(r, text, n);
    r->text = copy(text, n);
    return r->text ? ERR_OK : err_nomem(e, path, n);
}

static bool is_text(enum record_kind k)
{
    return k == RECORD_README || k == RECORD_META || k == RECORD_LOG || k == RECORD_SCRIPT ||
           k == RECORD_CODE;
}

/* Load r->size bytes from fd; the file may be shorter by now, then the size is what was there. */
static enum err_code load(struct record_file *r, int fd, struct err *e)
{
    size_t n = 0, want = (size_t)r->size;
    r->text = malloc(want + 1);
    if (!r->text)
        return err_nomem(e, r->path, want + 1);
    while (n < want) {
        ssize_t got = read(fd, r->text + n, want - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_set(e, ERR_INPUT, "%s: %s", r->path, strerror(errno));
        if (!got)
            break;
        n += (size_t)got;
    }
    r->text[n] = 0;
    r->size = n;
    return ERR_OK;
}

static enum err_code walk(struct record_folder *f, int dirfd, const char *prefix, int depth,
                          uint64_t *total, struct err *e);

static enum err_code entry(struct record_folder *f, int dirfd, const char *name, const char *path,
                           int depth, uint64_t *total, struct err *e)
{
    struct stat st;
    struct record_file *r;
    enum err_code rc = ERR_OK;
    /* NONBLOCK: a pipe that nobody writes must not hold us up before it is known to be one. */
    int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st)) {
        note(f, path, errno == ELOOP ? "symbolic link, not followed" : strerror(errno));
    } else if (S_ISDIR(st.st_mode)) {
        if (depth >= RECORD_DEPTH)
            note(f, path, "folder too deep, not read");
        else
            rc = walk(f, fd, path, depth + 1, total, e);
    } else if (!S_ISREG(st.st_mode)) {
        note(f, path, "no regular file, not read");
    } else if (!(rc = push(f, path, (uint64_t)st.st_size, &r, e)) && !is_text(r->kind)) {
        char head[4];
        ssize_t got = read(fd, head, sizeof head);
        sniff(r, head, got > 0 ? (size_t)got : 0);
    } else if (!rc) {
        if (r->size > RECORD_TEXT_MAX || r->size > RECORD_TOTAL_MAX - *total) {
            note(f, path, "too large, not read");
        } else {
            *total += r->size;
            rc = load(r, fd, e);
        }
    }
    if (fd >= 0)
        close(fd);
    return rc;
}

static enum err_code walk(struct record_folder *f, int dirfd, const char *prefix, int depth,
                          uint64_t *total, struct err *e)
{
    enum err_code rc = ERR_OK;
    int own = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = own < 0 ? NULL : fdopendir(own);
    struct dirent *ent;
    if (!d) {
        if (own >= 0)
            close(own);
        return err_set(e, ERR_INPUT, "%s: %s", *prefix ? prefix : f->dir, strerror(errno));
    }
    while (!rc && (ent = readdir(d))) {
        char path[1024];
        if (*ent->d_name == '.' || !strcmp(ent->d_name, "__pycache__"))
            continue; /* .git, .DS_Store: not part of a record */
        if (snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "/" : "", ent->d_name) >=
            (int)sizeof path)
            note(f, ent->d_name, "path too long, not read");
        else
            rc = entry(f, dirfd, ent->d_name, path, depth, total, e);
    }
    closedir(d);
    return rc;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct record_file *)a)->path, ((const struct record_file *)b)->path);
}

enum err_code record_folder_read(struct record_folder *f, const char *dir, struct err *e)
{
    size_t n = strlen(dir);
    uint64_t total = 0;
    *f = (struct record_folder){0};
    while (n > 1 && dir[n - 1] == '/')
        n--;
    f->dir = copy(dir, n);
    if (!f->dir)
        return err_nomem(e, "a folder name", n);
    const char *slash = strrchr(f->dir, '/');
    f->name = copy(slash && slash[1] ? slash + 1 : f->dir,
                   strlen(slash && slash[1] ? slash + 1 : f->dir));
    if (!f->name)
        return err_nomem(e, "a folder name", n);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_set(e, ERR_INPUT, "%s: %s", dir, strerror(errno));
    enum err_code rc = walk(f, fd, "", 0, &total, e);
    close(fd);
    if (!rc && f->files)
        qsort(f->file, f->files, sizeof *f->file, by_path);
    return rc;
}

void record_folder_free(struct record_folder *f)
{
    for (size_t i = 0; i < f->files; i++) {
        free(f->file[i].path);
        free(f->file[i].text);
    }
    free(f->file);
    free(f->dir);
    free(f->name);
    *f = (struct record_folder){0};
}

const struct record_file *record_folder_find(const struct record_folder *f, const char *path)
{
    for (size_t i = 0; i < f->files; i++)
        if (!strcmp(f->file[i].path, path))
            return &f->file[i];
    return NULL;
}
