/*
 * cuda_driver.h - the part of the CUDA driver's interface that the runner uses, as NVIDIA documents
 * it (CUDA Driver API), without its header: types, the numbers of two attributes, and the
 * functions, which are found by name at run time.
 */
#ifndef STUB_CUDA_DRIVER_H
#define STUB_CUDA_DRIVER_H

#include <stddef.h>

typedef int CUresult; /* 0: success */
typedef int CUdevice;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream; /* NULL: the default one */
typedef unsigned long long CUdeviceptr;

enum {
    CU_COMPUTE_CAPABILITY_MAJOR = 75, /* CU_DEVICE_ATTRIBUTE_... */
    CU_COMPUTE_CAPABILITY_MINOR = 76,
    CU_FUNC_MAX_DYNAMIC_SHARED = 8, /* CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES */
};

/* X(name without cu, arguments). The suffix _v2 is the name that the header hides. */
#define CUDA_DRIVER(X)                                                                             \
    X(GetErrorName, (CUresult, const char **))                                                     \
    X(Init, (unsigned))                                                                            \
    X(DeviceGet, (CUdevice *, int))                                                                \
    X(DeviceGetName, (char *, int, CUdevice))                                                      \
    X(DeviceGetAttribute, (int *, int, CUdevice))                                                  \
    X(DevicePrimaryCtxRetain, (CUcontext *, CUdevice))                                             \
    X(CtxSetCurrent, (CUcontext))                                                                  \
    X(CtxSynchronize, (void))                                                                      \
    X(ModuleLoadData, (CUmodule *, const void *))                                                  \
    X(ModuleGetFunction, (CUfunction *, CUmodule, const char *))                                   \
    X(FuncSetAttribute, (CUfunction, int, int))                                                    \
    X(MemAlloc_v2, (CUdeviceptr *, size_t))                                                        \
    X(MemFree_v2, (CUdeviceptr))                                                                   \
    X(MemsetD8Async, (CUdeviceptr, unsigned char, size_t, CUstream))                               \
    X(MemcpyHtoD_v2, (CUdeviceptr, const void *, size_t))                                          \
    X(MemcpyDtoH_v2, (void *, CUdeviceptr, size_t))                                                \
    X(LaunchKernel, (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,       \
                     unsigned, CUstream, void **, void **))

struct cuda_driver {
#define X(name, args) CUresult(*name) args;
    CUDA_DRIVER(X)
#undef X
};

/* The driver, once cuda_begin was true. */
extern struct cuda_driver cuda_driver;

/* cuda_must - a call that has to work; leaves CUDA (cuda_leave) with its name when it did not. */
void cuda_must(CUresult r, const char *call);

#endif
