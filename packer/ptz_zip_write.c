/* ptz_zip_write.c - see ptz_zip_write.h. Field names are those of APPNOTE.TXT (PKWARE). */
#include "packer/ptz_zip_write.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum {
    LOCAL = 0x04034b50,
    DESCRIPTOR = 0x08074b50,
    CENTRAL = 0x02014b50,
    END64 = 0x06064b50,
    LOCATOR64 = 0x07064b50,
    END = 0x06054b50,
    LOCAL_BYTES = 30,
    ALIGN = 64,
    FLAGS = 0x0808, /* sizes follow the data; names are UTF-8 */
};

static const char folder[] = "archive/";

static uint32_t crc_of(const struct zip_entry *f)
{
    uLong crc = crc32(0, NULL, 0);
    const uint8_t *p = f->data;
    for (size_t left = f->n; left;) {
        uInt piece = left > 1 << 30 ? 1 << 30 : (uInt)left;
        crc = crc32(crc, p, piece);
        p += piece;
        left -= piece;
    }
    return (uint32_t)crc;
}

static void put_name(struct bytes_out *out, const char *name)
{
    bytes_out_put(out, folder, strlen(folder));
    bytes_out_put(out, name, strlen(name));
}

/* Local header, padded by an extra field "FB" full of Z so that the data lie at a multiple of 64.
 */
static void put_entry(struct bytes_out *out, const struct zip_entry *f, uint32_t crc)
{
    size_t name = strlen(folder) + strlen(f->name), start = out->n + LOCAL_BYTES + name + 4;
    size_t pad = (ALIGN - start % ALIGN) % ALIGN;
    bytes_out_le(out, LOCAL, 4);
    bytes_out_le(out, 0, 2); /* version needed */
    bytes_out_le(out, FLAGS, 2);
    bytes_out_le(out, 0, 2);           /* method: stored */
    bytes_out_fill(out, 0, 4 + 3 * 4); /* time and date; CRC and sizes: in the descriptor */
    bytes_out_le(out, name, 2);
    bytes_out_le(out, pad + 4, 2);
    put_name(out, f->name);
    bytes_out_put(out, "FB", 2);
    bytes_out_le(out, pad, 2);
    bytes_out_fill(out, 'Z', pad);
    bytes_out_put(out, f->data, f->n);
    bytes_out_le(out, DESCRIPTOR, 4);
    bytes_out_le(out, crc, 4);
    bytes_out_le(out, f->n, 4);
    bytes_out_le(out, f->n, 4);
}

static void put_central(struct bytes_out *out, const struct zip_entry *f, uint32_t crc, size_t at)
{
    bytes_out_le(out, CENTRAL, 4);
    bytes_out_fill(out, 0, 4); /* versions */
    bytes_out_le(out, FLAGS, 2);
    bytes_out_fill(out, 0, 2 + 4); /* method, time and date */
    bytes_out_le(out, crc, 4);
    bytes_out_le(out, f->n, 4);
    bytes_out_le(out, f->n, 4);
    bytes_out_le(out, strlen(folder) + strlen(f->name), 2);
    bytes_out_fill(out, 0, 2 + 2 + 2 + 2 + 4); /* extra, comment, disk, attributes */
    bytes_out_le(out, at, 4);
    put_name(out, f->name);
}

/* Where the central directory lies, in the 64-bit form and in the old one. */
static void put_end(struct bytes_out *out, size_t count, size_t at)
{
    size_t size = out->n - at, end64 = out->n;
    bytes_out_le(out, END64, 4);
    bytes_out_le(out, 44, 8);     /* bytes that follow */
    bytes_out_le(out, 0x031e, 2); /* made by 3.0 on Unix */
    bytes_out_le(out, 45, 2);     /* needs 4.5 */
    bytes_out_fill(out, 0, 8);    /* disks */
    bytes_out_le(out, count, 8);
    bytes_out_le(out, count, 8);
    bytes_out_le(out, size, 8);
    bytes_out_le(out, at, 8);
    bytes_out_le(out, LOCATOR64, 4);
    bytes_out_le(out, 0, 4);
    bytes_out_le(out, end64, 8);
    bytes_out_le(out, 1, 4);
    bytes_out_le(out, END, 4);
    bytes_out_le(out, 0, 4);
    bytes_out_le(out, count, 2);
    bytes_out_le(out, count, 2);
    bytes_out_le(out, size, 4);
    bytes_out_le(out, at, 4);
    bytes_out_le(out, 0, 2);
}

void zip_write(struct bytes_out *out, const struct zip_entry *entry, size_t count)
{
    struct {
        uint32_t crc;
        size_t at;
    } *done = calloc(count + 1, sizeof *done);
    assert(count < UINT16_MAX);
    if (!done) {
        free(out->data);
        *out = (struct bytes_out){.failed = true};
        return;
    }
    for (size_t i = 0; i < count; i++) {
        done[i].at = out->n;
        done[i].crc = crc_of(&entry[i]);
        put_entry(out, &entry[i], done[i].crc);
    }
    size_t central = out->n;
    for (size_t i = 0; i < count; i++)
        put_central(out, &entry[i], done[i].crc, done[i].at);
    put_end(out, count, central);
    free(done);
}
