/* shards.c - see shards.h. */
#include "trainer/data/shards.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/reader.h"

enum { IO_BYTES = 1 << 16, PATH_BYTES = 4096 };

/* One split on its way to disk. The file of shard number `files` is open exactly when fd >= 0. */
struct split {
    const char *word; /* "val" or "train", as in the file names */
    int fd;
    uint32_t in_shard; /* tokens given to the open shard, buffered ones included */
    size_t fill;       /* bytes waiting in buf */
    struct shards_count done;
    uint8_t buf[IO_BYTES];
};

struct job {
    const struct shards_plan *plan;
    struct split val, train;
    uint8_t text[IO_BYTES];
};

void shards_add(struct shards_count *sum, const struct shards_count *part)
{
    sum->files += part->files;
    sum->docs += part->docs;
    sum->tokens += part->tokens;
    if (part->max_id > sum->max_id)
        sum->max_id = part->max_id;
}

/* Paths that do not fit were refused by check_plan, so the names here are never cut. */
static void shard_path(char path[PATH_BYTES], const struct shards_plan *p, const char *word,
                       uint64_t index, bool temporary)
{
    snprintf(path, PATH_BYTES, "%s/%s%s_%s_%06llu.bin%s", p->dir, temporary ? "." : "", p->name,
             word, (unsigned long long)index, temporary ? ".tmp" : "");
}

/* The number in NAME_WORD_NUMBER.bin, or -1 when file is not such a name. */
static long long shard_index(const char *file, const char *name, const char *word)
{
    size_t n = strlen(name), w = strlen(word);
    if (strncmp(file, name, n) != 0 || file[n] != '_' || strncmp(file + n + 1, word, w) != 0 ||
        file[n + 1 + w] != '_')
        return -1;
    const char *digits = file + n + w + 2;
    size_t len = strspn(digits, "0123456789");
    if (len < 6 || len > 18 || strcmp(digits + len, ".bin") != 0)
        return -1;
    return strtoll(digits, NULL, 10);
}

/* ---- writing ---- */

static enum err_code write_failed(const char *path, struct err *e)
{
    return err_set(e, ERR_RESOURCE, "%s: cannot write: %s", path, strerror(errno));
}

static enum err_code write_all(int fd, const uint8_t *p, size_t n, const char *path, struct err *e)
{
    while (n) {
        ssize_t put = write(fd, p, n);
        if (put < 0 && errno == EINTR)
            continue; /* a stop is noticed where the input is read */
        if (put < 0)
            return write_failed(path, e);
        p += put;
        n -= (size_t)put;
    }
    return ERR_OK;
}

static enum err_code flush(const struct job *j, struct split *s, struct err *e)
{
    char path[PATH_BYTES];
    shard_path(path, j->plan, s->word, s->done.files, true);
    enum err_code rc = write_all(s->fd, s->buf, s->fill, path, e);
    s->fill = 0;
    return rc;
}

static enum err_code open_shard(const struct job *j, struct split *s, struct err *e)
{
    char path[PATH_BYTES];
    shard_path(path, j->plan, s->word, s->done.files, true);
    s->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (s->fd < 0)
        return write_failed(path, e);
    memset(s->buf, 0, SHARDS_HEADER_BYTES); /* the count is known only in close_shard */
    s->fill = SHARDS_HEADER_BYTES;
    s->in_shard = 0;
    return ERR_OK;
}

static enum err_code close_shard(const struct job *j, struct split *s, struct err *e)
{
    enum err_code rc = flush(j, s, e);
    if (rc)
        return rc; /* still open: abandon() closes and removes it */

    char path[PATH_BYTES];
    uint8_t head[12];
    shard_path(path, j->plan, s->word, s->done.files, true);
    put_le32(head, SHARDS_MAGIC);
    put_le32(head + 4, SHARDS_VERSION);
    put_le32(head + 8, s->in_shard);
    if (lseek(s->fd, 0, SEEK_SET) < 0)
        return write_failed(path, e);
    rc = write_all(s->fd, head, sizeof head, path, e);
    if (rc)
        return rc;
    int fd = s->fd;
    s->fd = -1;
    s->done.files++; /* counted even when close fails, so that abandon() removes it */
    if (close(fd) != 0)
        return write_failed(path, e);
    return ERR_OK;
}

