# code_dec.S - the decoder of stub/code_dec.h once more, in as few bytes as possible, for the loader.
#
# It is stub/code_model.h and stub/code_dec.c step by step, and says only how; what and why are there.
# tests/unit/code_test.c compares the two. Written as text to be included by C (as comments start with #,
# the compiler's preprocessor never sees it):
#
#     __asm__(".include \"stub/code_dec.S\"");
#
# rbp points 128 bytes into the workspace, so that v and hash, all that is used often, are within
# reach of a displacement of one byte.
#
#   rdi  where the next byte goes        ebx  bits of the current byte
#   r9   where the next byte comes from  r12, r13, r14  rows of weights; two more in the workspace
#   esi  range    r10d  code             rcx  counts
#
# On the stack: end of the output, end of the input, start of the output; above them, while a bit is
# decoded, rdi.

    .intel_syntax noprefix
    .set V_LAST, -128
    .set V_STATE, -128 + 4 * 6
    .set V_OPCODE, -128 + 4 * 7
    .set V_HASH, -128 + 4 * 8
    .set CONTEXTS, 22
    .set HASH, -68
    .set ROW_LAST, 24
    .set ROW_BEFORE, 32
    .set AT, 40
    .set STRETCH, AT + 16 * CONTEXTS
    .set SQUASH, STRETCH + 4 * 4096
    .set ROW, 4 * 64
    .set WEIGHTS, SQUASH + 4 * 4096
    .set ROWS, ROW * 256 * 64
    .set STATES, WEIGHTS + 3 * ROWS
    .set KNOWN, STATES + ROW * 64
    .set HISTORY, KNOWN + ROW * (CONTEXTS + 1)
    .set SLOTS, HISTORY + 8 * CONTEXTS * 256
    .set GOLDEN, 0x9E3779B1

    .section .text.code_dec, "ax"
    .globl code_dec_small
code_dec_small:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    push rsi
    add r8, rcx
    push r8
    add rdx, rsi
    push rdx
    sub rdi, -128
    push rdi
    pop rbp
    push rsi
    pop rdi
    mov r9, rcx

# The logistic curve. rax is p, ecx the point, edx counts entries of the inverse.
    mov eax, 1462000
    xor ecx, ecx
    xor edx, edx
.Lpoint:
    mov [rbp + rcx * 4 + SQUASH], eax
.Linverse:
    mov r8d, eax
    shr r8d, 20
    cmp edx, r8d
    ja .Lstep
    mov ebx, edx
    xor bh, 8
    lea r8d, [rcx - 2048]
    mov [rbp + rbx * 4 + STRETCH], r8d
    inc edx
    jmp .Linverse
.Lstep:
    mov r8d, eax
    neg r8d
    imul r8, rax
    shr r8, 40
    add eax, r8d
    inc ecx
    cmp ch, 16
    jb .Lpoint

    push 1
    pop rsi
    xor r10d, r10d

# ---- a byte: hashes of its contexts. ecx is the context, edx what is left of its mask.
.Lbyte:
    push CONTEXTS
    pop rcx
    lea r11, [rip + .Lcontexts - 2]
.Lcontext:
    movzx edx, word ptr [r11 + rcx * 2]
    mov eax, ecx
    bswap eax
    xor ebx, ebx
.Lplace:
    shr edx
    jnc .Labsent
    add eax, [rbp + rbx * 4 + V_LAST]
    imul eax, eax, GOLDEN
    mov r8d, eax
    shr r8d, 15
    xor eax, r8d
.Labsent:
    inc ebx
    test edx, edx
    jnz .Lplace
    mov [rbp + rcx * 4 + HASH - 4], eax
    loop .Lcontext

# ---- a bit: find the slots. ecx is the context plus 1, r8 its histories, r14 the row of `known`.
    push 1
    pop rbx
.Lbit:
    push CONTEXTS
    pop rcx
    lea r8, [rbp + HISTORY]
    lea r14, [rbp + KNOWN - 4]
.Lslot:
    mov eax, [rbp + rcx * 4 + HASH - 4]
    add eax, ebx
    mov edx, eax
    and edx, 0x3FFFFF
    lea rdx, [rbp + rdx * 8 + SLOTS]
    cmp [rdx], eax
    je .Lours
    mov [rdx], rax
.Lours:
    mov [rbp + rcx * 8 + AT - 8], rdx
    cmp byte ptr [rdx + 6], 0
    je .Lnew
    add r14, ROW
