# page_cross: one access, two pages
#
# What it teaches: an access of eight bytes may begin on one page and end on the next. Then it needs
# two translations, each of which can miss the TLB and each of which can fault; if one faults,
# nothing is written.
#
# Try:  cr3 trace programs/page_cross.asm --events access,tlb,fault
#       and look at the first store: two pages are touched for the first time, so one instruction
#       faults twice.
#
# In memory the lowest byte comes first. Stored three bytes before the border, 0x1122334455667788 is
#
#     first page: ... 88 77 66 | second page: 55 44 33 22 11 ...
#
# expect: exit 0
# expect stdout: 1122334455667788
# expect stdout: 6677880000000000
# expect stdout: 0000001122334455
# expect stdout: 1122334456667788
# expect stdout: 4456667788000000

    .bss
    .balign 4096
    .skip   4096
border:                                 # the first page ends here, the second begins
    .skip   4096

    .text
    .globl  _start
_start:
    lea     rbx, [rip + border]
    mov     rax, 0x1122334455667788
    mov     [rbx - 3], rax              # three bytes on the first page, five on the second

    mov     rax, [rbx - 3]              # read it back: two translations again
    call    print_hex
    mov     rax, [rbx - 8]              # the end of the first page alone
    call    print_hex
    mov     rax, [rbx]                  # the beginning of the second page alone
    call    print_hex

    add     word ptr [rbx - 1], 0x0100  # read, modify, write: 66 stays, 55 becomes 56
    mov     rax, [rbx - 3]
    call    print_hex

    movdqu  xmm0, [rbx - 7]             # sixteen bytes: seven on the first page, nine on the second
    movdqu  [rbx - 8], xmm0             # and one byte down
    mov     rax, [rbx - 7]
    call    print_hex

    xor     edi, edi
    mov     eax, 60                     # exit(0)
    syscall

# print_hex: write rax as sixteen hexadecimal digits and a newline. Changes rax, rcx, rdx, rsi, rdi, r11.
print_hex:
    lea     rsi, [rsp - 17]             # below rsp: the red zone of the ABI, 128 bytes that are ours
    mov     byte ptr [rsi + 16], 10     # newline
    mov     ecx, 16
digit:
    mov     edx, eax
    and     edx, 15
    lea     rdi, [rip + digits]
    mov     dl, [rdi + rdx]
    mov     [rsi + rcx - 1], dl
    shr     rax, 4
    dec     ecx
    jnz     digit
    mov     edi, 1
    mov     edx, 17
    mov     eax, 1                      # write(stdout, digits and newline, 17)
    syscall
    ret

    .section .rodata
digits:
    .ascii  "0123456789abcdef"
