/* embed.S - see embed.h. Assemble with -Wa,-I<build directory>; source.tar is a tar archive. */
    .section .rodata
    .macro embed name, file
    .globl stub_\name, stub_\name\()_end
    .balign 16
stub_\name:
    .incbin "\file"
stub_\name\()_end:
    .byte 0
    .endm

    embed loader, "stub/loader"
    embed runner, "stub/runner"
    embed runner_full, "stub/runner_full"
    embed runner_any, "stub/runner_any"
    embed runner_cuda, "stub/runner_cuda"
    embed cuda, "stub/cuda.ptx"
    embed source, "stub/source.tar"

    .section .note.GNU-stack, "", @progbits
