/*
 * comm_env.c - which job do the environment's variables describe?
 *
 * Launchers tell a process its rank and the number of ranks in variables of their own. Those that
 * come with MPI are left to MPI; the others need to say where rank 0 is, and tcp does the rest.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/comm_impl.h"
#include "trainer/hash.h"

/* Slurm's jobs get ports from PORT on, below those that kernels give away (32768): SPREAD apart, so
 * that the first steps of neighbouring jobs do not meet. */
enum { MOST_RANKS = 65536, PORT = 29500, PORTS = 3000, SPREAD = 61 };

#define SRUN_RANK "SLURM_PROCID"
#define SRUN_SIZE "SLURM_STEP_NUM_TASKS"

/* In the order in which they are looked at; `srun` is what it is instead when srun has set it. That
 * sets SLURM_STEP_NUM_TASKS only for what it starts itself, SLURM_PROCID in a batch script too.
 * PMIX_RANK comes without a size. With PMI2 not every MPI understands srun, and one that does not
 * ends the process or is alone: so TCP, which always works. */
static const struct launcher {
    enum comm_kind kind, srun;
    const char *rank, *size, *local;
} launchers[] = {
    {COMM_MPI, COMM_SINGLE, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
     "OMPI_COMM_WORLD_LOCAL_RANK"},
    {COMM_MPI, COMM_TCP, "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"},
    {COMM_MPI, COMM_MPI, "PMIX_RANK", SRUN_SIZE, "SLURM_LOCALID"},
    {COMM_TCP, COMM_SINGLE, "RANK", "WORLD_SIZE", "LOCAL_RANK"},
    {COMM_TCP, COMM_TCP, SRUN_RANK, SRUN_SIZE, "SLURM_LOCALID"},
};

typedef char *getter(const char *name);

static const char *text(getter *get, const char *name)
{
    const char *s = get(name);
    return s ? s : "";
}

/* A whole number below `end`, or, where the variable is not set, what *out is. */
static enum err_code number(size_t *out, getter *get, const char *name, size_t end, struct err *e)
{
    const char *s = text(get, name);
    char *rest;
    if (!*s)
        return ERR_OK;
    unsigned long long v = strtoull(s, &rest, 10);
    if (*s < '0' || *s > '9' || *rest || v >= end)
        return err_set(e, ERR_USAGE, "%s=%s: expected a number below %zu", name, s, end);
    *out = (size_t)v;
    return ERR_OK;
}

static enum err_code seconds(double *out, getter *get, const char *name, double def, struct err *e)
{
    const char *s = text(get, name);
    char *rest;
    *out = def;
    if (!*s)
        return ERR_OK;
    double v = strtod(s, &rest);
    if (*rest || !(v >= 0.1) || v > 1e7)
        return err_set(e, ERR_USAGE, "%s=%s: expected seconds, from 0.1 to 1e7", name, s);
    *out = v;
    return ERR_OK;
}

/* The first name of a Slurm host list: of `rack[03-07,9]-n[1,5],login` it is rack03-n1. */
static void first_host(char *out, size_t n, const char *list)
{
    size_t len = 0;
    while (*list && *list != ',' && len + 1 < n) {
        if (*list != '[') {
            out[len++] = *list++;
            continue;
        }
        for (list++; *list && !strchr("-,]", *list) && len + 1 < n;)
            out[len++] = *list++;
        list += strcspn(list, "]");
        list += *list == ']';
    }
    out[len] = 0;
}

/*
 * Where rank 0 listens, and the key by which processes of one job know one another. srun: it
 * started this process itself. Otherwise its step is not that of the other ranks: mpirun starts
 * those of other machines by a step of its own.
 */
