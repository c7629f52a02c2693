/* comm_mpi_none.c - stands in for comm_mpi.c where the build has no MPI: what can do without it
 * does, the rest is told. */
#include "trainer/comm_impl.h"

enum err_code comm_mpi_open(struct comm *c, const struct comm_job *job, struct err *e)
{
    if (*job->addr)
        return comm_tcp_open(c, job, e);
    return err_set(e, ERR_USAGE,
                   "started as one of %zu processes of mpirun, but built without MPI: install it "
                   "(libopenmpi-dev) and build again, or start with COMM=tcp and MASTER_ADDR set",
                   job->size);
}
