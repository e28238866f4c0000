# matmul: rows are cheap, columns are not
#
# What it teaches: C = A * B walks along the rows of A and down the columns of B. PITCH is the
# distance from one row to the next. With rows packed together (PITCH = 8 * N = 512) a column of B
# lies on 8 pages; with one row a page (4096) it lies on 64, and together with A and C that is more
# than the 64 entries of many a DTLB.
#
# Try:  cr3 run programs/matmul.asm --stats
#       then set PITCH to 8 * N: the same result and the same number of accesses, but how many DTLB
#       misses?
#
# expect: exit 0
# expect stdout: sum of all elements = 520224768

    .equ    N, 64                       # rows and columns
    .equ    PITCH, 4096                 # bytes from one row to the next; at least 8 * N

    .section .rodata
text:
    .ascii  "sum of all elements = "
    .equ    LENGTH, . - text

    .bss
    .balign 4096
a:
    .skip   N * PITCH
b:
    .skip   N * PITCH
c:
    .skip   N * PITCH

    .text
    .globl  _start
_start:
    lea     rsi, [rip + a]              # fill: A[i][j] = i + j and B[i][j] = i ^ j
    lea     rdi, [rip + b]
    xor     r8d, r8d                    # i
fill_row:
    xor     r9d, r9d                    # j
fill:
    lea     rax, [r8 + r9]
    mov     [rsi + 8 * r9], rax
    mov     rax, r8
    xor     rax, r9
    mov     [rdi + 8 * r9], rax
    inc     r9
    cmp     r9, N
    jb      fill
    add     rsi, PITCH
    add     rdi, PITCH
    inc     r8
    cmp     r8, N
    jb      fill_row

    xor     ebx, ebx                    # sum of all elements of C
    lea     rsi, [rip + a]              # row i of A
    lea     rbp, [rip + c]              # row i of C
    mov     r8d, N
row:
    lea     rdi, [rip + b]              # top of column j of B
    xor     r9d, r9d                    # j
column:
    mov     rdx, rdi                    # walks down column j of B
    xor     eax, eax                    # C[i][j]
    xor     ecx, ecx                    # k
product:
    mov     r10, [rsi + 8 * rcx]        # A[i][k]
    imul    r10, [rdx]                  # B[k][j]
    add     rax, r10
    add     rdx, PITCH
    inc     rcx
    cmp     rcx, N
    jb      product
    mov     [rbp + 8 * r9], rax
    add     rbx, rax
    add     rdi, 8
    inc     r9
    cmp     r9, N
    jb      column
    add     rsi, PITCH
    add     rbp, PITCH
    dec     r8
    jnz     row

    mov     rax, rbx
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
