/*
 * comm_env_test.c - exists for the process that takes itself for alone, for another rank, or for a
 * part of a job that it does not belong to: each launcher's variables, what overrules what, and
 * numbers that make no sense.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "trainer/comm_impl.h"

#define OMPI(rank, size)                                                                           \
    "OMPI_COMM_WORLD_RANK", rank, "OMPI_COMM_WORLD_SIZE", size, "OMPI_COMM_WORLD_LOCAL_RANK", "1"
#define TORCH(rank, size) "RANK", rank, "WORLD_SIZE", size, "MASTER_ADDR", "node7"
#define SLURM(rank, size) "SLURM_PROCID", rank, "SLURM_STEP_NUM_TASKS", size, "SLURM_LOCALID", "2"
#define SLURM_STEP(step)  "SLURM_JOB_ID", "7", "SLURM_STEP_ID", step, "SLURM_STEP_NODELIST", "box"

enum { ANY = -1 };
static const struct {
    const char *name;
    const char *env[21]; /* names and values */
    int kind, rank, size, local;
    const char *addr, *port; /* NULL: not looked at */
    const char *error;       /* a part of the message */
} cases[] = {
    {.name = "nothing", .env = {NULL}, .kind = COMM_SINGLE, .size = 1, .local = ANY},
    {"mpirun", {OMPI("2", "4")}, COMM_MPI, 2, 4, 1, NULL, NULL, NULL},
    {"mpirun, a card each",
     {OMPI("2", "4"), "LOCAL_RANK", "0"},
     COMM_MPI,
     2,
     4,
     0,
     NULL,
     NULL,
     NULL},
    {"mpirun -np 1", {OMPI("0", "1")}, COMM_SINGLE, 0, 1, 1, NULL, NULL, NULL},
    {"mpirun over torchrun",
     {OMPI("2", "4"), TORCH("0", "3")},
     COMM_MPI,
     2,
     4,
     1,
     NULL,
     NULL,
     NULL},
    {"mpich", {"PMI_RANK", "3", "PMI_SIZE", "4"}, COMM_MPI, 3, 4, ANY, NULL, NULL, NULL},
    {"srun with pmix", {"PMIX_RANK", "3", SLURM("3", "8")}, COMM_MPI, 3, 8, 2, NULL, NULL, NULL},
    {"srun with pmix, where tcp would do too",
     {"PMIX_RANK", "3", SLURM("3", "8"), "SLURM_STEP_NODELIST", "box", "SLURM_JOB_ID", "2"},
     COMM_MPI,
     3,
     8,
     2,
     "box",
     "29622",
     NULL},
    {"srun with pmix, forced mpi",
     {"PMIX_RANK", "3", SLURM("3", "8"), "SLURM_STEP_NODELIST", "box", "COMM", "mpi"},
     COMM_MPI,
     3,
     8,
     2,
     "",
     "",
     NULL},
    {"srun with pmi2",
     {"PMI_RANK", "3", "PMI_SIZE", "8", SLURM("3", "8"), "SLURM_STEP_NODELIST", "box"},
     COMM_TCP,
     3,
     8,
     ANY,
     "box",
     "29500",
     NULL},
    {"srun with pmi2, forced mpi",
     {"PMI_RANK", "3", "PMI_SIZE", "8", SLURM("3", "8"), "COMM", "mpi"},
     COMM_MPI,
     3,
     8,
     ANY,
     NULL,
     NULL,
     NULL},
    {"mpich, its proxies by srun",
     {"PMI_RANK", "3", "PMI_SIZE", "8", SLURM("0", "2")},
     COMM_MPI,
     3,
     8,
     ANY,
     NULL,
     NULL,
     NULL},
    {"srun without",
     {SLURM("3", "8"), "SLURM_STEP_NODELIST", "gpu[07-12,14],login", "SLURM_JOB_ID", "1234567"},
     COMM_TCP,
     3,
     8,
     2,
     "gpu07",
     "32087",
     NULL},
    {"srun, a later step",
     {SLURM("3", "8"), "SLURM_STEP_NODELIST", "rack[07-12,14]-n[3,5],login", "SLURM_JOB_ID",
      "1234567", "SLURM_STEP_ID", "3"},
     COMM_TCP,
     3,
     8,
     2,
     "rack07-n3",
     "32090",
     NULL},
    {"srun, reserved ports",
     {SLURM("3", "8"), "SLURM_STEP_NODELIST", "a-[1", "SLURM_STEP_RESV_PORTS", "20001-20003"},
     COMM_TCP,
     3,
     8,
     2,
     "a-1",
     "20001",
     NULL},
    {"srun, own address and port",
     {SLURM("3", "8"), "SLURM_STEP_NODELIST", "box", "SLURM_STEP_RESV_PORTS", "20001",
      "MASTER_ADDR", "10.0.0.1", "MASTER_PORT", "7000"},
     COMM_TCP,
     3,
     8,
     2,
     "10.0.0.1",
     "7000",
     NULL},
    {"srun, one host",
     {SLURM("1", "2"), "SLURM_STEP_NODELIST", "box"},
     COMM_TCP,
     1,
     2,
     2,
     "box",
     "29500",
     NULL},
    {"batch script",
     {"SLURM_PROCID", "0", "SLURM_NTASKS", "8"},
     COMM_SINGLE,
     0,
     1,
     ANY,
     NULL,
     NULL,
     NULL},
    {"torchrun",
     {TORCH("1", "3"), "LOCAL_RANK", "1", "MASTER_PORT", "29501"},
     COMM_TCP,
     1,
     3,
     1,
     "node7",
     "29501",
     NULL},
    {"torchrun's agent",
     {TORCH("1", "3"), "MASTER_PORT", "29501", "TORCHELASTIC_USE_AGENT_STORE", "True"},
     COMM_TCP,
     1,
     3,
     ANY,
     "node7",
     "29502",
     NULL},
    {"own port",
     {TORCH("1", "3"), "MASTER_PORT", "29501", "COMM_PORT", "7000"},
     COMM_TCP,
     1,
     3,
     ANY,
     "node7",
     "7000",
     NULL},
    {"default port", {TORCH("1", "3")}, COMM_TCP, 1, 3, ANY, "node7", "29500", NULL},
    {"torchrun, one", {TORCH("0", "1"), "LOCAL_RANK", "3"}, COMM_SINGLE, 0, 1, 3, NULL, NULL, NULL},
    {"forced single", {OMPI("2", "4"), "COMM", "single"}, COMM_SINGLE, 0, 1, ANY, NULL, NULL, NULL},
    {"tcp under mpirun",
     {OMPI("2", "4"), "COMM", "tcp", "MASTER_ADDR", "::1"},
     COMM_TCP,
     2,
     4,
     1,
     "::1",
     "29500",
     NULL},
    {"forced mpi", {"COMM", "mpi"}, COMM_MPI, 0, 1, ANY, NULL, NULL, NULL},
    {.name = "COMM", .env = {"COMM", "udp"}, .error = "COMM=udp: expected single, mpi or tcp"},
    {.name = "no rank", .env = {"WORLD_SIZE", "3"}, .error = "WORLD_SIZE is set but RANK is not"},
    {.name = "no size", .env = {"RANK", "3"}, .error = "RANK is set but WORLD_SIZE is not"},
    {.name = "rank", .env = {TORCH("3", "3")}, .error = "RANK=3: there are 3 ranks (WORLD_SIZE)"},
    {.name = "negative", .env = {TORCH("-1", "3")}, .error = "RANK=-1: expected a number below"},
    {.name = "text", .env = {TORCH("1", "3x")}, .error = "WORLD_SIZE=3x: expected a number"},
    {.name = "huge", .env = {TORCH("1", "65537")}, .error = "WORLD_SIZE=65537: expected a number"},
    {.name = "zero", .env = {TORCH("0", "0")}, .error = "there are 0 ranks"},
    {.name = "no address", .env = {"RANK", "1", "WORLD_SIZE", "3"}, .error = "MASTER_ADDR"},
    {.name = "port",
     .env = {TORCH("1", "3"), "MASTER_PORT", "65536"},
     .error = "MASTER_PORT=65536"},
    {.name = "timeout", .env = {"COMM_TIMEOUT", "0"}, .error = "COMM_TIMEOUT=0: expected seconds"},
    {.name = "no number", .env = {"COMM_TIMEOUT", "nan"}, .error = "COMM_TIMEOUT=nan: expected"},
    {.name = "patience", .env = {"COMM_PATIENCE", "5s"}, .error = "COMM_PATIENCE=5s: expected"},
};

