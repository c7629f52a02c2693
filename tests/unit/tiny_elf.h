/*
 * tiny_elf.h - two static ELF programs written by hand, for tests of the container: a runner that
 * can tell whether the loader handed over everything, and a fake loader of the same shape as the
 * real one.
 */
#ifndef TESTS_TINY_ELF_H
#define TESTS_TINY_ELF_H

#include <stdint.h>
#include <string.h>

#include "model/reader.h"

enum { TINY_HEADERS = 64 + 56, TINY_BASE = 0x400000 };

/* Headers for a program of n bytes in all that begins right behind them. */
static inline void tiny_headers(uint8_t *p, size_t n)
{
    memset(p, 0, TINY_HEADERS);
    memcpy(p,
           "\x7f"
           "ELF\2\1\1",
           7);
    p[16] = 2;                                  /* executable */
    p[18] = 62;                                 /* x86-64 */
    p[20] = 1;                                  /* version */
    put_le64(p + 24, TINY_BASE + TINY_HEADERS); /* entry */
    put_le64(p + 32, 64);                       /* program headers */
    p[52] = 64;
    p[54] = 56;
    p[56] = 1;
    put_le32(p + 64, 1); /* PT_LOAD */
    put_le32(p + 68, 5); /* R + X */
    put_le64(p + 80, TINY_BASE);
    put_le64(p + 88, TINY_BASE);
    put_le64(p + 96, n);
    put_le64(p + 104, n);
    put_le64(p + 112, 0x1000);
}

/* Exits with (size of the file whose descriptor it was given + argc) % 128. */
static const uint8_t tiny_runner_code[] = {
    0x8B, 0x3C, 0x25, 0x0C, 0x00, 0x40, 0x00, /* mov edi, [0x40000c]: RUNNER_FD_AT */
    0x31, 0xF6,                               /* xor esi, esi */
    0x6A, 0x02, 0x5A,                         /* push 2; pop rdx: SEEK_END */
    0x6A, 0x08, 0x58,                         /* push 8; pop rax: lseek */
    0x0F, 0x05,                               /* syscall */
    0x89, 0xC7,                               /* mov edi, eax */
    0x03, 0x3C, 0x24,                         /* add edi, [rsp]: argc */
    0x83, 0xE7, 0x7F,                         /* and edi, 127 */
    0xB8, 0xE7, 0x00, 0x00, 0x00,             /* mov eax, 231: exit_group */
    0x0F, 0x05,                               /* syscall */
};
enum { TINY_RUNNER = TINY_HEADERS + sizeof tiny_runner_code };

static inline void tiny_runner(uint8_t p[TINY_RUNNER])
{
    tiny_headers(p, TINY_RUNNER);
    memcpy(p + TINY_HEADERS, tiny_runner_code, sizeof tiny_runner_code);
}

#endif
