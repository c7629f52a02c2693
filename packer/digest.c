/* digest.c - see digest.h. */
#include "packer/digest.h"

#include <nettle/base16.h>
#include <nettle/sha2.h>

void digest_sha256(char text[DIGEST_TEXT], const void *p, size_t n)
{
    struct sha256_ctx c;
    uint8_t raw[SHA256_DIGEST_SIZE];
    sha256_init(&c);
    sha256_update(&c, n, p);
    sha256_digest(&c, sizeof raw, raw);
    base16_encode_update(text, sizeof raw, raw);
    text[DIGEST_TEXT - 1] = 0;
}
