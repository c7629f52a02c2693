/* submit_write.c - see submit.h: the folder, complete or not at all. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/file.h"
#include "packer/submit.h"

/* The names that submit_write gives. Anything else in a folder is somebody's own. */
static bool ours(const char *name)
{
    static const char *const whole[] = {"README.md", "submission.json", "recipe.conf"};
    static const struct {
        const char *before, *after;
    } per_seed[] = {{"train_seed", ".log"}, {"submission_seed", ""}, {"verify_seed", ".json"}};
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        if (!strcmp(name, whole[i]))
            return true;
    for (size_t i = 0; i < sizeof per_seed / sizeof *per_seed; i++) {
        size_t n = strlen(per_seed[i].before);
        if (strncmp(name, per_seed[i].before, n))
            continue;
        const char *digits = name + n + (name[n] == '-');
        size_t k = strspn(digits, "0123456789");
        if (k && !strcmp(digits + k, per_seed[i].after))
            return true;
    }
    return false;
}

/* Walk over a folder: with `unlink_them` remove our files and the folder, otherwise only look for a
 * name that is not ours. */
static enum err_code sweep(const char *dir, bool unlink_them, struct err *e)
{
    char path[SUBMIT_PATH + 256];
    enum err_code rc = ERR_OK;
    DIR *d = opendir(dir);
    if (!d)
        return err_set(e, ERR_RESOURCE, "%s: cannot read the folder: %s", dir, strerror(errno));
    for (struct dirent *x; !rc && (x = readdir(d));) {
        if (!strcmp(x->d_name, ".") || !strcmp(x->d_name, ".."))
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, x->d_name);
        if (!ours(x->d_name))
            rc = err_set(e, ERR_USAGE,
                         "%s: holds %s, which packer submit did not write; not replaced", dir,
                         x->d_name);
        else if (unlink_them && unlink(path))
            rc = err_set(e, ERR_RESOURCE, "%s: cannot remove: %s", path, strerror(errno));
    }
    closedir(d);
    if (!rc && unlink_them && rmdir(dir))
        rc = err_set(e, ERR_RESOURCE, "%s: cannot remove: %s", dir, strerror(errno));
    return rc;
}

static enum err_code put(const char *dir, const char *name, const void *data, size_t n,
                         unsigned mode, struct err *e)
{
    char path[SUBMIT_PATH + 256];
    struct atomic_file a;
    if (!data)
        return err_nomem(e, name, n);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    enum err_code rc = atomic_open(&a, path, e);
    if (rc)
        return rc;
    fwrite(data, 1, n, a.f);
    return atomic_commit(&a, mode, e);
}

/* The run's log, and behind it what came after training, in the lines that readers of such logs
 * look for: what is in the file, and what it scored. */
static char *whole_log(const struct submit_run *r, size_t *n)
{
    char *text = NULL;
    const struct submit_score *s[] = {&r->record, &r->own};
    const struct blob_section *w = blob_find(&r->blob, KIND_WEIGHTS);
    long long bits = r->has_recipe ? (long long)r->recipe.quant_bits : 0;
    const char *codec = codec_name(w->codec);
    FILE *f = open_memstream(&text, n);
    if (!f)
        return NULL;
    fwrite(r->log, 1, r->log_n, f);
    if (r->log_n && ((const char *)r->log)[r->log_n - 1] != '\n')
        fputc('\n', f);
    fprintf(f, "packer submit: the submission, and its score by verify_seed%lld.json\n", r->seed);
    fprintf(f, "Serialized model int%lld+%s: %zu bytes\n", bits, codec, w->size);
    fprintf(f, "Code size: %zu bytes\n", r->blob.size - w->size);
    fprintf(f, "Total submission size int%lld+%s: %zu bytes\n", bits, codec, r->blob.size);
    for (size_t i = 0; i < 1 + (size_t)r->adapts; i++)
        fprintf(f, "final_%s val_loss:%.8f val_bpb:%.8f tokens:%llu bytes:%llu time_ms:%llu\n",
                s[i]->mode, s[i]->val_loss, s[i]->val_bpb, (unsigned long long)s[i]->tokens,
                (unsigned long long)s[i]->bytes, (unsigned long long)s[i]->time_ms);
    bool bad = ferror(f);
    if (fclose(f) || bad) {
        free(text);
        return NULL;
    }
    return text;
}

