# self_modify: a program that writes the program that it runs
#
# What it teaches: code is data. A page that is readable, writable and executable is written through
# the data TLB and fetched through the instruction TLB: two TLBs, one page table entry. And x86
# promises that a store to code is seen by the very next instruction. (Most pages are writable or
# executable, never both: that is what the NX bit is for.)
#
# Try:  cr3 trace programs/self_modify.asm --events tlb,fault
#       and find the same page in both TLBs.
#
# expect: exit 0
# expect stdout: as written: 1
# expect stdout: modified: 2
# expect stdout: modifies itself: 3

    .section .rodata
written:
    .ascii  "as written: "
    .equ    WRITTEN, . - written
modified:
    .ascii  "modified: "
    .equ    MODIFIED, . - modified
itself:
    .ascii  "modifies itself: "
    .equ    ITSELF, . - itself

    .text
# Two small functions. They are never run here, only copied.
one:
    mov     eax, 1                      # the byte b8, then the number in four bytes
    ret
    .equ    ONE, . - one
three:
    mov     dword ptr [rip + patched + 1], 3    # overwrite the number in the next instruction
patched:
    mov     eax, 0
    ret
    .equ    THREE, . - three

    .globl  _start
_start:
    xor     edi, edi                    # mmap: any address,
    mov     esi, 4096                   # one page,
    mov     edx, 7                      # PROT_READ | PROT_WRITE | PROT_EXEC,
    mov     r10d, 0x22                  # MAP_PRIVATE | MAP_ANONYMOUS,
    mov     r8, -1                      # no file
    xor     r9d, r9d
    mov     eax, 9
    syscall
    mov     rbx, rax                    # the page

    lea     rsi, [rip + one]
    mov     ecx, offset ONE
    mov     rdi, rbx
    rep movsb
    call    rbx
    lea     rsi, [rip + written]
    mov     edx, offset WRITTEN
    call    print

    mov     dword ptr [rbx + 1], 2      # now it is `mov eax, 2`
    call    rbx
    lea     rsi, [rip + modified]
    mov     edx, offset MODIFIED
    call    print

    lea     rsi, [rip + three]
    mov     ecx, offset THREE
    mov     rdi, rbx
    rep movsb
    call    rbx
    lea     rsi, [rip + itself]
    mov     edx, offset ITSELF
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
