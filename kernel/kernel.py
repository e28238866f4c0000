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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from emu import Halt, InputError
from emu.elf import with_file
from emu.image import Image
from emu.machine import Machine
from emu.pte import PAGE_SIZE

from .address_space import AddressSpace
from .boot import boot
from .events import ExecEvent, FunctionEntry, FunctionExit
from .exceptions import Errno, KernelPanic
from .exec import load_program
from .exit import do_exit, release
from .fault import FaultHandler
from .files import FilesStruct, FileSystem, PageCache
from .files.program import open_program
from .files.sysctl import pid_max
from .futex import Futexes
from .huge_memory import ENABLED
from .khugepaged import Khugepaged
from .layout import KERNEL_STACK_PAGES, TASK_SIZE
from .observed import Observed
from .process import KernelStack, Process, first_registers
from .reclaim import Reclaim
from .result import Result
from .scheduler import Scheduler
from .secret import Secret
from .siginfo import SI_USER, SIGKILL, SigInfo
from .signal_delivery import send_signal
from .statistics import statistics
from .swap_device import open_swap_device
from .traps import finish_syscall
from .uaccess import UserMemory
from .user_registers import UserRegisters

__all__ = ["Kernel", "Result"]

MASK64: Final = (1 << 64) - 1
RAX, RSI, RDI = 0, 6, 7
NR_CACHED_STACKS: Final = 2
"""Kernel stacks that are kept for the next process (kernel/fork.c)."""
TICK: Final = 10_000_000
"""Nanoseconds in a tick of USER_HZ."""


