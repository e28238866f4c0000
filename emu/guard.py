"""Code that must not reach Unicorn's translator, and how it is kept away from it.

LOCK before a bit test of a *register* is #UD on a processor. Unicorn's translator calls abort() there, which ends the
whole host process (`instruction.host_aborts` says what the bytes look like). It happens before any hook of
ours, and Unicorn translates further than the guest executes, so the bytes must be found earlier:

1. Unicorn cannot translate a page that it may not fetch, so the `fill` callback searches every frame before it is
   fetched for the first time. A frame is never executable and writable at once in the soft-TLB: after the guest
   may have written to it, it is searched again.
2. If there is something, execution stops (`Stop.DANGER`), and every address of the page where such an instruction may
   begin becomes an exit address. The translator stops at those without looking at what is there.
3. If the guest ever gets to an exit address, the bytes are decoded as they are *then*: the instruction is
   #UD, or harmless after all, because its end is on another page or was changed, and executes on its own.

The same is done to blocks that are too long for Unicorn. Its translator has room for 512 temporary values in a block,
and does not check. It forgets to give back those of x87 instructions and a few others (two each at most), so a block
of 240 FLDs would overwrite what lies behind them. Where so many come close together, some become exit addresses.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from typing import Final

from .instruction import MAX_SIZE, Instruction, decode, host_aborts
from .pte import PAGE_SIZE
from .ram import Ram
from .state import State

__all__ = ["Guard"]

MOST: Final = 1 << 16
"""Guarded addresses; an ordinary program has none. When there are more, they are all forgotten and found anew."""

X87: Final = re.compile(rb"[\xd8-\xdf]")
OTHER_LOSERS: Final = re.compile(rb"\x8e|\x0f[\x38\x3a\x70\xb4\xb5\xc6]")
"""Opcodes of MOV to a segment register, SSE with an immediate byte, CRC32, LFS, LGS."""

MOST_LOSERS: Final = 100
"""In the part of a block that is on one page. A block is on two pages at most."""

ENDS_BLOCK: Final = ("j", "call", "ret", "loop", "syscall", "hlt", "ud2")

SLOTS: Final = 2
"""Guarded pages that are remembered: an instruction may lie on two."""

NOPS: Final = b"\x90" * MAX_SIZE
MASK64: Final = (1 << 64) - 1


class Guard:
    """The addresses that are guarded, for one processor."""

    def __init__(self, state: State, ram: Ram) -> None:
        self._state, self._ram = state, ram
        self._copies = (ctypes.c_char * PAGE_SIZE * SLOTS)()
        state.guarded_code = ctypes.addressof(self._copies)
        self._next = 0
        self.addresses: set[int] = set()

    @property
    def is_full(self) -> bool:
        """Whether it is time to `clear`."""
        return len(self.addresses) > MOST

    def clear(self) -> None:
        """Guard nothing. Every page must be fetched anew (the caller flushes the soft-TLB)."""
        self.addresses.clear()
        self._state.guarded[:] = (0,) * SLOTS

    def cover(self, page: int, frame: int) -> None:
        """Guard what is dangerous on the page at `page`, which maps the frame at `frame`. Then it may be fetched."""
        code = self._ram.read(frame, PAGE_SIZE)
        offsets = set(host_aborts(code))
        if 0 in offsets:  # prefixes at the end of the page before would belong to it
            offsets.update(range(1 - MAX_SIZE, 0))
        offsets.update(_full_blocks(code))
        self.addresses |= {(page + offset) & MASK64 for offset in offsets}
        slot = self._slot(page)
        self._copies[slot].raw = code
        self._state.guarded[slot] = page | 1

    def _slot(self, page: int) -> int:
        """Where a page is remembered, else the place of the older one."""
        if page | 1 not in self._state.guarded:
            self._next = (self._next + 1) % SLOTS
            return self._next
        return list(self._state.guarded).index(page | 1)

    @staticmethod
    def is_dangerous(code: bytes) -> bool:
        """Whether the instruction that `code` begins with is one, and not only what is known of it so far."""
        return next(host_aborts(code + NOPS), None) == 0


def _loses_room(one: Instruction | None, code: bytes) -> bool:
    """Whether Unicorn forgets a temporary value of an instruction, or may, where it does not decode."""
    is_x87 = one is None or one.name.startswith("f")
    return bool(OTHER_LOSERS.search(code) or (is_x87 and X87.search(code)))


def _full_blocks(code: bytes) -> Iterator[int]:
    """Where blocks on a page must end, wherever they begin, lest Unicorn has no room for them."""
    if len(X87.findall(code)) + len(OTHER_LOSERS.findall(code)) <= MOST_LOSERS:
        return
    losers = [0] * (len(code) + MAX_SIZE)  # from an offset to the end of the block
    for offset in reversed(range(len(code))):
        one = decode(code[offset : offset + MAX_SIZE])
        size = one.size if one else 1  # a prefix that only Unicorn accepts
        goes_on = one is None or not one.name.startswith(ENDS_BLOCK)
        losers[offset] = losers[offset + size] * goes_on + _loses_room(one, code[offset : offset + size])
        if losers[offset] > MOST_LOSERS:
            yield offset
            losers[offset] = 0
