"""Handle page faults.

The lecture's slide, on a real kernel: cr3 runs small programs, and every page fault on their anonymous memory (heap,
stack, .bss) comes to your function. Write

    handle_page_fault(mm, address, error_code) -> True if the access can be repeated, False for SIGSEGV

    mm.find_vma(address)       the promise that covers the address, or None. It has start, end (the first address
                               after it), readable, writable and executable
    mm.allocate_pfn()          a free frame, with whatever its last owner left in it
    mm.clear(pfn)              fill a frame with zeros
    mm.install_pte(address, pfn, writable)
                               map the page that begins at `address` to a frame, for user mode

Bits of the error code (SDM Vol. 3A 4.7): 0 the page was present, 1 it was a store, 2 user mode, 4 an instruction fetch.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from emu import Machine
from emu.assembler import assemble_source
from emu.pte import PAGE_SIZE
from kernel import Kernel
from kernel.address_space import AddressSpace
from kernel.fault import FaultHandler, FaultResult
from kernel.pte import user_pte
from kernel.vma import VmaFlag

from .exercise import Exercise, Solution, Wrong

if TYPE_CHECKING:
    from kernel import Result

__all__ = ["EXERCISE"]

EXERCISE: Final = Exercise(5, "fault", "Handle page faults", __doc__)
RUBBISH: Final = b"\xcc"
SIGSEGV: Final = 11
MMAP: Final = "mov eax, 9; xor edi, edi; mov esi, 0x10000; mov r10d, 0x22; mov r8, -1; xor r9d, r9d; syscall"
MUNMAP: Final = "mov eax, 11; mov rdi, rbx; mov esi, 0x8000; syscall"
EXIT: Final = "mov eax, 60; syscall"


@dataclass(frozen=True, slots=True)
class Promise:
    """A VMA as a student sees it."""

    start: int
    end: int
    readable: bool
    writable: bool
    executable: bool


class Memory:
    """What a student's handler may do: a few operations on one process's memory."""

    def __init__(self, kernel: Kernel, mm: AddressSpace) -> None:
        self._kernel, self._mm = kernel, mm
        self._free: list[int] = []

    def find_vma(self, address: int) -> Promise | None:
        """The promise that covers an address."""
        vma = self._mm.vmas.find(address)
        if vma is None:
            return None
        rights = (vma.flags & flag != 0 for flag in (VmaFlag.READ, VmaFlag.WRITE, VmaFlag.EXEC))
        return Promise(vma.start, vma.end, *rights)

    def allocate_pfn(self) -> int:
        """A frame full of rubbish."""
        pfn = self._kernel.pages.allocate()
        self._kernel.machine.ram.write(pfn * PAGE_SIZE, RUBBISH * PAGE_SIZE)
        self._free.append(pfn)
        return pfn

    def clear(self, pfn: int) -> None:
        """Zeros."""
        self._own(pfn)
        self._kernel.memory.clear_frame(pfn)

    def install_pte(self, address: int, pfn: int, writable: bool) -> None:
        """Map a page. The frame changes hands: the kernel's own books want to know who has it."""
        self._own(pfn)
        if address % PAGE_SIZE:
            raise Wrong(f"install_pte({address:#x}): a page begins at a multiple of {PAGE_SIZE}, and this is none")
        vma = self._mm.vmas.find(address)
        if vma is None:
            raise Wrong(f"install_pte({address:#x}): nothing was promised there, and still a page was mapped")
        if writable and not vma.flags & VmaFlag.WRITE:
            raise Wrong(f"install_pte({address:#x}): the program may not write there, but the entry permits it")
        mapped = self._kernel.pages.allocate_mapped(self._mm, address)
        self._kernel.memory.copy_frame(mapped, pfn)
        entry = user_pte(mapped, vma.flags, writable=writable, dirty=writable)
        self._mm.page_table.install(address, entry)

    def _own(self, pfn: int) -> None:
        if pfn not in self._free:
            raise Wrong(f"frame {pfn!r} is not one that allocate_pfn() returned for this fault")

    def give_back(self) -> None:
        """The fault is over: what was allocated for it was copied, or is not needed."""
        for pfn in self._free:
            self._kernel.pages.put(pfn)


