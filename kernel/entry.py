"""Kernel text: the assembled entry code, and Python functions that live at kernel addresses.

`call do_syscall_64` in `entry.s` reaches a page of kernel text that holds `vmcall; ret`. VMCALL leaves the guest, the
Python function registered under that name runs, and RET goes back. Each function has a page of its own, which the
processor really fetches. What they call in turn is kernel text, too: see work.py.

A function is added with a decorator; `cycles` is an assumption about the instructions of Linux that it stands for,
beyond the memory that it touches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

from emu import PAGE_SIZE
from emu.assembler import assemble_source
from emu.image import Image

from .exceptions import KernelPanic
from .layout import KERNEL_TEXT
from .work import all_work, work_pages

if TYPE_CHECKING:
    from .kernel import Kernel

__all__ = ["KernelFunction", "KernelText", "kernel_function"]

STUB: Final = bytes.fromhex("0f01c1 c3")
"""vmcall; ret"""

FUNCTIONS_OFFSET: Final = 0x10_0000
"""Where the pages of Python functions begin in kernel text."""

Body = Callable[["Kernel", int, int], int | None]
"""Called with the first two arguments (RDI, RSI); the result goes to RAX."""


@dataclass(frozen=True, slots=True)
class KernelFunction:
    """A Python function with a name in kernel text."""

    name: str
    body: Body
    cycles: int


_FUNCTIONS: dict[str, KernelFunction] = {}


def kernel_function(cycles: int, name: str | None = None) -> Callable[[Body], Body]:
    """Register a Python function as kernel text under its own name, or another one."""

    def register(body: Body) -> Body:
        function = KernelFunction(name or body.__name__, body, cycles)
        _FUNCTIONS[function.name] = function
        return body

    return register


@cache
def _entry_code(smap: bool, pti: bool, pcid: bool, empty_caches: bool, addresses: tuple[tuple[str, int], ...]) -> Image:
    """`entry.s` for what a processor has and a kernel wants, assembled once for all kernels."""
    source = resources.files(__package__).joinpath("entry.s").read_text("utf-8")
    features = {"SMAP": smap, "PTI": pti, "PCID": pcid}
    wanted = {f"X86_FEATURE_{name}": has for name, has in features.items()} | {"EMPTY_CACHES": empty_caches}
    constants = "".join(f".equ {name}, {int(value)}; " for name, value in wanted.items())
    return assemble_source(
        f"{constants}{source}",
        name="kernel/entry.s",
        addresses={".text": KERNEL_TEXT},
        symbols=dict(addresses),
        entry=None,
    )


class KernelText:
    """Where everything in kernel text is. `image` is the assembled entry code, `symbols` also has the functions.

    `entry` are the pages of entry code: with page-table isolation they are all of the text that user mode maps. `pages`
    are all pages of text with their content.
    """

    def __init__(self, *, smap: bool, pti: bool = False, pcid: bool = False, empty_caches: bool = False) -> None:
        self.functions = {
            KERNEL_TEXT + FUNCTIONS_OFFSET + number * PAGE_SIZE: function
            for number, function in enumerate(_FUNCTIONS.values())
        }
        addresses = {function.name: va for va, function in self.functions.items()}
        self.image = _entry_code(smap, pti, pcid, empty_caches, tuple(addresses.items()))
        self.entry = {
            segment.va + offset: segment.data[offset : offset + PAGE_SIZE]
            for segment in self.image.segments
            for offset in range(0, segment.size, PAGE_SIZE)
        }
        self.pages = {**dict.fromkeys((*self.functions, *work_pages()), STUB), **self.entry}
        self.works = {work.va: work.name for work in all_work()}
        self.symbols: dict[str, int] = {**self.image.symbols, **addresses}

    def at(self, va: int) -> KernelFunction:
        """The function whose stub is at an address."""
        function = self.functions.get(va)
        if function is None:
            raise KernelPanic(f"vmcall at {va:#x}, where no kernel function is")
        return function
