/*
 * shards_main.c - bin/shards: token ids on standard input become token shards, or shards are
 * checked. The work is in shards.c; here are the options, the messages and the exit status.
 */
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "model/version.h"
#include "trainer/data/shards.h"
#include "trainer/overlap.h"

static const char help[] =
    "usage: shards --out DIR [option]... < IDS     write token shards\n"
    "       shards --info FILE|DIR... [--vocab N]  check shards and print what they hold; of a\n"
    "                         directory also which validation documents are in the training data\n"
    "\n"
    "IDS: one document per line, token ids in decimal, as `spm_encode --output_format=id`\n"
    "prints them. Each document gets the begin-of-sequence id in front.\n"
    "\n"
    "  --out DIR         write DIR/fineweb_val_000000.bin, DIR/fineweb_train_000000.bin, ...\n"
    "  --val-docs N      hold out the first N documents\n"
    "  --val-tokens N    hold out documents from the first on until they hold N tokens\n"
    "  --val-fraction F  hold out a share F of the tokens, documents spread over the input\n"
    "  --vocab N         every id must be below N (default 65536)\n"
    "  --shard-tokens N  tokens in a full shard (default 100000000)\n"
    "  --name NAME       first part of the file names (default fineweb)\n"
    "  --bos ID          id that opens a document (default 1)\n"
    "  --replace         replace shards that DIR holds already\n"
    "\n"
    "example: spm_encode --model=m.model --output_format=id < docs.txt |\n"
    "             shards --out data --val-docs 500 --vocab 1024\n"
    "exit status: 0 done, 2 wrong use, 3 bad input, 4 no space, memory or permission\n";

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

static void handle_signals(void)
{
    /* No SA_RESTART: a blocked read must end. A second signal ends the program as usual. */
    struct sigaction stop = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGHUP, &stop, NULL);
    signal(SIGXFSZ, SIG_IGN); /* a file size limit becomes a failed write with a message */
}

static enum err_code number(const char *option, const char *text, uint64_t max, uint64_t *out,
                            struct err *e)
{
    char *end = NULL;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || v > max)
        return err_set(e, ERR_USAGE, "--%s %s: expected a whole number up to %llu", option, text,
                       (unsigned long long)max);
    *out = v;
    return ERR_OK;
}

static void print_count(const char *label, const struct shards_count *c)
{
    printf("%s files:%llu docs:%llu tokens:%llu max_id:%u\n", label, (unsigned long long)c->files,
           (unsigned long long)c->docs, (unsigned long long)c->tokens, c->max_id);
}

static int is_shard(const struct dirent *f)
{
    size_t n = strlen(f->d_name);
    return f->d_name[0] != '.' && n > 4 && strcmp(f->d_name + n - 4, ".bin") == 0 &&
           (strstr(f->d_name, "_train_") || strstr(f->d_name, "_val_"));
}

static enum err_code info_dir(const char *dir, uint32_t vocab, uint32_t bos, struct err *e)
{
    struct shards_count val = {0}, train = {0};
    struct dirent **list = NULL;
    enum err_code rc = ERR_OK;
    int n = scandir(dir, &list, is_shard, alphasort);
    if (n < 0)
        return err_set(e, ERR_INPUT, "%s: cannot read the directory: %s", dir, strerror(errno));
    if (n == 0)
        rc = err_set(e, ERR_INPUT, "%s: no shards, expected *_train_*.bin or *_val_*.bin", dir);
    for (int i = 0; i < n && !rc; i++) {
        char path[4096];
        struct shards_count one = {0};
        if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, list[i]->d_name) >= sizeof path)
            rc = err_set(e, ERR_USAGE, "the path of %s is too long", list[i]->d_name);
        if (!rc)
            rc = shards_check(path, vocab, bos, &one, e);
        if (!rc) {
            print_count(list[i]->d_name, &one);
            shards_add(strstr(list[i]->d_name, "_val_") ? &val : &train, &one);
        }
    }
    for (int i = 0; i < n; i++)
        free(list[i]);
    free(list);
    if (!rc) {
        print_count("val", &val);
        print_count("train", &train);
    }
    if (!rc && val.files && train.files) {
        struct overlap o;
        if (!(rc = overlap_find(&o, dir, bos, e)))
            printf("overlap val_docs:%llu in_train:%llu tokens:%llu\n", (unsigned long long)o.docs,
                   (unsigned long long)o.shared, (unsigned long long)o.tokens);
    }
    return rc;
}

static enum err_code info(const char *path, uint32_t vocab, uint32_t bos, struct err *e)
{
    struct shards_count one = {0};
    struct stat s;
    if (stat(path, &s) == 0 && S_ISDIR(s.st_mode))
        return info_dir(path, vocab, bos, e);
    enum err_code rc = shards_check(path, vocab, bos, &one, e);
    if (!rc)
        print_count(path, &one);
    return rc;
}

