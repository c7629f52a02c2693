/*
 * ptz.c - what parity says of packed files in the program of `make test-gpu`: reading them needs
 * the packer and its libraries, and no card. `make parity` compares them.
 */
#include "tests/parity/parity.h"

void parity_ptz(struct check *c)
{
    check_missing(c, "packed files (make parity)");
}

void parity_pack_files(struct check *c, const char *files)
{
    (void)files;
    parity_ptz(c);
}

void parity_byteshuffle(struct check *c)
{
    parity_ptz(c);
}
