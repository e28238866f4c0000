"""What the TLB remembers is what the guest gets: each flush that the kernel makes has a program that needs it.

Every test runs a program twice: as the kernel is, and with one kind of flush left out (`kernel.manager.tlb.skip`). What
the program then reads is wrong, in the way that a real kernel with this bug would be wrong.
"""

from __future__ import annotations

import pytest
from conftest import MakeKernel
from small_programs import small_program

from emu.assembler import assemble_source

RIGHT, WRONG = 42, 7

CASES = {
    "munmap": (
        """
        anonymous 4096; mov rbx, rax; mov qword ptr [rbx], 7
        invoke MUNMAP, rbx, 4096
        anonymous 4096, 3, 0x32, rbx; mov qword ptr [rbx + 8], 42  # the new page, or still the old one?
        cmp qword ptr [rbx], 7; mov edi, 7; je 1f; mov edi, 42; 1:""",
        None,
    ),
    "mprotect": (
        """
        anonymous 4096; mov rbx, rax; mov qword ptr [rbx], 1
        invoke MPROTECT, rbx, 4096, 1
        mov qword ptr [rbx], 2; mov edi, 7""",  # a write that must not happen
        11,
    ),
    "mremap": (
        """
        anonymous 4096, 3, 0x32, 0x10000000; mov rbx, rax; mov qword ptr [rbx], 7
        invoke MREMAP, rbx, 4096, 4096, 5, 0      # MAYMOVE | DONTUNMAP: the old place stays, without its page
        mov edi, [rbx]; add edi, 42; cmp edi, 49; jne 1f; mov edi, 7; 1:""",
        None,
    ),
    "madvise": (
        """
        anonymous 4096; mov rbx, rax; mov qword ptr [rbx], 7
        invoke MADVISE, rbx, 4096, 4
        mov edi, [rbx]; add edi, 42; cmp edi, 49; jne 1f; mov edi, 7; 1:""",  # zeros, or the old content?
        None,
    ),
    "fork": (
        """
        anonymous 4096; mov rbx, rax; mov qword ptr [rbx], 42
        invoke FORK; test eax, eax; jz 1f
        mov qword ptr [rbx], 7                    # the parent's own copy, or the page that the child reads?
        mov r12, rax; invoke WAIT4, r12, rsp, 0, 0; mov edi, [rsp]; shr edi, 8; jmp 2f
        1: mov edi, [rbx]; 2:""",
        None,
    ),
    "cow": (
        """
        anonymous 4096; mov rbx, rax; mov qword ptr [rbx], 7
        invoke FORK; test eax, eax; jz 1f
        mov r12, rax; invoke SCHED_YIELD
        mov qword ptr [rbx], 42                   # by now the child has a copy of its own
        invoke WAIT4, r12, rsp, 0, 0; mov edi, [rsp]; shr edi, 8; jmp 2f
        1: mov ecx, [rbx]
        invoke MADVISE, rbx, 4096, 23             # POPULATE_WRITE makes the copy without a fault
        invoke SCHED_YIELD
        mov edi, 42; cmp qword ptr [rbx], 7; je 2f; mov edi, 7; 2:""",
        None,
    ),
    "collapse": (
        """
        anonymous 0x200000, 3, 0x32, 0x10000000; mov rbx, rax; mov qword ptr [rbx], 7
        invoke MADVISE, rbx, 0x200000, 25         # COLLAPSE copies the small page to a huge one
        mov qword ptr [rbx], 42                   # to the huge page, or to the small one that is nobody's any more?
        invoke FORK; test eax, eax; jnz 1f; invoke EXIT, 0; 1:
        mov edi, [rbx]""",
        None,
    ),
    "split": (
        """
        anonymous 0x200000, 3, 0x32, 0x10000000; mov rbx, rax; invoke MADVISE, rbx, 0x200000, 14
        mov qword ptr [rbx], 1                    # one huge page, in one entry of the TLB
        invoke MADVISE, rbx, 4096, 21             # PAGEOUT of a part splits it, and what holds only zeros goes
        mov qword ptr [rbx + 0x5000], 42          # to a page of its own, or to the frame that is nobody's any more?
        invoke FORK; test eax, eax; jnz 1f; invoke EXIT, 0; 1:
        mov edi, 42; cmp [rbx + 0x5000], rdi; je 2f; mov edi, 7; 2:""",
        None,
    ),
}
EXIT = "mov eax, EXIT; syscall"


def ending(body: str, make_kernel: MakeKernel, *skipped: str) -> tuple[int | None, int | None]:
    kernel = make_kernel()
    kernel.manager.tlb.skip.update(skipped)
    kernel.spawn(assemble_source(small_program(f"{body}; {EXIT}")))
    result = kernel.run()
    return result.exit_code, result.signal


@pytest.mark.parametrize("flush", CASES)
def test_a_flush_left_out_shows_old_memory(flush: str, make_kernel: MakeKernel) -> None:
    body, signal = CASES[flush]
    assert ending(body, make_kernel) == ((None, signal) if signal else (RIGHT, None))
    assert ending(body, make_kernel, flush) == (WRONG, None)


# --- the kernel half is one for all -----------------------------------------------------------------------------------

SPIN = "1: dec dword ptr [rsp - 64]; jnz 1b"


def test_kernel_memory_made_while_one_process_runs_is_seen_while_another_does(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    kernel.spawn(assemble_source(small_program("invoke GETPID")))
    kernel.spawn(assemble_source(small_program("invoke GETPID; invoke GETPID")))
    seen: list[tuple[int, int]] = []
    areas: list[int] = []

    @kernel.on("syscall")
    def use(event: object) -> None:
        pid = kernel.current.pid
        if not areas:
            areas.append(kernel.manager.vmalloc.allocate(3))
            kernel.memory.store_va(areas[0] + 8192, 0x1234)
        seen.append((pid, kernel.memory.load_va(areas[0] + 8192)))

    kernel.run()
    assert {pid for pid, _ in seen} == {1, 2}
    assert {value for _, value in seen} == {0x1234}
    kernel.manager.vmalloc.free(areas[0])


def test_without_the_shared_entry_only_its_maker_sees_it(make_kernel: MakeKernel) -> None:
    """A PGD entry made after the others inherited theirs is in one table only."""
    kernel = make_kernel()
    first = kernel.spawn(assemble_source(small_program("invoke GETPID")))
    second = kernel.spawn(assemble_source(small_program("invoke GETPID")))
    elsewhere = 0xFFFF_D000_0000_0000
    first.mm.page_table.install(elsewhere, kernel.manager.zero_pfn << 12 | 1)
    assert kernel.page_walk(first, elsewhere).pa is not None
    assert kernel.page_walk(second, elsewhere).pa is None
    shared = kernel.manager.vmalloc.allocate(1)
    assert kernel.page_walk(first, shared).pa == kernel.page_walk(second, shared).pa is not None
    kernel.manager.vmalloc.free(shared)
