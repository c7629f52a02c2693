/* main.c - bin/trainer: options, signals, exit status. Everything else is train.h. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "model/version.h"
#include "trainer/train.h"

static const char usage[] =
    "usage: trainer RECIPE [KEY=VALUE]... [options]\n"
    "\n"
    "Train the model of a recipe file. Settings come from the file, then from the environment, "
    "then\n"
    "from the command line; later ones win.\n"
    "\n"
    "  --out DIR          where to write (default: out/ and the recipe's name)\n"
    "  --resume           go on from DIR/checkpoint\n"
    "  --device DEV       cpu (default) or cuda\n"
    "  --threads N        cpu threads (default: all); the result does not depend on it\n"
    "  --dry-run          print tensors, parameters, memory and schedule, then stop\n"
    "  --quiet            nothing on the console but errors; DIR/train.log is written all the "
    "same\n"
    "  --help, --help-keys, --version\n"
    "\n"
    "writes DIR/model.safetensors, model.quant.safetensors, byte_table.bin, train.log, and "
    "checkpoint\n"
    "when interrupted or every CHECKPOINT_EVERY steps\n"
    "\n"
    "under mpirun, srun or torchrun's environment (RANK, WORLD_SIZE, ...) all processes train "
    "together\n"
    "\n"
    "example: trainer recipes/demo.conf SEED=7 ITERATIONS=200 --out out/try\n"
    "\n"
    "exit status: 0 done, 2 wrong use, 3 bad input or diverged, 4 out of resources or "
    "interrupted\n";

/* Container managers kill about ten seconds after they ask; most of that is left for the
 * checkpoint. */
static const double PATIENCE_S = 3;

/* What ends a job may ask twice in the same moment (Slurm at a time limit): that is one signal. */
enum { SAME_SIGNAL_S = 2 };

static volatile sig_atomic_t stop, asked; /* seconds */

/* The first signal asks for a checkpoint; a second one ends the process as usual. */
static void on_signal(int sig)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (!stop)
        asked = (sig_atomic_t)now.tv_sec;
    stop = 1;
    if ((sig_atomic_t)now.tv_sec - asked >= SAME_SIGNAL_S) {
        signal(sig, SIG_DFL);
        raise(sig);
    }
}

static void catch_signals(void)
{
    struct sigaction a = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&a.sa_mask);
    sigaddset(&a.sa_mask, SIGINT);
    sigaddset(&a.sa_mask, SIGTERM);
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

static void print_key(void *ctx, const char *key, const char *def, const char *help)
{
    (void)ctx;
    printf("%-28s %-12s %s\n", key, *def ? def : "\"\"", help);
}

struct args {
    const char *recipe, *out;
    struct train_opts o;
    bool dry_run, help, help_keys, version;
};

static enum err_code parse_threads(const char *text, size_t *threads, struct err *e)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || n > 4096)
        return err_set(e, ERR_USAGE, "--threads %s: expected 0 to 4096", text);
    *threads = n;
    return ERR_OK;
}

/* Options; arguments with a '=' are left for the recipe. */
static enum err_code parse(struct args *a, int argc, char **argv, struct err *e)
{
    enum err_code rc = ERR_OK;
    for (int i = 1; i < argc && !rc; i++) {
        const char *s = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        bool takes = !strcmp(s, "--out") || !strcmp(s, "--device") || !strcmp(s, "--threads");
        if (takes && !value)
            return err_set(e, ERR_USAGE, "%s needs a value", s);
        if (!strcmp(s, "--out"))
            a->out = value;
        else if (!strcmp(s, "--device"))
            a->o.device = value;
        else if (!strcmp(s, "--threads"))
            rc = parse_threads(value, &a->o.threads, e);
        else if (!strcmp(s, "--resume"))
            a->o.resume = true;
        else if (!strcmp(s, "--quiet"))
            a->o.quiet = true;
        else if (!strcmp(s, "--dry-run"))
            a->dry_run = true;
        else if (!strcmp(s, "--help") || !strcmp(s, "-h"))
            a->help = true;
        else if (!strcmp(s, "--version"))
            a->version = true;
        else if (!strcmp(s, "--help-keys"))
            a->help_keys = true;
        else if (s[0] == '-')
            return err_set(e, ERR_USAGE, "unknown option %s; see --help", s);
        else if (!strchr(s, '=') && a->recipe)
            return err_set(e, ERR_USAGE, "%s: one recipe is enough, and settings are KEY=VALUE", s);
        else if (!strchr(s, '='))
            a->recipe = s;
        i += takes;
    }
    return rc;
}

/* "recipes/demo.conf" -> "demo" */
static void recipe_name(const char *path, char *out, size_t cap)
{
    const char *slash = strrchr(path, '/');
    snprintf(out, cap, "%s", slash ? slash + 1 : path);
    char *dot = strrchr(out, '.');
    if (dot && dot != out)
        *dot = 0;
}

static enum err_code settings(struct recipe *r, const struct args *a, int argc, char **argv,
                              struct err *e)
{
    enum err_code rc = recipe_load(r, a->recipe, e);
    for (int i = 1; i < argc && !rc; i++) {
        if (!strcmp(argv[i], "--out") || !strcmp(argv[i], "--device") ||
            !strcmp(argv[i], "--threads"))
            i++;
        else if (argv[i][0] != '-' && strchr(argv[i], '='))
            rc = recipe_set(r, argv[i], "command line", e);
    }
    return rc;
}

/* *apart: the other ranks do not know that this one failed. */
static enum err_code run(int argc, char **argv, struct comm *c, bool *apart, struct err *e)
{
    struct args a = {.o = {.device = "cpu", .stop = &stop, .patience_s = PATIENCE_S}};
    struct recipe r;
    char name[200], out[220];
    enum err_code rc = parse(&a, argc, argv, e);
    if (rc)
        return rc;
    if (a.help || a.help_keys || a.version) {
        if (a.help)
            fputs(usage, stdout);
        else if (a.help_keys)
            recipe_help(print_key, NULL);
        else
            puts("trainer " VERSION);
        return ERR_OK;
    }
    if (!a.recipe)
        return err_set(e, ERR_USAGE, "no recipe given; see --help");
    if ((rc = settings(&r, &a, argc, argv, e)))
        return rc;
    recipe_name(a.recipe, name, sizeof name);
    snprintf(out, sizeof out, "out/%s", name);
    a.o.name = name;
    a.o.out = a.out ? a.out : out;
    if ((rc = comm_open(c, e)))
        return rc;
    if (a.dry_run)
        return c->rank == 0 ? train_describe(&r, &a.o, stdout, e) : ERR_OK;
    catch_signals();
    struct train_result res = {.apart = true};
    a.o.comm = c;
    rc = train_run(&r, &a.o, &res, e);
    *apart = res.apart;
    return rc;
}

/* An error that all ranks have is printed by one of them. */
int main(int argc, char **argv)
{
    struct comm c = {.name = "single", .size = 1};
    struct err e = {0};
    bool apart = false;
    enum err_code rc = run(argc, argv, &c, &apart, &e);
    if (rc && (c.rank == 0 || apart))
        fprintf(stderr, "trainer: %s\n", e.msg);
    if (apart)
        comm_abort(&c, (int)rc);
    comm_close(&c);
    return (int)rc;
}
