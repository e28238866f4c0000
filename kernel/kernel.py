"""The kernel: processes on a machine, from boot to the last exit.

>>> from emu import Machine
>>> from emu.assembler import assemble_source
>>> kernel = Kernel(Machine(cpu="skylake", ram="16M"))
>>> @kernel.on("syscall")
... def show(event):
...     print(event.name, event.arguments)
>>> process = kernel.spawn(assemble_source("_start: mov edi, 7; mov eax, 60; syscall"))
>>> kernel.run().exit_code
exit (7,)
7
"""

from __future__ import annotations

import errno
import io
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from emu import Halt, InputError
from emu.image import Image
from emu.machine import Machine
from emu.pte import CR3_NOFLUSH, PAGE_SHIFT, PAGE_SIZE, Cr4, ErrorCode
from emu.walk_report import PageWalkReport, page_walk

from .address_space import AddressSpace
from .boot import PERCPU_TOP_OF_STACK, TIMER_VECTOR, boot
from .events import ExecEvent, ExitEvent, PageFaultEvent, SignalEvent
from .exceptions import Errno, KernelPanic
from .exec import load_image, load_stack
from .fault import FaultHandler, FaultResult
from .files import FilesStruct, FileSystem, PageCache
from .layout import KERNEL_STACK_PAGES
from .process import KernelStack, Process, first_registers
from .signals import SIGKILL, signal_name
from .statistics import statistics
from .traps import do_syscall_64 as _kernel_text  # noqa: F401 - registers the functions of kernel text
from .uaccess import UserMemory
from .vma import Prot

__all__ = ["Kernel", "Result"]

