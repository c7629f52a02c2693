/* probe_run.c - see probe_run.h. */
#include "verify/probe_run.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/reader.h"
#include "model/shard.h"
#include "verify/execute.h"
#include "verify/npy.h"

/* ---- the directory ---- */

enum { SLOTS = 64 };

static void shard_path(char out[320], const char *dir, size_t slot)
{
    snprintf(out, 320, "%s/probe_val_%06zu.bin", dir, slot);
}

static void remove_all(const char *dir)
{
    char path[320];
    for (size_t i = 0; i < SLOTS; i++) {
        shard_path(path, dir, i);
        unlink(path);
    }
    rmdir(dir);
}

static void ending_signals(sigset_t *s)
{
    sigemptyset(s);
    sigaddset(s, SIGINT);
    sigaddset(s, SIGTERM);
    sigaddset(s, SIGHUP);
}

/* Waits for a signal that ends the process, cleans up, and lets it end. */
static void *watch(void *ctx)
{
    const struct probe_dir *d = ctx;
    sigset_t s;
    int sig;
    ending_signals(&s);
    if (!sigwait(&s, &sig)) {
        remove_all(d->path);
        signal(sig, SIG_DFL);
        pthread_sigmask(SIG_UNBLOCK, &s, NULL);
        raise(sig);
    }
    return NULL;
}

enum err_code probe_dir_open(struct probe_dir *d, struct err *e)
{
    const char *tmp = getenv("TMPDIR");
    sigset_t s;
    *d = (struct probe_dir){0};
    int n = snprintf(d->path, sizeof d->path, "%s/probe-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (n >= (int)sizeof d->path || !mkdtemp(d->path)) {
        enum err_code rc =
            err_set(e, ERR_RESOURCE, "%s: cannot make a directory: %s", d->path, strerror(errno));
        d->path[0] = 0;
        return rc;
    }
    ending_signals(&s);
    pthread_sigmask(SIG_BLOCK, &s, NULL);
    d->watched = !pthread_create(&d->watcher, NULL, watch, d);
    if (!d->watched)
        pthread_sigmask(SIG_UNBLOCK, &s, NULL);
    return ERR_OK;
}

void probe_dir_close(struct probe_dir *d)
{
    sigset_t s;
    if (!d->path[0])
        return;
    if (d->watched) {
        pthread_cancel(d->watcher);
        pthread_join(d->watcher, NULL);
    }
    remove_all(d->path);
    ending_signals(&s);
    pthread_sigmask(SIG_UNBLOCK, &s, NULL);
    *d = (struct probe_dir){0};
}

static enum err_code write_shard(const char *path, const uint16_t *tok, size_t n, struct err *e)
{
    uint8_t head[SHARD_HEADER] = {0};
    put_le32(head, SHARD_MAGIC);
    put_le32(head + 4, SHARD_VERSION);
    put_le32(head + 8, (uint32_t)n);
    FILE *f = fopen(path, "wb");
    bool ok = f && fwrite(head, sizeof head, 1, f) == 1;
    ok = ok && fwrite(tok, sizeof *tok, n, f) == n; /* little-endian hosts only, as shard.h */
    if (f && fclose(f))
        ok = false;
    return ok ? ERR_OK : err_set(e, ERR_RESOURCE, "%s: %s", path, strerror(errno));
}

/* ---- its scores, as they arrive ---- */

struct intake {
    struct probe_scores *s;
    size_t most; /* scores that it may announce */
    uint8_t head[4352];
    size_t held;     /* bytes of head; the header is at most 4096 and 12 long */
    uint64_t expect; /* scores announced */
    size_t got;      /* bytes of scores */
    bool started;
};

static enum err_code announced(struct intake *in, struct err *e)
{
    if (in->expect > in->most)
        return err_set(e, ERR_CLAIM, "it announces %llu scores for a stream of %zu tokens",
                       (unsigned long long)in->expect, in->most / 4);
    in->s->count = (size_t)in->expect;
    in->s->nll = malloc((in->s->count + 1) * sizeof *in->s->nll);
    if (!in->s->nll)
        return err_nomem(e, "its scores", in->expect * 8);
    in->started = true;
    return ERR_OK;
}

static enum err_code scores(struct intake *in, const uint8_t *p, size_t n, struct err *e)
{
    if (n > in->s->count * sizeof *in->s->nll - in->got)
        return err_set(e, ERR_CLAIM, "it sent more than the %zu scores that it announced",
                       in->s->count);
    memcpy((uint8_t *)in->s->nll + in->got, p, n);
    in->got += n;
    return ERR_OK;
}

static enum err_code take(void *ctx, const uint8_t *p, size_t n, struct err *e)
{
    struct intake *in = ctx;
    struct err why = {0};
    size_t at;
    enum err_code rc;

    if (in->started)
        return scores(in, p, n, e);
    size_t room = sizeof in->head - in->held, some = n < room ? n : room;
    memcpy(in->head + in->held, p, some);
    in->held += some;
    if (npy_parse(in->head, in->held, &at, &in->expect, "--nll", &why))
        return err_set(e, ERR_CLAIM, "its scores are unreadable: %s", why.msg);
    if (!at)
        return ERR_OK; /* npy_parse refuses a header that does not fit into head */
    if ((rc = announced(in, e)) || (rc = scores(in, in->head + at, in->held - at, e)))
        return rc;
    return scores(in, p + some, n - some, e);
}

