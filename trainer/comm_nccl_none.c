/* comm_nccl_none.c - stands in for comm_nccl.cu where the build has no NCCL. */
#include <string.h>

#include "trainer/comm_impl.h"

enum err_code comm_nccl_open(struct comm *c, struct kern *k, struct err *e)
{
    return strncmp(k->name, "cuda", 4) ? ERR_OK
                                       : err_set(e, ERR_USAGE,
                                                 "%zu ranks on %s: built without NCCL (nccl.h was "
                                                 "not there)",
                                                 c->size, k->name);
}
