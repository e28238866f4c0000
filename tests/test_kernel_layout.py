"""What boot maps: where everything is, and what may be done there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from conftest import MakeKernel

from emu import PAGE_SIZE, InputError, Machine, Pte, page_walk
from emu.assembler import assemble_source
from emu.pte import ADDRESS_MASK, describe_entry
from kernel import Kernel
from kernel.layout import CPU_ENTRY_AREA, DIRECT_MAP, KERNEL_TEXT, STACK_TOP, TASK_SIZE, VMALLOC, direct_map

HUGE = 2 << 20
EXIT = "_start: mov edi, 7; mov eax, 60; syscall"


@dataclass(frozen=True)
class Page:
    """One mapped page. `flags` are those that every level grants."""

    va: int
    pa: int
    size: int
    flags: Pte


def mapped(kernel: Kernel, cr3: int) -> Iterator[Page]:
    """All pages of a page table, in order."""
    yield from _mapped(kernel, cr3 & ADDRESS_MASK, 4, 0, Pte.P | Pte.W | Pte.U)


def _mapped(kernel: Kernel, table: int, level: int, base: int, granted: Pte) -> Iterator[Page]:
    for index in range(512):
        entry = kernel.machine.ram.load64(table + 8 * index)
        if not entry & Pte.P:
            continue
        size = 1 << (3 + 9 * level)
        va = base + index * size
        if level == 4 and index >= 256:
            va |= 0xFFFF << 48
        rights = granted & Pte(entry) | Pte(entry & (Pte.NX | Pte.G))
        if level == 1 or entry & Pte.PS:
            yield Page(va, entry & ADDRESS_MASK & ~(size - 1), size, rights)
        else:
            yield from _mapped(kernel, entry & ADDRESS_MASK, level - 1, va, rights)


@pytest.fixture
def kernel(make_kernel: MakeKernel) -> Kernel:
    return make_kernel({"ram": "9M"})


@pytest.fixture
def pages(kernel: Kernel) -> list[Page]:
    """What a kernel maps after boot."""
    return list(mapped(kernel, kernel.machine.control.cr3))


def within(pages: list[Page], start: int, size: int) -> list[Page]:
    return [page for page in pages if start <= page.va < start + size]


def test_all_of_ram_is_in_the_direct_map(kernel: Kernel, pages: list[Page]) -> None:
    direct = within(pages, DIRECT_MAP, 1 << 40)
    assert sum(page.size for page in direct) == kernel.machine.ram.size
    assert all(page.va == direct_map(page.pa) for page in direct)


def test_the_direct_map_has_large_pages_where_ram_fills_them(pages: list[Page]) -> None:
    sizes = [page.size for page in within(pages, DIRECT_MAP, 1 << 40)]
    assert sizes == [HUGE] * 4 + [PAGE_SIZE] * 256  # 9 MiB


def test_no_page_of_the_kernel_is_the_users(pages: list[Page]) -> None:
    assert pages
    assert not any(page.flags & Pte.U for page in pages)


def test_every_page_of_the_kernel_stays_in_the_tlb_when_cr3_changes(pages: list[Page]) -> None:
    assert all(page.flags & Pte.G for page in pages)


def test_what_is_writable_is_not_executable(pages: list[Page]) -> None:
    for page in pages:
        assert bool(page.flags & Pte.W) == bool(page.flags & Pte.NX), describe_entry(page.flags)


def test_only_kernel_text_is_executable(pages: list[Page]) -> None:
    code = [page for page in pages if not page.flags & Pte.NX]
    assert code == within(pages, KERNEL_TEXT, 512 << 20)


def test_the_entry_code_is_what_entry_s_assembles_to(kernel: Kernel, pages: list[Page]) -> None:
    (segment,) = kernel.text.image.segments
    assert segment.va == KERNEL_TEXT
    page = next(page for page in pages if page.va == segment.va)
    assert kernel.machine.ram.read(page.pa, len(segment.data)) == segment.data


def test_every_python_function_has_a_page_of_its_own_to_be_fetched(kernel: Kernel, pages: list[Page]) -> None:
    at = {page.va: page for page in pages}
    assert {"do_syscall_64", "exc_page_fault", "exc_double_fault"} <= {f.name for f in kernel.text.functions.values()}
    for va, function in kernel.text.functions.items():
        assert kernel.text.symbols[function.name] == va
        assert kernel.machine.ram.read(at[va].pa, 4) == bytes.fromhex("0f01c1 c3")  # vmcall; ret


def test_the_entry_area_has_guard_pages_around_the_double_fault_stack(pages: list[Page]) -> None:
    found = [(page.va - CPU_ENTRY_AREA) // PAGE_SIZE for page in within(pages, CPU_ENTRY_AREA, 1 << 30)]
    assert found == [0, 1, 2, 3, 6, 7]  # IDT, GDT, entry stack, TSS; two pages of stack
    assert all(page.flags & Pte.NX for page in within(pages, CPU_ENTRY_AREA, 1 << 30))


def test_kernel_stacks_have_four_pages_above_an_empty_one(kernel: Kernel) -> None:
    processes = [kernel.spawn(assemble_source(EXIT)) for _ in range(3)]
    stacks = within(list(mapped(kernel, kernel.machine.control.cr3)), VMALLOC, 1 << 40)
    for process in processes:
        own = within(stacks, process.stack.bottom, process.stack.top - process.stack.bottom)
        assert [page.va for page in own] == [process.stack.bottom + i * PAGE_SIZE for i in range(4)]
        assert not within(stacks, process.stack.bottom - PAGE_SIZE, PAGE_SIZE)


def test_the_kernel_half_is_the_same_in_every_process_and_a_later_page_is_seen_by_all(kernel: Kernel) -> None:
    first = kernel.spawn(assemble_source(EXIT))
    second = kernel.spawn(assemble_source(EXIT))
    third = kernel.spawn(assemble_source(EXIT))
    halves = [
        [page for page in mapped(kernel, process.mm.page_table.pgd) if page.va >> 63]
        for process in (first, second, third)
    ]
    assert halves[0] == halves[1] == halves[2]
    assert within(halves[0], third.stack.bottom, PAGE_SIZE)


def test_a_fresh_process_has_one_page_the_top_of_its_stack(kernel: Kernel) -> None:
    process = kernel.spawn(assemble_source(EXIT))
    (page,) = [page for page in mapped(kernel, process.mm.page_table.pgd) if not page.va >> 63]
    assert page.va == TASK_SIZE - PAGE_SIZE
    assert page.flags == Pte.P | Pte.W | Pte.U | Pte.NX


def test_nothing_is_mapped_at_null(kernel: Kernel) -> None:
    process = kernel.spawn(assemble_source(EXIT))
    assert page_walk(kernel.machine.ram, process.mm.page_table.pgd, 0).pa is None


def test_no_frame_is_mapped_writable_at_two_kernel_addresses_except_through_the_direct_map(pages: list[Page]) -> None:
    elsewhere = [page.pa for page in pages if page.va >= VMALLOC and page.flags & Pte.W]
    assert len(set(elsewhere)) == len(elsewhere)


# --- memory that is too small ---------------------------------------------------------------------


@pytest.mark.parametrize("ram", ["64K", "128K"])
def test_ram_that_is_too_small_for_the_kernel_is_refused(ram: str) -> None:
    with pytest.raises(InputError, match=rf"RAM of {ram} is too small for the kernel"):
        Kernel(Machine(ram=ram))


@pytest.mark.parametrize("ram", ["212K", "220K", "232K"])
def test_ram_that_is_too_small_for_a_process_is_refused_and_nothing_is_left_behind(
    ram: str, make_kernel: MakeKernel
) -> None:
    kernel = make_kernel({"ram": ram})
    with pytest.raises(InputError, match="no memory left for another process"):
        kernel.spawn(assemble_source(EXIT))
    assert kernel.leaks() == {}
    assert kernel.processes == []


def test_a_program_that_wants_to_live_in_the_kernel_half_is_refused_and_nothing_is_left_behind(kernel: Kernel) -> None:
    image = assemble_source(EXIT, addresses={".text": 0xFFFF_FFFF_8000_0000})
    with pytest.raises(InputError, match=r"segment \.text at 0xffffffff80000000 is outside the user half"):
        kernel.spawn(image)
    assert kernel.leaks() == {}


def test_arguments_that_do_not_fit_are_refused_and_nothing_is_left_behind(kernel: Kernel) -> None:
    with pytest.raises(InputError, match=r"arguments of .* are longer than 32768 bytes"):
        kernel.spawn(assemble_source(EXIT), ["x" * 40000])
    assert kernel.leaks() == {}


# --- address-space layout randomisation ----------------------------------------------------------

PLACES = """
_start: xor edi, edi; mov eax, 12; syscall; mov rbx, rax
        xor edi, edi; mov esi, 4096; mov edx, 3; mov r10d, 0x22; mov r8, -1; xor r9d, r9d; mov eax, 9; syscall
        mov r12, rax; mov r13, rsp
        xor edi, edi; mov eax, 60; syscall"""


def places(seed: int, make_kernel: MakeKernel, **options: bool) -> tuple[int, int, int]:
    """Where brk, a mapping and the stack are."""
    kernel = make_kernel({"seed": seed}, **options)
    process = kernel.spawn(assemble_source(PLACES))
    kernel.run(before_exit=True)
    *_, mapping, stack = process.mm.maps()
    return process.mm.heap_start, mapping.start, stack.end


def test_addresses_are_the_same_in_every_run_unless_randomised_with_another_seed(make_kernel: MakeKernel) -> None:
    assert places(1, make_kernel) == places(2, make_kernel)
    assert places(1, make_kernel, aslr=True) == places(1, make_kernel, aslr=True)
    first, second = places(1, make_kernel, aslr=True), places(2, make_kernel, aslr=True)
    assert all(one != other for one, other in zip(first, second, strict=True))
    heap, mapping, stack = first
    assert all(place % PAGE_SIZE == 0 for place in first)
    assert heap < mapping < stack <= STACK_TOP
