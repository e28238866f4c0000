# The way into the kernel and back: real machine code at kernel addresses (arch/x86/entry/entry_64.S).
#
# SYSCALL, exceptions and interrupts arrive here. Each path does what Linux does: SWAPGS when it comes from user mode,
# the switch to the task's kernel stack, all registers saved as `struct pt_regs`, a call of the handler (which is Python
# at a kernel-text address), registers restored, SWAPGS, SYSRET or IRET. Names are Linux's. Change it and see.

# struct pt_regs (asm/ptrace.h): what lies on the kernel stack while the kernel works
.equ PT_ORIG_RAX, 120
.equ PT_CS, 136
.equ PT_RSP, 152
.equ PT_REGS_SIZE, 168

# the per-CPU area, through GS
.equ TSS_SP2, 20                        # a scratch word of the TSS (PER_CPU_VAR(cpu_tss_rw + TSS_sp2))
.equ TOP_OF_STACK, 4096 + 8             # of the current task's kernel stack

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

.macro POP_REGS
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
        pop rdi
.endm

.text

# ---------------------------------------------------------------------------------------------- system calls

.globl entry_SYSCALL_64
entry_SYSCALL_64:
        swapgs
        mov qword ptr gs:[TSS_SP2], rsp
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
        POP_REGS                                # rcx is the user's rip, r11 its flags
        mov rsp, qword ptr [rsp + PT_RSP - PT_ORIG_RAX]
        swapgs
        sysretq

# ------------------------------------------------------------------------------------ exceptions and interrupts

.globl error_entry
error_entry:                                    # rax = the saved registers, on the task's own stack
        test byte ptr [rsp + PT_CS + 8], 3
        jz 1f
        swapgs
        lea rsi, [rsp + 8]                      # sync_regs: leave the entry stack
        mov rdi, qword ptr gs:[TOP_OF_STACK]
        sub rdi, PT_REGS_SIZE
        mov rax, rdi
        mov ecx, PT_REGS_SIZE / 8
        cld
        rep movsq
        ret
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
idtentry asm_exc_double_fault, exc_double_fault, 1
idtentry asm_exc_invalid_tss, exc_invalid_tss, 1
idtentry asm_exc_segment_not_present, exc_segment_not_present, 1
idtentry asm_exc_stack_segment, exc_stack_segment, 1
idtentry asm_exc_general_protection, exc_general_protection, 1
idtentry asm_exc_page_fault, exc_page_fault, 1
idtentry asm_exc_coprocessor_error, exc_coprocessor_error
idtentry asm_exc_alignment_check, exc_alignment_check, 1
idtentry asm_exc_simd_coprocessor_error, exc_simd_coprocessor_error
idtentry asm_sysvec_apic_timer_interrupt, sysvec_apic_timer_interrupt

.globl error_return
error_return:
        test byte ptr [rsp + PT_CS], 3
        jz restore_regs_and_return_to_kernel

.globl swapgs_restore_regs_and_return_to_usermode
swapgs_restore_regs_and_return_to_usermode:
        POP_REGS
        add rsp, 8                              # .orig_ax
        swapgs
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