static enum err_code put_token(const struct job *j, struct split *s, uint32_t id, struct err *e)
{
    enum err_code rc = ERR_OK;
    if (s->fd < 0)
        rc = open_shard(j, s, e);
    else if (s->fill == IO_BYTES)
        rc = flush(j, s, e);
    if (rc)
        return rc;
    s->buf[s->fill++] = (uint8_t)id;
    s->buf[s->fill++] = (uint8_t)(id >> 8);
    s->in_shard++;
    s->done.tokens++;
    if (id > s->done.max_id)
        s->done.max_id = id;
    return s->in_shard == j->plan->shard_tokens ? close_shard(j, s, e) : ERR_OK;
}

/* Which split the next document belongs to, from what has been written so far. */
static struct split *split_of_next(struct job *j)
{
    const struct shards_plan *p = j->plan;
    uint64_t docs = j->val.done.docs + j->train.done.docs;
    uint64_t tokens = j->val.done.tokens + j->train.done.tokens;
    /* + 1: fraction 1 holds out all, fraction 0 nothing, and the first document is judged like
     * others */
    double share = p->val_fraction * (double)(tokens + 1);
    bool val = docs < p->val_docs || j->val.done.tokens < p->val_tokens ||
               (double)(j->val.done.tokens + 1) <= share;
    return val ? &j->val : &j->train;
}

static enum err_code refuse_id(const struct shards_plan *p, const char *in_name, uint64_t line,
                               uint32_t id, struct err *e)
{
    unsigned long long at = line;
    if (id >= p->vocab)
        return err_set(e, ERR_INPUT, "%s: line %llu: id %s%u, expected ids below %u (--vocab)",
                       in_name, at, id == UINT32_MAX ? "over " : "", id, p->vocab);
    return err_set(e, ERR_INPUT,
                   "%s: line %llu: id %u opens a document and is added here; "
                   "run the encoder without its bos option",
                   in_name, at, id);
}

static enum err_code refuse_byte(const char *in_name, uint64_t line, uint8_t c, struct err *e)
{
    char shown[8];
    snprintf(shown, sizeof shown, isprint(c) ? "'%c'" : "0x%02x", c);
    return err_set(e, ERR_INPUT, "%s: line %llu: byte %s, expected token ids in decimal", in_name,
                   (unsigned long long)line, shown);
}

/*
 * The input as a machine over bytes, so that neither a long line nor a buffer border is special:
 * `s` is the split of the line's document, NULL until its first id; `in_id` says that `id` holds
 * digits of an id that has not ended yet.
 */
static enum err_code read_documents(struct job *j, FILE *in, const char *in_name,
                                    uint64_t *empty_lines, struct err *e)
{
    const struct shards_plan *p = j->plan;
    struct split *s = NULL;
    uint64_t line = 1;
    uint32_t id = 0;
    bool in_id = false, at_start = true;
    size_t n;

    do {
        /* before and after: the signal may come while documents are written or while input is
         * awaited */
        n = p->stop && *p->stop ? 0 : fread(j->text, 1, sizeof j->text, in);
        if (p->stop && *p->stop)
            return err_set(e, ERR_RESOURCE, "stopped by a signal; nothing was written to %s",
                           p->dir);
        if (ferror(in))
            return err_set(e, ERR_INPUT, "%s: line %llu: cannot read: %s", in_name,
                           (unsigned long long)line, strerror(errno));
        for (size_t i = 0; i <= n; i++) {
            /* the end of the input ends a last line that has no newline */
            bool end = i == n;
            if (end && (n == sizeof j->text || at_start))
                break;
            uint8_t c = end ? '\n' : j->text[i];
            at_start = false;
            if (c >= '0' && c <= '9') {
                uint64_t wide = in_id ? (uint64_t)id * 10 + c - '0' : (uint64_t)c - '0';
                id = wide < UINT32_MAX ? (uint32_t)wide : UINT32_MAX;
                in_id = true;
                continue;
            }
            if (c != ' ' && c != '\t' && c != '\r' && c != '\n')
                return refuse_byte(in_name, line, c, e);
            if (in_id) {
                enum err_code rc = ERR_OK;
                if (id >= p->vocab || id == p->bos)
                    return refuse_id(p, in_name, line, id, e);
                if (!s) {
                    s = split_of_next(j);
                    s->done.docs++;
                    rc = put_token(j, s, p->bos, e);
                }
                if (!rc)
                    rc = put_token(j, s, id, e);
                if (rc)
                    return rc;
                in_id = false;
            }
            if (c == '\n') {
                if (!s)
                    ++*empty_lines;
                s = NULL;
                line++;
                at_start = true;
            }
        }
    } while (n == sizeof j->text);
    return ERR_OK;
}

