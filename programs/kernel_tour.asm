# kernel_tour: one visit to many parts of the kernel.
#
# What it teaches: what the kernel does costs TLB entries, too. Every function is fetched from its page of kernel text, and
# touches the kernel stack, page tables, frames and struct pages at their kernel addresses, through the same TLBs as the
# program.
#
# Try:  cr3 trace programs/kernel_tour.asm --events access,syscall --kernel
#       python examples/footprint.py            (the same, added up by function)
#
# expect: exit 0

    .equ    PAGE, 4096

    .text
    .globl  _start
_start:
    mov     eax, 39                     # getpid()
    syscall

    xor     edi, edi                    # mmap: four pages of anonymous memory
    mov     esi, 4 * PAGE
    mov     edx, 3                      # PROT_READ | PROT_WRITE
    mov     r10d, 0x22                  # MAP_PRIVATE | MAP_ANONYMOUS
    mov     r8, -1
    xor     r9d, r9d
    mov     eax, 9
    syscall
    mov     rbx, rax
    mov     byte ptr [rbx], 1           # two page faults
    mov     byte ptr [rbx + PAGE], 1

    mov     rdi, rbx                    # mprotect(memory, 1 page, PROT_READ)
    mov     esi, PAGE
    mov     edx, 1
    mov     eax, 10
    syscall

    lea     rdi, [rbx + PAGE]           # madvise(memory + 1 page, 1 page, MADV_DONTNEED)
    mov     esi, PAGE
    mov     edx, 4
    mov     eax, 28
    syscall

    lea     rdi, [rip + ends]           # pipe(ends)
    mov     eax, 22
    syscall
    mov     edi, [rip + ends + 4]       # write(ends[1], token, 8)
    lea     rsi, [rip + token]
    mov     edx, 8
    mov     eax, 1
    syscall

    mov     eax, 57                     # fork()
    syscall
    test    eax, eax
    jz      child
    mov     edi, eax                    # wait4(child, 0, 0, 0)
    xor     esi, esi
    xor     edx, edx
    xor     r10d, r10d
    mov     eax, 61
    syscall

    mov     rdi, rbx                    # munmap(memory, 4 pages)
    mov     esi, 4 * PAGE
    mov     eax, 11
    syscall
exit:
    xor     edi, edi                    # exit(0)
    mov     eax, 60
    syscall

child:
    mov     byte ptr [rip + token], 2    # a page fault: copy-on-write
    mov     edi, [rip + ends]           # read(ends[0], token, 8)
    lea     rsi, [rip + token]
    mov     edx, 8
    xor     eax, eax
    syscall
    jmp     exit

    .data
token:
    .quad   1
    .bss
ends:
    .zero   8
