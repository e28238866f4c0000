# lecture_walk: the address of the lecture's example, mapped for real
#
# What it teaches: how the processor takes 0x180001008 apart. Four indices of nine bits choose one
# entry on each level, and twelve bits of offset choose the byte:
#
#     bits 47-39   38-30   29-21   20-12   11-0
#          PGD     PUD     PMD     PTE     offset
#            0       6       0       1     8
#
# Try:  cr3 walk programs/lecture_walk.asm 0x180001008
#       and find the four indices, the four entries, and the bits A and D that the processor has
#       set.
#
# expect: exit 0

    .equ    ADDRESS, 0x180001008

    .text
    .globl  _start
_start:
    mov     rbx, ADDRESS
    mov     rdi, rbx
    and     rdi, -4096                  # mmap: the page of that address and no other,
    mov     esi, 4096                   # one page,
    mov     edx, 3                      # PROT_READ | PROT_WRITE,
    mov     r10d, 0x32                  # MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
    mov     r8, -1                      # no file
    xor     r9d, r9d
    mov     eax, 9
    syscall
    mov     edi, 1
    test    rax, rax
    js      end                         # a negative errno: not mapped

    mov     qword ptr [rbx], 614        # only now is a frame needed: the store faults, and gets it
    xor     edi, edi
end:
    mov     eax, 60                     # exit(0), or exit(1) if there was no page
    syscall
