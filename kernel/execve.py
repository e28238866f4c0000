"""Replacing the program of a process (fs/exec.c, begin_new_exec).

The new address space is made while the old one is still there: if anything is wrong with the file, the process goes on
as if it had not asked. Only then there is no way back.
"""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING, Final

from emu.control import Msr
from emu.elf import parse_elf
from emu.exceptions import InputError
from emu.image import Image

from .address_space import AddressSpace
from .events import ExecEvent
from .exceptions import Errno
from .exec import load_program
from .exit import end_vfork
from .files.regular import Regular
from .process import Process, first_registers

if TYPE_CHECKING:
    from .files.file import File
    from .kernel import Kernel

__all__ = ["execve", "read_strings"]

PATH_MAX: Final = 4096
MAX_STRINGS: Final = 4096
MAX_STRING: Final = 32 * 4096
SCRIPT: Final = b"#!"
FIRST_LINE: Final = 256
MAX_INTERPRETERS: Final = 5


def execve(kernel: Kernel, process: Process, file: File, path: str, argv: list[str], envp: list[str]) -> None:
    """Run a program in place of the present one. Takes over the file. Raises Errno, with nothing changed."""
    image, argv, file = _load(kernel, file, path, argv, 0)
    new = AddressSpace(kernel.manager)
    new.thp_disable = process.mm.thp_disable
    try:
        pointer = load_program(kernel, new, file, image, argv, envp)
    except InputError:
        new.destroy()
        raise Errno(errno.E2BIG) from None
    except Errno:
        new.destroy()
        raise
    finally:
        file.put()
    _begin(kernel, process, new)
    process.image, process.arguments, process.own_name = image, tuple(argv), ""
    process.minor_faults += new.faults_of_exec
    kernel.memory.write_va(process.registers_va, first_registers(image.entry, pointer))
    process.keeps_registers = process.work = True
    if kernel.events.wants("exec"):
        kernel.events.emit(ExecEvent(kernel.now, process.pid, image.path, image.entry))


Loaded = tuple[Image, list[str], "File"]
"""A program, its arguments, and the open file that it is in."""


def _load(kernel: Kernel, file: File, path: str, argv: list[str], depth: int) -> Loaded:
    """What a file holds; for a script its interpreter, with other arguments. Takes over the file. Raises Errno."""
    try:
        data = _content(file)
        if not data.startswith(SCRIPT):
            return parse_elf(data, path), argv, file.get()
    except InputError:
        raise Errno(errno.ENOEXEC) from None
    finally:
        file.put()
    return _load_script(kernel, data, path, argv, depth)


def _content(file: File) -> bytes:
    """The bytes of a file that can be executed. Raises Errno(EACCES)."""
    inode = file.inode
    if not stat.S_ISREG(inode.mode) or not inode.mode & 0o111:
        raise Errno(errno.EACCES)
    return inode.mapping.read(0, inode.size) if isinstance(inode, Regular) else b""


def _load_script(kernel: Kernel, data: bytes, path: str, argv: list[str], depth: int) -> Loaded:
    """`#! interpreter argument` (fs/binfmt_script.c). Raises Errno."""
    words = data[len(SCRIPT) : FIRST_LINE].split(b"\n")[0].decode("utf-8", "surrogateescape").split(None, 1)
    if not words:
        raise Errno(errno.ENOEXEC)
    if depth >= MAX_INTERPRETERS:
        raise Errno(errno.ELOOP)
    walk = kernel.file_system.walk(kernel.current.files.cwd, kernel.current.files.root)
    dentry = walk.find(words[0].encode("utf-8", "surrogateescape"))
    interpreter = dentry.inode.open(kernel, dentry, 0)
    further = [word.rstrip() for word in words[1:]]
    return _load(kernel, interpreter, words[0], [words[0], *further, path, *argv[1:]], depth + 1)


def _begin(kernel: Kernel, process: Process, new: AddressSpace) -> None:
    """No way back: threads, memory, handlers and registers of the old program go (begin_new_exec)."""
    kernel.end_other_threads(process)
    old, process.mm = process.mm, new
    new.limits = process.limits
    kernel.manager.tlb.switch(new)
    kernel.release_mm(old)
    end_vfork(process)
    process.files.exec()
    process.signals = process.signals.on_exec()
    process.clear_child_tid = process.set_child_tid = 0
    kernel.scheduler.reset_processor()
    kernel.machine.write_msr(Msr.KERNEL_GS_BASE, 0)


def read_strings(kernel: Kernel, va: int) -> list[str]:
    """A NULL-terminated array of pointers to strings. Raises Errno: EFAULT, E2BIG."""
    strings: list[str] = []
    while va:
        pointer = int.from_bytes(kernel.user.copy_from(va, 8), "little")
        if not pointer:
            break
        if len(strings) == MAX_STRINGS:
            raise Errno(errno.E2BIG)
        strings.append(_read_string(kernel, pointer))
        va += 8
    return strings


def _read_string(kernel: Kernel, va: int) -> str:
    data = bytearray()
    while (end := data.find(b"\0")) < 0:
        if len(data) > MAX_STRING:
            raise Errno(errno.E2BIG)
        part = kernel.user.read(va + len(data), PATH_MAX - (va + len(data)) % PATH_MAX)
        if not part:
            raise Errno(errno.EFAULT)
        data += part
    return data[:end].decode("utf-8", "surrogateescape")
