/*
 * nccl.h - stands in for NCCL's header of that name: what trainer/comm_nccl.cu uses, with its
 * meaning (NCCL user guide, API). nccl.cc says what is checked.
 *
 * The library is opened at run time, so dlopen and dlsym are stood in for as well.
 */
#ifndef TESTS_GPU_EMU_NCCL_H
#define TESTS_GPU_EMU_NCCL_H

#include <dlfcn.h>

#include "cuda_runtime.h"

extern "C" {
typedef struct emu_nccl *ncclComm_t;
struct ncclUniqueId {
    char internal[128];
};
enum ncclResult_t {
    ncclSuccess = 0,
    ncclSystemError = 2,
    ncclInvalidArgument = 4,
    ncclInvalidUsage = 5,
    ncclRemoteError = 6,
    ncclInProgress = 7,
};
enum ncclDataType_t { ncclUint8 = 1 };
struct ncclConfig_t {
    int blocking;
};
#define NCCL_CONFIG_INITIALIZER                                                                    \
    {                                                                                              \
        1                                                                                          \
    }

ncclResult_t ncclGetUniqueId(ncclUniqueId *id);
ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t *config);
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state);
ncclResult_t ncclCommFinalize(ncclComm_t comm);
ncclResult_t ncclCommDestroy(ncclComm_t comm);
ncclResult_t ncclCommAbort(ncclComm_t comm);
const char *ncclGetErrorString(ncclResult_t status);
const char *ncclGetLastError(ncclComm_t comm);
ncclResult_t ncclGroupStart();
ncclResult_t ncclGroupEnd();
ncclResult_t ncclSend(const void *at, size_t n, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream);
ncclResult_t ncclRecv(void *at, size_t n, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream);

void *emu_nccl_dlopen(const char *name);
void *emu_nccl_dlsym(void *library, const char *name);
}

#define dlopen(name, flags)  emu_nccl_dlopen(name)
#define dlsym(library, name) emu_nccl_dlsym(library, name)
#define dlclose(library)     ((void)(library))

#endif