class Kernel(Observed):
    """An operating system on one machine.

    `pti` gives every process a second PGD for user mode (see pti.py). `pcid` uses process-context identifiers where the
    CPU has them, `asid` says how ("pcid", "flush", "stale"; see asid.py). `aslr` puts stack, mmap area and heap at
    random places. `empty_caches` flushes the caches on every return to user mode; without `pte_inversion` entries that
    are not present name their frames (see pte.py). `populate` delivers every promised page when a program is loaded, so
    that nothing faults later. The guest's standard streams are `stdin`, `stdout` and `stderr` (binary files; by default
    empty and discarded). `root` is a directory of the host's that the guest sees as `/`, and `files` are files of the
    host's by guest path: read-only, unless the guest path ends with `:rw`; everything else that the guest writes stays
    in its memory. `thp` says who gets transparent huge pages: "always", "madvise" or "never" (huge_memory.py). `swap`
    is the size of the swap area, kept in `swap_file` if there is one, as fast as `swap_device` (swap_device.py);
    `swap_policy` chooses what goes there (policies/). `secret` is a text that the kernel keeps for itself (secret.py).
    Raises InputError if the machine's RAM is too small, or a file cannot be read.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        pti: bool = False,
        pcid: bool = True,
        asid: str = "pcid",
        populate: bool = False,
        aslr: bool = False,
        empty_caches: bool = False,
        pte_inversion: bool = True,
        stdin: BinaryIO | None = None,
        stdout: BinaryIO | None = None,
        stderr: BinaryIO | None = None,
        root: Path | None = None,
        files: Mapping[str, Path] | None = None,
        thp: str = "madvise",
        swap: str | int = 0,
        swap_file: Path | None = None,
        swap_device: str = "nvme",
        swap_policy: str = "active_inactive",
        secret: bytes | None = None,
    ) -> None:
        self.machine, self.events = machine, machine.events
        self.stdin, self.stdout, self.stderr = (stream or io.BytesIO() for stream in (stdin, stdout, stderr))
        self._populate = populate
        if thp not in ENABLED:
            raise InputError(f"thp {thp!r} is none of {', '.join(ENABLED)}")
        area = open_swap_device(swap, swap_file, swap_device)
        booted = boot(machine, pcid=pcid, asid=asid, pti=pti, empty_caches=empty_caches, swap=area)
        self.text, self.percpu, self.manager = booted.text, booted.percpu, booted.manager
        self.frames, self.memory, self.pages = booted.manager.frames, booted.manager.memory, booted.manager.pages
        self.manager.huge.enabled, self.manager.pte_inversion = thp, pte_inversion
        self.secret = None if secret is None else Secret(self.memory, self.frames, secret)
        self.page_cache = PageCache(self.memory, self.pages, self.manager.swap, self.frames.total // 2)
        self.reclaim = Reclaim(self, swap_policy, machine.seed)
        self.file_system = FileSystem(self, self.page_cache, self.nanoseconds, root, files or {})
        self.knobs: dict[str, int] = {"/proc/sys/kernel/randomize_va_space": 2} if aslr else {}
        self.random = random.Random(machine.seed)
        self.user = UserMemory(machine, self._fault_in)
        self.faults = FaultHandler(self)
        self.khugepaged = Khugepaged(self)
        self.futexes = Futexes(self)
        self.scheduler = Scheduler(self, finish_syscall)
        self.processes: list[Process] = []
        self._pids: dict[int, Process] = {}
        self._cached_stacks: list[KernelStack] = []
        self.last_pid = 0
        self.held: Process | None = None  # ended, but its memory is kept for people to look at
        self._hold_first = self._started = False
        self.oom_kills = 0
        self.boot_frames = self.frames.used
        self._boot_tables = self.manager.kernel_half.table_count
        machine.monitor = self._enter_function

    # --- for people -------------------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """The model's clock in cycles."""
        return self.machine.clock.now

    def nanoseconds(self) -> int:
        """The model's time since boot."""
        return self.machine.clock.nanoseconds(self.now)

    def cycles(self, nanoseconds: int) -> int:
        """So much of the model's time in cycles."""
        return self.machine.clock.cycles(nanoseconds)

    def ticks(self, cycles: int) -> int:
        """So many cycles in 1/100 s, the unit of times(2) (USER_HZ)."""
        return self.machine.clock.nanoseconds(cycles) // TICK

    @property
    def current(self) -> Process:
        """The process that runs now. Raises KernelPanic if there is none."""
        if self.scheduler.current is None:
            raise KernelPanic("no process is running")
        return self.scheduler.current

    def process(self, pid: int) -> Process:
        """The process with a number that lives or is a zombie; else the last one that had it. Raises InputError."""
        if pid in self._pids:
            return self._pids[pid]
        for process in reversed(self.processes):
            if process.pid == pid:
                return process
        raise InputError(f"there is no process {pid}")

    def user_registers(self, pid: int) -> UserRegisters:
        """A process's registers as its program has them, to look at and to change. Raises InputError."""
        return UserRegisters(self, self.process(pid))

    @property
    def pids(self) -> tuple[int, ...]:
        """Numbers that are in use."""
        return tuple(self._pids)

    def symbolize(self, va: int) -> str:
        """A kernel or user address as `symbol+offset`."""
        if va < 1 << 63:
            current = self.scheduler.current
            return current.image.symbolize(va) if current else f"{va:#x}"
        if va in self.text.works:
            return self.text.works[va]
        function = self.text.functions.get(va & ~(PAGE_SIZE - 1))
        if function is not None:
            offset = va % PAGE_SIZE
            return f"{function.name}+{offset:#x}" if offset else function.name
        return self.text.image.symbolize(va)

    # --- processes --------------------------------------------------------------------------------------------------

    def spawn(self, image: Image, argv: Sequence[str] | None = None) -> Process:
        """Make a process that will run a program.

        Raises InputError for an image that does not fit the user half, or for which there is no memory.
        """
        arguments = tuple(argv) if argv is not None else (image.path,)
        with self.kernel_mode():
            try:
                return self._spawn(image, arguments)
            except Errno:
                raise InputError(f"{image.path}: no memory left for another process; give it more RAM") from None

    def _spawn(self, image: Image, arguments: tuple[str, ...]) -> Process:
        """Raises InputError and Errno(ENOMEM), with nothing allocated."""
        mm, loaded = AddressSpace(self.manager), with_file(image)
        file = open_program(self, loaded, named=loaded is image)
        try:
            pointer = load_program(self, mm, file, loaded, arguments)
            stack = self.new_stack()
        except (InputError, Errno):
            mm.destroy()
            raise
        finally:
            file.put()
        thread = self.scheduler.new_thread(self.text.symbols["ret_from_fork"])
        process = Process(self.new_pid(), image, mm, stack, thread, FilesStruct.new(self), arguments)
        process.minor_faults = mm.faults_of_exec
        self.memory.write_va(process.registers_va, first_registers(image.entry, pointer))
        self.add(process)
        if self._populate:
            self.faults.populate(process, 0, TASK_SIZE)
        if self.events.wants("exec"):
            self.events.emit(ExecEvent(self.now, process.pid, image.path, image.entry))
        return process

    def add(self, process: Process) -> None:
        """A new process has its number and its turn."""
        process.started = self.now
        self.processes.append(process)
        self._pids[process.pid] = process
        if process.parent is not None:
            process.parent.children.append(process)
        self.scheduler.start(process)

    def new_pid(self) -> int:
        """A number that nobody has (alloc_pid). Raises Errno(EAGAIN)."""
        last = pid_max.value(self) - 1
        for _ in range(last):
            self.last_pid = self.last_pid % last + 1
            if self.last_pid not in self._pids:
                return self.last_pid
        raise Errno(errno.EAGAIN)

    def free_pid(self, process: Process) -> None:
        """Nobody asks for this number any more."""
        self._pids.pop(process.pid, None)

    def new_stack(self) -> KernelStack:
        """A kernel stack in the vmalloc area. Raises Errno(ENOMEM)."""
        if self._cached_stacks:
            stack = self._cached_stacks.pop()
            self.memory.write_va(stack.bottom, bytes(stack.top - stack.bottom))
            return stack
        return KernelStack(self.manager.vmalloc.allocate(KERNEL_STACK_PAGES))

    def free_stack(self, stack: KernelStack) -> None:
        """Give back a kernel stack. A few are kept: to unmap one is to flush it everywhere (free_thread_stack)."""
        if len(self._cached_stacks) < NR_CACHED_STACKS:
            self._cached_stacks.append(stack)
        else:
            self.manager.vmalloc.free(stack.bottom)

    def release_mm(self, mm: AddressSpace) -> None:
        """One user of an address space less; the last one takes it away (mmput)."""
        mm.users -= 1
        if mm.users == 0:
            mm.destroy()

    def end(self, process: Process, *, code: int | None = None, signal: int | None = None) -> None:
        """End a process with all its threads."""
        for thread in self.threads(process):
            do_exit(self, thread, code=code, signal=signal)

    def end_other_threads(self, process: Process) -> None:
        """End all threads of a process but one (de_thread)."""
        for thread in self.threads(process):
            if thread is not process:
                do_exit(self, thread, code=0)

    def send_signal(self, process: Process, number: int, *, as_itself: bool = False) -> None:
        """Send a signal from the kernel, or as if the process had sent it itself."""
        send_signal(self, process, SigInfo(number, SI_USER, pid=process.tgid) if as_itself else SigInfo(number))

    def living(self, pid: int) -> Process | None:
        """The process with a number, if it has not ended."""
        process = self._pids.get(pid)
        return process if process is not None and process.alive else None

    def living_processes(self) -> list[Process]:
        """Everybody who has not ended, threads too."""
        return [process for process in self._pids.values() if process.alive]

    def threads(self, process: Process) -> list[Process]:
        """All threads of a process that have not ended."""
        return [thread for thread in self._pids.values() if thread.tgid == process.tgid and thread.alive]

    def leader(self, process: Process) -> Process:
        """The thread whose number is the process's."""
        return self._pids.get(process.tgid, process)

    def holds(self, process: Process) -> bool:
        """Whether a process that ends shall keep its memory, for people to look at."""
        return self._hold_first and process is self.processes[0]

    def leave_host(self) -> None:
        """From now on the kernel has no effect on the host but its output: files and swap area change in memory only.

        Whoever runs the same program twice, as a debugger that goes backwards does, wants this.
        """
        self.file_system.leave_host()
        if self.manager.swap.device is not None:
            self.manager.swap.device.file.leave_host()

    def close(self) -> None:
        """End every process that is still there; afterwards nothing is allocated that was not after boot."""
        with self.kernel_mode():
            self._hold_first = False
            for process in self.processes:
                if process.alive:
                    process.signal = SIGKILL
                    self.scheduler.forget(process)
                    release(self, process)
                self.free_pid(process)
            if self.held is not None:
                release(self, self.held)
                self.held = None
            while self._cached_stacks:
                self.manager.vmalloc.free(self._cached_stacks.pop().bottom)
            self.file_system.close()
            self.manager.huge.free_zero_page()
            self.manager.hugetlb.close()
            self.manager.swap.close()

    @property
    def leaked_frames(self) -> int:
        """Frames that are allocated now and that nobody can account for."""
        spaces = {process.mm for process in self.processes if process.alive or process is self.held}
        stacks = sum(pages for _, pages in self.manager.vmalloc.areas)
        tables = sum(mm.page_table.table_count for mm in spaces)
        tables += self.manager.kernel_half.table_count - self._boot_tables
        huge = self.manager.huge.kept_frames + self.manager.hugetlb.frames
        known = stacks + tables + self.page_cache.pages + self.pages.anonymous + huge
        return self.frames.used - self.boot_frames - known

    def leaks(self) -> dict[str, int]:
        """What is still there after `close`, by kind: nothing, if the kernel counts right."""
        left = {
            "frames": self.leaked_frames,
            "page cache": self.page_cache.pages,
            "reverse mappings": self.pages.mapped_frames,
            "anonymous pages": self.pages.anonymous,
            "compound pages": len(self.pages.compounds),
            "partly mapped huge pages": len(self.pages.deferred),
            "reserved huge pages": sum(pool.reserved for pool in self.manager.hugetlb.pools.values()),
            "huge pages of pools": self.manager.hugetlb.frames,
            "swap slots": self.manager.swap.used,
            "pids": len(self._pids),
            "committed pages": self.manager.overcommit.committed,
            "vmalloc areas": len(self.manager.vmalloc.areas),
        }
        return {name: count for name, count in left.items() if count}

    @contextmanager
    def kernel_mode(self) -> Iterator[None]:
        """For work that people ask for between runs: the machine may have been stopped in user mode."""
        cpl = self.machine.cpl
        self.machine.set_cpl(0)
        try:
            yield
        finally:
            self.machine.set_cpl(cpl)

    # --- running ----------------------------------------------------------------------------------------------------

    def run(self, until: str | None = None, *, before_exit: bool = False) -> Result:
        """Run until every process has ended, before the symbol `until` of the first process executes, or, with
        `before_exit`, when the first process is about to end and its memory is still there.

        Raises InputError for an unknown symbol or if there is no process, KernelPanic for a bug of the kernel's, and
        HookError when a hook raised something.
        """
        if not self.processes:
            raise InputError("there is no process to run")
        first = self.processes[0]
        if until is not None:
            self.machine.stop_before(first.image.address_of(until))
        self._hold_first = before_exit
        halt = Halt.STOPPED
        if not self._started or self.scheduler.current is None:
            self._started = True
            self.scheduler.start_timer()
            self.scheduler.schedule()
        if self.scheduler.current is not None:
            halt = self.machine.run()
        self.machine.raise_from_hooks()
        self.scheduler.account()
        stuck = self.scheduler.is_stuck
        return Result(first.exit_code, first.signal, halt, tuple(self.processes), statistics(self), stuck)

    def _enter_function(self, rip: int) -> None:
        """Execution reached a Python function in kernel text."""
        function = self.text.at(rip)
        self.machine.charge("kernel_work", function.cycles)
        self.scheduler.has_run = True
        gprs, pid = self.machine.cpu.gprs, self.machine.pid
        if self.events.wants("function_entry"):
            self.events.emit(FunctionEntry(self.now, pid, function.name))
        result = function.body(self, gprs[RDI], gprs[RSI])
        if self.events.wants("function_exit"):
            self.events.emit(FunctionExit(self.now, pid, function.name))
        if result is not None and self.machine.cpu.rip == rip:
            gprs[RAX] = result & MASK64

    def _fault_in(self, address: int, error_code: int) -> bool:
        """A fault of the kernel on user memory."""
        return self.faults.handle(self.current, address, error_code, self.machine.cpu.rip).resolved
