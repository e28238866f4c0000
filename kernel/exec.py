"""Loading a program: promises for its segments, a stack with its arguments, and nothing else (fs/binfmt_elf.c).

No page of the program is read here. Every one arrives later, by a page fault, when it is touched first. Only the
stack's top page exists from the start, because the kernel itself writes the arguments to it.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from emu.exceptions import InputError
from emu.image import Image, Segment
from emu.pte import PAGE_SHIFT, PAGE_SIZE, ErrorCode

from .address_space import AddressSpace
from .exceptions import Errno
from .files.sysctl import randomize_va_space
from .layout import MMAP_BASE, MMAP_MIN_ADDR, STACK_TOP, TASK_SIZE, page_align
from .pte import pfn_of
from .vma import Backing, VmaFlag

if TYPE_CHECKING:
    from .files.file import File
    from .kernel import Kernel

__all__ = ["load_program"]

Strings = Sequence[str]
PAGE_MASK: Final = ~(PAGE_SIZE - 1)
STACK_PAGES: Final = 1 << 22
"""Places that the stack's top can have with randomisation (STACK_RND_MASK in asm/elf.h): 16 GiB."""
MMAP_BITS: Final = 28
"""Of the mmap area's place, in pages (CONFIG_ARCH_MMAP_RND_BITS)."""
BRK_RANGE: Final = 32 << 20
"""How far brk may begin behind the program (arch_randomize_brk)."""
FIRST_STACK_PAGES: Final = 33
"""Pages of the stack's VMA at exec: 128 KiB below the arguments (setup_arg_pages in fs/exec.c)."""
ARGUMENTS_LIMIT: Final = 32 << 10
"""Bytes of arguments that fit: a quarter of the first stack."""


class Auxv:
    """Keys of the auxiliary vector (include/uapi/linux/auxvec.h)."""

    NULL: Final = 0
    PHDR: Final = 3
    PHENT: Final = 4
    PHNUM: Final = 5
    PAGESZ: Final = 6
    ENTRY: Final = 9
    UID: Final = 11
    EUID: Final = 12
    GID: Final = 13
    EGID: Final = 14
    SECURE: Final = 23
    HWCAP: Final = 16
    CLKTCK: Final = 17
    RANDOM: Final = 25
    EXECFN: Final = 31


def _flags(segment: Segment) -> int:
    flags = VmaFlag.MAY_ALL
    flags |= VmaFlag.READ if segment.readable else 0
    flags |= VmaFlag.WRITE if segment.writable else 0
    return flags | (VmaFlag.EXEC if segment.executable else 0)


def _encode(string: str) -> bytes:
    return string.encode("utf-8", "surrogateescape") + b"\0"


def load_program(kernel: Kernel, mm: AddressSpace, file: File, image: Image, argv: Strings, envp: Strings = ()) -> int:
    """Promise the segments of the program in a file, and its stack, in an empty address space.

    Returns the first stack pointer. Raises InputError for a place that a segment cannot have, Errno: ENODEV for a
    file that cannot be mapped, ENOMEM.
    """
    mm.exe = file.get()
    _, backing = file.mmap(VmaFlag.MAY_ALL)
    assert backing is not None
    level = randomize_va_space.value(kernel)
    if level:
        _randomize(kernel, mm)
    load_image(kernel, mm, backing, image)
    if level > 1:
        mm.heap_start = mm.heap_end = mm.heap_start + (kernel.random.randrange(BRK_RANGE) & PAGE_MASK)
    return load_stack(kernel, mm, image, argv, envp)


def _randomize(kernel: Kernel, mm: AddressSpace) -> None:
    """Put the stack and the mmap area elsewhere (randomize_stack_top, mmap_base in arch/x86/mm/mmap.c).

    An attacker shall not know where things are; who studies programs wants them to stay where they are.
    """
    mm.stack_top = STACK_TOP - kernel.random.randrange(STACK_PAGES) * PAGE_SIZE
    mm.mmap_base = MMAP_BASE - STACK_PAGES * PAGE_SIZE - kernel.random.randrange(1 << MMAP_BITS) * PAGE_SIZE


def load_image(kernel: Kernel, mm: AddressSpace, file: Backing, image: Image) -> None:
    """Promise the segments of a program, and put the heap above them. Raises InputError, Errno(ENOMEM)."""
    top = MMAP_MIN_ADDR
    for segment in image.segments:
        if segment.size:
            _load_segment(kernel, mm, file, image, segment)
            top = max(top, page_align(segment.end))
    mm.heap_start = mm.heap_end = top
    loaded = [segment for segment in image.segments if segment.data]
    data_end = max((segment.va + len(segment.data) for segment in loaded), default=0)
    mm.data_size = data_end - max((segment.va for segment in loaded), default=0)


