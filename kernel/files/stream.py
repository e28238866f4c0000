"""Standard input, output and error: pipes whose other end is the host (what a shell gives `cr3 run` as descriptors)."""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING, BinaryIO, Final

from emu.pte import PAGE_SIZE

from ..exceptions import Errno
from .file import File, OpenFlag
from .inode import Dentry, Inode, SuperBlock
from .iov import IovIter

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["Stream", "StreamFile", "standard_streams"]

CHUNK: Final = 16 * PAGE_SIZE


class Stream(Inode):
    """A stream of the host's, in one direction: `flags` are the only ones with which it can be opened.

    What was read from it but could not be delivered comes first the next time.
    """

    def __init__(self, sb: SuperBlock, stream: BinaryIO, flags: int) -> None:
        super().__init__(sb, stat.S_IFIFO | 0o600)
        self.stream, self.flags, self.returned = stream, flags, b""

    def receive(self, size: int) -> bytes:
        """What is there, up to `size` bytes; empty at its end."""
        if self.returned:
            data, self.returned = self.returned[:size], self.returned[size:]
            return data
        read = getattr(self.stream, "read1", self.stream.read)
        return bytes(read(size))

    def open(self, kernel: Kernel, dentry: Dentry, flags: int) -> StreamFile:
        """Open it again, by /dev/stdin and its like. Raises Errno(EACCES) for the wrong direction."""
        if flags & OpenFlag.ACCMODE != self.flags:
            raise Errno(errno.EACCES)
        return StreamFile(dentry, flags, self)


class StreamFile(File):
    """An open stream."""

    def __init__(self, dentry: Dentry, flags: int, stream: Stream) -> None:
        super().__init__(dentry, flags)
        self._stream = stream

    def read(self, to: IovIter, position: int) -> int:
        """What is there; waiting for it is the host's affair. Raises Errno(EFAULT)."""
        if not to.left:
            return 0
        data = self._stream.receive(min(to.left, CHUNK))
        copied = to.copy_to(data)
        self._stream.returned = data[copied:] + self._stream.returned
        if data and not copied:
            raise Errno(errno.EFAULT)
        return copied

    def write(self, source: IovIter, position: int) -> int:
        """Page by page, as a pipe takes it: one that cannot be had as a whole is not written. Raises Errno(EFAULT)."""
        done = 0
        while source.left:
            wanted = min(source.left, PAGE_SIZE)
            data = source.copy_from(wanted)
            if len(data) < wanted:
                if not done:
                    raise Errno(errno.EFAULT)
                break
            self._stream.stream.write(data)
            done += wanted
        self._stream.stream.flush()
        return done


def standard_streams(sb: SuperBlock, stdin: BinaryIO, stdout: BinaryIO, stderr: BinaryIO) -> list[Dentry]:
    """The three streams, in the order of their descriptors."""
    flags = (0, OpenFlag.WRONLY, OpenFlag.WRONLY)
    streams = [Stream(sb, stream, flag) for stream, flag in zip((stdin, stdout, stderr), flags)]
    return [Dentry(b"pipe:[%d]" % stream.number, None, stream) for stream in streams]
