/*
 * digest.h - the name of a file's bytes that nobody can forge: SHA-256 (FIPS 180-4, by nettle), as
 * `sha256sum` prints it. XXH64, which the format uses inside, finds damage and not intent.
 */
#ifndef PACKER_DIGEST_H
#define PACKER_DIGEST_H

#include <stddef.h>

enum { DIGEST_TEXT = 65 /* bytes of the text: 64 hexadecimal digits and a zero */ };

/* digest_sha256 - text = the digest of the n bytes at p. Cannot fail. */
void digest_sha256(char text[DIGEST_TEXT], const void *p, size_t n);

#endif
