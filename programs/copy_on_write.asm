# copy_on_write: two processes, one memory, until somebody writes
#
# What it teaches: fork copies page tables, not pages. Both processes read the same frames, and both have
# lost the right to write them. The parent then writes every other page, and each write is a page fault that
# copies one page. The child writes the first half: where the parent has a copy already, the page is the
# child's alone, and it gets the right back without a copy (reuse).
#
# Try:  cr3 report programs/copy_on_write.asm
#       and move the slider: private pages become shared ones at fork, and private again one by one.
#
# expect: exit 0
# expect stdout: sum of what the parent sees: 300
# expect stdout: exit code of the child: 12

    .equ    PAGE, 4096
    .equ    PAGES, 24

    .section .rodata
seen:
    .ascii  "sum of what the parent sees: "
    .equ    SEEN, . - seen
code:
    .ascii  "exit code of the child: "
    .equ    CODE, . - code

    .bss
    .balign PAGE
shared:
    .skip   PAGES * PAGE
status:
    .skip   8
digits:
    .skip   24

    .text
    .globl  _start
_start:
    lea     rbx, [rip + shared]
    xor     ecx, ecx
fill:                                   # page n begins with the number n + 1
    inc     ecx
    mov     [rbx], rcx
    add     rbx, PAGE
    cmp     ecx, PAGES
    jb      fill

    mov     eax, 57                     # fork
    syscall
    test    eax, eax
    jz      child

    lea     rbx, [rip + shared]         # the parent: every other page, with what is there already
    mov     ecx, PAGES / 2
every_other:
    lock add qword ptr [rbx], 0
    add     rbx, 2 * PAGE
    dec     ecx
    jnz     every_other

    mov     edi, -1                     # wait4 for the child
    lea     rsi, [rip + status]
    xor     edx, edx
    xor     r10d, r10d
    mov     eax, 61
    syscall

    lea     rbx, [rip + shared]
    xor     eax, eax
    mov     ecx, PAGES
add_up:
    add     rax, [rbx]
    add     rbx, PAGE
    dec     ecx
    jnz     add_up
    lea     rsi, [rip + seen]
    mov     edx, SEEN
    call    say
    movzx   eax, byte ptr [rip + status + 1]
    lea     rsi, [rip + code]
    mov     edx, CODE
    call    say
    xor     edi, edi
    mov     eax, 60                     # exit
    syscall

child:
    lea     rbx, [rip + shared]         # the first half, one page after the other
    xor     edi, edi
first_half:
    mov     qword ptr [rbx], 0
    add     rbx, PAGE
    inc     edi
    cmp     edi, PAGES / 2
    jb      first_half
    mov     eax, 60                     # exit with the number of pages written
    syscall

# Write the text at RSI with RDX bytes, and RAX as a decimal number.
say:
    push    rax
    mov     edi, 1
    mov     eax, 1                      # write
    syscall
    pop     rax
    lea     rsi, [rip + digits + 24]
    mov     ecx, 10
    dec     rsi
    mov     byte ptr [rsi], 10
digit:
    xor     edx, edx
    div     rcx
    add     dl, 48
    dec     rsi
    mov     [rsi], dl
    test    rax, rax
    jnz     digit
    lea     rdx, [rip + digits + 24]
    sub     rdx, rsi
    mov     edi, 1
    mov     eax, 1
    syscall
    ret
