"""The knobs of huge pages in /sys/kernel/mm and /proc/sys/vm (Documentation/admin-guide/mm: transhuge.rst and
hugetlbpage.rst).

A choice shows all of its words, the chosen one in brackets, and takes one of them:

    $ cat /sys/kernel/mm/transparent_hugepage/enabled
    always [madvise] never
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from ..compound import HPAGE_PMD_NR, HPAGE_PMD_SIZE
from ..exceptions import Errno
from ..huge_memory import DEFRAG, ENABLED
from ..hugetlb import HugePool
from .generated import proc_file, setting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..kernel import Kernel
    from ..process import Process

__all__ = ["choice", "number"]

THP: Final = "/sys/kernel/mm/transparent_hugepage"
UINT_MAX: Final = (1 << 32) - 1


def choice(path: str, name: str, words: Sequence[str]) -> None:
    """Register one of the words that `kernel.manager.huge` keeps under a name."""

    def show(kernel: Kernel, _process: Process | None) -> bytes:
        chosen = getattr(kernel.manager.huge, name)
        return " ".join(f"[{word}]" if word == chosen else word for word in words).encode() + b"\n"

    def store(kernel: Kernel, text: bytes) -> None:
        word = text.removesuffix(b"\n").decode("latin-1")  # sysfs_streq
        if word not in words:
            raise Errno(errno.EINVAL)
        setattr(kernel.manager.huge, name, word)

    setting(path, show, store)


def number(name: str, *, minimum: int = 0, maximum: int = UINT_MAX) -> None:
    """Register a number that khugepaged has under a name."""

    def show(kernel: Kernel, _process: Process | None) -> bytes:
        return b"%d\n" % getattr(kernel.khugepaged, name)

    def store(kernel: Kernel, text: bytes) -> None:
        value = _parsed(text)
        if not minimum <= value <= maximum:
            raise Errno(errno.EINVAL)
        setattr(kernel.khugepaged, name, value)
        kernel.khugepaged.wake()

    setting(f"{THP}/khugepaged/{name}", show, store)


def _parsed(text: bytes) -> int:
    """A whole number and nothing else (kstrtoul). Raises Errno(EINVAL)."""
    try:
        return int(text.removesuffix(b"\n"), 0)
    except ValueError:
        raise Errno(errno.EINVAL) from None


# --- transparent huge pages -------------------------------------------------------------------------------------------

choice(f"{THP}/enabled", "enabled", ENABLED)
choice(f"{THP}/defrag", "defrag", DEFRAG)
number("defrag", maximum=1)
number("pages_to_scan", minimum=1)
number("scan_sleep_millisecs")
number("alloc_sleep_millisecs")
for _name in ("none", "swap", "shared"):
    number(f"max_ptes_{_name}", maximum=HPAGE_PMD_NR - 1)


def _show_use_zero_page(kernel: Kernel, _process: Process | None) -> bytes:
    """Whether reads of untouched memory get the huge page of zeros."""
    return b"%d\n" % kernel.manager.huge.use_zero_page


def _store_use_zero_page(kernel: Kernel, text: bytes) -> None:
    value = _parsed(text)
    if value not in (0, 1):
        raise Errno(errno.EINVAL)
    kernel.manager.huge.use_zero_page = bool(value)


setting(f"{THP}/use_zero_page", _show_use_zero_page, _store_use_zero_page)


@proc_file(f"{THP}/hpage_pmd_size")
def hpage_pmd_size(_kernel: Kernel, _process: Process | None) -> bytes:
    """Bytes of a huge page that a PMD maps."""
    return b"%d\n" % HPAGE_PMD_SIZE


@proc_file(f"{THP}/khugepaged/pages_collapsed")
def pages_collapsed(kernel: Kernel, _process: Process | None) -> bytes:
    """Huge pages that khugepaged made."""
    return b"%d\n" % kernel.khugepaged.pages_collapsed


@proc_file(f"{THP}/khugepaged/full_scans")
def full_scans(kernel: Kernel, _process: Process | None) -> bytes:
    """How often khugepaged has looked at everything."""
    return b"%d\n" % kernel.khugepaged.full_scans


# --- pools ------------------------------------------------------------------------------------------------------------


def _pool_number(path: str, shift: int, name: str) -> None:
    """Register a number of a pool that can only be read."""

    @proc_file(path)
    def show(kernel: Kernel, _process: Process | None) -> bytes:
        return b"%d\n" % _value(_pool(kernel, shift), name)


def _pool_setting(path: str, shift: int, name: str) -> None:
    """Register a number of a pool that can be set."""

    def show(kernel: Kernel, _process: Process | None) -> bytes:
        return b"%d\n" % _value(_pool(kernel, shift), name)

    def store(kernel: Kernel, text: bytes) -> None:
        pool, value = _pool(kernel, shift), _parsed(text)
        if value < 0 or (name == "nr_overcommit_hugepages" and not pool.may_overcommit):
            raise Errno(errno.EINVAL)
        if name == "nr_hugepages":
            pool.resize(value)
        else:
            pool.overcommit = value

    setting(path, show, store)


def _pool(kernel: Kernel, shift: int) -> HugePool:
    """The pool of a page size. Raises Errno(ENOENT) where the processor has no such pages."""
    pools = kernel.manager.hugetlb.pools
    if shift not in pools:
        raise Errno(errno.ENOENT)
    return pools[shift]


def _value(pool: HugePool, name: str) -> int:
    return {
        "nr_hugepages": pool.total,
        "nr_overcommit_hugepages": pool.overcommit,
        "free_hugepages": len(pool.free),
        "resv_hugepages": pool.reserved,
        "surplus_hugepages": pool.surplus,
    }[name]


for _shift in (21, 30):
    _folder = f"/sys/kernel/mm/hugepages/hugepages-{1 << _shift - 10}kB"
    for _name in ("nr_hugepages", "nr_overcommit_hugepages"):
        _pool_setting(f"{_folder}/{_name}", _shift, _name)
    for _name in ("free_hugepages", "resv_hugepages", "surplus_hugepages"):
        _pool_number(f"{_folder}/{_name}", _shift, _name)
for _name in ("nr_hugepages", "nr_overcommit_hugepages"):
    _pool_setting(f"/proc/sys/vm/{_name}", 21, _name)
