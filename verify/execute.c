/* execute.c - see execute.h. */
#include "verify/execute.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/reader.h"
#include "model/shard.h"
#include "model/text.h"
#include "packer/blob.h"
#include "verify/npy.h"

/* ---- the scores, as they arrive ---- */

static uint64_t bits(double v)
{
    uint64_t u;
    memcpy(&u, &v, sizeof u);
    return u;
}

static enum err_code compare(struct nll_check *c, const uint8_t *p, struct err *e)
{
    uint64_t got = le64(p);
    double value;
    if (c->have == c->count)
        return err_set(e, ERR_CLAIM, "it sent more than %zu scores", c->count);
    if (got != bits(c->want[c->have])) {
        memcpy(&value, &got, sizeof value);
        return err_set(e, ERR_CLAIM,
                       "score %zu is %.17g (%016llx), the engine's is %.17g (%016llx)", c->have,
                       value, (unsigned long long)got, c->want[c->have],
                       (unsigned long long)bits(c->want[c->have]));
    }
    c->have++;
    return ERR_OK;
}

/* Interpret what is held: the header first, then whole numbers; a rest stays. */
static enum err_code digest(struct nll_check *c, struct err *e)
{
    size_t at = 0;
    enum err_code rc;
    if (!c->started) {
        struct err why = {0};
        uint64_t count;
        if (npy_parse(c->buf, c->held, &at, &count, "--nll", &why))
            return err_set(e, ERR_CLAIM, "its scores are unreadable: %s", why.msg);
        if (!at)
            return ERR_OK;
        if (count != c->count)
            return err_set(e, ERR_CLAIM, "it announces %llu scores, the engine has %zu",
                           (unsigned long long)count, c->count);
        c->started = true;
    }
    for (; c->held - at >= sizeof(double); at += sizeof(double))
        if ((rc = compare(c, c->buf + at, e)))
            return rc;
    c->held -= at;
    memmove(c->buf, c->buf + at, c->held);
    return ERR_OK;
}

enum err_code nll_check_take(struct nll_check *c, const uint8_t *p, size_t n, struct err *e)
{
    while (n) {
        size_t room = sizeof c->buf - c->held, take = n < room ? n : room;
        memcpy(c->buf + c->held, p, take);
        c->held += take;
        p += take;
        n -= take;
        enum err_code rc = digest(c, e);
        if (rc)
            return rc;
    }
    return ERR_OK;
}

enum err_code nll_check_end(const struct nll_check *c, struct err *e)
{
    if (!c->started)
        return err_set(e, ERR_CLAIM, "it sent no scores");
    if (c->have != c->count || c->held)
        return err_set(e, ERR_CLAIM, "it sent %zu scores, the engine has %zu", c->have, c->count);
    return ERR_OK;
}

static enum err_code sink(void *ctx, const uint8_t *p, size_t n, struct err *e)
{
    return nll_check_take(ctx, p, n, e);
}

/* ---- its words ---- */

/* Where the last `lines` lines of out[n] begin. */
static const char *last_lines(const char *out, size_t n, size_t lines)
{
    const char *line = out + n;
    while (line > out && !(line[-1] == '\n' && --lines == 0))
        line--;
    return line;
}

/* Is have[hn] the line want[wn], but for the digits behind "time_ms:" at its end? */
static bool same_line(const char *have, size_t hn, const char *want, size_t wn)
{
    static const char time[] = "time_ms:0";
    const size_t tail = sizeof time - 1;
    if (wn < tail || memcmp(want + wn - tail, time, tail) != 0)
        return hn == wn && !memcmp(have, want, wn);
    if (hn < wn || memcmp(have, want, wn - 1) != 0)
        return false;
    for (size_t i = wn - 1; i < hn; i++)
        if (have[i] < '0' || have[i] > '9')
            return false;
    return true;
}

/* The last lines of what it printed must be the engine's result lines. NULL, or the first that is
 * not, and in `want` the engine's. */
static const char *other_line(const char *out, const struct scores *s, char *want, size_t cap)
{
    struct text t = {want, 0, cap};
    size_t n = strlen(out), lines = 1;

    score_report(&t, s->recipe, s->mode, &s->sum, &s->record, 0, false);
    for (const char *w = want; *w; w++)
        lines += *w == '\n';
    while (n && out[n - 1] == '\n')
        n--;
    const char *have = last_lines(out, n, lines), *end = out + n;
    for (char *w = want;; w++) {
        size_t wn = strcspn(w, "\n"), hn = 0;
        while (have + hn < end && have[hn] != '\n')
            hn++;
        if (!same_line(have, hn, w, wn)) {
            memmove(want, w, wn);
            want[wn] = 0;
            return have;
        }
        if (--lines == 0)
            return NULL;
        w += wn;
        have += hn + (have + hn < end);
    }
}