static const char *const *now;

static char *get(const char *name)
{
    for (size_t i = 0; now[i]; i += 2)
        if (!strcmp(now[i], name))
            return (char *)(uintptr_t)now[i + 1];
    return NULL;
}

static void test_env(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct comm_job job;
        struct err e = {0};
        now = cases[i].env;
        enum err_code rc = comm_env(&job, get, &e);
        if (cases[i].error) {
            if (rc != ERR_USAGE || !strstr(e.msg, cases[i].error))
                fail_msg("%s: status %d: %s", cases[i].name, rc, e.msg);
            continue;
        }
        if (rc)
            fail_msg("%s: %s", cases[i].name, e.msg);
        size_t local = cases[i].local < 0 ? SIZE_MAX : (size_t)cases[i].local;
        if ((int)job.kind != cases[i].kind || job.rank != (size_t)cases[i].rank ||
            job.size != (size_t)cases[i].size || job.local_rank != local ||
            (cases[i].addr && strcmp(job.addr, cases[i].addr)) ||
            (cases[i].port && strcmp(job.port, cases[i].port)))
            fail_msg("%s: kind %d, rank %zu of %zu, local %zu, %s:%s", cases[i].name, (int)job.kind,
                     job.rank, job.size, job.local_rank, job.addr, job.port);
    }
}

