/*
 * libcuda.cc - stands in for the library of NVIDIA's driver, for the runner of a submission
 * (stub/cuda.h): built as libcuda.so.1, it has the functions that stub/cuda_driver.h names, and a
 * card that is the emulator's (tests/gpu/emu). It executes the kernels as C++, from the very files
 * that stub/cuda_kernels.cu is made of; of the PTX that it is given it demands every kernel that is
 * asked for, with the parameters that the C++ one has.
 *
 * FAKE_CUDA in the environment makes it fail: "init", "sm_75", "ptx" (refused), "memory" (there is
 * none), "sync" (the device fails after the first results).
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "stub/cuda_kernels.cu"

extern "C" {
#include "stub/cuda_driver.h"
}

enum {
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NO_DEVICE = 100,
    UNSUPPORTED_PTX = 222,
    NOT_FOUND = 500,
    LAUNCH_FAILED = 719,
};

struct CUfunc_st {
    const char *name;
    const void *kernel;
    std::vector<size_t> params; /* bytes of each */
    std::function<void(dim3 grid, dim3 block, size_t shared, void **args)> start;
};

struct CUmod_st {
    std::string text;
};

template <typename... P, size_t... I>
static void start(void (*kernel)(P...), const char *name, dim3 grid, dim3 block, size_t shared,
                  void **args, std::index_sequence<I...>)
{
    emu::launching(kernel, name, grid, block, shared, NULL)(*(P *)args[I]...);
}

template <typename... P> static CUfunc_st entry(const char *name, void (*kernel)(P...))
{
    return {name,
            (const void *)kernel,
            {sizeof(P)...},
            [=](dim3 grid, dim3 block, size_t shared, void **args) {
                start(kernel, name, grid, block, shared, args, std::index_sequence_for<P...>{});
            }};
}

static CUfunc_st kernels[] = {
    entry("embed", elem::embed_fwd_kernel),
    entry("take", elem::take_kernel),
    entry("shift", elem::shift_fwd_kernel),
    entry("coef", elem::coef_fwd_kernel),
    entry("combine", rows::combine_fwd_kernel),
    entry("act", elem::act_kernel),
    entry("qk", rows::qk_fwd_kernel),
    entry("xsa", rows::xsa_fwd_kernel),
    entry("attn64", attn::fwd_kernel<64>),
    entry("attn128", attn::fwd_kernel<128>),
    entry("loss", head::loss_kernel),
    entry("slot_row", slot::row_kernel),
    entry("slot_sum", slot::sum_kernel),
    entry("slot_add", slot::add_kernel),
    entry("adamw", optim::adamw_kernel),
    entry("product", matmul::product_bf16_kernel<float, float, false, true>),
    entry("embed_bwd", elem::embed_bwd_kernel<float>),
    entry("shift_bwd", elem::shift_bwd_kernel),
    entry("coef_bwd", elem::coef_bwd_kernel),
    entry("combine_bwd", rows::combine_bwd_kernel),
    entry("qk_bwd", rows::qk_bwd_kernel),
    entry("xsa_bwd", rows::xsa_bwd_kernel),
    entry("dot", attn::dot_kernel),
    entry("dkv64", attn::dkv_kernel<64, 64>),
    entry("dq64", attn::dq_kernel<64>),
    entry("dkv128", attn::dkv_kernel<128, 32>),
    entry("dq128", attn::dq_kernel<128>),
    entry("dz", head::dz_kernel<float>),
    entry("colsum", elem::colsum_kernel),
    entry("mul", elem::mul_kernel),
    entry("add", elem::add_kernel),
    entry("axpby", elem::axpby_kernel),
    entry("round", elem::round_bf16_kernel),
    entry("sum", optim::sum_kernel),
    entry("sum_up", optim::sum_up_kernel),
    entry("product_x", matmul::product_bf16_kernel<float, float, false, false>),
    entry("product_w", matmul::product_bf16_kernel<float, float, true, false>),
};

static bool fails(const char *how)
{
    const char *asked = getenv("FAKE_CUDA");
    return asked && !strcmp(asked, how);
}

static CUresult of(cudaError_t e)
{
    cudaGetLastError();
    return e == cudaSuccess ? 0 : e == cudaErrorMemoryAllocation ? OUT_OF_MEMORY : INVALID_VALUE;
}

