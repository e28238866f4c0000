"""Making a process from a process (kernel/fork.c; copy_page_range in mm/memory.c).

Fork copies promises, not pages: the child gets the same VMAs, and page-table entries to the same frames. Both lose the
right to write to what is private; whoever writes first gets a copy by the fault that follows.
"""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from emu.control import Msr
from emu.pte import INDEX_MASK, PAGE_SHIFT, PAGE_SIZE, Pte

from .address_space import AddressSpace
from .compound import HPAGE_PMD_SIZE
from .events import ForkEvent
from .exceptions import Errno
from .itimer import IntervalTimer
from .limits import Resource
from .process import PT_REGS, Process, Registers, Thread
from .pte import SWAP_EXCLUSIVE, is_huge, is_mapped, is_special, is_swap, pfn_of, swap_place
from .signals import SS_DISABLE, AltStack
from .vma import AnonVma, Vma, VmaFlag
from .wait import WaitQueue
from .work import kernel_work

if TYPE_CHECKING:
    from .kernel import Kernel

__all__ = ["Clone", "copy_process", "dup_mm"]

W, A = int(Pte.W), int(Pte.A)
TABLE_SHIFT: Final = 21
"""One page table serves 2 MiB."""
COPY_PROCESS: Final = kernel_work("copy_process", __name__, cycles=15_000)
DUP_MMAP: Final = kernel_work("dup_mmap", __name__, cycles=30_000)
"""Together what fork was measured to take (see syscalls/__init__.py); the first is half of vfork with the exit."""
COPY_PTE_RANGE: Final = kernel_work("copy_pte_range", __name__, each=50)
"""Assumption, as for `zap_pte_range`."""


class Clone:
    """CLONE_* (include/uapi/linux/sched.h)."""

    EXIT_SIGNAL: Final = 0xFF
    VM: Final = 0x100
    FS: Final = 0x200
    FILES: Final = 0x400
    SIGHAND: Final = 0x800
    VFORK: Final = 0x4000
    PARENT: Final = 0x8000
    THREAD: Final = 0x1_0000
    SYSVSEM: Final = 0x4_0000
    SETTLS: Final = 0x8_0000
    PARENT_SETTID: Final = 0x10_0000
    CHILD_CLEARTID: Final = 0x20_0000
    DETACHED: Final = 0x40_0000
    CHILD_SETTID: Final = 0x100_0000
    KNOWN: Final = 0x17D_CFFF


# --- the address space ----------------------------------------------------------------------------------------------


def dup_mm(old: AddressSpace) -> AddressSpace:
    """A copy of an address space whose pages are shared until they are written (dup_mmap). Raises Errno(ENOMEM)."""
    old.manager.memory.enter(DUP_MMAP)
    new = AddressSpace(old.manager, old.limits)
    new.heap_start, new.heap_end, new.stack_start = old.heap_start, old.heap_end, old.stack_start
    new.stack_top, new.mmap_base = old.stack_top, old.mmap_base
    new.thp_disable = old.thp_disable
    new.strings, new.data_size, new.exe = old.strings, old.data_size, old.exe.get() if old.exe else None
    try:
        for vma in list(old.vmas):
            if not vma.flags & VmaFlag.DONT_COPY:
                _copy_vma(old, new, vma)
    except Errno:
        new.destroy()
        raise
    finally:
        # The parent's entries may no longer permit what the TLB remembers that they did.
        old.manager.tlb.flush_all(old, "fork")
    return new


def _copy_vma(old: AddressSpace, new: AddressSpace, vma: Vma) -> None:
    if vma.flags & VmaFlag.ACCOUNT:
        old.manager.overcommit.charge(vma.pages)
    wiped = vma.flags & VmaFlag.WIPE_ON_FORK
    anon = AnonVma(forked=True) if vma.anon_vma and not wiped else None
    new.add(replace(vma, flags=vma.flags & ~VmaFlag.LOCK_MASK, anon_vma=anon), merge=False)
    if vma.anon_vma and not wiped:  # else everything can be had again by a fault (vma_needs_copy)
        _copy_entries(old, new, vma, vma.start, vma.end)