HZ: Final = 250
"""Timer interrupts a second (CONFIG_HZ of most distributions)."""
MASK64: Final = (1 << 64) - 1
RAX, RSP, RSI, RDI = 0, 4, 6, 7


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended: `exit_code` or `signal` of the first process (both None if it did not end), and statistics."""

    exit_code: int | None
    signal: int | None
    halt: Halt
    processes: tuple[Process, ...]
    stats: dict[str, Any]


class Kernel:
    """An operating system on one machine.

    `pcid` uses process-context identifiers where the CPU has them. `populate` delivers every promised page when a
    program is loaded, so that nothing faults later. The guest's standard streams are `stdin`, `stdout` and `stderr`
    (binary files; by default empty and discarded). `root` is a directory of the host's that the guest sees as `/`, and
    `files` are files of the host's by guest path: read-only, unless the guest path ends with `:rw`; all else that the
    guest writes stays in its memory. Raises InputError if the machine's RAM is too small, or a file cannot be read.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        pti: bool = False,
        pcid: bool = True,
        populate: bool = False,
        stdin: BinaryIO | None = None,
        stdout: BinaryIO | None = None,
        stderr: BinaryIO | None = None,
        root: Path | None = None,
        files: Mapping[str, Path] | None = None,
    ) -> None:
        if pti:
            raise InputError("page-table isolation is not built yet: run with PTI off")
        self.machine, self.events = machine, machine.events
        self.stdin, self.stdout, self.stderr = (stream or io.BytesIO() for stream in (stdin, stdout, stderr))
        self._populate = populate
        booted = boot(machine, pcid=pcid)
        self.text, self.frames, self.memory = booted.text, booted.frames, booted.memory
        self._init_page_table, self._percpu = booted.page_table, booted.percpu
        self.page_cache = PageCache(self.memory, self.frames)
        self.file_system = FileSystem(self, self.page_cache, self._nanoseconds, root, files or {})
        self.knobs: dict[str, int] = {}
        self.random = random.Random(1)
        self.user = UserMemory(machine, self._fault_in)
        self.faults = FaultHandler(self.memory, self.frames)
        self.processes: list[Process] = []
        self._ready: list[Process] = []
        self._current: Process | None = None
        self.held: Process | None = None  # ended, but its memory is kept for people to look at
        self._hold_first = False
        self._instructions_before = 0
        self.context_switches = 0
        self.jiffies = 0
        self.boot_frames = self.frames.used
        machine.monitor = self._enter_function

    # --- for people -----------------------------------------------------------------------------------------------

    def on(self, name: str, callback: Callable[[Any], object] | None = None, *, once: bool = False) -> Any:
        """Subscribe to an event, as a decorator or with a callback; `once` for the first one only.

        Returns a subscription with `off()`. Raises InputError for an unknown event.
        """
        if callback is None:
            return self.events.on(name, once=once)
        return self.events.on(name, callback, once=once)

    @property
    def now(self) -> int:
        """The model's clock in cycles."""
        return self.machine.clock.now

    @property
    def current(self) -> Process:
        """The process that runs now. Raises KernelPanic if there is none."""
        if self._current is None:
            raise KernelPanic("no process is running")
        return self._current

    def process(self, pid: int) -> Process:
        """The process with a number. Raises InputError."""
        for process in self.processes:
            if process.pid == pid:
                return process
        raise InputError(f"there is no process {pid}")

    def page_walk(self, process: Process, va: int) -> PageWalkReport:
        """The page walk of an address in a process, without any effect."""
        return page_walk(self.machine.ram, process.mm.page_table.pgd, va, self.machine.state.levels)

    def symbolize(self, va: int) -> str:
        """A kernel or user address as `symbol+offset`."""
        if va < 1 << 63:
            return self._current.image.symbolize(va) if self._current else f"{va:#x}"
        function = self.text.functions.get(va & ~(PAGE_SIZE - 1))
        if function is not None:
            offset = va % PAGE_SIZE
            return f"{function.name}+{offset:#x}" if offset else function.name
        return self.text.image.symbolize(va)

    # --- processes ------------------------------------------------------------------------------------------------

    def spawn(self, image: Image, argv: Sequence[str] | None = None) -> Process:
        """Make a process that will run a program.

        Raises InputError for an image that does not fit the user half, or for which there is no memory.
        """
        arguments = tuple(argv) if argv is not None else (image.path,)
        with self._kernel_mode():
            try:
                return self._spawn(image, arguments)
            except Errno:
                raise InputError(f"{image.path}: no memory left for another process; give it more RAM") from None

    def _spawn(self, image: Image, arguments: tuple[str, ...]) -> Process:
        """Raises InputError and Errno(ENOMEM), with nothing allocated."""
        pid = len(self.processes) + 1
        mm = AddressSpace(self.machine, self.memory, self.frames, self._init_page_table)
        try:
            load_image(mm, image)
            stack_pointer = load_stack(mm, self.memory, self.frames, image, arguments)
            stack = self._new_stack(pid)
        except (InputError, Errno):
            mm.destroy()
            raise
        process = Process(pid, image, mm, stack, FilesStruct.new(self), arguments)
        self.memory.write_va(process.registers_va, first_registers(image.entry, stack_pointer))
        self.processes.append(process)
        self._ready.append(process)
        if self._populate:
            for vma in mm.vmas:
                self.populate(process, vma.start, vma.end)
        if self.events.wants("exec"):
            self.events.emit(ExecEvent(self.now, pid, image.path, image.entry))
        return process

    def _new_stack(self, pid: int) -> KernelStack:
        if self.frames.free_frames < KERNEL_STACK_PAGES + 1:  # one may become a page table
            raise Errno(errno.ENOMEM)
        pfns = tuple(self.frames.allocate() for _ in range(KERNEL_STACK_PAGES))
        stack = KernelStack(pid, pfns)
        for va, entry in stack.pages():
            self._init_page_table.install(va, entry)
            self.memory.clear_frame((entry >> PAGE_SHIFT) & 0xF_FFFF_FFFF)
        return stack

    def _free_stack(self, stack: KernelStack) -> None:
        for va, _ in stack.pages():
            self._init_page_table.clear(va)
            self.machine.invlpg(va)
        for pfn in stack.pfns:
            self.frames.free(pfn)

    def populate(self, process: Process, start: int, end: int) -> None:
        """Deliver every promised page of a range now, as far as there is memory (mm_populate)."""
        for vma in process.mm.vmas.overlapping(start, end):
            if not vma.prot:
                continue
            code = ErrorCode.U | (ErrorCode.W if vma.prot & Prot.WRITE else 0)
            for page in range(max(vma.start, start), min(vma.end, end), PAGE_SIZE):
                if process.mm.is_present(page):
                    continue
                if not self.faults.handle_page_fault(process.mm, page, code).resolved:
                    return

    def exit(self, process: Process, code: int) -> None:
        """End a process with an exit code."""
        process.exit_code = code
        self._end(process)

    def kill(self, process: Process, signal: int, address: int | None = None) -> None:
        """End a process by a signal."""
        if self.events.wants("signal"):
            self.events.emit(SignalEvent(self.now, process.pid, signal, signal_name(signal), address))
        process.signal = signal
        self._end(process)

    def send_signal(self, process: Process, number: int) -> None:
        """Send a signal; as nothing can handle one yet, it ends the process."""
        self.kill(process, number)

    def _end(self, process: Process) -> None:
        """Free what a process had, and let the next one run."""
        self._account(process)
        if self.events.wants("exit"):
            self.events.emit(ExitEvent(self.now, process.pid, process.exit_code, process.signal))
        if self._hold_first and process is self.processes[0]:
            self.held = process
            self.machine.stop()
            return
        self._release(process)
        self._schedule()

    def _release(self, process: Process) -> None:
        """Leave the address space before it goes, then free it."""
        self._activate(None)
        process.files.close_all()
        process.mm.destroy()
        self._free_stack(process.stack)

    def close(self) -> None:
        """End every process that is still there; afterwards nothing is allocated that was not after boot."""
        with self._kernel_mode():
            for process in self.processes:
                if process.alive:
                    process.signal = SIGKILL
                    self._release(process)
            if self.held is not None:
                self._release(self.held)
                self.held = None
            self.file_system.close()
        self._ready.clear()

    @contextmanager
    def _kernel_mode(self) -> Iterator[None]:
        """For work that people ask for between runs: the machine may have been stopped in user mode."""
        cpl = self.machine.cpl
        self.machine.set_cpl(0)
        try:
            yield
        finally:
            self.machine.set_cpl(cpl)

    # --- scheduling: one after the other, for now -------------------------------------------------------------------

    def _schedule(self) -> None:
        """Give the processor to the next process, or stop the machine when there is none."""
        if not self._ready:
            self.machine.stop()
            return
        process = self._ready.pop(0)
        self.context_switches += 1
        self._activate(process)
        cpu = self.machine.cpu
        cpu.gprs[RSP] = process.registers_va
        cpu.rip = self.text.symbols["ret_from_fork"]

    def _activate(self, process: Process | None) -> None:
        """Switch the address space (switch_mm) and the kernel stack; None is the kernel's own."""
        if self._current is not None:
            self._current.mm.is_active = False
        self._current = process
        self.machine.pid = process.pid if process else 0
        page_table = process.mm.page_table if process else self._init_page_table
        tagged = bool(self.machine.control.cr4 & Cr4.PCIDE)
        # A process's PCID is its number: fresh, so nothing of it can be in the TLB. The kernel's own is 0.
        value = page_table.pgd | (process.pid if process and tagged else 0)
        self.machine.write_cr3(value | (CR3_NOFLUSH if tagged and process is None else 0))
        if process is not None:
            process.mm.is_active = True
            self.memory.store_va(self._percpu + PERCPU_TOP_OF_STACK, process.stack.top)
            self._instructions_before = self.machine.retired(3)[0]

    def tick(self) -> None:
        """The timer fired: count it and ask for the next one."""
        self.jiffies += 1
        self._start_timer()

    def _start_timer(self) -> None:
        self.machine.set_timer(self.machine.profile.cpu.frequency_mhz * 1_000_000 // HZ, TIMER_VECTOR)

    # --- running ----------------------------------------------------------------------------------------------------

    def run(self, until: str | None = None, *, before_exit: bool = False) -> Result:
        """Run until every process has ended, before the symbol `until` of the first process executes, or, with
        `before_exit`, when the first process is about to end and its memory is still there.

        Raises InputError for an unknown symbol or if there is no process, KernelPanic for a bug of the kernel's.
        """
        if not self.processes:
            raise InputError("there is no process to run")
        first = self.processes[0]
        if until is not None:
            self.machine.stop_before(first.image.address_of(until))
        self._hold_first = before_exit
        if self._current is None:
            self._start_timer()
            self._schedule()
        halt = self.machine.run()
        if self._current is not None and self._current.alive:
            self._account(self._current)
        return Result(first.exit_code, first.signal, halt, tuple(self.processes), statistics(self))

    def _account(self, process: Process) -> None:
        total = self.machine.retired(3)[0]
        process.instructions += total - self._instructions_before
        self._instructions_before = total

    def _enter_function(self, rip: int) -> None:
        """Execution reached a Python function in kernel text."""
        function = self.text.at(rip)
        self.machine.charge("kernel_work", function.cycles)
        gprs = self.machine.cpu.gprs
        result = function.body(self, gprs[RDI], gprs[RSI])
        if result is not None and self.machine.cpu.rip == rip:
            gprs[RAX] = result & MASK64

    # --- faults -----------------------------------------------------------------------------------------------------

    def handle_page_fault(self, address: int, error_code: int, rip: int) -> FaultResult:
        """Handle a fault of the current process, count it, tell listeners."""
        process = self.current
        result = self.faults.handle_page_fault(process.mm, address, error_code)
        if result in (FaultResult.DEMAND_ZERO, FaultResult.FILE):
            process.minor_faults += 1
        if self.events.wants("page_fault"):
            self.events.emit(PageFaultEvent(self.now, process.pid, address, error_code, rip, result.name))
        return result

    def _fault_in(self, address: int, error_code: int) -> bool:
        """A fault of the kernel on user memory."""
        return self.handle_page_fault(address, error_code, self.machine.cpu.rip).resolved

    # --- small services for system calls ------------------------------------------------------------------------------

    def _nanoseconds(self) -> int:
        """The model's time since boot."""
        return self.now * 1000 // self.machine.profile.cpu.frequency_mhz

    def count_syscall(self, process: Process, name: str) -> None:
        """Count a system call of a process."""
        process.syscalls[name] = process.syscalls.get(name, 0) + 1
