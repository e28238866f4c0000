"""The knobs of /proc/sys (Documentation/admin-guide/sysctl/vm.rst and kernel.rst). Defaults are Linux's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..layout import MMAP_MIN_ADDR
from .generated import knob

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = [
    "max_map_count",
    "mmap_min_addr",
    "overcommit_memory",
    "overcommit_ratio",
    "page_cluster",
    "pid_max",
    "randomize_va_space",
    "swappiness",
]


@knob("/proc/sys/vm/overcommit_memory", default=0, maximum=2)
def overcommit_memory(kernel: Kernel, value: int) -> None:
    """0: refuse only what is obviously too much; 1: promise everything; 2: promise only what can be kept."""
    kernel.manager.overcommit.mode = value


@knob("/proc/sys/vm/overcommit_ratio", default=50)
def overcommit_ratio(kernel: Kernel, value: int) -> None:
    """Percent of RAM that may be promised beside swap, with overcommit_memory 2."""
    kernel.manager.overcommit.ratio = value


@knob("/proc/sys/vm/mmap_min_addr", default=MMAP_MIN_ADDR)
def mmap_min_addr(kernel: Kernel, value: int) -> None:
    """The lowest address that a program can map."""
    kernel.manager.mmap_min_addr = value


@knob("/proc/sys/vm/swappiness", default=60, maximum=200)
def swappiness(_kernel: Kernel, _value: int) -> None:
    """How much reclaim prefers anonymous pages to those of files."""


@knob("/proc/sys/vm/page-cluster", default=0, maximum=31)
def page_cluster(kernel: Kernel, value: int) -> None:
    """Swap readahead: 2**page_cluster pages are read at once. Linux's default is 3; here the fault that is looked at
    should not hide the next ones.
    """
    kernel.manager.swap.page_cluster = value


@knob("/proc/sys/vm/max_map_count", default=65530)
def max_map_count(kernel: Kernel, value: int) -> None:
    """The most mappings that a process may have."""
    kernel.manager.max_map_count = value


@knob("/proc/sys/kernel/pid_max", default=32768, minimum=301, maximum=4194304)
def pid_max(_kernel: Kernel, _value: int) -> None:
    """Process numbers stay below this."""


@knob("/proc/sys/kernel/randomize_va_space", default=0, maximum=2)
def randomize_va_space(_kernel: Kernel, _value: int) -> None:
    """0: no ASLR; 1: stack and mappings; 2: the heap, too."""
