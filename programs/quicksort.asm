# quicksort: a divide-and-conquer that is kind to pages
#
# What it teaches: each partition runs through its piece from one end to the other, and the pieces
# shrink. Soon a piece is smaller than what the TLB remembers, and from there on the sorting is
# nearly free of misses.
#
# Try:  cr3 run programs/quicksort.asm --stats
#       then COUNT at 100000, and compare how the accesses and the TLB misses grow.
#
# expect: exit 0
# expect stdout: neighbours out of order before: 4975
# expect stdout: neighbours out of order after: 0
# expect stdout: median: 32346

    .equ    COUNT, 10000

    .section .rodata
before:
    .ascii  "neighbours out of order before: "
    .equ    BEFORE, . - before
after:
    .ascii  "neighbours out of order after: "
    .equ    AFTER, . - after
median:
    .ascii  "median: "
    .equ    MEDIAN, . - median

    .bss
    .balign 4096
numbers:
    .skip   8 * COUNT

    .text
    .globl  _start
_start:
    lea     rbx, [rip + numbers]
    mov     rdi, 0x9e3779b97f4a7c15     # fill with random numbers from 0 to 65535
    xor     ecx, ecx
fill:
    mov     rdx, rdi                    # xorshift64 (Marsaglia 2003): state ^= state << 13, >> 7, << 17
    shl     rdx, 13
    xor     rdi, rdx
    mov     rdx, rdi
    shr     rdx, 7
    xor     rdi, rdx
    mov     rdx, rdi
    shl     rdx, 17
    xor     rdi, rdx
    movzx   edx, di
    mov     [rbx + 8 * rcx], rdx
    inc     ecx
    cmp     ecx, COUNT
    jb      fill

    call    out_of_order
    lea     rsi, [rip + before]
    mov     edx, offset BEFORE
    call    print

    mov     rdi, rbx                    # from the first number
    lea     rsi, [rbx + 8 * COUNT - 8]  # to the last
    call    quicksort

    call    out_of_order
    lea     rsi, [rip + after]
    mov     edx, offset AFTER
    call    print
    mov     rax, [rbx + 8 * (COUNT / 2)]
    lea     rsi, [rip + median]
    mov     edx, offset MEDIAN
    call    print
    xor     edi, edi
    mov     eax, 60                     # exit(0)
    syscall

# quicksort: sort the numbers from [rdi] to [rsi], both included.
# Changes rax, rcx, rdx, rdi, rsi, r8, r9.
quicksort:
    cmp     rdi, rsi
    jae     sorted                      # at most one number
    mov     rax, [rsi]                  # the pivot: the last number
    mov     r8, rdi                     # all numbers below r8 are smaller than the pivot
    mov     r9, rdi
compare:
    mov     rcx, [r9]
    cmp     rcx, rax
    jae     not_smaller
    mov     rdx, [r8]                   # exchange [r8] and [r9]
    mov     [r8], rcx
    mov     [r9], rdx
    add     r8, 8
not_smaller:
    add     r9, 8
    cmp     r9, rsi
    jb      compare
    mov     rdx, [r8]                   # the pivot goes between the two pieces
    mov     [r8], rax
    mov     [rsi], rdx

    push    rsi
    push    r8
    lea     rsi, [r8 - 8]
    call    quicksort                   # the piece below the pivot
    pop     rdi
    pop     rsi
    add     rdi, 8
    jmp     quicksort                   # the piece above: a call and a ret saved
sorted:
    ret

# out_of_order: rax = how many numbers are greater than their right neighbour. Changes rcx and rdx.
out_of_order:
    xor     eax, eax
    xor     ecx, ecx
pair:
    mov     rdx, [rbx + 8 * rcx]
    cmp     [rbx + 8 * rcx + 8], rdx
    jae     in_order
    inc     eax
in_order:
    inc     ecx
    cmp     ecx, COUNT - 1
    jb      pair
    ret

# print: write the text at rsi (rdx bytes), then rax in decimal, then a newline.
# Changes rax, rcx, rdx, rsi, rdi, r11. (The 128 bytes below rsp are ours: the red zone of the ABI.)
print:
    push    rax
    mov     edi, 1
    mov     eax, 1                      # write(stdout, text, length)
    syscall                             # (syscall itself overwrites rcx and r11)
    pop     rax
    lea     rsi, [rsp - 1]              # digits go below rsp, the last one first: in the red zone
    mov     byte ptr [rsi], 10          # newline
    mov     ecx, 10
digit:
    xor     edx, edx
    div     rcx                         # rax = what is left, rdx = the last digit
    add     dl, 48                      # its ASCII code: 48 is the digit zero
    dec     rsi
    mov     [rsi], dl
    test    rax, rax
    jnz     digit
    mov     rdx, rsp
    sub     rdx, rsi
    mov     eax, 1                      # write(stdout, digits, length); rdi is still 1
    syscall
    ret