static enum err_code put_run(const char *dir, const struct submit_run *r, struct err *e)
{
    char name[128];
    size_t n = 0;
    char *log = whole_log(r, &n);
    snprintf(name, sizeof name, "train_seed%lld.log", r->seed);
    enum err_code rc = put(dir, name, log, n, 0644, e);
    free(log);
    if (rc)
        return rc;
    snprintf(name, sizeof name, "verify_seed%lld.json", r->seed);
    if ((rc = put(dir, name, r->report, r->report_n, 0644, e)))
        return rc;
    snprintf(name, sizeof name, "submission_seed%lld", r->seed);
    return put(dir, name, r->file, r->blob.size, 0755, e);
}

static enum err_code put_recipe(const char *dir, const struct submit *s, struct err *e)
{
    char *text = malloc(1 << 16);
    struct recipe r = s->run[0].recipe;
    size_t n = 0;
    r.run_id[0] = 0;
    /* Where the data lies is this machine's, and the seed is each run's own. */
    strcpy(r.data_path, "data");
    r.tokenizer_path[0] = 0;
    if (text)
        n = recipe_print(&r, RECIPE_MODEL | RECIPE_EVAL | RECIPE_TRAIN | RECIPE_QUANT, false, text,
                         1 << 16);
    enum err_code rc = put(dir, "recipe.conf", text, n, 0644, e);
    free(text);
    return rc;
}

static enum err_code put_all(const char *dir, const struct submit *s, struct err *e)
{
    char *readme = submit_readme(s), *json = submit_json(s);
    enum err_code rc = put(dir, "README.md", readme, readme ? strlen(readme) : 0, 0644, e);
    if (!rc)
        rc = put(dir, "submission.json", json, json ? strlen(json) : 0, 0644, e);
    if (!rc)
        rc = put_recipe(dir, s, e);
    for (size_t i = 0; !rc && i < s->runs; i++)
        rc = put_run(dir, &s->run[i], e);
    free(readme);
    free(json);
    return rc;
}

/* Put the finished folder in its place; an older one goes aside first and is removed afterwards. */
static enum err_code swap_in(const char *tmp, const char *out, bool older, struct err *e)
{
    char old[SUBMIT_PATH + 32];
    snprintf(old, sizeof old, "%s.old%ld", out, (long)getpid());
    if (older && rename(out, old))
        return err_set(e, ERR_RESOURCE, "%s: cannot move aside: %s", out, strerror(errno));
    if (rename(tmp, out)) {
        int why = errno;
        if (older && rename(old, out))
            return err_set(e, ERR_RESOURCE, "%s: cannot write: %s; the older folder is %s", out,
                           strerror(why), old);
        return err_set(e, ERR_RESOURCE, "%s: cannot write: %s", out, strerror(why));
    }
    return older ? sweep(old, true, e) : ERR_OK;
}

enum err_code submit_write(const struct submit *s, struct err *e)
{
    char out[SUBMIT_PATH], tmp[SUBMIT_PATH + 32];
    size_t n = strlen(s->job->out);
    struct stat st;
    if (n + 64 > sizeof out)
        return err_set(e, ERR_USAGE, "path too long: %s", s->job->out);
    strcpy(out, s->job->out);
    while (n > 1 && out[n - 1] == '/')
        out[--n] = 0;
    bool older = !lstat(out, &st);
    enum err_code rc = ERR_OK;
    if (older && !s->job->force)
        return err_set(e, ERR_USAGE, "%s: is there already; --force replaces it", out);
    if (older && !S_ISDIR(st.st_mode))
        return err_set(e, ERR_USAGE, "%s: is no folder; not replaced", out);
    if (older && (rc = sweep(out, false, e)))
        return rc;
    snprintf(tmp, sizeof tmp, "%s.tmp%ld", out, (long)getpid());
    if (mkdir(tmp, 0777))
        return err_set(e, ERR_RESOURCE, "%s: cannot create the folder: %s", tmp, strerror(errno));
    rc = put_all(tmp, s, e);
    if (!rc)
        rc = swap_in(tmp, out, older, e);
    if (rc && !access(tmp, F_OK)) {
        struct err ignored = {0}; /* the first failure is the one to tell */
        sweep(tmp, true, &ignored);
    }
    return rc;
}
