# start.S - load() of stub/loader.c once more, in as few bytes as possible: what the loader runs.
#
# It is loader.c step by step, and says only how; what and why are there. tests/e2e/loader_test.sh and
# damage_test.sh watch over this one, tests/unit/stub_loader_test.c over both. Written as text to be
# included by C, as code_dec.S is.
#
#   rbx  the header, then the entry of the runner   rbp  where a section begins, then the runner
#   r12  the end of the file    r13  its start      r14  an entry      r15  the last one's end; raw size
#
# On the stack: the descriptor of the file, above what the kernel has left there.

    .intel_syntax noprefix
    .set SYS_WRITE, 1
    .set SYS_OPEN, 2
    .set SYS_LSEEK, 8
    .set SYS_MMAP, 9
    .set SYS_EXIT_GROUP, 231
    .set SYS_MEMFD_CREATE, 319
    .set SYS_EXECVEAT, 322
    .set CODE_WORK, 46300000
    .set HDR_COUNT, 16
    .set HDR_ENTRIES, 32
    .set HDR_TAIL, 8
    .set HDR_MAX, 40 + 48 * 8
    .set RUNNER_ENTRY, 32 + 48 * 2
    .set SEC_OFFSET, 8
    .set SEC_SIZE, 16
    .set SEC_RAW_SIZE, 24
    .set SEC_XXH64, 32
    .set SEC_BYTES, 48
    .set RUNNER_FD_AT, 12

    .text
    .globl _start
_start:
    mov edi, offset .Lpath
    xor esi, esi
    push SYS_OPEN
    pop rax
    call .Lneed
    test eax, eax
    jz _start
    push rax
    xchg edi, eax
    push 2
    pop rdx
    push SYS_LSEEK
    pop rax
    call .Lneed
    mov r12, rax
    mov r8d, edi
    xchg rsi, rax
    push 1
    pop rdx
    push 2
    pop r10
    call .Lmap
    mov r13, rax
    lea rbx, [rax + loader_bytes]
    cmp r12, offset loader_bytes + HDR_MAX
    jb .Ldamaged
    add r12, rax

    mov eax, [rbx + HDR_COUNT]
    lea ecx, [rax - 6]
    cmp ecx, 2
    ja .Ldamaged
    imul edi, eax, SEC_BYTES
    add edi, HDR_ENTRIES
    lea r15, [rbx + rdi]
    mov rsi, rbx
    call xxh64_small
    cmp rax, [r15]
    jne .Ldamaged
    sub rbx, -RUNNER_ENTRY
    mov r14, rbx
    lea rbp, [r15 + HDR_TAIL]
.Lsection:
    mov rax, rbp
    sub rax, r13
    cmp rax, [r14 + SEC_OFFSET]
    jne .Ldamaged
    mov rdi, [r14 + SEC_SIZE]
    mov rax, r12
    sub rax, rbp
    cmp rax, rdi
    jb .Ldamaged
    mov rsi, rbp
    add rbp, rdi
    call xxh64_small
    cmp rax, [r14 + SEC_XXH64]
    jne .Ldamaged
    add r14, SEC_BYTES
    cmp r14, r15
    jne .Lsection
    cmp rbp, r12
    jne .Ldamaged

    mov r15d, [rbx + SEC_RAW_SIZE]
    lea rsi, [r15 + CODE_WORK + 4096]
    push 3
    pop rdx
    push 0x22
    pop r10
    or r8, -1
    call .Lmap
    xchg rdi, rax
    lea rsi, [rdi + CODE_WORK]
    mov rbp, rsi
    mov rdx, r15
    mov rcx, [rbx + SEC_OFFSET]
    add rcx, r13
    mov r8, [rbx + SEC_SIZE]
    call code_dec_small
    test rax, rax
    jz .Lsound
.Ldamaged:
    mov esi, offset .Ltext
    push 3
    jmp .Lquit
.Lrefused:
    mov esi, offset .Ltext + 20
    push 4
.Lquit:
    push 2
    pop rdi
    push 20
    pop rdx
    push SYS_WRITE
    pop rax
    syscall
    pop rdi
    mov eax, SYS_EXIT_GROUP
    syscall

.Lmap:
    xor edi, edi
    xor r9d, r9d
    push SYS_MMAP
    pop rax
.Lneed:
    syscall
    test rax, rax
    js .Lrefused
    ret

.Lsound:
    pop rax
    mov [rbp + RUNNER_FD_AT], eax
    push 17
    pop rsi
.Lmemfd:
    mov edi, offset .Lpath + 14
    mov eax, SYS_MEMFD_CREATE
    syscall
    test eax, eax
    jns .Lhave
    sub esi, 16
    jg .Lmemfd
.Lhave:
    mov ebx, eax
    xchg edi, eax
    mov rsi, rbp
    mov rdx, r15
    push SYS_WRITE
    pop rax
    call .Lneed
    cmp rax, r15
    jne .Lrefused
    mov esi, offset .Lpath + 14
    pop rax
    push rsp
    pop rdx
    lea r10, [rsp + rax * 8 + 8]
    mov r8d, 0x1000
    mov eax, SYS_EXECVEAT
    call .Lneed

    .section .rodata
.Lpath:
    .asciz "/proc/self/exe"
.Ltext:
    .ascii "submission: damaged\n"
    .ascii "submission: refused\n"
    .att_syntax prefix
    .text
