"""Files that are written when they are read: /proc and /sys (fs/proc/generic.c, fs/seq_file.c, kernel/sysctl.c).

A file is one function. `[pid]` in its path makes it a file of every process:

    @proc_file("/proc/meminfo")
    def meminfo(kernel: Kernel, process: Process | None) -> bytes: ...

    @proc_file("/proc/[pid]/comm")
    def comm(kernel: Kernel, process: Process | None) -> bytes: ...

A `proc_data` file is too large for that: its function yields only the bytes that are asked for.

A `knob` is a number that can be written, too. The function says what else happens then; the knob's own name gives the
value:

    @knob("/proc/sys/vm/swappiness", default=60, maximum=200)
    def swappiness(kernel: Kernel, value: int) -> None: ...

    swappiness.value(kernel)

What is neither is a `setting`: one function writes its text, another one reads what people write.
"""

from __future__ import annotations

import errno
import stat
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from emu.pte import PAGE_SIZE

from ..exceptions import Errno
from .directory import FIRST_POSITION, Directory, Entry, Symlink
from .file import File
from .inode import Dentry, Inode, SuperBlock
from .iov import IovIter

if TYPE_CHECKING:
    from ..kernel import Kernel
    from ..process import Process

__all__ = [
    "Knob",
    "generated_tree",
    "knob",
    "living",
    "proc_data",
    "proc_file",
    "proc_link",
    "proc_links",
    "proc_threads",
    "setting",
]

Generator = Callable[["Kernel", "Process | None"], bytes]
DataGenerator = Callable[["Kernel", "Process | None", int, int], Iterator[bytes]]
Threads = Callable[["Kernel", "Process | None"], "list[Process]"]
LinkTarget = Callable[["Kernel", "Process | None"], "Dentry | bytes"]
LinkTargets = Callable[["Kernel", "Process | None"], "dict[bytes, Dentry]"]
Setter = Callable[["Kernel", int], None]
Store = Callable[["Kernel", bytes], None]
Parts = tuple[bytes, ...]
Maker = Callable[[SuperBlock, int, "Process | None"], Inode]
"""Makes an inode with a number for a process."""

PID = b"[pid]"
_FILES: dict[Parts, Maker] = {}


def _parts(path: str) -> Parts:
    return tuple(path.encode().split(b"/")[1:])


def proc_file(path: str) -> Callable[[Generator], Generator]:
    """Register a function that writes the content of a file."""

    def register(body: Generator) -> Generator:
        _FILES[_parts(path)] = partial(GeneratedFile, body)
        return body

    return register


def living(process: Process | None) -> Process:
    """The process of a file below /proc/[pid]. Raises Errno(ESRCH) if it has ended."""
    if process is None or not process.alive:
        raise Errno(errno.ESRCH)
    return process


def proc_data(path: str) -> Callable[[DataGenerator], DataGenerator]:
    """Register a function that yields `size` bytes of a file from a position on, fewer at the end."""

    def register(body: DataGenerator) -> DataGenerator:
        _FILES[_parts(path)] = partial(DataFile, body)
        return body

    return register


def proc_threads(path: str) -> Callable[[Threads], Threads]:
    """Register a function that says which threads a directory has, each a directory with the files of a process."""

    def register(body: Threads) -> Threads:
        _FILES[_parts(path)] = partial(ThreadsDirectory, body)
        return body

    return register


def proc_link(path: str) -> Callable[[LinkTarget], LinkTarget]:
    """Register a function that says where a symbolic link leads: a path, or straight to a place in the tree."""

    def register(body: LinkTarget) -> LinkTarget:
        _FILES[_parts(path)] = partial(GeneratedLink, body)
        return body

    return register


def proc_links(path: str) -> Callable[[LinkTargets], LinkTargets]:
    """Register a function that says which links a directory has, and where they lead."""

    def register(body: LinkTargets) -> LinkTargets:
        _FILES[_parts(path)] = partial(LinkDirectory, body)
        return body

    return register


def knob(path: str, *, default: int, minimum: int = 0, maximum: int = (1 << 31) - 1) -> Callable[[Setter], Knob]:
    """Register a number that can be read and written. The function gets each new value; it may raise Errno."""

    def register(changed: Setter) -> Knob:
        made = Knob(path, changed, default, minimum, maximum)
        _FILES[_parts(path)] = partial(GeneratedFile, made.show, store=made.store)
        return made

    return register


def setting(path: str, show: Generator, store: Store) -> None:
    """Register a file with the functions for reading and for writing it; the latter may raise Errno."""
    _FILES[_parts(path)] = partial(GeneratedFile, show, store=store)


