# string_ops: one instruction, thousands of accesses
#
# What it teaches: REP repeats a string instruction rcx times. It counts as one instruction, yet it
# crosses pages and may fault in the middle. The processor then leaves rsi, rdi and rcx where they
# are, the kernel maps the page, and the instruction goes on from there. The direction flag (std)
# makes it run downwards in memory.
#
# Try:  cr3 trace programs/string_ops.asm --events fault
#       and see the same instruction pointer fault again and again, each time one page further.
#
# expect: exit 0
# expect stdout: found at 9000
# expect stdout: last found at 9000
# expect stdout: different at 9000
# expect stdout: left over 0

    .equ    SIZE, 12000                 # bytes in each buffer: across three pages
    .equ    MARK, 9000                  # where the odd byte is

    .section .rodata
found:
    .ascii  "found at "
    .equ    FOUND, . - found
last:
    .ascii  "last found at "
    .equ    LAST, . - last
different:
    .ascii  "different at "
    .equ    DIFFERENT, . - different
left:
    .ascii  "left over "
    .equ    LEFT, . - left

    .bss
    .balign 4096
first:
    .skip   SIZE
    .balign 4096
second:
    .skip   SIZE + 1

    .text
    .globl  _start
_start:
    cld                                 # upwards
    lea     rbx, [rip + first]
    lea     rbp, [rip + second]

    mov     rdi, rbx                    # STOS: fill the first buffer with 'a', and put one 'b' into it
    mov     ecx, SIZE
    mov     al, 'a'
    rep stosb
    mov     byte ptr [rbx + MARK], 'b'

    mov     rdi, rbx                    # SCAS: search upwards for the 'b'
    mov     ecx, SIZE
    mov     al, 'b'
    repne scasb
    lea     rax, [rdi - 1]              # scasb has stepped past it
    sub     rax, rbx
    lea     rsi, [rip + found]
    mov     edx, offset FOUND
    call    print

    std                                 # the same search downwards, from the last byte
    lea     rdi, [rbx + SIZE - 1]
    mov     ecx, SIZE
    mov     al, 'b'
    repne scasb
    cld
    lea     rax, [rdi + 1]
    sub     rax, rbx
    lea     rsi, [rip + last]
    mov     edx, offset LAST
    call    print

    mov     rsi, rbx                    # MOVS: copy all of it, eight bytes at a time
    mov     rdi, rbp
    mov     ecx, SIZE / 8
    rep movsq

    std                                 # move the copy up by one byte; source and destination overlap,
    lea     rsi, [rbp + SIZE - 1]       # so the last byte must go first, as in memmove(3)
    lea     rdi, [rbp + SIZE]
    mov     ecx, SIZE
    rep movsb
    cld

    mov     rsi, rbx                    # CMPS: unmoved and moved differ first where the 'b' is ...
    mov     rdi, rbp
    mov     ecx, SIZE
    repe cmpsb
    lea     rax, [rsi - 1]              # cmpsb has stepped past the difference
    sub     rax, rbx
    lea     rsi, [rip + different]
    mov     edx, offset DIFFERENT
    call    print

    mov     rsi, rbx                    # ... and not at all when we start one byte later in the copy
    lea     rdi, [rbp + 1]
    mov     ecx, SIZE
    repe cmpsb
    mov     eax, ecx
    lea     rsi, [rip + left]
    mov     edx, offset LEFT
    call    print

    xor     edi, edi
    mov     eax, 60                     # exit(0)
    syscall

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