def _load_segment(kernel: Kernel, mm: AddressSpace, file: Backing, image: Image, segment: Segment) -> None:
    """One part from the file, and behind it zeros (elf_load)."""
    start, end = segment.va & PAGE_MASK, page_align(segment.end)
    if start < MMAP_MIN_ADDR or end > TASK_SIZE or mm.vmas.overlapping(start, end):
        raise InputError(f"{image.path}: segment {segment.name} at {segment.va:#x} is outside the user half")
    flags = _flags(segment)
    file_end = min(page_align(segment.va + len(segment.data)), end) if segment.data else start
    if file_end > start:
        mm.map(start, file_end - start, flags, backing=file, page_offset=segment.offset >> PAGE_SHIFT, fixed=True)
    if file_end < end:
        mm.map(file_end, end - file_end, flags, fixed=True)
    data_end = segment.va + len(segment.data)
    if segment.writable and segment.size > len(segment.data) and data_end % PAGE_SIZE and segment.data:
        _padzero(kernel, mm, data_end)


def _padzero(kernel: Kernel, mm: AddressSpace, data_end: int) -> None:
    """Clear what the file has behind the data on its last page: .bss begins there. Raises Errno(ENOMEM)."""
    if not kernel.faults.handle_page_fault(mm, data_end, int(ErrorCode.W | ErrorCode.U)).resolved:
        raise Errno(errno.ENOMEM)
    mm.faults_of_exec += 1
    offset = data_end % PAGE_SIZE
    pa = pfn_of(mm.page_table.lookup(data_end)) * PAGE_SIZE
    kernel.memory.write(pa + offset, bytes(PAGE_SIZE - offset))


def load_stack(kernel: Kernel, mm: AddressSpace, image: Image, argv: Strings, envp: Strings = ()) -> int:
    """Make the stack with argc, argv, envp and the auxiliary vector on it. Returns the first stack pointer.

    Raises InputError for arguments that are too long, Errno(ENOMEM).
    """
    content, pointer = _first_stack(image, argv, envp, mm.stack_top)
    start = mm.stack_top - FIRST_STACK_PAGES * PAGE_SIZE
    mm.map(start, mm.stack_top - start, VmaFlag.DATA | VmaFlag.GROWS_DOWN, fixed=True)
    mm.stack_start, mm.strings = pointer, _strings(image, argv, envp)
    for page in range(pointer & PAGE_MASK, mm.stack_top, PAGE_SIZE):
        if not kernel.faults.handle_page_fault(mm, page, int(ErrorCode.W | ErrorCode.U)).resolved:
            raise Errno(errno.ENOMEM)
        mm.faults_of_exec += 1
        first = max(page, pointer)
        pa = pfn_of(mm.page_table.lookup(page)) * PAGE_SIZE
        kernel.memory.write(pa + first - page, content[first - pointer : page + PAGE_SIZE - pointer])
    return pointer


def _strings(image: Image, argv: Strings, envp: Strings) -> tuple[int, int, int, int]:
    """Where arguments and environment begin and end; above them is the path (mm->arg_start and so on)."""
    end = STACK_TOP - 8 - len(_encode(image.path))
    between = end - sum(len(_encode(string)) for string in envp)
    start = between - sum(len(_encode(string)) for string in argv)
    return start, between, between, end


def _first_stack(image: Image, argv: Strings, envp: Strings, top: int) -> tuple[bytes, int]:
    """The bytes at the top of the stack and the address of the first, where RSP will point (x86-64 ABI 3.4.1)."""
    strings = [_encode(string) for string in (*argv, *envp)]
    if sum(map(len, strings)) > ARGUMENTS_LIMIT:
        raise InputError(f"the arguments of {image.path} are longer than {ARGUMENTS_LIMIT} bytes")
    path = _encode(image.path)
    text = b"".join(strings) + path + bytes(8)  # Linux ends the stack with the path and a null word
    strings_va = top - len(text)
    random_va = (strings_va & ~0xF) - 16
    path_va = top - 8 - len(path)
    pointers = []
    for string in strings:
        pointers.append(strings_va)
        strings_va += len(string)
    auxv = {
        **{Auxv.PHDR: image.phdr, Auxv.PHENT: 56, Auxv.PHNUM: image.phnum, Auxv.PAGESZ: PAGE_SIZE},
        **{Auxv.ENTRY: image.entry, Auxv.UID: 0, Auxv.EUID: 0, Auxv.GID: 0, Auxv.EGID: 0},
        **{Auxv.SECURE: 0, Auxv.RANDOM: random_va, Auxv.EXECFN: path_va, Auxv.CLKTCK: 100, Auxv.HWCAP: 0x0FABFBFF},
    }
    words = [len(argv), *pointers[: len(argv)], 0, *pointers[len(argv) :], 0]
    words += [number for pair in auxv.items() for number in pair] + [Auxv.NULL, 0]
    pointer = (random_va - 8 * len(words)) & ~0xF
    block = struct.pack(f"<{len(words)}Q", *words)
    padding = bytes(random_va - pointer - len(block))
    random = bytes(range(16))  # AT_RANDOM; the same every time, so that runs repeat
    gap = bytes(top - len(text) - random_va - 16)
    return block + padding + random + gap + text, pointer
