"""The promises of an address space in order, for people: what `process.mm.maps()` returns.

>>> from kernel.vma import VmaFlag
>>> MemoryMap((Vma(0x1000, 0x3000, VmaFlag.READ),), lambda _: "[heap]")
1000-3000 r--p [heap]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from emu.html import table

from .vma import Vma

__all__ = ["MemoryMap"]


class MemoryMap(tuple[Vma, ...]):
    """VMAs with their names."""

    def __new__(cls, vmas: Iterable[Vma], _name_of: Callable[[Vma], str]) -> MemoryMap:
        """A tuple of the VMAs."""
        return super().__new__(cls, vmas)

    def __init__(self, vmas: Iterable[Vma], name_of: Callable[[Vma], str]) -> None:
        self.names = tuple(map(name_of, vmas))

    def __repr__(self) -> str:
        named = zip(self, self.names, strict=True)
        return "\n".join(f"{vma.start:x}-{vma.end:x} {vma.rights} {name}".rstrip() for vma, name in named)

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        named = zip(self, self.names, strict=True)
        rows = [(f"{vma.start:#x}", f"{vma.end:#x}", vma.rights, vma.pages, name) for vma, name in named]
        return table(f"{len(self)} VMAs", ("from", "to", "rights", "pages", "name"), rows)
