# segv_skip: ask whether an address can be read, and live
#
# What it teaches: the frame of a signal handler has all registers of the program, and the program
# gets them back from there. This handler puts another address into RIP: the load that faulted is
# not tried again, the program goes on elsewhere, with 1 in RAX for "no". The kernel does the same
# to itself whenever it reads user memory (its exception table): a fault, a fix-up, EFAULT.
#
# Try:  cr3 trace programs/segv_skip.asm --events fault,signal
#       and see where each fault happens: always at the same instruction, and never twice. The last
#       address is not canonical: no page fault at all, but #GP, and a signal without an address.
#
# expect: exit 0
# expect stdout: our own text: 0
# expect stdout: null: 1
# expect stdout: the kernel: 1
# expect stdout: not canonical: 1

    .equ    SIGSEGV, 11
    .equ    UC_RAX, 144                 # offsets in the ucontext: uc_mcontext.rax
    .equ    UC_RIP, 168                 # and .rip

    .section .rodata
own:
    .ascii  "our own text: "
    .equ    OWN, . - own
null:
    .ascii  "null: "
    .equ    NULL, . - null
kernel:
    .ascii  "the kernel: "
    .equ    KERNEL, . - kernel
wrong:
    .ascii  "not canonical: "
    .equ    WRONG, . - wrong

    .data
action:                                 # struct sigaction, as the kernel wants it
    .quad   handler
    .quad   0x04000004                  # SA_SIGINFO | SA_RESTORER
    .quad   restorer
    .quad   0

    .text
handler:                                # (edi = signal, rsi = siginfo_t, rdx = ucontext)
    lea     rax, [rip + unreadable]
    mov     [rdx + UC_RIP], rax         # go on there
    mov     qword ptr [rdx + UC_RAX], 1
    ret
restorer:
    mov     eax, 15                     # rt_sigreturn
    syscall

# probe: rax = 0 if the byte at rdi can be read, else 1
probe:
    xor     eax, eax
    cmp     byte ptr [rdi], 0           # here it may fault
unreadable:
    ret

    .globl  _start
_start:
    mov     edi, SIGSEGV
    lea     rsi, [rip + action]
    xor     edx, edx
    mov     r10d, 8
    mov     eax, 13                     # rt_sigaction
    syscall

    lea     rdi, [rip + own]
    call    probe
    lea     rsi, [rip + own]
    mov     edx, offset OWN
    call    print

    xor     edi, edi
    call    probe
    lea     rsi, [rip + null]
    mov     edx, offset NULL
    call    print

    mov     rdi, 0xffff888000000000     # where Linux maps all memory for itself
    call    probe
    lea     rsi, [rip + kernel]
    mov     edx, offset KERNEL
    call    print

    mov     rdi, 0x800000000000         # bit 47 is set, the bits above are not
    call    probe
    lea     rsi, [rip + wrong]
    mov     edx, offset WRONG
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
