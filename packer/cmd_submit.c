/* cmd_submit.c - see commands.h: `packer submit`, a leaderboard folder from several runs. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "packer/commands.h"
#include "packer/submit.h"

const char help_submit[] =
    "packer submit RUN_DIR... -o FOLDER [option]...\n"
    "\n"
    "Makes the leaderboard folder of runs that differ in their seed alone: README.md, "
    "submission.json,\n"
    "recipe.conf, and of each run its log, its submission and its audit. Prints each rule of the\n"
    "challenge (docs/rules.md); writes nothing when one is broken. RUN_DIR holds train.log, "
    "submission\n"
    "and verify.json, what `verify blob RUN_DIR/submission --data DIR --json` printed "
    "(docs/submit.md).\n"
    "\n"
    "  -o FOLDER           the folder; must not exist\n"
    "  --force             replace one that packer submit wrote\n"
    "  --data DIR          verify each file anew and write its verify.json (runs verify)\n"
    "  --execute           with --data: also execute each file in verify's sandbox\n"
    "  --name TEXT  --author TEXT  --github-id ID  --blurb TEXT  --date YYYY-MM-DD\n"
    "                      what submission.json and README.md say about it\n"
    "  --sota BPB[,BPB]... the scores to beat: one (one-sample test), or all seeds' (Welch's)\n"
    "  --track NAME        non_record_16mb (default), or 10min_16mb: then training time, three "
    "runs,\n"
    "                      author and GitHub ID are rules that bind\n"
    "\n"
    "Exit status 1: a rule is broken.\n"
    "Example: packer submit out/s1 out/s2 out/s3 -o records/mine --author Me --github-id me\n";

struct options {
    struct submit_job job;
    const char *data;
    bool execute;
};

static bool is_date(const char *s)
{
    static const char form[] = "dddd-dd-dd";
    for (size_t i = 0; i < sizeof form; i++)
        if (form[i] == 'd' ? s[i] < '0' || s[i] > '9' : s[i] != form[i])
            return false;
    return true;
}

static enum err_code parse_sota(struct submit_job *j, const char *text, struct err *e)
{
    const char *at = text;
    for (;;) {
        char *end;
        double v = strtod(at, &end);
        if (end == at || !(v > 0 && v < 100) || (*end && *end != ','))
            return err_set(e, ERR_USAGE, "--sota %s: expected bits per byte, as 1.0897,1.0902",
                           text);
        if (j->sotas == SUBMIT_RUNS)
            return err_set(e, ERR_USAGE, "--sota: more than %d scores", SUBMIT_RUNS);
        j->sota[j->sotas++] = v;
        if (!*end)
            return ERR_OK;
        at = end + 1;
    }
}

static enum err_code set_option(struct options *o, const char *key, const char *value,
                                struct err *e)
{
    struct submit_job *j = &o->job;
    const struct {
        const char *name, **to;
    } text[] = {{"-o", &j->out},          {"--data", &o->data},        {"--name", &j->name},
                {"--author", &j->author}, {"--github-id", &j->github}, {"--blurb", &j->blurb},
                {"--date", &j->date},     {"--track", &j->track}};
    if (!strcmp(key, "--sota"))
        return parse_sota(j, value, e);
    for (size_t i = 0; i < sizeof text / sizeof *text; i++)
        if (!strcmp(key, text[i].name)) {
            if (!*value)
                return err_set(e, ERR_USAGE, "%s: is empty", key);
            *text[i].to = value;
            return ERR_OK;
        }
    return err_set(e, ERR_USAGE, "unknown option %s (packer submit --help)", key);
}

static enum err_code parse(struct options *o, int argc, char **argv, struct err *e)
{
    struct submit_job *j = &o->job;
    for (int i = 0; i < argc; i++) {
        const char *a = argv[i];
        enum err_code rc = ERR_OK;
        if (!strcmp(a, "--force"))
            j->force = true;
        else if (!strcmp(a, "--execute"))
            o->execute = true;
        else if (a[0] == '-' && a[1] && i + 1 == argc)
            return err_set(e, ERR_USAGE, "%s needs a value", a);
        else if (a[0] == '-' && a[1])
            rc = set_option(o, a, argv[++i], e);
        else if (j->runs == SUBMIT_RUNS)
            return err_set(e, ERR_USAGE, "more than %d runs", SUBMIT_RUNS);
        else
            j->dir[j->runs++] = a;
        if (rc)
            return rc;
    }
    if (!j->runs || !j->out)
        return err_set(e, ERR_USAGE, "expected: packer submit RUN_DIR... -o FOLDER");
    if (j->date && !is_date(j->date))
        return err_set(e, ERR_USAGE, "--date %s: expected YYYY-MM-DD", j->date);
    if (strcmp(j->track, "10min_16mb") && strcmp(j->track, "non_record_16mb"))
        return err_set(e, ERR_USAGE, "--track %s: must be 10min_16mb or non_record_16mb", j->track);
    if (o->execute && !o->data)
        return err_set(e, ERR_USAGE, "--execute needs --data DIR");
    return ERR_OK;
}

/* ---- verifying anew: bin/verify is another program, found beside this one ---- */

