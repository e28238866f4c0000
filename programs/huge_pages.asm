# huge_pages: one TLB entry for 512 pages
#
# What it teaches: the program writes to PAGES pages and then reads all of them ROUNDS times, in an
# order without locality: far more pages than a TLB has entries for. It asks for huge pages
# (madvise with MADV_HUGEPAGE). Where it gets them, eight entries are enough for everything, a walk
# reads one entry less, and eight page faults do the work of 4096. Its result is always the same.
#
# Try:  cr3 run programs/huge_pages.asm --stats --thp madvise
#       and again with --thp never: look at the walks, the DTLB and STLB misses and the minor faults.
#       cr3 walk programs/huge_pages.asm 0x7ffff6e03008
#       shows an entry of the page directory with PS set: the H bit of the lecture's walk_pmd.
#       With --thp always nobody has to ask: set ADVICE to 0 (MADV_NORMAL) and see.
#
# expect: exit 0
# expect stdout: sum = 83865600

    .equ    PAGES, 4096                 # 16 MiB: eight huge pages
    .equ    STEP, 1031                  # pages from one to the next; odd, so that none is left out
    .equ    ROUNDS, 10                  # times all pages are read
    .equ    ADVICE, 14                  # MADV_HUGEPAGE; 15 is MADV_NOHUGEPAGE

    .section .rodata
text:
    .ascii  "sum = "
    .equ    LENGTH, . - text

    .text
    .globl  _start
_start:
    xor     edi, edi                    # mmap(NULL, 16 MiB, READ | WRITE, PRIVATE | ANONYMOUS): the
    mov     esi, PAGES * 4096           # kernel chooses an address that is a multiple of 2 MiB, so
    mov     edx, 3                      # that huge pages fit
    mov     r10d, 0x22
    mov     r8, -1
    xor     r9d, r9d
    mov     eax, 9
    syscall
    mov     r12, rax
    mov     rdi, rax                    # madvise(memory, 16 MiB, ADVICE)
    mov     esi, PAGES * 4096
    mov     edx, ADVICE
    mov     eax, 28
    syscall

    mov     rsi, r12
    xor     ecx, ecx
fill:                                   # page i has the number i
    mov     [rsi + 8], rcx
    add     rsi, 4096
    inc     ecx
    cmp     ecx, PAGES
    jb      fill

    xor     eax, eax                    # sum
    mov     ebx, ROUNDS
round:
    xor     edx, edx                    # page
    mov     ecx, PAGES
next:
    mov     rsi, rdx
    shl     rsi, 12
    add     rax, [r12 + rsi + 8]
    add     edx, STEP
    and     edx, PAGES - 1
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
