# sum_loop: the loop of the lecture, instruction for instruction
#
#     sum = 0;
#     for (ctr = 0; ctr < 10; ++ctr)
#         sum += ctr;
#
# What it teaches: how many memory accesses address translation costs. From _start up to `done` the
# processor fetches 3 + 10 * 6 + 2 = 65 instructions (the last 2 are the comparison that ends the
# loop, and its jump) and makes 1 + 10 = 11 data accesses. Every one of them is an address to
# translate, and a walk of four levels reads four entries: 65 * 4 = 260 for the code and 11 * 4 = 44
# for the data. But there are only two pages.
#
# Try:  cr3 run programs/sum_loop.asm --until done --populate --tlb none --stats
#       and find 260 and 44 entry reads; then drop `--tlb none`, and two walks are left.
#
# The lecture keeps `sum` at (%rbp). Linux starts a program with rbp = 0 and with rsp on its stack, so
# here `sum` is at [rsp]: the same accesses to one stack page, without an extra instruction that would
# spoil the count. (At entry [rsp] holds argc, which this program does not need.)
#
# expect: exit 45

    .text
    .globl  _start
_start:
    mov     rax, 0
    mov     [rsp], rax                  # sum = 0
    mov     rcx, 0                      # ctr = 0
loop:
    cmp     rcx, 10                     # ctr < 10 ?
    jge     done
    add     rax, rcx
    mov     [rsp], rax                  # sum += ctr
    inc     rcx                         # ++ctr
    jmp     loop

done:
    mov     rdi, rax                    # the lecture stops above; we hand the sum out as exit status
    mov     eax, 60                     # exit(sum)
    syscall
