/*
 * weights_dec_fuzz - any bytes as a weight section: 1 byte codec, 8 bytes parameters, 2 bytes
 * payload size, the stored bytes. What decodes is walked and every byte of every tensor is read.
 */
#include <stdlib.h>

#include "model/reader.h"
#include "stub/weights_dec.h"

/* Reads have to end somewhere, or the compiler leaves them out. */
static volatile unsigned sink;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static uint64_t work[WEIGHTS_WORK / 8];
    struct weights_cursor c;
    struct tensor_view t;
    if (n < 11)
        return 0;
    size_t raw_size = le16(data + 9);
    uint8_t *payload = malloc(raw_size + 1);
    if (payload && weights_decode(data[0], data + 1, data + 11, n - 11, payload, raw_size, work)) {
        weights_open(&c, payload, raw_size);
        while (weights_next(&c, &t)) {
            for (const char *p = t.name; *p; p++)
                sink += (unsigned char)*p;
            for (size_t i = 0; i < t.nbytes; i++)
                sink += t.data[i];
        }
    }
    free(payload);
    return 0;
}
