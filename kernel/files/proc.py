"""The files of /proc that tell about the system and about descriptors, in Linux's own formats (fs/proc)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from emu.pte import PAGE_SIZE

from ..exceptions import Errno
from .generated import living, proc_file, proc_link, proc_links, proc_threads
from .inode import Dentry

if TYPE_CHECKING:
    from ..kernel import Kernel
    from ..process import Process

__all__ = ["meminfo"]

SWAP_FILE: Final = b"/swapfile"
"""What the swap area is called; where it lies on the host is nothing that the guest can use."""


# --- the system -----------------------------------------------------------------------------------------------------


@proc_file("/proc/meminfo")
def meminfo(kernel: Kernel, _process: Process | None) -> bytes:
    """Memory in kB (fs/proc/meminfo.c)."""
    frames, cache, swap = kernel.frames, kernel.page_cache, kernel.manager.swap
    pages = {
        "MemTotal": frames.total,
        "MemFree": frames.free_frames,
        "MemAvailable": frames.free_frames + cache.pages - cache.charged,
        "Buffers": 0,
        "Cached": cache.pages,
        "SwapCached": swap.cached,
        "SwapTotal": swap.total,
        "SwapFree": swap.total - swap.used,
        "Shmem": cache.charged,
        "AnonHugePages": _anonymous_huge(kernel),
        **dict.fromkeys(("ShmemHugePages", "ShmemPmdMapped", "FileHugePages", "FilePmdMapped"), 0),
    }
    lines = b"".join(
        b"%-15s%9d kB\n" % (name.encode() + b":", count * PAGE_SIZE >> 10) for name, count in pages.items()
    )
    return lines + _pools(kernel)


def _anonymous_huge(kernel: Kernel) -> int:
    """Pages of huge pages that are mapped as a whole (NR_ANON_THPS)."""
    compounds = kernel.pages.compounds.values()
    return sum(compound.frames for compound in compounds if compound.is_transparent and compound.entire)


def _pools(kernel: Kernel) -> bytes:
    """The pool of the default size, and what all pools have (hugetlb_report_meminfo)."""
    pool = kernel.manager.hugetlb.default
    counts = {"Total": pool.total, "Free": len(pool.free), "Rsvd": pool.reserved, "Surp": pool.surplus}
    sizes = {"Hugepagesize": pool.size, "Hugetlb": kernel.manager.hugetlb.frames * PAGE_SIZE}
    return b"".join(
        b"HugePages_%-6s%8d\n" % (name.encode() + b":", count) for name, count in counts.items()
    ) + b"".join(b"%-15s%9d kB\n" % (name.encode() + b":", size >> 10) for name, size in sizes.items())


@proc_file("/proc/buddyinfo")
def buddyinfo(kernel: Kernel, _process: Process | None) -> bytes:
    """Free blocks of each order (mm/vmstat.c)."""
    counts = b"".join(b"%6d " % count for count in kernel.frames.free_blocks())
    return b"Node 0, zone   Normal " + counts + b"\n"


@proc_file("/proc/kallsyms")
def kallsyms(kernel: Kernel, _process: Process | None) -> bytes:
    """Address, kind and name of every symbol of kernel text (kernel/kallsyms.c)."""
    symbols = sorted((va, name) for name, va in kernel.text.symbols.items() if va >> 63)
    return b"".join(b"%016x T %s\n" % (va, name.encode()) for va, name in symbols)


@proc_file("/proc/swaps")
def swaps(kernel: Kernel, _process: Process | None) -> bytes:
    """Swap areas in kB (swap_show in mm/swapfile.c)."""
    swap, lines = kernel.manager.swap, [b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"]
    if swap.device is not None:
        size, used = (pages * PAGE_SIZE >> 10 for pages in (swap.total, swap.used))
        tabs = (b"\t\t" if kilobytes < 10_000_000 else b"\t" for kilobytes in (size, used))
        lines.append(b"%-40sfile\t\t%d%b%d%b-2\n" % (SWAP_FILE, size, next(tabs), used, next(tabs)))
    return b"".join(lines)


@proc_file("/proc/version")
def version(_kernel: Kernel, _process: Process | None) -> bytes:
    """Which Linux this behaves like."""
    return b"Linux version 6.18.0 (cr3) #1\n"


@proc_file("/proc/filesystems")
def filesystems(kernel: Kernel, _process: Process | None) -> bytes:
    """The kinds of file systems; all are without a device (fs/filesystems.c)."""
    kinds = dict.fromkeys([sb.name for _, sb in kernel.file_system.mounts] + [kernel.file_system.pipefs.name])
    return b"".join(b"nodev\t%s\n" % name for name in kinds)


@proc_link("/proc/mounts")
def mounts_link(_kernel: Kernel, _process: Process | None) -> bytes:
    """The mounts of whoever asks."""
    return b"self/mounts"


@proc_file("/proc/[pid]/mounts")
def mounts(kernel: Kernel, _process: Process | None) -> bytes:
    """What is mounted where (fs/proc_namespace.c)."""
    lines = [b"%s %s %s rw,relatime 0 0\n" % (sb.name, path, sb.name) for path, sb in kernel.file_system.mounts]
    return b"".join(lines)


# --- processes ------------------------------------------------------------------------------------------------------


@proc_link("/proc/self")
def self_link(kernel: Kernel, _process: Process | None) -> bytes:
    """Whoever asks."""
    return b"%d" % kernel.current.pid


@proc_link("/proc/thread-self")
def thread_self_link(kernel: Kernel, _process: Process | None) -> bytes:
    """Whoever asks."""
    return b"%d/task/%d" % (kernel.current.pid, kernel.current.pid)


@proc_file("/proc/[pid]/cmdline")
def cmdline(_kernel: Kernel, process: Process | None) -> bytes:
    """The arguments, each with its null."""
    arguments = living(process).arguments
    return b"".join(argument.encode("utf-8", "surrogateescape") + b"\0" for argument in arguments)


@proc_file("/proc/[pid]/comm")
def comm(_kernel: Kernel, process: Process | None) -> bytes:
    """Its name."""
    return living(process).name.encode("utf-8", "surrogateescape") + b"\n"


@proc_link("/proc/[pid]/exe")
def exe(_kernel: Kernel, process: Process | None) -> Dentry:
    """The program's file."""
    file = living(process).mm.exe
    if file is None:
        raise Errno(errno.ENOENT)
    return file.dentry


@proc_link("/proc/[pid]/cwd")
def cwd(_kernel: Kernel, process: Process | None) -> Dentry:
    """The working directory."""
    return living(process).files.cwd


@proc_link("/proc/[pid]/root")
def root(_kernel: Kernel, process: Process | None) -> Dentry:
    """The root directory: the guest's, never the host's."""
    return living(process).files.root


@proc_links("/proc/[pid]/fd")
def descriptors(_kernel: Kernel, process: Process | None) -> dict[bytes, Dentry]:
    """The open files by descriptor."""
    return {b"%d" % fd: descriptor.file.dentry for fd, descriptor in living(process).files}


@proc_threads("/proc/[pid]/task")
def task(kernel: Kernel, process: Process | None) -> list[Process]:
    """The threads of a process."""
    return kernel.threads(living(process))