static enum err_code write_from_stdin(struct shards_plan *plan, struct err *e)
{
    struct shards_stats st;
    plan->stop = &stopped;
    handle_signals();
    enum err_code rc = shards_write(plan, stdin, "standard input", &st, e);
    if (rc)
        return rc;
    print_count("val", &st.val);
    print_count("train", &st.train);
    if (st.empty_lines)
        printf("left out %llu empty lines\n", (unsigned long long)st.empty_lines);
    return ERR_OK;
}

struct options {
    struct shards_plan plan;
    bool info, help, version;
};

enum { OPT_FRACTION, OPT_NAME, OPT_OUT, OPT_INFO, OPT_REPLACE, OPT_HELP, OPT_VERSION, OPT_NUMBER };

static enum err_code parse(int argc, char **argv, struct options *o, struct err *e)
{
    struct shards_plan *p = &o->plan;
    uint64_t vocab = SHARDS_MAX_VOCAB, bos = SHARDS_BOS, shard_tokens = SHARDS_DEFAULT_TOKENS;
    const struct {
        const char *name;
        uint64_t max, *to;
    } numbers[] = {
        {"val-docs", UINT64_MAX, &p->val_docs},
        {"val-tokens", UINT64_MAX, &p->val_tokens},
        {"vocab", UINT32_MAX, &vocab},
        {"shard-tokens", UINT32_MAX, &shard_tokens},
        {"bos", UINT32_MAX, &bos},
    };
    const struct option longs[] = {
        {"val-docs", 1, NULL, OPT_NUMBER},
        {"val-tokens", 1, NULL, OPT_NUMBER + 1},
        {"vocab", 1, NULL, OPT_NUMBER + 2},
        {"shard-tokens", 1, NULL, OPT_NUMBER + 3},
        {"bos", 1, NULL, OPT_NUMBER + 4},
        {"val-fraction", 1, NULL, OPT_FRACTION},
        {"name", 1, NULL, OPT_NAME},
        {"out", 1, NULL, OPT_OUT},
        {"info", 0, NULL, OPT_INFO},
        {"replace", 0, NULL, OPT_REPLACE},
        {"help", 0, NULL, OPT_HELP},
        {"version", 0, NULL, OPT_VERSION},
        {NULL, 0, NULL, 0},
    };
    enum err_code rc = ERR_OK;
    for (int opt; !rc && (opt = getopt_long(argc, argv, ":", longs, NULL)) != -1;) {
        char *end = NULL;
        switch (opt) {
        case OPT_FRACTION:
            p->val_fraction = strtod(optarg, &end);
            if (end == optarg || *end)
                rc = err_set(e, ERR_USAGE, "--val-fraction %s: expected a number from 0 to 1",
                             optarg);
            break;
        case OPT_NAME:
            p->name = optarg;
            break;
        case OPT_OUT:
            p->dir = optarg;
            break;
        case OPT_INFO:
            o->info = true;
            break;
        case OPT_REPLACE:
            p->replace = true;
            break;
        case OPT_HELP:
            o->help = true;
            break;
        case OPT_VERSION:
            o->version = true;
            break;
        case '?':
            rc = err_set(e, ERR_USAGE, "unknown option %s; see shards --help", argv[optind - 1]);
            break;
        case ':':
            rc = err_set(e, ERR_USAGE, "option %s needs a value", argv[optind - 1]);
            break;
        default:
            rc = number(numbers[opt - OPT_NUMBER].name, optarg, numbers[opt - OPT_NUMBER].max,
                        numbers[opt - OPT_NUMBER].to, e);
        }
    }
    p->vocab = (uint32_t)vocab;
    p->bos = (uint32_t)bos;
    p->shard_tokens = (uint32_t)shard_tokens;
    if (rc || o->help || o->version)
        return rc;
    if (o->info && (optind == argc || p->dir))
        return err_set(e, ERR_USAGE, "--info expects files or directories, and no --out");
    if (!o->info && (optind < argc || !p->dir))
        return err_set(e, ERR_USAGE,
                       "expected --out DIR with the ids on standard input, or --info FILE");
    return ERR_OK;
}

int main(int argc, char **argv)
{
    struct err e = {0};
    struct options o = {.plan = {.name = "fineweb"}};
    enum err_code rc = parse(argc, argv, &o, &e);
    if (!rc && o.help)
        fputs(help, stdout);
    else if (!rc && o.version)
        puts("shards " VERSION);
    else if (!rc && o.info)
        while (!rc && optind < argc)
            rc = info(argv[optind++], o.plan.vocab, o.plan.bos, &e);
    else if (!rc)
        rc = write_from_stdin(&o.plan, &e);
    if (!rc && fflush(stdout) != 0)
        rc = err_set(&e, ERR_RESOURCE, "standard output: %s", strerror(errno));
    if (rc)
        fprintf(stderr, "shards: %s\n", e.msg);
    return (int)rc;
}
