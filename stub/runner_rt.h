/*
 * runner_rt.h - what is different inside a runner. The Makefile includes it in front of each of a
 * runner's sources.
 *
 * A runner has nobody to report to: what fails prints its message and ends the program, there and
 * then (err.h, runner_rt.c). So nothing that could fail returns anything else than ERR_OK, memory
 * is never NULL, and the compiler leaves out what would have dealt with it. And a runner has met
 * packer, which has checked recipe, byte table and weights: what is wrong with those all the same
 * has one text in common.
 */
#ifndef STUB_RUNNER_RT_H
#define STUB_RUNNER_RT_H

#define RUNNER

#include <stddef.h>

void *malloc(size_t n) __attribute__((returns_nonnull));
void *calloc(size_t n, size_t size) __attribute__((returns_nonnull));
void *realloc(void *p, size_t n) __attribute__((returns_nonnull));
void *aligned_alloc(size_t align, size_t n) __attribute__((returns_nonnull));

#endif
