/* kern.c - what does not depend on the backend. */
#include "kernels/kernels.h"

void kern_free(struct kern *k)
{
    if (k)
        k->close(k);
}
