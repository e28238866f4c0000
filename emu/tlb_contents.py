"""What the TLBs hold at one moment, for people.

>>> from emu import Machine
>>> machine = Machine(ram="1M")
>>> machine.mmu.contents()
<TlbContents: nothing>
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import overload

from .html import table
from .pte import Pte
from .state import TlbKind

__all__ = ["KIND_NAMES", "TlbContents", "Translation", "size_name"]

KIND_NAMES = {
    TlbKind.ITLB: "ITLB",
    TlbKind.DTLB: "DTLB",
    TlbKind.STLB: "STLB",
    TlbKind.PAGING_STRUCTURE: "paging-structure caches",
}
SIZES = {12: "4 KiB", 21: "2 MiB", 30: "1 GiB", 39: "512 GiB"}


@dataclass(frozen=True, slots=True)
class Translation:
    """One entry of a TLB or paging-structure cache."""

    kind: TlbKind
    page_size: int  # bytes
    va: int
    pa: int
    pcid: int
    flags: Pte

    @property
    def size(self) -> str:
        """The page size in words."""
        return size_name(self.page_size)

    @property
    def is_global(self) -> bool:
        """Whether it serves every PCID."""
        return Pte.G in self.flags

    @property
    def rights(self) -> str:
        """What it allows, as `ls` shows it, after `u` for user mode or `k` for the kernel only."""
        letters = ("u" if Pte.U in self.flags else "k", "r", "w" if Pte.W in self.flags else "-")
        return "".join(letters) + ("-" if Pte.NX in self.flags else "x")


def size_name(page_size: int) -> str:
    """A page size, or what an entry of a table covers, in words."""
    return SIZES[page_size.bit_length() - 1]


class TlbContents(Sequence[Translation]):
    """Translations, by kind of TLB, PCID and address."""

    def __init__(self, translations: Iterable[Translation]) -> None:
        self._held = sorted(translations, key=lambda held: (held.kind, held.pcid, held.va, held.page_size))

    def __len__(self) -> int:
        return len(self._held)

    @overload
    def __getitem__(self, index: int) -> Translation: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Translation]: ...
    def __getitem__(self, index: int | slice) -> Translation | Sequence[Translation]:
        return self._held[index]

    def of(self, kind: TlbKind) -> list[Translation]:
        """Those of one kind of TLB."""
        return [held for held in self._held if held.kind == kind]

    def __repr__(self) -> str:
        counts = [f"{name} {len(of)}" for kind, name in KIND_NAMES.items() if (of := self.of(kind))]
        return f"<TlbContents: {', '.join(counts) or 'nothing'}>"

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        rows = [
            (
                KIND_NAMES[held.kind],
                f"{held.va:#x}",
                f"{held.pa:#x}",
                held.size,
                str(held.pcid),
                held.rights,
                _yes(held),
            )
            for held in self._held
        ]
        heads = ("TLB", "address", "to", "size", "PCID", "rights", "global")
        return table(f"{len(self._held)} translations", heads, rows)


def _yes(held: Translation) -> str:
    return "global" if held.is_global else ""
