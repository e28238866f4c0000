# flush_reload: two processes that share a page, and nothing else
#
# What it teaches: a cache finds a line by its physical address, whoever brought it. The spy flushes 16
# lines of a page that it shares with a victim, and lets the victim go on. The victim loads one of the
# lines, chosen by four bits of a text that only it reads. One of the spy's 16 loads is then fast,
# and that is four bits of the text (Flush+Reload; Yarom and Falkner, 2014). The pipes between the two
# say whose turn it is, and carry the same byte always.
#
# Try:  cr3 run programs/flush_reload.asm --caches -- "attack at dawn"
#       cr3 run programs/flush_reload.asm --caches flush -- "attack at dawn"
#       The second kernel empties the caches when it returns to user mode. Without --caches each load takes
#       the same time, and there is nothing to hear, either.
#
# expect: exit 0
# expect stdout: heard nothing

    .equ    LINES, 16
    .equ    APART, 256                  # bytes from one line that is used to the next

    .section .rodata
heard:
    .ascii  "heard: "
    .equ    HEARD, . - heard
nothing:
    .ascii  "heard nothing\n"
    .equ    NOTHING, . - nothing

    .bss
go:                                     # pipe: the spy says go on
    .skip   8
done:                                   # pipe: the victim says done
    .skip   8
token:
    .skip   1
text:
    .skip   4096

    .text
    .globl  _start
_start:
    lea     r14, [rip + token]          # without an argument the text is empty
    cmp     qword ptr [rsp], 2
    jb      share
    mov     r14, [rsp + 16]             # argv[1]: only the victim looks at it
share:
    xor     edi, edi
    mov     esi, 4096
    mov     edx, 3                      # PROT_READ | PROT_WRITE
    mov     r10d, 0x21                  # MAP_SHARED | MAP_ANONYMOUS
    mov     r8, -1
    xor     r9d, r9d
    mov     eax, 9                      # mmap
    syscall
    mov     rbx, rax
    mov     byte ptr [rbx], 1           # a frame for it
    lea     rdi, [rip + go]
    mov     eax, 22                     # pipe
    syscall
    lea     rdi, [rip + done]
    mov     eax, 22
    syscall
    call    calibrate                   # r15d = half way between near and far
    mov     eax, 57                     # fork
    syscall
    test    eax, eax
    jz      victim

spy:
    xor     r14d, r14d                  # it does not know the text, not even where it speculates
    mov     edi, [rip + done + 4]       # when the victim ends, nobody can say "done" any more
    mov     eax, 3                      # close
    syscall
    lea     r12, [rip + text]
    xor     r13d, r13d                  # turns so far
listen:
    xor     ecx, ecx
flush:
    clflush [rbx + rcx]
    add     ecx, APART
    cmp     ecx, LINES * APART
    jb      flush
    mfence
    mov     edi, [rip + go + 4]
    call    send
    mov     edi, [rip + done]
    call    receive
    jz      finish                      # the end of the pipe: the victim has ended
    call    reload                      # r9d = the line that was near, or "?"
    test    r13d, 1
    jnz     second
    mov     ebp, r9d                    # the upper four bits
    jmp     heard_one
second:
    mov     eax, ebp
    shl     eax, 4
    or      eax, r9d
    cmp     eax, 256                    # one of the two was not heard
    jb      keep
    mov     eax, '?'
keep:
    mov     [r12], al
    inc     r12
heard_one:
    inc     r13d
    jmp     listen

finish:
    lea     rsi, [rip + nothing]
    mov     edx, offset NOTHING
    test    r13d, r13d
    jz      print
    mov     edi, 1
    lea     rsi, [rip + heard]
    mov     edx, offset HEARD
    mov     eax, 1                      # write
    syscall
    mov     byte ptr [r12], 10          # newline
    lea     rsi, [rip + text]
    lea     rdx, [r12 + 1]
    sub     rdx, rsi
print:
    mov     edi, 1
    mov     eax, 1
    syscall
    xor     edi, edi
    mov     eax, 60                     # exit
    syscall

victim:
    xor     r13d, r13d
turn:
    mov     edi, [rip + go]
    call    receive
    movzx   eax, byte ptr [r14]
    test    eax, eax
    jz      end                         # the end of the text
    test    r13d, 1
    jnz     lower
    shr     eax, 4
    jmp     use
lower:
    inc     r14
use:
    and     eax, LINES - 1
    shl     eax, 8                      # times APART
    mov     al, [rbx + rax]             # what gives the text away
    inc     r13d
    mov     edi, [rip + done + 4]
    call    send
    jmp     turn
end:
    xor     edi, edi
    mov     eax, 60
    syscall

# send, receive: one byte through the pipe edi; receive leaves ZF set at its end. They change rax, rcx, rdx, rsi, r11.
send:
    mov     eax, 1                      # write
    jmp     one_byte
receive:
    xor     eax, eax                    # read
one_byte:
    lea     rsi, [rip + token]
    mov     edx, 1
    syscall
    test    eax, eax
    ret

# reload: r9d = the line that takes least, if it is near, else 256. Changes rax, rcx, rdx, rsi, r8, r10, r11.
reload:
    mov     r11d, r15d                  # the least so far
    mov     r9d, 256
    xor     r10d, r10d
next:
    imul    esi, r10d, 7                # in an order that no prefetcher guesses
    and     esi, LINES - 1
    mov     ecx, esi
    shl     esi, 8
    add     rsi, rbx
    push    rcx
    call    time_load
    pop     rcx
    cmp     eax, r11d
    jae     slower
    mov     r11d, eax
    mov     r9d, ecx
slower:
    inc     r10d
    cmp     r10d, LINES
    jb      next
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