/* Remove every temporary file of the split; those already renamed are no longer there to remove. */
static void abandon(const struct job *j, struct split *s)
{
    char path[PATH_BYTES];
    if (s->fd >= 0) {
        close(s->fd);
        s->fd = -1;
    }
    for (uint64_t i = 0; i <= s->done.files; i++) {
        shard_path(path, j->plan, s->word, i, true);
        unlink(path);
    }
}

static enum err_code rename_all(const struct job *j, const struct split *s, struct err *e)
{
    char from[PATH_BYTES], to[PATH_BYTES];
    for (uint64_t i = 0; i < s->done.files; i++) {
        shard_path(from, j->plan, s->word, i, true);
        shard_path(to, j->plan, s->word, i, false);
        if (rename(from, to) != 0)
            return write_failed(to, e);
    }
    return ERR_OK;
}

/*
 * Look at the shards in the directory whose number is first_val or more, or first_train or more:
 * with `remove` unlink them (leftovers of a longer earlier run), otherwise the first one found is
 * an error.
 */
static enum err_code old_shards(const struct shards_plan *p, uint64_t first_val,
                                uint64_t first_train, bool remove, struct err *e)
{
    enum err_code rc = ERR_OK;
    DIR *d = opendir(p->dir);
    if (!d)
        return err_set(e, ERR_RESOURCE, "%s: cannot read the directory: %s", p->dir,
                       strerror(errno));
    for (const struct dirent *f; !rc && (f = readdir(d));) {
        long long val = shard_index(f->d_name, p->name, "val");
        long long train = shard_index(f->d_name, p->name, "train");
        bool old = (val >= 0 && (uint64_t)val >= first_val) ||
                   (train >= 0 && (uint64_t)train >= first_train);
        if (old && !remove)
            rc = err_set(e, ERR_USAGE,
                         "%s: already holds %s; choose another directory or say --replace", p->dir,
                         f->d_name);
        else if (old && unlinkat(dirfd(d), f->d_name, 0) != 0)
            rc = err_set(e, ERR_RESOURCE, "%s: cannot remove the old %s: %s", p->dir, f->d_name,
                         strerror(errno));
    }
    closedir(d);
    return rc;
}

static enum err_code check_plan(const struct shards_plan *p, struct err *e)
{
    int rules = (p->val_docs > 0) + (p->val_tokens > 0) + (p->val_fraction != 0);
    if (p->vocab < 1 || p->vocab > SHARDS_MAX_VOCAB)
        return err_set(e, ERR_USAGE, "vocabulary of %u, expected 1 to %d (ids are uint16)",
                       p->vocab, SHARDS_MAX_VOCAB);
    if (p->bos >= p->vocab)
        return err_set(e, ERR_USAGE, "bos id %u, expected an id below the vocabulary of %u", p->bos,
                       p->vocab);
    if (p->shard_tokens < 1 || p->shard_tokens > INT32_MAX)
        return err_set(e, ERR_USAGE, "%u tokens per shard, expected 1 to %d", p->shard_tokens,
                       INT32_MAX);
    if (!(p->val_fraction >= 0 && p->val_fraction <= 1))
        return err_set(e, ERR_USAGE, "the held-out fraction must be from 0 to 1");
    if (rules > 1)
        return err_set(e, ERR_USAGE,
                       "more than one rule for held-out documents, expected at most one");
    if (!*p->name || strchr(p->name, '/'))
        return err_set(e, ERR_USAGE, "'%s' cannot begin a file name", p->name);
    if (strlen(p->dir) + strlen(p->name) >
        PATH_BYTES - 64) /* 64: "/._train_", 20 digits, ".bin.tmp" */
        return err_set(e, ERR_USAGE, "the output path is too long");
    if (mkdir(p->dir, 0777) != 0 && errno != EEXIST)
        return err_set(e, ERR_RESOURCE, "%s: cannot make the directory: %s", p->dir,
                       strerror(errno));
    return p->replace ? ERR_OK : old_shards(p, 0, 0, false, e);
}

