"""Loading a program: promises for its segments, a stack with its arguments, and nothing else (fs/binfmt_elf.c).

No page of the program is read here. Every one arrives later, by a page fault, when it is touched first. Only the
stack's top page exists from the start, because the kernel itself writes the arguments to it.
"""

from __future__ import annotations

import struct
from typing import Final

from emu.exceptions import InputError
from emu.image import Image, Segment
from emu.pte import PAGE_SIZE

from .address_space import AddressSpace
from .frames import FrameAllocator
from .layout import MMAP_MIN_ADDR, STACK_TOP, TASK_SIZE, page_align
from .memory import KernelMemory
from .page_table import user_pte
from .vma import Backing, Prot, Vma

__all__ = ["load_image", "load_stack"]

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
    RANDOM: Final = 25


def _prot(segment: Segment) -> Prot:
    flags = (
        (segment.readable, Prot.READ),
        (segment.writable, Prot.WRITE),
        (segment.executable, Prot.EXEC),
    )
    return Prot(sum(flag for wanted, flag in flags if wanted))


def load_image(mm: AddressSpace, image: Image) -> None:
    """Promise the segments of a program, and put the heap above them. Raises InputError for a place it cannot have."""
    top = MMAP_MIN_ADDR
    for segment in image.segments:
        if not segment.size:
            continue
        start, end = segment.va & ~(PAGE_SIZE - 1), page_align(segment.end)
        if start < MMAP_MIN_ADDR or end > TASK_SIZE or mm.vmas.overlapping(start, end):
            raise InputError(f"{image.path}: segment {segment.name} at {segment.va:#x} is outside the user half")
        file_end = min(page_align(segment.va + len(segment.data)), end)
        if segment.data:
            backing = Backing(image.path, b"\0" * (segment.va - start) + segment.data)
            mm.vmas.insert(Vma(start, file_end, _prot(segment), backing, name=image.path))
        if file_end < end or not segment.data:
            mm.vmas.insert(Vma(file_end if segment.data else start, end, _prot(segment)))
        top = max(top, end)
    mm.heap_start = mm.heap_end = top


def load_stack(
    mm: AddressSpace, memory: KernelMemory, frames: FrameAllocator, image: Image, argv: tuple[str, ...]
) -> int:
    """Make the stack with argc, argv, envp and the auxiliary vector on it. Returns the first stack pointer."""
    start = STACK_TOP - FIRST_STACK_PAGES * PAGE_SIZE
    mm.vmas.insert(Vma(start, STACK_TOP, Prot.READ | Prot.WRITE, grows_down=True, name="[stack]"))
    content, pointer = _first_stack(image, argv)
    for page in range(pointer & ~(PAGE_SIZE - 1), STACK_TOP, PAGE_SIZE):
        pte = mm.page_table.make_entry(page)
        pfn = frames.allocate()
        memory.clear_frame(pfn)
        first = max(page, pointer)
        memory.write(pfn * PAGE_SIZE + first - page, content[first - pointer : page + PAGE_SIZE - pointer])
        memory.store64(pte, user_pte(pfn, writable=True, executable=False, dirty=True))
    return pointer


def _first_stack(image: Image, argv: tuple[str, ...]) -> tuple[bytes, int]:
    """The bytes at the top of the stack and the address of the first, where RSP will point (x86-64 ABI 3.4.1)."""
    strings = [argument.encode("utf-8", "surrogateescape") + b"\0" for argument in argv]
    if sum(map(len, strings)) > ARGUMENTS_LIMIT:
        raise InputError(f"the arguments of {image.path} are longer than {ARGUMENTS_LIMIT} bytes")
    path = image.path.encode("utf-8", "surrogateescape") + b"\0"
    text = b"".join(strings) + path + bytes(8)  # Linux ends the stack with the path and a null word
    strings_va = STACK_TOP - len(text)
    random_va = (strings_va & ~0xF) - 16
    pointers = []
    for string in strings:
        pointers.append(strings_va)
        strings_va += len(string)
    auxv = {
        **{Auxv.PHDR: image.phdr, Auxv.PHENT: 56, Auxv.PHNUM: image.phnum, Auxv.PAGESZ: PAGE_SIZE},
        **{Auxv.ENTRY: image.entry, Auxv.UID: 0, Auxv.EUID: 0, Auxv.GID: 0, Auxv.EGID: 0},
        **{Auxv.SECURE: 0, Auxv.RANDOM: random_va},
    }
    words = [len(argv), *pointers, 0, 0]  # argc, argv, NULL, no environment, NULL
    words += [number for pair in auxv.items() for number in pair] + [Auxv.NULL, 0]
    pointer = (random_va - 8 * len(words)) & ~0xF
    block = struct.pack(f"<{len(words)}Q", *words)
    padding = bytes(random_va - pointer - len(block))
    random = bytes(range(16))  # AT_RANDOM; the same every time, so that runs repeat
    gap = bytes(STACK_TOP - len(text) - random_va - 16)
    return block + padding + random + gap + text, pointer
