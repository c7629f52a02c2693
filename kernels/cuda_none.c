/* cuda_none.c - stands in for kernels/cuda where the build has no CUDA backend: says so, by name.
 */
#include "kernels/kernels.h"

enum err_code kern_cuda(struct kern **out, int device, struct err *e)
{
    *out = NULL;
    return err_set(e, ERR_RESOURCE,
                   "CUDA device %d: this build has no CUDA backend; use --device cpu", device);
}
