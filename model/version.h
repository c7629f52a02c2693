/* version.h - what --version of every program says. */
#ifndef MODEL_VERSION_H
#define MODEL_VERSION_H

/* Counts what users of the programs and of files notice; formats have numbers of their own
 * (stub/format.h, trainer/checkpoint.h). */
#define VERSION "0.1.0"

#endif