/* Jobs that a launcher names differently have different keys; the ranks of one have the same. */
static void test_key(void **state)
{
    static const char *const a[] = {TORCH("0", "3"), "TORCHELASTIC_RUN_ID", "a", NULL};
    static const char *const a1[] = {TORCH("1", "3"), "TORCHELASTIC_RUN_ID", "a", NULL};
    static const char *const b[] = {TORCH("0", "3"), "TORCHELASTIC_RUN_ID", "b", NULL};
    static const char *const *const envs[] = {a, a1, b};
    struct comm_job job[3];
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        now = envs[i];
        assert_int_equal(comm_env(&job[i], get, NULL), ERR_OK);
    }
    assert_true(job[0].key == job[1].key);
    assert_true(job[0].key != job[2].key);
}

/* The steps of srun are jobs of their own, with ports of their own; what mpirun starts is one job,
 * although it reaches other machines by a step. */
static void test_steps(void **state)
{
    static const char *const step0[] = {SLURM_STEP("0"), SLURM("0", "3"), NULL};
    static const char *const step1[] = {SLURM_STEP("1"), SLURM("0", "3"), NULL};
    static const char *const here[] = {"COMM",         "tcp", "MASTER_ADDR",  "a",
                                       "SLURM_JOB_ID", "7",   OMPI("0", "2"), NULL};
    static const char *const there[] = {"COMM",          "tcp",           "MASTER_ADDR",  "a",
                                        SLURM_STEP("2"), SLURM("0", "1"), OMPI("1", "2"), NULL};
    static const char *const *const envs[] = {step0, step1, here, there};
    struct comm_job job[4];
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        now = envs[i];
        assert_int_equal(comm_env(&job[i], get, NULL), ERR_OK);
    }
    assert_true(job[0].key != job[1].key);
    assert_string_not_equal(job[0].port, job[1].port);
    assert_true(job[2].key == job[3].key);
    assert_string_equal(job[2].port, job[3].port);
}

static void test_times(void **state)
{
    static const char *const env[] = {"COMM_TIMEOUT", "300.5", "COMM_PATIENCE", "100", NULL};
    static const char *const none[] = {NULL};
    struct comm_job job;
    (void)state;
    now = none;
    assert_int_equal(comm_env(&job, get, NULL), ERR_OK);
    assert_true(job.timeout_s == COMM_TIMEOUT_S && job.patience_s == COMM_PATIENCE_S);
    now = env; /* no patience shorter than the timeout */
    assert_int_equal(comm_env(&job, get, NULL), ERR_OK);
    assert_true(job.timeout_s == 300.5 && job.patience_s == 300.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_env),
        cmocka_unit_test(test_key),
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
