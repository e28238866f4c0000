# stack_growth: the stack is as big as you use it
#
# What it teaches: a program starts with a page or two of stack. Each deeper call of this recursion
# touches the page below, which is not there. The page fault asks the kernel, which finds that the
# address belongs to the stack, or lies below it and within its limit (then it extends the area
# downwards), and maps the page. One fault a page, and nobody asked for memory.
#
# Try:  cr3 trace programs/stack_growth.asm --events fault
#       and see the faulting addresses go down, page by page.
#
# expect: exit 0
# expect stdout: 1 + 2 + ... + 256 = 32896

    .equ    DEPTH, 256                  # a mebibyte of stack; Linux allows 8
    .equ    FRAME, 4096 - 8             # with its return address each call takes one page

    .section .rodata
text:
    .ascii  "1 + 2 + ... + 256 = "
    .equ    LENGTH, . - text

    .text
    .globl  _start
_start:
    mov     edi, DEPTH
    call    sum
    lea     rsi, [rip + text]
    mov     edx, offset LENGTH
    call    print
    xor     edi, edi
    mov     eax, 60                     # exit(0)
    syscall

# sum: rax = 1 + 2 + ... + rdi. Changes rdi.
sum:
    sub     rsp, FRAME
    mov     [rsp], rdi                  # our number, at the far end of the frame
    xor     eax, eax
    dec     rdi
    js      sum_done                    # nothing to add
    call    sum
    add     rax, [rsp]
sum_done:
    add     rsp, FRAME
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
