/*
 * ptz_layers.h - what lies around the payload of packed weights: compressors, byte shuffle, and the
 * marks with which some scripts say which compressor they took. Private to packer/ptz_*.c.
 *
 *   mark   "ZSTD" or "ZLIB" before the data (the depth-recurrence folder of 2026-03-21; "LZMA" and
 *          "BROT" are read likewise), or one byte 0, 1, 2 for xz, brotli, zstd (the XNOR folder of
 *          2026-04-05)
 *   BSHF   packer/byteshuffle.h
 *
 * The payload is what begins as a zip archive, a pickle of protocol 2 to 5, or a .npy file. Brotli
 * and raw LZMA2 have no magic number: they are tried when nothing else fits, and believed when a
 * payload comes out.
 */
#ifndef PACKER_PTZ_LAYERS_H
#define PACKER_PTZ_LAYERS_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"
#include "packer/ptz_codec.h"

enum { PTZ_LAYERS = 4, PTZ_LAYERS_TEXT = 80 };

struct ptz_layers {
    enum ptz_codec codec;       /* the outermost compressor, PTZ_RAW: none */
    unsigned stride;            /* of the byte shuffle, 0: none */
    char text[PTZ_LAYERS_TEXT]; /* all, from the outside: "mark 1, brotli, byte shuffle 2" */
    const uint8_t *data;        /* the payload: in the input, or in `owned` */
    size_t n;
    uint8_t *owned; /* NULL when the input itself is the payload */
};

/*
 * ptz_layers_peel - undo up to PTZ_LAYERS layers of an input that the caller keeps alive.
 *
 *   limit  no layer may expand to more bytes
 *   path   names the input in errors
 *
 * Fails: ERR_INPUT naming the layer that is damaged, or when what is left is no payload;
 * ERR_RESOURCE without memory. A payload may be empty. On failure nothing is held.
 */
enum err_code ptz_layers_peel(struct ptz_layers *l, const uint8_t *data, size_t n, size_t limit,
                              const char *path, struct err *e);
void ptz_layers_free(struct ptz_layers *l); /* accepts a zeroed struct */

#endif