/* Its first line of complaint, printable characters only: it goes to somebody's terminal. */
static void first_words(char *to, size_t cap, const char *errs)
{
    size_t n = 0;
    for (; errs[n] && errs[n] != '\n' && n + 1 < cap; n++)
        to[n] = errs[n] >= ' ' && errs[n] < 127 ? errs[n] : '?';
    to[n] = 0;
}

static void judge(struct execution *x, const struct nll_check *c, const struct scores *s,
                  const struct err *refused)
{
    char how[128], words[160], want[512];
    const char *line;
    struct err e = {0};

    sandbox_describe(&x->box, how, sizeof how);
    first_words(words, sizeof words, x->box.errs);
    if (x->box.end == SANDBOX_REFUSED)
        snprintf(x->why, sizeof x->why, "%s", refused->msg);
    else if (x->box.end != SANDBOX_EXITED || x->box.status != 0)
        snprintf(x->why, sizeof x->why, "%s%s%s", how, words[0] ? ": " : "", words);
    else if (nll_check_end(c, &e))
        snprintf(x->why, sizeof x->why, "%s", e.msg);
    else if ((line = other_line(x->box.out, s, want, sizeof want))) {
        first_words(words, sizeof words, line);
        snprintf(x->why, sizeof x->why, "it printed \"%s\", expected \"%.240s\"", words, want);
    }
}

/* ---- the run ---- */

/* Real paths: the program starts in another directory, and shards may be links to elsewhere. The
 * data argument is the first; each shard may be read by its own right. */
static enum err_code readable(char ***path, size_t *n, const char *data, struct err *e)
{
    struct shard_list l = {0};
    enum err_code rc = shard_list(&l, data, "val", e);
    *n = 0;
    *path = rc ? NULL : calloc(l.count + 1, sizeof **path);
    if (!rc && !*path)
        rc = err_nomem(e, "names of shards", (l.count + 1) * sizeof **path);
    for (size_t i = 0; !rc && i <= l.count; i++) {
        const char *p = i ? l.path[i - 1] : data;
        (*path)[i] = realpath(p, NULL);
        if (!(*path)[i])
            rc = err_set(e, ERR_INPUT, "%s: %s", p, strerror(errno));
        *n += !rc;
    }
    shard_list_free(&l);
    return rc;
}

const char *execute_device(const void *file, size_t n)
{
    struct blob b;
    struct err ignored = {0};
    bool sound = !blob_parse(&b, file, n, "", NULL, 0, &ignored);
    return sound && blob_find(&b, KIND_CUDA) ? "--device" : NULL;
}

enum err_code execute_submission(const void *file, size_t n, const struct options *o,
                                 const struct scores *s, struct execution *x, struct err *e)
{
    struct nll_check check = {.want = s->nll, .count = s->count};
    char **path = NULL, tokens[32], threads[32], isa[64] = "KERN_ISA=";
    const char *want_isa = getenv("KERN_ISA");
    size_t paths = 0;
    struct err refused = {0};

    *x = (struct execution){0};
    enum err_code rc = readable(&path, &paths, o->data, e);
    if (rc)
        goto out;
    snprintf(tokens, sizeof tokens, "%zu", o->max_tokens);
    snprintf(threads, sizeof threads, "%zu", o->threads);
    snprintf(isa, sizeof isa, "KERN_ISA=%s", want_isa ? want_isa : "");
    const char *device = execute_device(file, n);
    const char *const argv[] = {o->file,
                                "--data",
                                path[0],
                                "--eval",
                                eval_mode_name(s->mode),
                                "--max-tokens",
                                tokens,
                                "--threads",
                                threads,
                                "--nll",
                                "/dev/fd/3",
                                device,
                                device ? "cpu" : NULL,
                                NULL};
    const char *const envp[] = {want_isa ? isa : NULL, NULL};
    const struct sandbox_job job = {.program = file,
                                    .program_bytes = n,
                                    .argv = argv,
                                    .envp = envp,
                                    .readable = (const char *const *)path,
                                    .readables = paths,
                                    .wall_seconds = (double)o->timeout,
                                    .memory_bytes = o->memory << 20,
                                    .output_bytes = 1 << 20,
                                    .weaker = o->weaker,
                                    .sink = sink,
                                    .ctx = &check};
    if (!(rc = sandbox_run(&job, &x->box, &refused)))
        judge(x, &check, s, &refused);
    else
        err_set(e, rc, "%s", refused.msg);
    x->compared = check.have;
out:
    for (size_t i = 0; i < paths; i++)
        free(path[i]);
    free(path);
    return rc;
}

void execution_free(struct execution *x)
{
    sandbox_result_free(&x->box);
    *x = (struct execution){0};
}