static enum err_code meeting(struct comm_job *job, getter *get, bool srun, struct err *e)
{
    static const char *const names[] = {"COMM_JOB", "TORCHELASTIC_RUN_ID", "SLURM_JOB_ID",
                                        "SLURM_STEP_ID"};
    size_t port = 0, slurm = 0, step = 0, keys = sizeof names / sizeof names[0] - !srun;
    const char *addr = text(get, "MASTER_ADDR");
    const char *list = srun ? text(get, "SLURM_STEP_NODELIST") : "";
    if (strlen(addr) >= sizeof job->addr)
        return err_set(e, ERR_USAGE, "MASTER_ADDR is longer than %zu characters",
                       sizeof job->addr - 1);
    if (*addr)
        snprintf(job->addr, sizeof job->addr, "%s", addr);
    else if (*list)
        first_host(job->addr, sizeof job->addr, list);
    else
        return err_set(e, ERR_USAGE,
                       "%zu ranks, but MASTER_ADDR (the machine of rank 0) is not set", job->size);
    if (number(&port, get, "MASTER_PORT", 65535, e) ||
        number(&slurm, get, "SLURM_JOB_ID", SIZE_MAX / SPREAD, e) ||
        (srun && number(&step, get, "SLURM_STEP_ID", SIZE_MAX, e)))
        return ERR_USAGE;
    /* torchrun's agent keeps MASTER_PORT for itself; the next one is free as a rule. */
    if (port && !strcmp(text(get, "TORCHELASTIC_USE_AGENT_STORE"), "True"))
        port++;
    if (number(&port, get, "COMM_PORT", 65536, e))
        return ERR_USAGE;
    /* srun reserves ports where it is asked to or configured so: the first of such a list. */
    if (!port && srun)
        port = strtoul(text(get, "SLURM_STEP_RESV_PORTS"), NULL, 10);
    if (!port)
        port = PORT + (slurm * SPREAD + step) % PORTS;
    snprintf(job->port, sizeof job->port, "%zu", port);
    for (size_t i = 0; i < keys; i++)
        job->key = hash_bytes(text(get, names[i]), strlen(text(get, names[i])), job->key);
    return ERR_OK;
}

/* The launcher that started more than one process, NULL if none did. */
static enum err_code find(const struct launcher **out, struct comm_job *job, getter *get,
                          struct err *e)
{
    for (size_t i = 0; i < sizeof launchers / sizeof launchers[0]; i++) {
        const struct launcher *l = &launchers[i];
        bool rank = *text(get, l->rank), size = *text(get, l->size);
        if (l->kind == COMM_TCP && !strcmp(l->rank, "RANK") && rank != size)
            return err_set(e, ERR_USAGE, "%s is set but %s is not", rank ? l->rank : l->size,
                           rank ? l->size : l->rank);
        if (!rank || !size)
            continue;
        if (number(&job->size, get, l->size, MOST_RANKS + 1, e) ||
            number(&job->rank, get, l->rank, MOST_RANKS, e) ||
            number(&job->local_rank, get, l->local, MOST_RANKS, e))
            return ERR_USAGE;
        if (job->rank >= job->size)
            return err_set(e, ERR_USAGE, "%s=%zu: there are %zu ranks (%s), counted from 0",
                           l->rank, job->rank, job->size, l->size);
        if (job->size > 1) {
            *out = l;
            return ERR_OK;
        }
    }
    return ERR_OK;
}

enum err_code comm_env(struct comm_job *job, getter *get, struct err *e)
{
    const struct launcher *l = NULL;
    bool srun = false;
    const char *want = text(get, "COMM");
    *job = (struct comm_job){.kind = COMM_SINGLE, .size = 1, .local_rank = SIZE_MAX};
    if (*want && strcmp(want, "single") && strcmp(want, "mpi") && strcmp(want, "tcp"))
        return err_set(e, ERR_USAGE, "COMM=%s: expected single, mpi or tcp", want);
    if (seconds(&job->timeout_s, get, "COMM_TIMEOUT", COMM_TIMEOUT_S, e) ||
        seconds(&job->patience_s, get, "COMM_PATIENCE", COMM_PATIENCE_S, e))
        return ERR_USAGE;
    job->patience_s = fmax(job->patience_s, job->timeout_s);
    if (!strcmp(want, "single"))
        return ERR_OK;
    if (find(&l, job, get, e) || number(&job->local_rank, get, "LOCAL_RANK", MOST_RANKS, e))
        return ERR_USAGE;
    if (l) {
        srun = l->srun && !strcmp(text(get, l->rank), text(get, SRUN_RANK)) &&
               !strcmp(text(get, l->size), text(get, SRUN_SIZE));
        job->kind = srun ? l->srun : l->kind;
    }
    if (!strcmp(want, "mpi"))
        job->kind = COMM_MPI; /* whatever started it, MPI knows its ranks */
    else if (!strcmp(want, "tcp") && l)
        job->kind = COMM_TCP;
    else if (!l) /* of a launcher that started one process */
        *job = (struct comm_job){.size = 1,
                                 .local_rank = job->local_rank,
                                 .timeout_s = job->timeout_s,
                                 .patience_s = job->patience_s};
    /* Without MPI in the build, what srun started can do with TCP (comm_mpi_none.c). */
    bool either = srun && !*want && *text(get, "SLURM_STEP_NODELIST");
    return job->kind == COMM_TCP || either ? meeting(job, get, srun, e) : ERR_OK;
}
