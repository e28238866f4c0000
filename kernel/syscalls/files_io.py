"""System calls that move bytes (fs/read_write.c, fs/sync.c, and the truncating half of fs/open.c)."""

from __future__ import annotations

import errno
import stat
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ..exceptions import Errno
from ..files.directory import DirectoryFile
from ..files.file import MAX_OFFSET, File, OpenFlag
from ..files.iov import IovIter, KernelIter
from ..files.pipe import PipeEnd
from ..files.regular import RegularFile
from ..wait import Wait
from . import syscall
from .files_arguments import (
    AT_FDCWD,
    MAX_RW_COUNT,
    buffers,
    find,
    int64,
    one_buffer,
    open_file,
)

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["lseek", "read", "sendfile", "write"]

SENDFILE_STEP: Final = 16 * 4096


def _readable(kernel: Kernel, fd: int) -> File:
    file = open_file(kernel, fd)
    if not file.readable:
        raise Errno(errno.EBADF)
    return file


def _writable(kernel: Kernel, fd: int) -> File:
    file = open_file(kernel, fd)
    if not file.writable:
        raise Errno(errno.EBADF)
    return file


def _verify_area(file: File, position: int, moved: IovIter) -> None:
    """Raises Errno: EINVAL if a position would become larger than there are (rw_verify_area)."""
    if file.seekable and position + moved.left > MAX_OFFSET:
        raise Errno(errno.EINVAL)


def _read(file: File, to: IovIter) -> int | Wait:
    """Read at the file's own position, and move it."""
    _verify_area(file, file.offset, to)
    result = file.read(to, file.offset)
    if file.seekable and isinstance(result, int):
        file.offset += result
    return result


def _write(file: File, source: IovIter) -> int | Wait:
    """Write at the file's own position, or at its end, and move it."""
    if file.flags & OpenFlag.APPEND and file.seekable and source.left:
        file.offset = file.inode.size
    _verify_area(file, file.offset, source)
    result = file.write(source, file.offset)
    if file.seekable and isinstance(result, int):
        file.offset += result
    return result


@syscall(0, cycles=50)
def read(kernel: Kernel, fd: int, buffer: int, count: int) -> int | Wait:
    """Read from a file."""
    return _read(_readable(kernel, fd), one_buffer(kernel, buffer, count))


@syscall(1, cycles=50)
def write(kernel: Kernel, fd: int, buffer: int, count: int) -> int | Wait:
    """Write to a file; the count is shorter if the buffer is bad in the middle."""
    return _write(_writable(kernel, fd), one_buffer(kernel, buffer, count))


@syscall(19, cycles=50)
def readv(kernel: Kernel, fd: int, iov: int, count: int) -> int | Wait:
    """Read into several buffers."""
    return _read(_readable(kernel, fd), buffers(kernel, iov, count))


@syscall(20, cycles=50)
def writev(kernel: Kernel, fd: int, iov: int, count: int) -> int | Wait:
    """Write from several buffers."""
    return _write(_writable(kernel, fd), buffers(kernel, iov, count))


def _position(file: File, offset: int) -> int:
    """A position given by the caller. Raises Errno: ESPIPE."""
    if not file.seekable:
        raise Errno(errno.ESPIPE)
    return offset


def _check_offset(offset: int) -> int:
    if int64(offset) < 0:
        raise Errno(errno.EINVAL)
    return offset


@syscall(17)
def pread64(kernel: Kernel, fd: int, buffer: int, count: int, offset: int) -> int | Wait:
    """Read at a position."""
    _check_offset(offset)
    position = _position(open_file(kernel, fd), offset)
    return _read_at(_readable(kernel, fd), one_buffer(kernel, buffer, count), position)


@syscall(18)
def pwrite64(kernel: Kernel, fd: int, buffer: int, count: int, offset: int) -> int | Wait:
    """Write at a position; at the end if the file was opened for appending."""
    _check_offset(offset)
    position = _position(open_file(kernel, fd), offset)
    return _write_at(_writable(kernel, fd), one_buffer(kernel, buffer, count), position)


def _read_at(file: File, to: IovIter, position: int) -> int | Wait:
    _verify_area(file, position, to)
    return file.read(to, position)


def _write_at(file: File, source: IovIter, position: int) -> int | Wait:
    _verify_area(file, position, source)
    return file.write(source, file.inode.size if file.flags & OpenFlag.APPEND else position)


@syscall(295)
def preadv(kernel: Kernel, fd: int, iov: int, count: int, offset: int) -> int | Wait:
    """Read into several buffers at a position."""
    _check_offset(offset)
    position = _position(open_file(kernel, fd), offset)
    return _read_at(_readable(kernel, fd), buffers(kernel, iov, count), position)


@syscall(296)
def pwritev(kernel: Kernel, fd: int, iov: int, count: int, offset: int) -> int | Wait:
    """Write from several buffers at a position."""
    _check_offset(offset)
    position = _position(open_file(kernel, fd), offset)
    return _write_at(_writable(kernel, fd), buffers(kernel, iov, count), position)


@syscall(8)
def lseek(kernel: Kernel, fd: int, offset: int, whence: int) -> int:
    """Move a file's position."""
    file = open_file(kernel, fd)
    if whence & 0xFFFF_FFFF > 4:
        raise Errno(errno.EINVAL)
    return file.seek(int64(offset), whence & 0xFFFF_FFFF)


