/*
 * file.h - whole files in, whole files out.
 */
#ifndef MODEL_FILE_H
#define MODEL_FILE_H

#include <stddef.h>
#include <stdio.h>

#include "kernels/err.h"

/* file_map - map a regular file read-only. An empty file gives data NULL and size 0.
 * ERR_INPUT when it cannot be read. Release with file_unmap. */
enum err_code file_map(const char *path, const void **data, size_t *n, struct err *e);
void file_unmap(const void *data, size_t n);

/* A file that appears complete or not at all: written under a temporary name beside `path`, flushed
 * to the disk and renamed by atomic_commit. atomic_abort removes the temporary file. Both close f.
 * What is there and no regular file (/dev/null, a pipe) is written as it is, never replaced; a
 * directory is refused by atomic_open. */
struct atomic_file {
    FILE *f;
    char path[1024], tmp[1040]; /* tmp empty: path is no regular file */
};
enum err_code atomic_open(struct atomic_file *a, const char *path, struct err *e);
enum err_code atomic_commit(struct atomic_file *a, unsigned mode, struct err *e);
void atomic_abort(struct atomic_file *a); /* accepts a zeroed or committed one */

/* file_write - one buffer, by way of atomic_file. */
enum err_code file_write(const char *path, const void *data, size_t n, struct err *e);

/* dir_make - create a directory and its parents; fine when it is there already. */
enum err_code dir_make(const char *path, struct err *e);

#endif
