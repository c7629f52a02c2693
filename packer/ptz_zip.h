/*
 * ptz_zip.h - the zip archive around a pickle: entries by name, through libzip, with bounds.
 * Private to packer/ptz_read.c.
 */
#ifndef PACKER_PTZ_ZIP_H
#define PACKER_PTZ_ZIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"

struct ptz_zip;

/* ptz_zip_open - an archive in memory that the caller keeps alive. Names that occur twice are
 * refused: readers would disagree about which counts. ERR_INPUT, ERR_RESOURCE. */
enum err_code ptz_zip_open(struct ptz_zip **z, const void *data, size_t n, const char *path,
                           struct err *e);
void ptz_zip_close(struct ptz_zip *z); /* accepts NULL */

/* ptz_zip_top - the folder that holds data.pkl, with its slash ("archive/"); ERR_INPUT when there
 * is none, or more than one. Lives as long as z. */
enum err_code ptz_zip_top(struct ptz_zip *z, const char **folder, struct err *e);

/* ptz_zip_has - whether an entry's name ends so. */
bool ptz_zip_has(const struct ptz_zip *z, const char *ending);

/* ptz_zip_names - the entries' names in the archive's order; *name is for the caller to free(), the
 * names live as long as z. ERR_RESOURCE. */
enum err_code ptz_zip_names(const struct ptz_zip *z, const char ***name, size_t *n, struct err *e);

/* ptz_zip_read - an entry folder + name, decompressed; *out is for the caller to free(). Its CRC is
 * checked. ERR_INPUT when it is missing, damaged, encrypted or larger than limit. */
enum err_code ptz_zip_read(struct ptz_zip *z, const char *folder, const char *name, size_t limit,
                           uint8_t **out, size_t *n, struct err *e);

#endif