enum err_code shards_write(const struct shards_plan *plan, FILE *in, const char *in_name,
                           struct shards_stats *st, struct err *e)
{
    struct job *j = NULL;
    uint64_t empty_lines = 0;
    enum err_code rc = check_plan(plan, e);
    if (rc)
        return rc;
    j = calloc(1, sizeof *j);
    if (!j)
        return err_nomem(e, "the shard buffers", sizeof *j);
    j->plan = plan;
    j->val.word = "val";
    j->train.word = "train";
    j->val.fd = j->train.fd = -1;

    rc = read_documents(j, in, in_name, &empty_lines, e);
    if (!rc && j->val.done.docs + j->train.done.docs == 0)
        rc = err_set(e, ERR_INPUT, "%s: no documents, expected lines of token ids", in_name);
    if (!rc && j->val.fd >= 0)
        rc = close_shard(j, &j->val, e);
    if (!rc && j->train.fd >= 0)
        rc = close_shard(j, &j->train, e);
    if (!rc)
        rc = rename_all(j, &j->val, e);
    if (!rc)
        rc = rename_all(j, &j->train, e);
    if (!rc && plan->replace)
        rc = old_shards(plan, j->val.done.files, j->train.done.files, true, e);
    if (rc) {
        abandon(j, &j->val);
        abandon(j, &j->train);
    } else {
        st->val = j->val.done;
        st->train = j->train.done;
        st->empty_lines = empty_lines;
    }
    free(j);
    return rc;
}

/* ---- checking ---- */

enum err_code shards_check(const char *path, uint32_t vocab, uint32_t bos, struct shards_count *sum,
                           struct err *e)
{
    enum err_code rc = ERR_OK;
    struct shards_count c = {.files = 1};
    uint8_t buf[IO_BYTES];
    FILE *f = fopen(path, "rb");
    if (!f)
        return err_set(e, ERR_INPUT, "%s: cannot open: %s", path, strerror(errno));

    size_t n = fread(buf, 1, SHARDS_HEADER_BYTES, f);
    struct reader r = reader_init(buf, n);
    uint32_t magic = reader_u32(&r), version = reader_u32(&r), count = reader_u32(&r);
    if (n < SHARDS_HEADER_BYTES) {
        rc = err_set(e, ERR_INPUT, "%s: %zu bytes, expected a header of %d", path, n,
                     SHARDS_HEADER_BYTES);
        goto out;
    }
    if (magic != SHARDS_MAGIC || version != SHARDS_VERSION) {
        rc = err_set(e, ERR_INPUT, "%s: magic %u version %u, expected %d version %d", path, magic,
                     version, SHARDS_MAGIC, SHARDS_VERSION);
        goto out;
    }
    /* Count what is there instead of asking for the size: this also checks a pipe. */
    uint64_t bytes = 0;
    while (!rc && (n = fread(buf, 1, sizeof buf, f)) > 0) {
        for (size_t i = 0; i + 1 < n; i += 2) { /* IO_BYTES is even: a pair never spans two reads */
            uint32_t id = le16(buf + i);
            if (id >= vocab && !rc)
                rc = err_set(e, ERR_INPUT, "%s: token %llu has id %u, expected ids below %u", path,
                             (unsigned long long)(bytes + i) / 2, id, vocab);
            if (id > c.max_id)
                c.max_id = id;
            c.docs += id == bos;
        }
        bytes += n;
    }
    c.tokens = bytes / 2;
    if (!rc && ferror(f))
        rc = err_set(e, ERR_INPUT, "%s: cannot read: %s", path, strerror(errno));
    if (!rc && bytes != 2 * (uint64_t)count)
        rc = err_set(e, ERR_INPUT, "%s: header says %u tokens (%llu bytes), file holds %llu bytes",
                     path, count, 2ULL * count, (unsigned long long)bytes);
    if (!rc)
        shards_add(sum, &c);
out:
    fclose(f);
    return rc;
}
