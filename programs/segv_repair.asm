# segv_repair: a page-fault handler in user mode
#
# What it teaches: a handler for SIGSEGV is told the address (si_addr), and what it changes is there
# when the instruction is tried again. That is all a pager needs. This one promises itself 16 pages
# without any rights, and fills each with its number when it is touched first: garbage collectors,
# databases and virtual machines do the same. Every touch costs two ways into the kernel more than
# a page that the kernel itself delivers: the signal frame, and rt_sigreturn.
#
# Try:  cr3 trace programs/segv_repair.asm --events fault,signal,syscall
#       and see the order: fault, signal, mprotect, the fault that delivers the page, rt_sigreturn.
#
# expect: exit 0
# expect stdout: sum of the pages: 120
# expect stdout: faults handled: 16

    .equ    PAGES, 16
    .equ    PAGE, 4096
    .equ    SIGSEGV, 11
    .equ    SI_ADDR, 16                 # offset in siginfo_t

    .section .rodata
sum:
    .ascii  "sum of the pages: "
    .equ    SUM, . - sum
handled:
    .ascii  "faults handled: "
    .equ    HANDLED, . - handled

    .data
action:                                 # struct sigaction, as the kernel wants it
    .quad   handler
    .quad   0x04000004                  # SA_SIGINFO | SA_RESTORER
    .quad   restorer
    .quad   0                           # nothing else is blocked meanwhile
faults:
    .quad   0
first:
    .quad   0                           # the first of our pages

    .text
handler:                                # (edi = signal, rsi = siginfo_t, rdx = ucontext)
    inc     qword ptr [rip + faults]
    mov     rbx, [rsi + SI_ADDR]
    and     rbx, -PAGE                  # the page; rbx is ours, the frame has the program's
    mov     rdi, rbx
    mov     esi, PAGE
    mov     edx, 3                      # PROT_READ | PROT_WRITE
    mov     eax, 10                     # mprotect
    syscall
    mov     rax, rbx
    sub     rax, [rip + first]
    shr     rax, 12                     # the page's number
    mov     [rbx], rax
    ret                                 # to the restorer
restorer:
    mov     eax, 15                     # rt_sigreturn: everything as it was, and try again
    syscall

    .globl  _start
_start:
    mov     edi, SIGSEGV
    lea     rsi, [rip + action]
    xor     edx, edx
    mov     r10d, 8                     # the size of a signal set
    mov     eax, 13                     # rt_sigaction
    syscall

    xor     edi, edi                    # mmap: any address,
    mov     esi, PAGES * PAGE
    xor     edx, edx                    # PROT_NONE: promised, but not to be touched,
    mov     r10d, 0x22                  # MAP_PRIVATE | MAP_ANONYMOUS,
    mov     r8, -1                      # no file
    xor     r9d, r9d
    mov     eax, 9
    syscall
    mov     [rip + first], rax

    mov     rbx, rax
    mov     ecx, PAGES
    xor     r12d, r12d
next:
    add     r12, [rbx]                  # the handler comes in here
    add     rbx, PAGE
    dec     ecx
    jnz     next

    lea     rsi, [rip + sum]
    mov     edx, offset SUM
    mov     rax, r12
    call    print
    lea     rsi, [rip + handled]
    mov     edx, offset HANDLED
    mov     rax, [rip + faults]
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
