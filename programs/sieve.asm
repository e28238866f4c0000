# sieve: Eratosthenes crosses out numbers, and pages
#
# What it teaches: the pattern of accesses decides. For each prime the sieve sweeps once through the
# rest of its table: the same 25 pages again and again, always upwards, many bytes of a page in a
# row.
#
# Try:  cr3 run programs/sieve.asm --stats
#       and see that 25 pages fit into the DTLB. Then set LIMIT to 1000000: 245 pages, more than it
#       holds, and every sweep begins with pages it has forgotten.
#
# expect: exit 0
# expect stdout: primes below 100000: 9592

    .equ    LIMIT, 100000

    .section .rodata
text:
    .ascii  "primes below 100000: "
    .equ    LENGTH, . - text

    .bss
    .balign 4096
crossed_out:                            # one byte a number: 0 means that it may still be prime
    .skip   LIMIT

    .text
    .globl  _start
_start:
    lea     rbx, [rip + crossed_out]
    xor     eax, eax                    # primes found
    mov     ecx, 2
candidate:
    cmp     byte ptr [rbx + rcx], 0
    jne     next
    inc     eax                         # nobody crossed it out: a prime
    mov     rdx, rcx
    imul    rdx, rcx                    # smaller multiples have been crossed out by smaller primes
multiple:
    cmp     rdx, LIMIT
    jae     next
    mov     byte ptr [rbx + rdx], 1
    add     rdx, rcx
    jmp     multiple
next:
    inc     ecx
    cmp     ecx, LIMIT
    jb      candidate

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