class Knob:
    """A number that people can set (struct ctl_table with proc_dointvec_minmax)."""

    def __init__(self, path: str, changed: Setter, default: int, minimum: int, maximum: int) -> None:
        self.path, self.minimum, self.maximum = path, minimum, maximum
        self._changed, self._default = changed, default
        self.__doc__ = changed.__doc__

    def value(self, kernel: Kernel) -> int:
        """What it is set to."""
        return kernel.knobs.get(self.path, self._default)

    def show(self, kernel: Kernel, _process: Process | None) -> bytes:
        """The file's content."""
        return b"%d\n" % self.value(kernel)

    def store(self, kernel: Kernel, text: bytes) -> None:
        """Set it from what was written. Raises Errno(EINVAL)."""
        words = text.split(None, 1)
        try:
            value = int(words[0], 0)
        except (ValueError, IndexError):
            raise Errno(errno.EINVAL) from None
        if not self.minimum <= value <= self.maximum:
            raise Errno(errno.EINVAL)
        self._changed(kernel, value)
        kernel.knobs[self.path] = value


class GeneratedFile(Inode):
    """A file whose content is made when it is read. `store` takes what is written."""

    def __init__(
        self,
        body: Generator,
        sb: SuperBlock,
        number: int,
        process: Process | None,
        store: Store | None = None,
    ) -> None:
        super().__init__(sb, stat.S_IFREG | (0o444 if store is None else 0o644), number=number)
        self.body, self.process, self.store = body, process, store

    def open(self, kernel: Kernel, dentry: Dentry, flags: int) -> OpenGenerated:
        """Open it."""
        return OpenGenerated(dentry, flags, kernel, self)

    def truncate(self, size: int) -> None:
        """Opening with O_TRUNC is allowed and does nothing."""


class OpenGenerated(File):
    """An open one. Reading from the start makes the content anew; further reads see the same (seq_file)."""

    seekable = True

    def __init__(self, dentry: Dentry, flags: int, kernel: Kernel, inode: GeneratedFile) -> None:
        super().__init__(dentry, flags)
        self._kernel, self._generated = kernel, inode
        self._content: bytes | None = None

    def read(self, to: IovIter, position: int) -> int:
        """Raises Errno: ESRCH if the process is gone, EFAULT."""
        process = self._generated.process
        if process is not None and not process.alive:
            raise Errno(errno.ESRCH)
        if self._content is None or position == 0:
            self._content = self._generated.body(self._kernel, process)
        data = self._content[position : position + to.left]
        copied = to.copy_to(data)
        if data and not copied:
            raise Errno(errno.EFAULT)
        return copied

    def write(self, source: IovIter, position: int) -> int:
        """Set a knob, if it is written from its start. Raises Errno: EIO for other files, EFAULT, EINVAL."""
        if self._generated.store is None:
            raise Errno(errno.EIO)
        size = source.left
        if size > PAGE_SIZE:
            raise Errno(errno.ENOMEM)
        text = source.copy_from(size)
        if len(text) < size:
            raise Errno(errno.EFAULT)
        if text and not position:
            self._generated.store(self._kernel, text)
        return size

    def seek_target(self, offset: int, whence: int, end: int) -> int:
        """What cannot be written has no end to seek from (seq_lseek)."""
        if whence > 1 and self._generated.store is None:
            raise Errno(errno.EINVAL)
        return super().seek_target(offset, whence, end)


class DataFile(Inode):
    """A file of which only what is read is made."""

    def __init__(self, body: DataGenerator, sb: SuperBlock, number: int, process: Process | None) -> None:
        super().__init__(sb, stat.S_IFREG | 0o400, number=number)
        self.body, self.process = body, process

    def open(self, kernel: Kernel, dentry: Dentry, flags: int) -> OpenData:
        """Open it."""
        return OpenData(dentry, flags, kernel, self)

    def truncate(self, size: int) -> None:
        """Opening with O_TRUNC is allowed and does nothing."""


class OpenData(File):
    """An open one. It has no end to seek from (mem_lseek)."""

    seekable = True

    def __init__(self, dentry: Dentry, flags: int, kernel: Kernel, inode: DataFile) -> None:
        super().__init__(dentry, flags)
        self._kernel, self._data = kernel, inode

    def read(self, to: IovIter, position: int) -> int:
        """Raises Errno: ESRCH if the process is gone, EFAULT, and what the function raises."""
        done = 0
        for part in self._data.body(self._kernel, self._data.process, position, to.left):
            copied = to.copy_to(part)
            done += copied
            if not done:
                raise Errno(errno.EFAULT)
            if copied < len(part):
                break
        return done

    def seek_target(self, offset: int, whence: int, end: int) -> int:
        """To a place, or by a distance."""
        if whence > 1:
            raise Errno(errno.EINVAL)
        return super().seek_target(offset, whence, end)


class GeneratedLink(Symlink):
    """A symbolic link whose target is made when it is asked for."""

    def __init__(self, body: LinkTarget, sb: SuperBlock, number: int, process: Process | None) -> None:
        super().__init__(sb, b"")
        self.number = number
        self._body, self._process = body, process

    def target(self, kernel: Kernel) -> bytes:
        """What readlink(2) says."""
        there = self._body(kernel, self._process)
        return there if isinstance(there, bytes) else there.shown_path()

    def jump(self, kernel: Kernel) -> Dentry | None:
        """Straight to the file, whatever its path says now."""
        there = self._body(kernel, self._process)
        return there if isinstance(there, Dentry) else None


