# fib: many calls, few pages
#
# What it teaches: locality. This recursion makes more than twenty thousand calls, but it is never
# deeper than twenty: all its code and all its stack fit into a page or two, and a TLB with four
# entries would do.
#
# Try:  cr3 run programs/fib.asm --stats
#       and compare the number of accesses with the number of TLB misses.
#
# expect: exit 0
# expect stdout: fib(20) = 6765

    .section .rodata
text:
    .ascii  "fib(20) = "
    .equ    LENGTH, . - text

    .text
    .globl  _start
_start:
    mov     edi, 20
    call    fib
    lea     rsi, [rip + text]
    mov     edx, offset LENGTH
    call    print
    xor     edi, edi
    mov     eax, 60                     # exit(0)
    syscall

# fib: rax = fib(rdi). Changes rdx and rdi.
fib:
    mov     rax, rdi
    cmp     rdi, 2
    jb      fib_done                    # fib(0) = 0, fib(1) = 1
    push    rdi
    dec     rdi
    call    fib                         # fib(n - 1) ...
    pop     rdi
    push    rax
    sub     rdi, 2
    call    fib                         # ... + fib(n - 2)
    pop     rdx
    add     rax, rdx
fib_done:
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
