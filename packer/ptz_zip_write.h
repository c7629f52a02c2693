/*
 * ptz_zip_write.h - a zip archive with the layout of torch.save (PyTorchStreamWriter of torch up to
 * 2.0): stored entries under "archive/", sizes in data descriptors, data at multiples of 64 bytes,
 * no times. Private to packer/ptz_write.c.
 */
#ifndef PACKER_PTZ_ZIP_WRITE_H
#define PACKER_PTZ_ZIP_WRITE_H

#include "packer/pickle_write.h"

struct zip_entry {
    const char *name; /* below "archive/" */
    const void *data;
    size_t n;
};

/* zip_write - the archive of count entries, appended to an empty out; look at out->failed. Entries
 * and archive must be below 4 GiB. */
void zip_write(struct bytes_out *out, const struct zip_entry *entry, size_t count);

#endif
