/*
 * cuda_dyn.S - the second table of program headers of the CUDA runner (stub/cuda.h), and what it
 * names: the linker, what it is to load, and the two addresses it is to leave in cuda_dl. Layout:
 * System V ABI, chapter 5, and its AMD64 supplement. Places are those that stub/runner.ld gives.
 *
 * Without hash tables nothing of the runner is visible to the libraries, so they use the machine's
 * malloc and not the runner's. The symbols have no version and are weak: the linker takes whatever
 * version libc has, and leaves 0 if it has none.
 */
    .set BASE, 0x400000     /* where the file begins */

    .set PT_LOAD, 1
    .set PT_DYNAMIC, 2
    .set PT_INTERP, 3
    .set PT_GNU_STACK, 0x6474e551
    .set READ, 4
    .set READ_WRITE, 6
    .set READ_EXEC, 5

    .set DT_NULL, 0
    .set DT_NEEDED, 1
    .set DT_STRTAB, 5
    .set DT_SYMTAB, 6
    .set DT_RELA, 7
    .set DT_RELASZ, 8
    .set DT_RELAENT, 9
    .set DT_STRSZ, 10
    .set DT_SYMENT, 11

    .set RELA_BYTES, 24
    .set SYM_BYTES, 24
    .set R_X86_64_GLOB_DAT, 6
    .set WEAK_FUNC, 0x22

    .macro segment type, flags, at, address, file_size, memory_size, align
    .long \type, \flags
    .quad \at, \address, \address, \file_size, \memory_size, \align
    .endm

    .section .rodata.cuda_dyn, "a"
    .balign 8
    .globl cuda_phdrs
cuda_phdrs:
    segment PT_INTERP, READ, interp-BASE, interp, interp_bytes, interp_bytes, 1
    segment PT_LOAD, READ_EXEC, 0, BASE, file_bytes, file_bytes, 0x1000
    segment PT_LOAD, READ_WRITE, 0, variables, 0, variables_bytes, 0x1000
    segment PT_DYNAMIC, READ, dynamic-BASE, dynamic, dynamic_bytes, dynamic_bytes, 8
    segment PT_GNU_STACK, READ_WRITE, 0, 0, 0, 0, 16

dynamic:
    .quad DT_NEEDED, libc - strings
    .quad DT_NEEDED, libdl - strings /* has dlopen where libc is older than 2.34 */
    .quad DT_STRTAB, strings
    .quad DT_SYMTAB, symbols
    .quad DT_RELA, relocations
    .quad DT_RELASZ, 2 * RELA_BYTES
    .quad DT_RELAENT, RELA_BYTES
    .quad DT_STRSZ, strings_bytes
    .quad DT_SYMENT, SYM_BYTES
    .quad DT_NULL, 0
    .set dynamic_bytes, . - dynamic

symbols:
    .zero SYM_BYTES
    .long dlopen_name - strings
    .byte WEAK_FUNC
    .zero SYM_BYTES - 5
    .long dlsym_name - strings
    .byte WEAK_FUNC
    .zero SYM_BYTES - 5

relocations:
    .quad cuda_dl, 1 << 32 | R_X86_64_GLOB_DAT, 0
    .quad cuda_dl + 8, 2 << 32 | R_X86_64_GLOB_DAT, 0

strings:
    .byte 0
libc:
    .asciz "libc.so.6"
libdl:
    .asciz "libdl.so.2"
dlopen_name:
    .asciz "dlopen"
dlsym_name:
    .asciz "dlsym"
    .set strings_bytes, . - strings
interp:
    .asciz "/lib64/ld-linux-x86-64.so.2"
    .set interp_bytes, . - interp

    .section .note.GNU-stack, "", @progbits
