# The way into the kernel and back: real machine code at kernel addresses (arch/x86/entry/entry_64.S).
#
# SYSCALL, exceptions and interrupts arrive here. Each path does what Linux does: SWAPGS when it comes from user mode,
# the switch to the task's kernel stack, all registers saved as `struct pt_regs`, a call of the handler (which is Python
# at a kernel-text address), registers restored, SWAPGS, SYSRET or IRET. Names are Linux's. Change it and see.

# struct pt_regs (asm/ptrace.h): what lies on the kernel stack while the kernel works
.equ PT_RDI, 112
.equ PT_ORIG_RAX, 120
.equ PT_RIP, 128
.equ PT_CS, 136
.equ PT_RSP, 152
.equ PT_REGS_SIZE, 168

# the per-CPU area, through GS
.equ TSS_SP0, 4                         # top of the entry stack, which every address space maps
.equ TSS_SP2, 20                        # a scratch word of the TSS (PER_CPU_VAR(cpu_tss_rw + TSS_sp2))
.equ TOP_OF_STACK, 4096 + 8             # of the current task's kernel stack
.equ USER_PCID_FLUSH_MASK, 4096 + 16    # bit n: the user half of PCID n is stale (cpu_tlbstate)

# page-table isolation: the user's PGD lies behind the kernel's, and its PCID has bit 11 set (asm/calling.h)
.equ PTI_USER_PGTABLE_BIT, 12
.equ PTI_USER_PCID_BIT, 11
.equ PTI_MASK, 0x1800
.equ CR3_NOFLUSH_BIT, 63

.equ USER_DS, 0x2b
.equ USER_CS, 0x33
.equ MINUS_ENOSYS, -38

.macro ASM_CLAC
        .if X86_FEATURE_SMAP
        clac
        .endif
.endm

.macro PUSH_REGS
        push rsi
        push rdx
        push rcx
        push rax
        push r8
        push r9
        push r10
        push r11
        push rbx
        push rbp
        push r12
        push r13
        push r14
        push r15
.endm

.macro CLEAR_REGS                       # nothing of the user's reaches kernel code by speculation
        xor esi, esi
        xor edx, edx
        xor ecx, ecx
        xor r8d, r8d
        xor r9d, r9d
        xor r10d, r10d
        xor r11d, r11d
        xor ebx, ebx
        xor ebp, ebp
        xor r12d, r12d
        xor r13d, r13d
        xor r14d, r14d
        xor r15d, r15d
.endm

.macro SET_NOFLUSH_BIT reg
        .if X86_FEATURE_PCID
        bts \reg, CR3_NOFLUSH_BIT
        .endif
.endm

.macro ADJUST_KERNEL_CR3 reg            # never flushes where there are PCIDs
        SET_NOFLUSH_BIT \reg
        and \reg, ~PTI_MASK
.endm

.macro SWITCH_TO_KERNEL_CR3 scratch
        .if X86_FEATURE_PTI
        mov \scratch, cr3
        ADJUST_KERNEL_CR3 \scratch
        mov cr3, \scratch
        .endif
.endm

.macro SWITCH_TO_USER_CR3 scratch, scratch2
        mov \scratch, cr3
        .if X86_FEATURE_PCID
        mov \scratch2, \scratch
        and \scratch2, 0x7ff
        bt qword ptr gs:[USER_PCID_FLUSH_MASK], \scratch2
        jnc 2f
        btr qword ptr gs:[USER_PCID_FLUSH_MASK], \scratch2    # this write of CR3 flushes, and the debt is paid
        jmp 3f
2:      bts \scratch, CR3_NOFLUSH_BIT
3:      bts \scratch, PTI_USER_PCID_BIT
        .endif
        bts \scratch, PTI_USER_PGTABLE_BIT
        mov cr3, \scratch
.endm

.macro SWITCH_TO_USER_CR3_STACK scratch
        push rax
        SWITCH_TO_USER_CR3 \scratch, rax
        pop rax
.endm

.macro SAVE_AND_SWITCH_TO_KERNEL_CR3 scratch, save     # whoever was interrupted, wherever
        .if X86_FEATURE_PTI
        mov \save, cr3
        mov \scratch, \save
        bt \scratch, PTI_USER_PGTABLE_BIT
        jnc 2f
        ADJUST_KERNEL_CR3 \scratch
        mov cr3, \scratch
2:
        .endif
.endm

.macro RESTORE_CR3 save
        .if X86_FEATURE_PTI
        bt \save, PTI_USER_PGTABLE_BIT
        jnc 2f
        SET_NOFLUSH_BIT \save
        mov cr3, \save
2:
        .endif
.endm

.macro FLUSH_CACHES                     # nothing that the kernel has loaded is left in a cache for the user to find
        .if EMPTY_CACHES
        wbinvd
        .endif
.endm

.macro POP_REGS pop_rdi=1
        pop r15
        pop r14
        pop r13
        pop r12
        pop rbp
        pop rbx
        pop r11
        pop r10
        pop r9
        pop r8
        pop rax
        pop rcx
        pop rdx
        pop rsi
        .if \pop_rdi
        pop rdi
        .endif
.endm

.text

# ---------------------------------------------------------------------------------------------- system calls

