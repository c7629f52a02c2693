/*
 * embed.h - built files that bin/packer and bin/verify carry inside: the loader and the runners of
 * this build, and an archive of the project's sources. stub/embed.S brings them in.
 */
#ifndef STUB_EMBED_H
#define STUB_EMBED_H

#include <stddef.h>
#include <stdint.h>

extern const uint8_t stub_loader[], stub_loader_end[];
extern const uint8_t stub_runner[], stub_runner_end[];
extern const uint8_t stub_runner_full[], stub_runner_full_end[]; /* with test-time training */
extern const uint8_t stub_runner_any[], stub_runner_any_end[];   /* and weights of every codec */
extern const uint8_t stub_runner_cuda[], stub_runner_cuda_end[]; /* the same, and cards */
extern const uint8_t stub_cuda[], stub_cuda_end[]; /* its kernels; empty in a build without nvcc */
extern const uint8_t stub_source[], stub_source_end[];

#endif