class Handler(FaultHandler):
    """cr3's own handler, with the student's for anonymous pages that are not there."""

    def __init__(self, kernel: Kernel, solution: Solution) -> None:
        super().__init__(kernel)
        self._solution, self._machine_kernel = solution, kernel

    def handle_page_fault(self, mm: AddressSpace, address: int, error_code: int) -> FaultResult:
        """Ask the student, unless it is a page of the program's file or a stack that grows."""
        vma = mm.vmas.find(address) or mm.grow_stack(address)
        if vma is not None and vma.backing is not None:
            return super().handle_page_fault(mm, address, error_code)
        before = mm.page_table.lookup(address)
        memory = Memory(self._machine_kernel, mm)
        try:
            handled = self._solution.call("handle_page_fault", memory, address, error_code)
        finally:
            memory.give_back()
        if handled:
            self._must_help(mm, address, error_code, before)
        return FaultResult.DEMAND_ZERO if handled else FaultResult.BAD_ADDRESS

    @staticmethod
    def _must_help(mm: AddressSpace, address: int, error_code: int, before: int) -> None:
        """The access will be repeated: something must be different now."""
        call = f"handle_page_fault({address:#x}, {error_code:#x}) said that the access can be repeated, but"
        if before:
            raise Wrong(
                f"{call} the page was there already. Either the access is not permitted, and the program would fault "
                "for ever, or the first fault on this page did not permit enough: each page shall fault once"
            )
        if not mm.page_table.lookup(address):
            raise Wrong(f"{call} the page is still not mapped: it would fault for ever")


def _run(solution: Solution, source: str) -> Result:
    """Run a program on a kernel with the student's handler."""
    kernel = Kernel(Machine(ram="16M"), stdout=io.BytesIO())
    kernel.faults = Handler(kernel, solution)
    kernel.spawn(assemble_source(f"_start: {source}; {EXIT}"))
    return kernel.run()


def _expect(solution: Solution, source: str, about: str, *, code: int | None = None) -> None:
    """Run a program that must exit with a code, or be ended by SIGSEGV."""
    result = _run(solution, source)
    if code is None and result.signal != SIGSEGV:
        raise Wrong(f"{about} must end in SIGSEGV, but the program went on")
    if code is not None and result.signal is not None:
        raise Wrong(f"{about} is permitted, but the program was ended by a signal")
    if code is not None and result.exit_code != code:
        raise Wrong(f"{about} gave {result.exit_code}, expected {code}")


@EXERCISE.check("memory that was promised can be written and read")
def promised(solution: Solution) -> None:
    program = f"mov edx, 3; {MMAP}; mov byte ptr [rax + 0x2345], 7; movzx edi, byte ptr [rax + 0x2345]"
    _expect(solution, program, "a store to a mapping that can be written, and a load from it,", code=7)
    _expect(solution, "push 9; pop rdi; sub rsp, 0x5000; push 4; pop rax; add edi, eax", "a growing stack", code=13)


@EXERCISE.check("new memory holds zeros")
def zeros(solution: Solution) -> None:
    program = f"mov edx, 3; {MMAP}; mov byte ptr [rax], 1; movzx edi, byte ptr [rax + 9]"
    about = "the first load from a byte that the program never wrote"
    try:
        _expect(solution, program, about, code=0)
    except Wrong as wrong:
        raise Wrong(f"{wrong}. Whose data is that?") from None


@EXERCISE.check("what was never promised is refused")
def not_promised(solution: Solution) -> None:
    _expect(solution, "mov eax, [0x10000]; xor edi, edi", "a load from an address without any mapping")
    half = f"mov edx, 3; {MMAP}; lea rbx, [rax + 0x8000]; {MUNMAP}; mov byte ptr [rbx], 1; xor edi, edi"
    _expect(solution, half, "a store to the first byte after a mapping")


@EXERCISE.check("the rights of the promise count")
def rights(solution: Solution) -> None:
    _expect(solution, f"mov edx, 1; {MMAP}; mov byte ptr [rax], 1; xor edi, edi", "a store to read-only memory")
    _expect(solution, f"mov edx, 0; {MMAP}; mov eax, [rax]; xor edi, edi", "a load from memory without any right")
    _expect(solution, f"mov edx, 3; {MMAP}; mov byte ptr [rax], 0xc3; call rax; xor edi, edi", "a call into data")
    read_then_write = f"mov edx, 1; {MMAP}; mov edi, [rax]; mov byte ptr [rax], 1; xor edi, edi"
    _expect(solution, read_then_write, "a load from, then a store to read-only memory")


@EXERCISE.check("each page faults once")
def once(solution: Solution) -> None:
    touches = "; ".join(f"mov edi, [rax + {n * PAGE_SIZE + 8}]; mov [rax + {n * PAGE_SIZE}], edi" for n in range(8))
    _expect(solution, f"mov edx, 3; {MMAP}; {touches}; mov edi, 5", "a load and a store on each of 8 pages", code=5)
