"""A bug of the kernel's is a report that says where; a guest's mistake never is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import MakeKernel

from emu import PAGE_SIZE, TripleFault
from emu.assembler import assemble_source
from emu.control import Msr
from kernel import Kernel, KernelPanic
from kernel.boot import PERCPU_TOP_OF_STACK
from kernel.layout import DIRECT_MAP, ENTRY_STACK_VA, IDT_VA, KERNEL_TEXT
from kernel.process import Registers

GETPID_TWICE = "_start: mov eax, 39; syscall; mov eax, 39; syscall; mov edi, 1; mov eax, 60; syscall"
FAULT = "_start: mov eax, 39; syscall; xor eax, eax; mov al, [rax]"
KERNEL_CS, KERNEL_SS = 0x10, 0x18


def at_first_system_call(kernel: Kernel, break_something: Callable[[Kernel], object]) -> None:
    """Do something terrible inside the kernel."""
    kernel.on("syscall", lambda _: break_something(kernel), once=True)


def registers(kernel: Kernel) -> Registers:
    """The user's registers, saved on the kernel stack."""
    return Registers(kernel.memory, kernel.current.registers_va)


def return_to(rip: int) -> Callable[[Kernel], None]:
    """Have the kernel return to an address of its own instead of the user's, at CPL 0."""

    def change(kernel: Kernel) -> None:
        saved: Any = registers(kernel)
        saved["rip"], saved["cs"], saved["ss"], saved["rsp"] = rip, KERNEL_CS, KERNEL_SS, kernel.current.stack.top

    return change


def set_stack(top: int) -> Callable[[Kernel], None]:
    """Tell the per-CPU area a wrong kernel stack."""

    def change(kernel: Kernel) -> None:
        per_cpu = kernel.machine.read_msr(Msr.GS_BASE)
        kernel.memory.store_va(per_cpu + PERCPU_TOP_OF_STACK, top)

    return change


def unmap(va: int) -> Callable[[Kernel], None]:
    """Take a page of the kernel away, from page table and TLB."""

    def change(kernel: Kernel) -> None:
        kernel.current.mm.page_table.clear(va)
        kernel.machine.invlpg(va)

    return change


def run_broken(kernel: Kernel, program: str, break_something: Callable[[Kernel], object]) -> None:
    at_first_system_call(kernel, break_something)
    kernel.spawn(assemble_source(program))
    kernel.run()


@pytest.mark.parametrize("engine", ["trap", "access"])
def test_a_bad_kernel_stack_is_a_double_fault_that_says_where(engine: str, make_kernel: MakeKernel) -> None:
    """The second SYSCALL pushes to nowhere; the page fault has no stack either; the double fault has its own."""
    kernel = make_kernel({"engine": engine})
    report = r"double fault at rip entry_SYSCALL_64\+0x[0-9a-f]+, rsp 0xffffc90000100000, cr2 0xffffc900000ffff8"
    with pytest.raises(KernelPanic, match=report):
        run_broken(kernel, GETPID_TWICE, set_stack(0xFFFF_C900_0010_0000))


def test_the_guard_page_catches_a_kernel_stack_that_is_used_up(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    with pytest.raises(KernelPanic, match=r"double fault at rip entry_SYSCALL_64\+0x"):
        run_broken(kernel, GETPID_TWICE, lambda k: set_stack(k.current.stack.bottom + 16)(k))


def test_a_missing_entry_stack_is_a_double_fault_at_the_users_instruction(make_kernel: MakeKernel) -> None:
    """An exception from user mode is pushed to the stack that the TSS names, wherever it comes from."""
    kernel = make_kernel()
    with pytest.raises(KernelPanic, match=r"double fault at rip _start\+0x9, .*cr2 0xfffffe0000002ff8"):
        run_broken(kernel, FAULT, unmap(ENTRY_STACK_VA))


def test_without_an_idt_the_processor_gives_up(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    with pytest.raises(TripleFault, match="double fault"):
        run_broken(kernel, FAULT, unmap(IDT_VA))


def test_a_fetch_of_data_at_cpl_0_is_a_page_fault_in_the_kernel(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    with pytest.raises(KernelPanic, match=r"page fault in the kernel at rip 0xffff888000000000: .*address 0xffff8880"):
        run_broken_return(kernel, DIRECT_MAP)


def test_a_fetch_of_user_code_at_cpl_0_is_a_page_fault_in_the_kernel(make_kernel: MakeKernel) -> None:
    """SMEP: the user's page is executable, but not for the kernel."""
    kernel = make_kernel()
    with pytest.raises(KernelPanic, match=r"page fault in the kernel at rip _start: .*address 0x401000"):
        run_broken_return(kernel, 0x401000)


def run_broken_return(kernel: Kernel, rip: int) -> None:
    """A timer interrupt returns with IRETQ to the wrong place: SYSRET would always go to CPL 3."""
    tick = kernel.scheduler.tick

    def broken_tick() -> None:
        tick()
        return_to(rip)(kernel)

    kernel.scheduler.tick = broken_tick  # type: ignore[method-assign]
    kernel.spawn(assemble_source("_start: jmp _start"))
    kernel.run()


def test_a_return_to_an_address_that_is_not_canonical_is_a_general_protection_fault(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    with pytest.raises(KernelPanic, match=r"exc_general_protection in the kernel at rip restore_regs_and_return_to_k"):
        run_broken_return(kernel, 1 << 47)


def test_vmcall_where_no_function_lives(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    stray = KERNEL_TEXT + PAGE_SIZE
    pfn = kernel.frames.allocate()
    kernel.boot_frames += 1  # so that it is not taken for a leak
    kernel.spawn(assemble_source("_start: jmp _start"))
    kernel.memory.write(pfn * PAGE_SIZE, bytes.fromhex("0f01c1"))
    kernel.processes[0].mm.page_table.install(stray, pfn * PAGE_SIZE | 1)
    with pytest.raises(KernelPanic, match=rf"vmcall at {stray:#x}, where no kernel function is"):
        run_broken_return(kernel, stray)


@pytest.mark.parametrize("code", ["hlt", "vmcall", "ud2", "int 14", "mov rsp, 8; int3", "mov rsp, 1; push rax"])
def test_a_guest_cannot_cause_a_panic(code: str, make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    process = kernel.spawn(assemble_source(f"_start: {code}"))
    assert kernel.run().signal == process.signal is not None


def test_after_a_panic_the_next_kernel_is_not_affected(make_kernel: MakeKernel) -> None:
    with pytest.raises(KernelPanic):
        run_broken(make_kernel(), GETPID_TWICE, set_stack(0xFFFF_C900_0010_0000))
    kernel = make_kernel()
    kernel.spawn(assemble_source(GETPID_TWICE))
    assert kernel.run().exit_code == 1