/* ---- its words ---- */

static void printable(char *to, size_t cap, const char *from, size_t n)
{
    size_t i = 0;
    for (; i < n && from[i] && i + 1 < cap; i++)
        to[i] = from[i] >= ' ' && from[i] < 127 ? from[i] : '?';
    to[i] = 0;
}

/* The last line of `out` that begins with BEFORE MODE AFTER. */
static void line_of(char *to, size_t cap, const char *out, const char *before, const char *mode,
                    char after)
{
    char prefix[64];
    int want = snprintf(prefix, sizeof prefix, "%s%s%c", before, mode, after);
    to[0] = 0;
    for (const char *line = out; line;) {
        const char *nl = strchr(line, '\n');
        size_t n = nl ? (size_t)(nl - line) : strlen(line);
        if (n >= (size_t)want && !memcmp(line, prefix, (size_t)want))
            printable(to, cap, line, n);
        line = nl ? nl + 1 : NULL;
    }
}

bool probe_line_parse(const char *line, struct probe_line *p)
{
    static const char *const name[] = {" val_loss:", " val_bpb:", " tokens:", " bytes:"};
    const char *at[4];
    char *end[4];
    for (size_t i = 0; i < 4; i++) {
        at[i] = strstr(line, name[i]);
        if (!at[i])
            return false;
        at[i] += strlen(name[i]);
        if (*at[i] < '0' || *at[i] > '9')
            return false;
    }
    p->val_loss = strtod(at[0], &end[0]);
    p->val_bpb = strtod(at[1], &end[1]);
    p->tokens = strtoull(at[2], &end[2], 10);
    p->bytes = strtoull(at[3], &end[3], 10);
    for (size_t i = 0; i < 4; i++)
        if (*end[i] && *end[i] != ' ')
            return false;
    return true;
}

/* ---- the run ---- */

static enum err_code judge(const struct intake *in, const struct sandbox_result *box,
                           const struct err *refused, struct err *e)
{
    char how[128], words[96];
    sandbox_describe(box, how, sizeof how);
    printable(words, sizeof words, box->errs, strcspn(box->errs, "\n"));
    if (box->end == SANDBOX_REFUSED)
        return err_set(e, ERR_CLAIM, "%s", refused->msg);
    if (box->end != SANDBOX_EXITED || box->status)
        return err_set(e, ERR_CLAIM, "%s%s%s", how, words[0] ? ": " : "", words);
    if (!in->started)
        return err_set(e, ERR_CLAIM, "it sent no scores");
    if (in->got != in->s->count * sizeof *in->s->nll)
        return err_set(e, ERR_CLAIM, "it sent %zu bytes of the %zu scores that it announced",
                       in->got, in->s->count);
    return ERR_OK;
}

enum err_code probe_run(const struct probe_job *j, size_t slot, const uint16_t *tok, size_t n,
                        struct probe_scores *s, struct err *e)
{
    char path[320], tokens[32], threads[32], isa[64];
    const char *want_isa = getenv("KERN_ISA");
    /* Old window lists score the end of a stream again: at most twice as many scores as tokens. */
    struct intake in = {.s = s, .most = 4 * n};
    struct sandbox_result box = {0};
    struct err refused = {0};
    enum err_code rc;

    *s = (struct probe_scores){0};
    shard_path(path, j->dir->path, slot);
    if ((rc = write_shard(path, tok, n, e)))
        return rc;
    snprintf(tokens, sizeof tokens, "%zu", j->max_tokens);
    snprintf(threads, sizeof threads, "%zu", j->threads);
    snprintf(isa, sizeof isa, "KERN_ISA=%s", want_isa ? want_isa : "");
    const char *device = execute_device(j->file->data, j->file->size);
    const char *const argv[] = {
        j->file->path, "--data", path,    "--eval",    j->mode, "--max-tokens",        tokens,
        "--threads",   threads,  "--nll", "/dev/fd/3", device,  device ? "cpu" : NULL, NULL};
    const char *const envp[] = {want_isa ? isa : NULL, NULL};
    const char *const readable[] = {path};
    const struct sandbox_job job = {.program = j->file->data,
                                    .program_bytes = j->file->size,
                                    .argv = argv,
                                    .envp = envp,
                                    .readable = readable,
                                    .readables = 1,
                                    .wall_seconds = j->seconds,
                                    .memory_bytes = j->memory,
                                    .output_bytes = 1 << 20,
                                    .weaker = j->weaker,
                                    .sink = take,
                                    .ctx = &in};
    rc = sandbox_run(&job, &box, &refused);
    if (rc)
        err_set(e, rc, "%s", refused.msg);
    else if (!(rc = judge(&in, &box, &refused, e))) {
        line_of(s->line, sizeof s->line, box.out, "final_", j->mode, ' ');
        line_of(s->conditions, sizeof s->conditions, box.out, "conditions ", j->mode, ':');
    }
    s->seconds = box.seconds;
    s->layers = box.layers;
    s->landlock_abi = box.landlock_abi;
    sandbox_result_free(&box);
    if (rc)
        probe_scores_free(s);
    return rc;
}

void probe_scores_free(struct probe_scores *s)
{
    free(s->nll);
    *s = (struct probe_scores){0};
}
