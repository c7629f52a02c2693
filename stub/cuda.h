/*
 * cuda.h - the runner of `packer pack --runner cuda`: scoring on an NVIDIA card where there is one.
 *
 * A runner is static and has no libc, so it cannot open the driver's library (libcuda.so.1), which
 * needs the machine's libc and its linker. But its image carries a second table of program headers
 * (stub/cuda_dyn.S), in which it is a dynamically linked program of the same code at the same
 * addresses. So it starts as every runner does, and when it is to score it starts itself again
 * under that table, from a memory file: the machine's linker then loads libc, leaves the addresses
 * of dlopen and dlsym, and goes to the same _start. Whatever fails, there or before or later, is no
 * end: the runner says why and scores on the CPU, if need be by starting itself a third time, now
 * static again and for the CPU.
 *
 * Kernels are PTX text, abbreviated, in a section of their own (KIND_CUDA), made from
 * stub/cuda_kernels.cu by cuda_ptx.awk, ptx_registers.c and ptx_words.c. All runs on one device,
 * the driver's first, in its default stream.
 */
#ifndef STUB_CUDA_H
#define STUB_CUDA_H

#include <stdbool.h>
#include <stddef.h>

#include "model/gpt.h"

#ifdef RUNNER_CUDA
enum { HAS_CUDA = 1 };
extern bool cuda_on; /* cuda_begin has opened the driver: cuda_engine may be called */
#define CUDA_USAGE "  --device      cpu, cuda, or auto: a card where there is one\n"
#define CUDA_WORD  "device\0"
#define CUDA_KIND  , "cuda"
#else
enum { HAS_CUDA = 0, cuda_on = 0 };
#define CUDA_USAGE
#define CUDA_WORD
#define CUDA_KIND
#endif

enum { CUDA_ROWS = 32768 /* positions at a time: enough blocks for every kernel */ };

/* The value of --device: "auto", "cpu", "cuda", or NULL: as "auto", but only where NVIDIA's driver
 * has a device file. */
extern const char *cuda_device;

/*
 * cuda_begin - before anything is scored: tries to open the driver and its first device, and sets
 * cuda_on. argv is main's.
 *
 * May start the program again, and then does not return. With "cuda" what fails ends the program
 * (ERR_RESOURCE).
 */
void cuda_begin(char **argv);

/*
 * cuda_leave - to the CPU, for this reason: a line on standard error, and once cuda_begin has
 * restarted the program a new start; then it does not return. With --device cuda, or after
 * cuda_written, it is an error that ends the program.
 */
void cuda_leave(const char *reason);

/* cuda_written - scores were given away, so there is no way back to the CPU. */
void cuda_written(void);

/* cuda_engine - the backend instead of *k, and in its memory the parameters of m instead of *params
 * (host). `ptx` is the text of the kernels as stub/ptx_words.c has abbreviated it. */
void cuda_engine(struct kern **k, float **params, const struct gpt *m, const char *ptx);

#endif