.globl entry_SYSCALL_64
entry_SYSCALL_64:
        swapgs
        mov qword ptr gs:[TSS_SP2], rsp
        SWITCH_TO_KERNEL_CR3 rsp
        mov rsp, qword ptr gs:[TOP_OF_STACK]
        push USER_DS                            # pt_regs.ss
        push qword ptr gs:[TSS_SP2]             # .sp
        push r11                                # .flags
        push USER_CS                            # .cs
        push rcx                                # .ip
        push rax                                # .orig_ax
        push rdi
        push rsi
        push rdx
        push rcx
        push MINUS_ENOSYS                       # .ax, if nobody answers
        push r8
        push r9
        push r10
        push r11
        push rbx
        push rbp
        push r12
        push r13
        push r14
        push r15
        mov rdi, rsp
        movsxd rax, eax
        CLEAR_REGS
        mov rsi, rax
        call do_syscall_64                      # (regs, number): may we go back with SYSRET?
        test al, al
        jz swapgs_restore_regs_and_return_to_usermode
        .if X86_FEATURE_PTI
        POP_REGS pop_rdi=0                      # rcx is the user's rip, r11 its flags
        mov rdi, rsp
        mov rsp, qword ptr gs:[TSS_SP0]         # the task's own stack is about to disappear
        push qword ptr [rdi + PT_RSP - PT_RDI]
        push qword ptr [rdi]
        SWITCH_TO_USER_CR3_STACK rdi
        pop rdi
        pop rsp
        .else
        POP_REGS
        mov rsp, qword ptr [rsp + PT_RSP - PT_ORIG_RAX]
        .endif
        FLUSH_CACHES
        swapgs
        sysretq

# ------------------------------------------------------------------------------------ exceptions and interrupts

.globl error_entry
error_entry:                                    # rax = the saved registers, on the task's own stack
        test byte ptr [rsp + PT_CS + 8], 3
        jz error_kernelspace
        swapgs
        SWITCH_TO_KERNEL_CR3 rax
        lea rsi, [rsp + 8]                      # sync_regs: leave the entry stack
        mov rdi, qword ptr gs:[TOP_OF_STACK]
        sub rdi, PT_REGS_SIZE
        mov rax, rdi
        mov ecx, PT_REGS_SIZE / 8
        cld
        rep movsq
        ret
error_kernelspace:
        lea rax, [rip + native_irq_return_iret]
        cmp rax, qword ptr [rsp + PT_RIP + 8]
        jne 1f
        swapgs                                  # IRET refused the user's registers: GS and CR3 are the user's already
        SWITCH_TO_KERNEL_CR3 rax
1:      lea rax, [rsp + 8]
        ret

.macro idtentry name, handler, pushes_error_code=0
        .globl \name
\name:
        ASM_CLAC
        .if \pushes_error_code == 0
        push -1                                 # pt_regs.orig_ax: not a system call
        .endif
        push rdi
        PUSH_REGS
        call error_entry
        mov rsp, rax
        mov rdi, rsp
        .if \pushes_error_code
        mov rsi, qword ptr [rsp + PT_ORIG_RAX]
        mov qword ptr [rsp + PT_ORIG_RAX], -1
        .endif
        call \handler
        jmp error_return
.endm

idtentry asm_exc_divide_error, exc_divide_error
idtentry asm_exc_debug, exc_debug
idtentry asm_exc_int3, exc_int3
idtentry asm_exc_overflow, exc_overflow
idtentry asm_exc_bounds, exc_bounds
idtentry asm_exc_invalid_op, exc_invalid_op
idtentry asm_exc_invalid_tss, exc_invalid_tss, 1
idtentry asm_exc_segment_not_present, exc_segment_not_present, 1
idtentry asm_exc_stack_segment, exc_stack_segment, 1
idtentry asm_exc_general_protection, exc_general_protection, 1
idtentry asm_exc_page_fault, exc_page_fault, 1
idtentry asm_exc_coprocessor_error, exc_coprocessor_error
idtentry asm_exc_alignment_check, exc_alignment_check, 1
idtentry asm_exc_simd_coprocessor_error, exc_simd_coprocessor_error
idtentry asm_sysvec_apic_timer_interrupt, sysvec_apic_timer_interrupt

.globl asm_exc_double_fault
asm_exc_double_fault:                           # on a stack of its own (IST), from anywhere
        ASM_CLAC
        push rdi
        PUSH_REGS
        SAVE_AND_SWITCH_TO_KERNEL_CR3 rax, r14
        mov rdi, rsp
        mov rsi, qword ptr [rsp + PT_ORIG_RAX]
        call exc_double_fault
        RESTORE_CR3 r14
        POP_REGS
        add rsp, 8
        iretq

.globl error_return
error_return:
        test byte ptr [rsp + PT_CS], 3
        jz restore_regs_and_return_to_kernel

.globl swapgs_restore_regs_and_return_to_usermode
swapgs_restore_regs_and_return_to_usermode:
        .if X86_FEATURE_PTI
        POP_REGS pop_rdi=0
        mov rdi, rsp
        mov rsp, qword ptr gs:[TSS_SP0]
        push qword ptr [rdi + 48]               # .ss
        push qword ptr [rdi + 40]               # .sp
        push qword ptr [rdi + 32]               # .flags
        push qword ptr [rdi + 24]               # .cs
        push qword ptr [rdi + 16]               # .ip
        push qword ptr [rdi]                    # .di
        SWITCH_TO_USER_CR3_STACK rdi
        pop rdi
        .else
        POP_REGS
        add rsp, 8                              # .orig_ax
        .endif
        FLUSH_CACHES
        swapgs
.globl native_irq_return_iret
native_irq_return_iret:
        iretq

.globl restore_regs_and_return_to_kernel
restore_regs_and_return_to_kernel:
        POP_REGS
        add rsp, 8
        iretq

# ------------------------------------------------------------------------------------------------- a new task

.globl ret_from_fork
ret_from_fork:                                  # rsp = the registers that the task shall start with
        jmp swapgs_restore_regs_and_return_to_usermode
