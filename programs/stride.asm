# stride: the same work on few pages or on many
#
# What it teaches: TLB reach. The sum loop reads COUNT numbers that lie STRIDE bytes apart, ROUNDS
# times over. Its instructions, its reads and its result never depend on STRIDE; how many pages it
# needs does. With a STRIDE of 4096 every read is on another page: 1024 pages, more than a
# first-level TLB has entries.
#
# Try:  cr3 run programs/stride.asm --stats
#       and look at the DTLB and STLB misses. Then change STRIDE to 64 or to 8 and run it again;
#       then go back to 4096 and double COUNT until the second-level TLB is too small as well
#       (`cr3 profiles` tells the sizes).
#
# expect: exit 0
# expect stdout: sum = 5237760

    .equ    STRIDE, 4096                # bytes from one number to the next; at least 8
    .equ    COUNT, 1024                 # numbers in the array
    .equ    ROUNDS, 10                  # times the array is summed

    .section .rodata
text:
    .ascii  "sum = "
    .equ    LENGTH, . - text

    .bss
    .balign 4096
array:
    .skip   STRIDE * COUNT

    .text
    .globl  _start
_start:
    lea     rsi, [rip + array]
    xor     ecx, ecx
fill:                                   # number i of the array is i
    mov     [rsi], rcx
    add     rsi, STRIDE
    inc     rcx
    cmp     rcx, COUNT
    jb      fill

    xor     eax, eax                    # sum
    mov     ebx, ROUNDS
round:
    lea     rsi, [rip + array]
    mov     ecx, COUNT
next:
    add     rax, [rsi]
    add     rsi, STRIDE
    dec     ecx
    jnz     next
    dec     ebx
    jnz     round

    lea     rsi, [rip + text]
    mov     edx, offset LENGTH
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