.Lnew:
    movzx edx, byte ptr [rdx + 7]
    lea rdx, [r8 + rdx * 8]
    mov [rbp + rcx * 8 + AT + 8 * CONTEXTS - 8], rdx
    add r8, 8 * 256
    loop .Lslot

# Mix. ecx goes down from 44 to 1, the rows are addressed from 4 bytes before their start.
    mov eax, [rbp + V_STATE]
    shl eax, 8
    lea r13, [rbp + rax + STATES - 4]
    mov al, bl
    mov edx, eax
    shl edx, 8
    lea r12, [rbp + rdx + WEIGHTS - 4]
    mov al, [rbp + V_LAST]
    mov edx, eax
    shl edx, 8
    lea rdx, [rbp + rdx + WEIGHTS + ROWS - 4]
    mov [rbp + ROW_LAST], rdx
    mov al, [rbp + V_LAST + 4]
    shl eax, 8
    lea rax, [rbp + rax + WEIGHTS + 2 * ROWS - 4]
    mov [rbp + ROW_BEFORE], rax
    push rdi
    xor edi, edi
    mov cl, 2 * CONTEXTS
.Lmix:
    mov rdx, [rbp + rcx * 8 + AT - 8]
    movzx edx, word ptr [rdx + 4]
    shr edx, 4
    movsxd rdx, dword ptr [rbp + rdx * 4 + STRETCH]
    mov eax, [r12 + rcx * 4]
    add eax, [r13 + rcx * 4]
    add eax, [r14 + rcx * 4]
    mov r8, [rbp + ROW_LAST]
    add eax, [r8 + rcx * 4]
    mov r8, [rbp + ROW_BEFORE]
    add eax, [r8 + rcx * 4]
    add eax, 80000
    cdqe
    imul rax, rdx
    add rdi, rax
    loop .Lmix
    xchg rax, rdi
    sar rax, 20
    add eax, 2048
    cmp eax, 4095
    jbe .Linside
    sar eax, 31
    not eax
    and eax, 4095
.Linside:
    mov eax, [rbp + rax * 4 + SQUASH]

# The coder. eax is p. After it ebx has the bit, and eax is -1 when that is 1, else 0.
.Lshift:
    test esi, 0xFF000000
    jnz .Lready
    shl esi, 8
    shl r10d, 8
    cmp r9, [rsp + 16]
    jae .Lpast
    mov r10b, [r9]
.Lpast:
    inc r9
    jmp .Lshift
.Lready:
    mov edi, eax
    shr edi, 16
    mul esi
    sub esi, edx
    sub r10d, edx
    sbb eax, eax
    jz .Lzero
    add r10d, edx
    mov esi, edx
.Lzero:
    add ebx, ebx
    sub ebx, eax

# Learn. r15 is 6 times the error, r11d the goal, rdi the slot.
    mov edx, eax
    shl edx, 16
    add edx, edi
    imul edx, edx, -6
    movsxd r15, edx
    xor eax, -32768
    xchg eax, r11d
    mov cl, 2 * CONTEXTS
.Llearn:
    mov rdi, [rbp + rcx * 8 + AT - 8]
    movzx eax, word ptr [rdi + 4]
    shr eax, 4
    movsxd rax, dword ptr [rbp + rax * 4 + STRETCH]
    imul rax, r15
    sar rax, 17
    add [r12 + rcx * 4], eax
    add [r13 + rcx * 4], eax
    add [r14 + rcx * 4], eax
    mov r8, [rbp + ROW_LAST]
    add [r8 + rcx * 4], eax
    mov r8, [rbp + ROW_BEFORE]
    add [r8 + rcx * 4], eax
    mov eax, r11d
    movsx edx, word ptr [rdi + 4]
    sub eax, edx
    add eax, eax
    movzx r8d, byte ptr [rdi + 6]
    lea r8d, [r8 + r8 + 3]
    cdq
    idiv r8d
    add [rdi + 4], ax
    cmp byte ptr [rdi + 6], 127
    adc byte ptr [rdi + 6], 0
    bt ebx, 0
    rcl byte ptr [rdi + 7]
    inc byte ptr [rdi + 7]
    loop .Llearn
    pop rdi
    test bh, bh
    jz .Lbit

# ---- the byte is complete.
    xchg eax, ebx
    stosb
    movzx ebx, al
    push 5
    pop rcx
