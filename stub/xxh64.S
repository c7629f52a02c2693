# xxh64.S - the hash of stub/xxh64.h once more, in as few bytes as possible, for the loader.
#
#     uint64_t xxh64_small(size_t n, const uint8_t *data);
#
# It is stub/xxh64.c step by step, and says only how; tests/unit/xxh64_test.c compares the two. Written as
# text to be included by C, as code_dec.S is.
#
#   rdi  bytes left          rdx  the hash so far     r8 to r11, rbp  the primes 1 to 4, 5
#   rsi  where they are      rax  a word of input     on the stack: the four lanes, n

    .intel_syntax noprefix
    .text
    .globl xxh64_small
xxh64_small:
    push rbx
    push rbp
    movabs r8, 0x9E3779B185EBCA87
    movabs r9, 0xC2B2AE3D27D4EB4F
    movabs r10, 0x165667B19E3779F9
    movabs r11, 0x85EBCA77C2B2AE63
    movabs rbp, 0x27D4EB2F165667C5
    push rdi
    mov rax, r8
    neg rax
    push rax
    push 0
    push r9
    lea rax, [r8 + r9]
    push rax
    mov rdx, rbp
    sub rdi, 32
    jb .Lh_short

.Lh_stripe:
    xor ecx, ecx
.Lh_lane:
    lodsq
    imul rax, r9
    add rax, [rsp + rcx * 8]
    rol rax, 31
    imul rax, r8
    mov [rsp + rcx * 8], rax
    inc ecx
    test cl, 4
    jz .Lh_lane
    sub rdi, 32
    jae .Lh_stripe

# The lanes, rotated by 1, 7, 12 and 18, are added up; ebx counts them.
    xor edx, edx
    xor ebx, ebx
    mov ecx, 0x120C0701
.Lh_sum:
    mov rax, [rsp + rbx * 8]
    rol rax, cl
    add rdx, rax
    inc ebx
    shr ecx, 8
    jnz .Lh_sum
.Lh_merge:
    pop rax
    call .Lh_mix
    dec ebx
    jnz .Lh_merge
    jmp .Lh_merged

# What is left, below 32: its lower bits are in edi all along, whatever was subtracted.
.Lh_short:
    add rsp, 32
.Lh_merged:
    pop rax
    add rdx, rax
    and edi, 31
    mov cl, 27
.Lh_eight:
    sub edi, 8
    jb .Lh_four
    lodsq
    call .Lh_mix
    jmp .Lh_eight
.Lh_four:
    test dil, 4
    jz .Lh_few
    lodsd
    imul rax, r8
    xor rdx, rax
    rol rdx, 23
    imul rdx, r9
    add rdx, r10
.Lh_few:
    and edi, 3
.Lh_one:
    dec edi
    js .Lh_finish
    movzx eax, byte ptr [rsi]
    inc rsi
    imul rax, rbp
    xor rdx, rax
    rol rdx, 11
    imul rdx, r8
    jmp .Lh_one
.Lh_finish:
    mov rax, rdx
    shr rdx, 33
    xor rax, rdx
    imul rax, r9
    mov rdx, rax
    shr rdx, 29
    xor rax, rdx
    imul rax, r10
    mov rdx, rax
    shr rdx, 32
    xor rax, rdx
    pop rbp
    pop rbx
    ret

# rax into the hash; its rotation is in cl: none for a lane.
.Lh_mix:
    imul rax, r9
    rol rax, 31
    imul rax, r8
    xor rdx, rax
    rol rdx, cl
    imul rdx, r8
    add rdx, r11
    ret
    .att_syntax prefix
