# random_walk: jump about in many pages, with no pattern to learn
#
# What it teaches: without locality a TLB hits only by luck. Every step goes to a random one of
# PAGES pages, so the chance of a hit is about the entries of the TLB divided by PAGES, and no
# replacement policy can do better.
#
# Try:  cr3 run programs/random_walk.asm --stats
#       and divide the DTLB misses by STEPS; then the same with PAGES at 32, which fits into every
#       TLB; then with `--tlb-policy lru`, which makes the difference that you can now predict.
#
# expect: exit 0
# expect stdout: checksum = 1269976

    .equ    PAGES, 1024                 # a power of two
    .equ    STEPS, 50000

    .section .rodata
text:
    .ascii  "checksum = "
    .equ    LENGTH, . - text

    .bss
    .balign 4096
pages:
    .skip   PAGES * 4096

    .text
    .globl  _start
_start:
    lea     rbx, [rip + pages]
    mov     rdi, 0x9e3779b97f4a7c15     # the state of the random generator: anything but zero
    xor     eax, eax                    # checksum
    mov     ecx, STEPS
step:
    mov     rdx, rdi                    # xorshift64 (Marsaglia 2003): state ^= state << 13, >> 7, << 17
    shl     rdx, 13
    xor     rdi, rdx
    mov     rdx, rdi
    shr     rdx, 7
    xor     rdi, rdx
    mov     rdx, rdi
    shl     rdx, 17
    xor     rdi, rdx

    mov     rsi, rdi
    and     rsi, PAGES - 1              # which page
    shl     rsi, 12                     # its first byte: page number * 4096
    inc     qword ptr [rbx + rsi]       # the page counts our visits ...
    add     rax, [rbx + rsi]            # ... and the checksum adds the counts up
    dec     ecx
    jnz     step

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