def _copy_entries(old: AddressSpace, new: AddressSpace, vma: Vma, start: int, end: int) -> None:
    """Share pages of a VMA, read-only where it is private (copy_pmd_range, copy_pte_range). Raises Errno(ENOMEM)."""
    memory, pages = old.manager.memory, old.manager.pages
    is_private = not vma.flags & VmaFlag.SHARED
    table, reached = 0, -1
    leaves = list(old.page_table.leaves(start, end))
    memory.enter(COPY_PTE_RANGE, len(leaves))
    for va, found, pte in leaves:
        if is_huge(found):
            if not old.manager.huge.copy_pmd(new, va, pte):
                _copy_entries(old, new, vma, va, va + HPAGE_PMD_SIZE)
            continue
        if va >> TABLE_SHIFT != reached:  # once a table: its entries lie side by side
            table, reached = new.page_table.make_entry(va) & -PAGE_SIZE, va >> TABLE_SHIFT
        place = table + 8 * (va >> PAGE_SHIFT & INDEX_MASK)
        entry = memory.load64(pte)  # as it is now: a new table may have cost this very page its frame
        if is_swap(entry):
            old.manager.swap.duplicate(swap_place(entry)[1])
            entry &= ~SWAP_EXCLUSIVE
            memory.store64(pte, entry)
        if is_private and entry & W:
            entry &= ~W
            memory.store64(pte, entry)
        memory.store64(place, entry & ~A)
        if is_mapped(entry) and not is_special(entry):
            pfn = pfn_of(entry)
            pages.map(pfn, new, va)
            pages.share(pfn)


# --- the process ----------------------------------------------------------------------------------------------------


def copy_process(kernel: Kernel, parent: Process, flags: int, *, stack: int, tls: int, child_tid: int) -> Process:
    """Make a child that goes on where its parent is, with 0 as the answer of the system call. Raises Errno."""
    _check(flags)
    if len(kernel.living_processes()) >= parent.limits.soft(Resource.NPROC):
        raise Errno(errno.EAGAIN)
    kernel.memory.enter(COPY_PROCESS)
    mm = parent.mm
    if flags & Clone.VM:
        mm.users += 1
    else:
        mm = dup_mm(mm)
    try:
        kernel_stack = kernel.new_stack()
    except Errno:
        kernel.release_mm(mm)
        raise
    child = Process(
        kernel.new_pid(),
        parent.image,
        mm,
        kernel_stack,
        _thread(kernel, flags, tls),
        parent.files.share() if flags & Clone.FILES else parent.files.fork(),
        parent.arguments,
        parent=parent if not flags & (Clone.PARENT | Clone.THREAD) else parent.parent,
        tgid=parent.tgid if flags & Clone.THREAD else 0,
        limits=parent.limits if flags & Clone.THREAD else parent.limits.copy(),
        signals=parent.signals.copy(
            share_actions=bool(flags & Clone.SIGHAND), share_pending=bool(flags & Clone.THREAD)
        ),
        trap=parent.trap,
        alarm=parent.alarm if flags & Clone.THREAD else IntervalTimer(),
        exit_signal=flags & Clone.EXIT_SIGNAL,
        group=parent.group,
        session=parent.session,
        own_name=parent.own_name,
        set_child_tid=child_tid if flags & Clone.CHILD_SETTID else 0,
    )
    if flags & Clone.VM and not flags & Clone.VFORK:
        child.signals.altstack = AltStack(flags=SS_DISABLE)
    _copy_registers(kernel, parent, child, stack)
    child.clear_child_tid = child_tid if flags & Clone.CHILD_CLEARTID else 0
    child.vfork_done = WaitQueue() if flags & Clone.VFORK else None
    kernel.add(child)
    if kernel.events.wants("fork"):
        kernel.events.emit(ForkEvent(kernel.now, parent.pid, child.pid, bool(flags & Clone.VM)))
    return child


def _check(flags: int) -> None:
    """Combinations that make no sense (copy_process). Raises Errno(EINVAL)."""
    if flags & ~(Clone.KNOWN | Clone.EXIT_SIGNAL):
        raise Errno(errno.EINVAL)
    if flags & Clone.THREAD and not flags & Clone.SIGHAND:
        raise Errno(errno.EINVAL)
    if flags & Clone.SIGHAND and not flags & Clone.VM:
        raise Errno(errno.EINVAL)


def _thread(kernel: Kernel, flags: int, tls: int) -> Thread:
    """The registers of the processor as they are now, the floating-point ones and FS.base among them."""
    machine = kernel.machine
    uc = machine.cpu.uc
    before = machine.read_msr(Msr.FS_BASE)
    if flags & Clone.SETTLS:
        machine.write_msr(Msr.FS_BASE, tls)
    context = uc.context_save()
    machine.write_msr(Msr.FS_BASE, before)
    return Thread(kernel.text.symbols["ret_from_fork"], context, machine.control.read_msr(Msr.KERNEL_GS_BASE))


def _copy_registers(kernel: Kernel, parent: Process, child: Process, stack: int) -> None:
    """The child's pt_regs: its parent's, with 0 in RAX and maybe another stack (copy_thread)."""
    memory = kernel.memory
    memory.write_va(child.registers_va, memory.read_va(parent.registers_va, 8 * len(PT_REGS)))
    regs = Registers(memory, child.registers_va)
    regs["rax"] = 0
    if stack:
        regs["rsp"] = stack
