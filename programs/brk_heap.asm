# brk_heap: malloc in fifteen lines
#
# What it teaches: the heap is one area with a movable end, the break. A program asks the kernel for
# more by moving it (brk), in large steps, and hands out small pieces by itself. Moving the break
# costs a system call but no memory: a page gets a frame only when it is first touched.
#
# Try:  cr3 trace programs/brk_heap.asm --events syscall,fault
#       and count the calls of brk, the pages they promise, and the pages that fault.
#
# The program builds a list of NODES nodes on the heap, walks along it, and gives all memory back.
#
# expect: exit 0
# expect stdout: sum of the list = 499500
# expect stdout: heap in bytes = 32768
# expect stdout: after giving back = 0

    .equ    NODES, 1000
    .equ    NODE, 24                    # bytes: address of the next node, number, and eight spare
    .equ    CHUNK, 16384                # bytes that are asked for at a time

    .section .rodata
sum:
    .ascii  "sum of the list = "
    .equ    SUM, . - sum
heap:
    .ascii  "heap in bytes = "
    .equ    HEAP, . - heap
rest:
    .ascii  "after giving back = "
    .equ    REST, . - rest

    .text
    .globl  _start
_start:
    xor     edi, edi
    mov     eax, 12                     # brk(0) fails, and therefore tells where the break is
    syscall
    mov     rbx, rax                    # where the heap begins
    mov     r12, rax                    # the next free byte
    mov     r13, rax                    # the break

    xor     ebp, ebp                    # the list is empty
    xor     r14d, r14d
build:
    mov     edi, NODE
    call    allocate
    mov     [rax], rbp                  # a new first node, with the numbers 0, 1, 2 ...
    mov     [rax + 8], r14
    mov     rbp, rax
    inc     r14
    cmp     r14, NODES
    jb      build

    xor     eax, eax
walk:
    add     rax, [rbp + 8]
    mov     rbp, [rbp]
    test    rbp, rbp
    jnz     walk
    lea     rsi, [rip + sum]
    mov     edx, offset SUM
    call    print

    mov     rax, r13
    sub     rax, rbx
    lea     rsi, [rip + heap]
    mov     edx, offset HEAP
    call    print

    mov     rdi, rbx
    mov     eax, 12                     # brk(where the heap began): the kernel takes all frames back
    syscall
    sub     rax, rbx
    lea     rsi, [rip + rest]
    mov     edx, offset REST
    call    print
    xor     edi, edi
    mov     eax, 60                     # exit(0)
    syscall

# allocate: rax = address of rdi new bytes. Never more than CHUNK at a time, and they are never freed.
allocate:
    mov     rax, r12
    add     r12, rdi
    cmp     r12, r13
    jbe     allocated
    push    rax
    lea     rdi, [r13 + CHUNK]
    mov     eax, 12                     # brk(new end)
    syscall
    cmp     rax, r13
    je      out_of_memory               # a brk that fails returns the old break
    mov     r13, rax
    pop     rax
allocated:
    ret
out_of_memory:
    mov     edi, 1
    mov     eax, 60                     # exit(1)
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
