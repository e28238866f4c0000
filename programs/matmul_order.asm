# matmul_order: the same sum, in an order that a cache likes
#
# What it teaches: C = A * B adds N * N * N products, in any order. Column by column the innermost loop
# walks down a column of B: each step is another line of the cache, of which one number is used before the
# line has gone again. Row by row it walks along a row of B and of C: a line of 64 bytes serves eight steps.
# The numbers of instructions and of TLB misses hardly differ; the L1D misses do.
#
# Try:  cr3 run programs/matmul_order.asm --caches --stats -- columns
#       cr3 run programs/matmul_order.asm --caches --stats -- rows
#       and compare the misses of the L1D, and the cycles.
#
# expect: exit 0
# expect stdout: sum of all elements = 688128

    .equ    N, 64                       # rows and columns
    .equ    PITCH, 1024                 # bytes from one row to the next: a column lies in 4 of 64 sets

    .section .rodata
text:
    .ascii  "sum of all elements = "
    .equ    LENGTH, . - text

    .bss
    .balign 64
a:
    .skip   N * PITCH
b:
    .skip   N * PITCH
c:
    .skip   N * PITCH

    .text
    .globl  _start
_start:
    mov     r15, [rsp]                  # argc
    mov     r14, [rsp + 16]             # argv[1]
    lea     rsi, [rip + a]              # fill: A[i][j] = i & 7 and B[i][j] = j & 3
    lea     rdi, [rip + b]
    xor     r8d, r8d                    # i
fill_row:
    xor     r9d, r9d                    # j
fill:
    mov     eax, r8d
    and     eax, 7
    mov     [rsi + 8 * r9], rax
    mov     eax, r9d
    and     eax, 3
    mov     [rdi + 8 * r9], rax
    inc     r9
    cmp     r9, N
    jb      fill
    add     rsi, PITCH
    add     rdi, PITCH
    inc     r8
    cmp     r8, N
    jb      fill_row

    lea     rsi, [rip + a]              # row i of A
    lea     rbp, [rip + c]              # row i of C
    mov     r8d, N
row:
    cmp     r15, 2
    jb      by_rows                     # without an argument: rows
    cmp     byte ptr [r14], 'c'
    je      by_columns

by_rows:                                # C[i] += A[i][k] * B[k], for each k
    lea     rdi, [rip + b]              # row k of B
    xor     ecx, ecx                    # k
factor:
    mov     r11, [rsi + 8 * rcx]        # A[i][k]
    xor     r9d, r9d                    # j
along:
    mov     r10, [rdi + 8 * r9]         # B[k][j]
    imul    r10, r11
    add     [rbp + 8 * r9], r10         # C[i][j]
    inc     r9
    cmp     r9, N
    jb      along
    add     rdi, PITCH
    inc     rcx
    cmp     rcx, N
    jb      factor
    jmp     row_done

by_columns:                             # C[i][j] = the sum of A[i][k] * B[k][j], for each j
    lea     rdi, [rip + b]              # top of column j of B
    xor     r9d, r9d                    # j
column:
    mov     rdx, rdi
    xor     eax, eax                    # C[i][j]
    xor     ecx, ecx                    # k
down:
    mov     r10, [rsi + 8 * rcx]        # A[i][k]
    imul    r10, [rdx]                  # B[k][j]
    add     rax, r10
    add     rdx, PITCH
    inc     rcx
    cmp     rcx, N
    jb      down
    mov     [rbp + 8 * r9], rax
    add     rdi, 8
    inc     r9
    cmp     r9, N
    jb      column

row_done:
    add     rsi, PITCH
    add     rbp, PITCH
    dec     r8
    jnz     row

    xor     eax, eax                    # sum of all elements
    lea     rsi, [rip + c]
    mov     ecx, N * N
total:
    add     rax, [rsi]
    add     rsi, 8
    dec     ecx
    jnz     total

    lea     rsi, [rip + text]
    mov     edx, offset LENGTH
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
