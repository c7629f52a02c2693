/*
 * apart.h - a backend whose memory the host cannot touch: the CPU's, with every address that it
 * hands out moved to where no memory can be. Code that reads a weight or an activation without
 * asking the backend, as it would on a graphics card, crashes here.
 */
#ifndef TESTS_UNIT_APART_H
#define TESTS_UNIT_APART_H

#include "kernels/kernels.h"

/* kern_apart - around a CPU backend with `threads` threads. Release with kern_free. */
enum err_code kern_apart(struct kern **out, size_t threads, struct err *e);

#endif