class GeneratedDirectory(Directory):
    """A directory of /proc or /sys: what is registered below its path."""

    def __init__(self, parts: Parts, sb: SuperBlock, number: int, process: Process | None) -> None:
        super().__init__(sb, 0o555, number=number)
        self._parts, self._process = parts, process

    def _names(self) -> dict[bytes, Maker | None]:
        """Registered names here; None for directories that only have others below."""
        depth = len(self._parts)
        below = {parts: maker for parts, maker in _FILES.items() if parts[:depth] == self._parts}
        return {parts[depth]: maker if len(parts) == depth + 1 else None for parts, maker in below.items()}

    def _inode(self, name: bytes, maker: Maker | None, process: Process | None) -> Inode:
        parts = (*self._parts, name)
        shown = b"/".join(parts) + (b" of %d" % process.pid if process else b"")
        make = maker or partial(GeneratedDirectory, parts)
        return make(self.sb, zlib.crc32(shown), process)

    def lookup(self, kernel: Kernel, here: Dentry, name: bytes) -> Dentry | None:
        """What has a name here."""
        names = self._names()
        if PID in names and name.isdigit():
            process = _living(kernel).get(name)
            return Dentry(name, here, self._inode(PID, None, process)) if process else None
        if name not in names or name == PID:
            return None
        return Dentry(name, here, self._inode(name, names[name], self._process))

    def entries(self, kernel: Kernel, here: Dentry, position: int) -> Iterator[Entry]:
        """The registered names, then the processes."""
        names = sorted(self._names())
        if PID in names:
            names.remove(PID)
            names += [name for name, process in _living(kernel).items() if process.pid == process.tgid]
        yield from numbered(kernel, self, here, names, position)


class ThreadsDirectory(Directory):
    """A directory with one directory a thread."""

    def __init__(self, body: Threads, sb: SuperBlock, number: int, process: Process | None) -> None:
        super().__init__(sb, 0o555, number=number)
        self._body, self._process = body, process

    def _threads(self, kernel: Kernel) -> dict[bytes, Process]:
        return {b"%d" % thread.pid: thread for thread in self._body(kernel, self._process)}

    def lookup(self, kernel: Kernel, here: Dentry, name: bytes) -> Dentry | None:
        """The directory of a thread."""
        thread = self._threads(kernel).get(name)
        if thread is None:
            return None
        return Dentry(name, here, ThreadDirectory(self.sb, zlib.crc32(name, self.number), thread))

    def entries(self, kernel: Kernel, here: Dentry, position: int) -> Iterator[Entry]:
        """All threads."""
        yield from numbered(kernel, self, here, list(self._threads(kernel)), position)


class ThreadDirectory(GeneratedDirectory):
    """What a process has in /proc, for one thread; but not the directory of its threads."""

    def __init__(self, sb: SuperBlock, number: int, thread: Process) -> None:
        super().__init__((b"proc", PID), sb, number, thread)

    def _names(self) -> dict[bytes, Maker | None]:
        return {name: maker for name, maker in super()._names().items() if name != b"task"}


class LinkDirectory(Directory):
    """A directory of links that a function tells."""

    def __init__(self, body: LinkTargets, sb: SuperBlock, number: int, process: Process | None) -> None:
        super().__init__(sb, 0o500, number=number)
        self._body, self._process = body, process

    def lookup(self, kernel: Kernel, here: Dentry, name: bytes) -> Dentry | None:
        """The link with a name."""
        if name not in self._body(kernel, self._process):
            return None

        def target(kernel: Kernel, process: Process | None) -> Dentry:
            there = self._body(kernel, process).get(name)
            if there is None:
                raise Errno(errno.ENOENT)
            return there

        number = zlib.crc32(name, self.number)
        return Dentry(name, here, GeneratedLink(target, self.sb, number, self._process))

    def entries(self, kernel: Kernel, here: Dentry, position: int) -> Iterator[Entry]:
        """All links."""
        yield from numbered(kernel, self, here, list(self._body(kernel, self._process)), position)


def numbered(kernel: Kernel, directory: Directory, here: Dentry, names: list[bytes], position: int) -> Iterator[Entry]:
    """A listing in which the place of a name is its position."""
    for index, name in enumerate(names[position - FIRST_POSITION :], position):
        dentry = directory.lookup(kernel, here, name)
        if dentry is not None:
            yield Entry(index, dentry.inode.number, dentry.inode.kind, name)


def _living(kernel: Kernel) -> dict[bytes, Process]:
    return {b"%d" % process.pid: process for process in kernel.processes if process.alive}


def generated_tree(sb: SuperBlock, path: bytes) -> GeneratedDirectory:
    """The root of one of the trees."""
    return GeneratedDirectory((path.lstrip(b"/"),), sb, 1, None)