static enum err_code find_verify(char *path, size_t cap, struct err *e)
{
    ssize_t n = readlink("/proc/self/exe", path, cap - 1);
    if (n <= 0)
        return err_set(e, ERR_RESOURCE, "/proc/self/exe: %s", strerror(errno));
    path[n] = 0;
    char *slash = strrchr(path, '/');
    if (!slash || (size_t)(slash - path) + sizeof "/verify" > cap)
        return err_set(e, ERR_RESOURCE, "%s: path too long", path);
    strcpy(slash, "/verify");
    if (access(path, X_OK))
        return err_set(e, ERR_RESOURCE, "%s: not there; --data needs it", path);
    return ERR_OK;
}

/* One file, its report into DIR/verify.json. A verdict against the file is no error here: the
 * report has it. */
static enum err_code verify_one(const char *verify, const char *dir, const struct options *o,
                                struct err *e)
{
    char file[SUBMIT_PATH], report[SUBMIT_PATH], tmp[SUBMIT_PATH + 32];
    posix_spawn_file_actions_t act;
    pid_t pid;
    int status = 0;
    snprintf(file, sizeof file, "%s/submission", dir);
    snprintf(report, sizeof report, "%s/verify.json", dir);
    snprintf(tmp, sizeof tmp, "%s.tmp%ld", report, (long)getpid());
    char *argv[] = {(char *)verify,
                    "blob",
                    file,
                    "--data",
                    (char *)o->data,
                    "--json",
                    o->execute ? "--execute" : NULL,
                    NULL};
    extern char **environ;
    if (posix_spawn_file_actions_init(&act))
        return err_nomem(e, "starting verify", sizeof act);
    posix_spawn_file_actions_addopen(&act, STDOUT_FILENO, tmp, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    int why = posix_spawn(&pid, verify, &act, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&act);
    if (why)
        return err_set(e, ERR_RESOURCE, "%s: cannot start: %s", verify, strerror(why));
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return err_set(e, ERR_RESOURCE, "%s: %s", verify, strerror(errno));
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : ERR_RESOURCE;
    if (code > ERR_CLAIM) {
        unlink(tmp);
        return err_set(e, code == ERR_USAGE || code == ERR_INPUT ? ERR_INPUT : ERR_RESOURCE,
                       "%s: verify ended with status %d", file, code);
    }
    if (rename(tmp, report)) {
        unlink(tmp);
        return err_set(e, ERR_RESOURCE, "%s: cannot write: %s", report, strerror(errno));
    }
    return ERR_OK;
}

static enum err_code verify_all(const struct options *o, struct err *e)
{
    char path[PATH_MAX];
    enum err_code rc = find_verify(path, sizeof path, e);
    for (size_t i = 0; i < o->job.runs && !rc; i++) {
        if (strlen(o->job.dir[i]) + 64 > SUBMIT_PATH)
            rc = err_set(e, ERR_USAGE, "path too long: %s", o->job.dir[i]);
        else
            rc = verify_one(path, o->job.dir[i], o, e);
    }
    return rc;
}

/* ---- what is printed ---- */

static void print(const struct submit *s)
{
    static const char *const word[] = {
        [SUBMIT_KEPT] = "kept", [SUBMIT_BROKEN] = "BROKEN", [SUBMIT_OPEN] = "open"};
    for (size_t i = 0; i < s->runs; i++) {
        const struct submit_run *r = &s->run[i];
        printf("seed %-8lld %zu bytes", r->seed, r->blob.size);
        if (!r->why_report[0])
            printf(", val_bpb %.8f", r->record.val_bpb);
        printf(", %s\n", r->dir);
    }
    for (size_t i = 0; i < s->checks; i++)
        printf("%-15s %-6s %s\n", s->check[i].rule, word[s->check[i].verdict], s->check[i].text);
    if (s->bpb.n)
        printf("val_bpb %.8f, mean of %zu%s", s->bpb.mean, s->bpb.n, s->bpb.n > 1 ? "" : "\n");
    if (s->bpb.n > 1)
        printf(", std %.8f\n", s->bpb.sd);
}

/* The rules that are broken, each once. */
static enum err_code refuse(const struct submit *s, struct err *e)
{
    char names[160] = "";
    for (size_t i = 0; i < s->checks; i++) {
        size_t n = strlen(names);
        if (s->check[i].verdict == SUBMIT_BROKEN && !strstr(names, s->check[i].rule) &&
            n + 24 < sizeof names)
            snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "", s->check[i].rule);
    }
    return err_set(e, ERR_CLAIM, "%s: not written, %zu broken: %s", s->job->out, s->broken, names);
}

enum err_code cmd_submit(int argc, char **argv, struct err *e)
{
    struct options o = {.job = {.track = "non_record_16mb"}};
    enum err_code rc = parse(&o, argc, argv, e);
    struct submit *s = rc ? NULL : calloc(1, sizeof *s);
    if (rc)
        return rc;
    if (!s)
        return err_nomem(e, "the runs", sizeof *s);
    if ((o.data && (rc = verify_all(&o, e))) || (rc = submit_open(s, &o.job, e)))
        goto out;
    print(s);
    rc = s->broken ? refuse(s, e) : submit_write(s, e);
    if (!rc)
        printf("%s: written\n", o.job.out);
out:
    submit_close(s);
    free(s);
    return rc;
}