# --- from file to file ----------------------------------------------------------------------------------------------


@syscall(40)
def sendfile(kernel: Kernel, out_fd: int, in_fd: int, offset_va: int, count: int) -> int | Wait:
    """Copy from a file to another without a way through user memory (do_sendfile)."""
    position = None
    if offset_va:
        (position,) = struct.unpack("<q", kernel.user.copy_from(offset_va, 8))
    source = _readable(kernel, in_fd)
    if position is not None and not source.seekable:
        raise Errno(errno.ESPIPE)
    target = _writable(kernel, out_fd)
    if int64(count) < 0 or (position is not None and position < 0):
        raise Errno(errno.EINVAL)
    _check_splice(kernel, source, target, count)
    start = source.offset if position is None else position
    result = _copy(source, start, target, min(count, MAX_RW_COUNT))

    def finish(done: int) -> int:
        if position is None:
            source.offset = start + done
        else:
            kernel.user.copy_to(offset_va, struct.pack("<q", start + done))
        return done

    return _then(result, finish)


def _check_splice(kernel: Kernel, source: File, target: File, count: int) -> None:
    """Raises Errno: EPIPE for a pipe that nobody reads, EINVAL for what has no positions, and for appending."""
    if isinstance(target, PipeEnd):
        target.check_readers(kernel.current)
    elif target.flags & OpenFlag.APPEND:
        raise Errno(errno.EINVAL)
    if count and (not source.seekable or isinstance(source, DirectoryFile)):
        raise Errno(errno.EINVAL)


def _copy(source: File, position: int, target: File, count: int) -> int | Wait:
    """Copy up to `count` bytes to the target's own position."""
    done = 0
    while done < count:
        taken = KernelIter(room=min(SENDFILE_STEP, count - done))
        source.read(taken, position + done)
        data = taken.data
        if not data:
            break
        written = _write(target, KernelIter(data))
        if isinstance(written, Wait):
            return done if done else written
        done += written
        if written < len(data):
            break
    return done


def _then(result: int | Wait, finish: Callable[[int], int]) -> int | Wait:
    """What to do with a result, now or when it is there."""
    if not isinstance(result, Wait):
        return finish(result)
    waiting = result

    def attempt() -> int | None:
        done = waiting.attempt()
        return None if done is None else finish(done)

    return Wait(waiting.queues, attempt)


@syscall(326)
def copy_file_range(kernel: Kernel, in_fd: int, in_va: int, out_fd: int, out_va: int, count: int, flags: int) -> int:
    """Copy from one regular file to another (vfs_copy_file_range)."""
    source, target = open_file(kernel, in_fd), open_file(kernel, out_fd)
    start, to = source.offset, target.offset
    if in_va:
        (start,) = struct.unpack("<q", kernel.user.copy_from(in_va, 8))
    if out_va:
        (to,) = struct.unpack("<q", kernel.user.copy_from(out_va, 8))
    if flags & 0xFFFF_FFFF:
        raise Errno(errno.EINVAL)
    done = _copy_range(source, start, target, to, min(count, MAX_RW_COUNT))
    for va, file, position in ((in_va, source, start + done), (out_va, target, to + done)):
        if va:
            kernel.user.copy_to(va, struct.pack("<q", position))
        else:
            file.offset = position
    return done


def _copy_range(source: File, start: int, target: File, to: int, count: int) -> int:
    """Raises Errno: EISDIR, EINVAL, EBADF (generic_copy_file_checks)."""
    for file in (source, target):
        if file.inode.kind == stat.S_IFDIR:
            raise Errno(errno.EISDIR)
    if not isinstance(source, RegularFile) or not isinstance(target, RegularFile):
        raise Errno(errno.EINVAL)
    if not source.readable or not target.writable or target.flags & OpenFlag.APPEND:
        raise Errno(errno.EBADF)
    count = min(count, max(source.mapping.size - start, 0))
    if start < 0 or to < 0 or (source.inode is target.inode and start < to + count and to < start + count):
        raise Errno(errno.EINVAL)
    done = 0
    while done < count:
        data = source.mapping.read(start + done, min(SENDFILE_STEP, count - done))
        if not data:
            break
        done += target.write(KernelIter(data), to + done)
    return done


# --- size and safety ------------------------------------------------------------------------------------------------


@syscall(76)
def truncate(kernel: Kernel, path_va: int, size: int) -> int:
    """Set the size of a file by path."""
    if int64(size) < 0:
        raise Errno(errno.EINVAL)
    find(kernel, AT_FDCWD, path_va).inode.truncate(size)
    return 0


@syscall(77)
def ftruncate(kernel: Kernel, fd: int, size: int) -> int:
    """Set the size of an open file."""
    if int64(size) < 0:
        raise Errno(errno.EINVAL)
    file = open_file(kernel, fd)
    if file.inode.kind != stat.S_IFREG or not file.writable:
        raise Errno(errno.EINVAL)
    file.inode.truncate(size)
    return 0


@syscall(74)
def fsync(kernel: Kernel, fd: int) -> int:
    """Write what was changed to where it stays: only files of the host's that are writable have such a place."""
    open_file(kernel, fd).sync()
    return 0


@syscall(75)
def fdatasync(kernel: Kernel, fd: int) -> int:
    """The same."""
    return fsync(kernel, fd)


@syscall(162)
def sync(kernel: Kernel) -> int:
    """The same for all files."""
    kernel.file_system.sync()
    return 0