.Llast:
    mov eax, [rbp + rcx * 4 + V_LAST - 4]
    mov [rbp + rcx * 4 + V_LAST], eax
    loop .Llast
    mov [rbp + V_LAST], ebx
    add [rbp + V_HASH], ebx
    imul eax, [rbp + V_HASH], GOLDEN
    mov [rbp + V_HASH], eax

# The instruction. ebx is the byte, edx the state.
    mov edx, [rbp + V_STATE]
    cmp dl, 32
    jbe .Lfew
    sub edx, 8
    jmp .Lstate
.Lfew:
    cmp dl, 16
    jae .Lmodrm
    dec edx
    jns .Lstate
    inc edx
.Lmodrm:
    lea eax, [rdx - 16]
    cmp eax, 8
    jae .Lopcode
    xchg eax, edx
    mov eax, [rbp + V_OPCODE]
    or al, 1
    cmp eax, 0xF7
    jne .Lmemory
    test bl, 0x30
    jz .Lmemory
    xor edx, edx
.Lmemory:
    cmp bl, 0xC0
    jae .Lstate
    mov al, bl
    and al, 7
    cmp al, 4
    jne .Lnosib
    inc edx
.Lnosib:
    test bl, bl
    js .Lfour
    and bl, 0x47
    cmp bl, 5
    je .Lfour
    test bl, 0x40
    jz .Lstate
    inc edx
    jmp .Lstate
.Lfour:
    add edx, 4
    jmp .Lstate

.Lopcode:
    cmp dl, 32
    jne .Ltable1
    inc bh
.Ltable1:
    mov [rbp + V_OPCODE], ebx
    cmp ebx, 0x40
    jae .Llookup
    cmp bl, 0x0F
    je .Llookup
    and bl, 7
.Llookup:
    lea r8, [rip + .Lnext]
    push 11
    pop rdx
.Lrun:
    mov al, [r8 + rdx]
    inc edx
    movzx ecx, al
    shr ecx, 4
    stc
    sbb ebx, ecx
    jns .Lrun
    and eax, 15
    movzx edx, byte ptr [r8 + rax]

.Lstate:
    mov [rbp + V_STATE], edx
    test edx, edx
    jnz .Lmore
    mov eax, [rbp + V_OPCODE]
    or al, 1
    cmp eax, 0xE9
    jne .Lnear
    mov eax, edi
    sub eax, [rsp + 16]
    sub [rdi - 4], eax
.Lnear:
    push 6
    pop rcx
.Linsn:
    mov eax, [rbp + rcx * 4 + V_OPCODE - 4]
    mov [rbp + rcx * 4 + V_OPCODE + 4], eax
    loop .Linsn
    mov [rbp + V_OPCODE], rcx
.Lmore:
    cmp rdi, [rsp]
    jb .Lbyte

    pop rdx
    pop rdx
    sub r9, rdx
    xchg rax, r9
    pop rdx
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

.Lcontexts:
    .word 0x0000, 0x0001, 0x0003, 0x00C8, 0x0040, 0x0041, 0x0042, 0x1080
    .word 0x00C0, 0x02D8, 0x0AC0, 0x0100, 0x0340, 0x0601, 0x1100, 0x0007
    .word 0x0031, 0x4100, 0x0044, 0x0281, 0x024E, 0x2242
.Lnext:
    .byte 0, 1, 4, 16, 17, 20, 24, 32, 40, 48, 56
.Lruns:
    .byte 0x33, 0x01, 0x02, 0x80, 0x07, 0xF0, 0xF0, 0xF0, 0xF6, 0xF0, 0x10, 0x0A
    .byte 0x03, 0x26, 0x00, 0x02, 0x05, 0x01, 0x04, 0x30, 0xF1, 0x04, 0x05, 0x14
    .byte 0xB3, 0xF0, 0x70, 0x01, 0x02, 0x50, 0x71, 0x72, 0x14, 0x10, 0x09, 0x08
    .byte 0x04, 0x05, 0x70, 0xF3, 0x71, 0x12, 0x11, 0x50, 0x16, 0x10, 0x04, 0x05
    .byte 0x50, 0x13, 0xF3, 0xF3, 0xF3, 0xF3, 0xF3, 0xF3, 0xF3, 0x34, 0x23, 0x00
    .byte 0x73, 0xF2, 0xF3, 0xF3, 0xF3, 0x13, 0x04, 0x03, 0x24, 0x03, 0x70, 0xF3
    .byte 0xF3, 0xF3
    .att_syntax prefix
    .text