[[noreturn]] static void wrong(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void wrong(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("libcuda stand-in: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    abort();
}

/* Bytes of each parameter of a kernel, from its declaration in PTX: ".param .u64 p0" or
 * ".param .align 8 .b8 p0[136]", commas between them. */
static std::vector<size_t> declared(const char *s)
{
    std::vector<size_t> bytes;
    const char *end = strchr(s, ')'), *type;
    while ((s = strstr(s, ".param ")) && s < end) {
        s += strlen(".param ");
        const char *stop = s + strcspn(s, ",)"), *array = (const char *)memchr(s, '[', stop - s);
        if (array)
            bytes.push_back(strtoul(array + 1, NULL, 10));
        else if ((type = strpbrk(s, "usfb")) && type < stop)
            bytes.push_back(strtoul(type + 1, NULL, 10) / 8);
        s = stop;
    }
    return bytes;
}

extern "C" {
#pragma GCC visibility push(default)

CUresult cuGetErrorName(CUresult r, const char **name)
{
    *name = r == OUT_OF_MEMORY     ? "CUDA_ERROR_OUT_OF_MEMORY"
            : r == NO_DEVICE       ? "CUDA_ERROR_NO_DEVICE"
            : r == UNSUPPORTED_PTX ? "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"
            : r == NOT_FOUND       ? "CUDA_ERROR_NOT_FOUND"
            : r == LAUNCH_FAILED   ? "CUDA_ERROR_LAUNCH_FAILED"
                                   : "CUDA_ERROR_INVALID_VALUE";
    return 0;
}

CUresult cuInit(unsigned flags)
{
    return flags ? INVALID_VALUE : fails("init") ? NO_DEVICE : 0;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    *device = 7; /* a handle, not the ordinal */
    return ordinal ? INVALID_VALUE : 0;
}

CUresult cuDeviceGetName(char *name, int cap, CUdevice device)
{
    snprintf(name, (size_t)cap, "Emulated card");
    return device == 7 ? 0 : INVALID_VALUE;
}

CUresult cuDeviceGetAttribute(int *value, int what, CUdevice device)
{
    *value = what == CU_COMPUTE_CAPABILITY_MAJOR ? fails("sm_75") ? 7 : 8 : fails("sm_75") ? 5 : 0;
    return device == 7 ? 0 : INVALID_VALUE;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    *context = (CUcontext)kernels;
    return device == 7 ? 0 : INVALID_VALUE;
}

CUresult cuCtxSetCurrent(CUcontext context)
{
    return context == (CUcontext)kernels ? 0 : INVALID_VALUE;
}

CUresult cuCtxSynchronize(void)
{
    CUresult r = of(cudaDeviceSynchronize());
    return fails("sync") ? LAUNCH_FAILED : r;
}

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    if (fails("ptx"))
        return UNSUPPORTED_PTX;
    *module = new CUmod_st{(const char *)image};
    if ((*module)->text.compare(0, 9, ".version ") != 0)
        wrong("the module is no PTX");
    return 0;
}

CUresult cuModuleGetFunction(CUfunction *f, CUmodule module, const char *name)
{
    size_t at = module->text.find(".visible .entry " + std::string(name) + "(");
    if (at == std::string::npos)
        return NOT_FOUND;
    for (CUfunc_st &k : kernels)
        if (!strcmp(k.name, name)) {
            if (declared(module->text.c_str() + at) != k.params)
                wrong("kernel %s: its PTX has other parameters than its source", name);
            *f = &k;
            return 0;
        }
    wrong("kernel %s: unknown here", name);
}

CUresult cuFuncSetAttribute(CUfunction f, int attribute, int value)
{
    return attribute == CU_FUNC_MAX_DYNAMIC_SHARED ? of(emu_func_shared(f->kernel, value))
                                                   : INVALID_VALUE;
}

CUresult cuMemAlloc_v2(CUdeviceptr *p, size_t bytes)
{
    void *at;
    if (!bytes)
        return INVALID_VALUE;
    CUresult r = fails("memory") ? OUT_OF_MEMORY : of(cudaMalloc(&at, bytes));
    if (!r)
        *p = (CUdeviceptr)at;
    return r;
}

CUresult cuMemFree_v2(CUdeviceptr p)
{
    CUresult r = of(cudaDeviceSynchronize());
    return r ? r : of(cudaFree((void *)p));
}

CUresult cuMemsetD8Async(CUdeviceptr p, unsigned char value, size_t bytes, CUstream stream)
{
    return stream ? INVALID_VALUE : of(cudaMemsetAsync((void *)p, value, bytes, NULL));
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes)
{
    CUresult r = of(cudaMemcpyAsync((void *)to, from, bytes, cudaMemcpyHostToDevice, NULL));
    return r ? r : of(cudaStreamSynchronize(NULL));
}

CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes)
{
    CUresult r = of(cudaMemcpyAsync(to, (const void *)from, bytes, cudaMemcpyDeviceToHost, NULL));
    return r ? r : of(cudaStreamSynchronize(NULL));
}

CUresult cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                        unsigned by, unsigned bz, unsigned shared, CUstream stream, void **params,
                        void **extra)
{
    if (stream || extra)
        return INVALID_VALUE;
    f->start(dim3(gx, gy, gz), dim3(bx, by, bz), shared, params);
    return of(cudaGetLastError());
}

#pragma GCC visibility pop
}
