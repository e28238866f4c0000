r"""Packets of GDB's remote protocol: `$data#checksum`, over a TCP connection that may break at any time.

>>> frame(b"OK")
b'$OK#9a'
>>> escaped(b"a}#")
b'a}]}\x03'
>>> inbox = Inbox()
>>> inbox.feed(b"+$g#67\x03$m0,4#fd junk $bad#00")
>>> [inbox.next() for _ in range(4)]
[b'g', b'\x03', b'm0,4', None]

Protocol: "GDB Remote Serial Protocol", appendix E of the GDB manual.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from typing import Final

__all__ = ["INTERRUPT", "Gone", "Inbox", "Link", "escaped", "frame", "unescaped"]

INTERRUPT: Final = b"\x03"
"""A byte of its own: Ctrl-C."""
LARGEST: Final = 1 << 16
"""Bytes of a packet that anybody sends; what grows beyond is rubbish."""


class Gone(Exception):  # noqa: N818 - what happened
    """The client went away."""


def frame(data: bytes) -> bytes:
    """A packet."""
    return b"$%b#%02x" % (data, sum(data) & 0xFF)


def escaped(data: bytes) -> bytes:
    """Binary data as they travel: `}` before a byte that means something, which is XORed with 0x20."""
    return b"".join(b"}%c" % (byte ^ 0x20) if byte in b"#$}*" else b"%c" % byte for byte in data)


def unescaped(data: bytes) -> bytes:
    """Binary data as they were."""
    first, *parts = data.split(b"}")
    return first + b"".join(bytes([part[0] ^ 0x20]) + part[1:] for part in parts if part)


class Inbox:
    """Bytes that arrived, cut into packets. What is no packet, or has a wrong checksum, is left out."""

    def __init__(self) -> None:
        self._bytes = b""
        self._ready: deque[bytes] = deque()
        self.refused = 0

    def feed(self, data: bytes) -> None:
        """More bytes."""
        self._bytes += data
        while self._take():
            pass
        if len(self._bytes) > LARGEST:
            self._bytes = b""

    def _take(self) -> bool:
        """Move one packet out of the bytes, if there is a whole one."""
        start = min((at for at in (self._bytes.find(b"$"), self._bytes.find(INTERRUPT)) if at >= 0), default=-1)
        if start < 0:
            self._bytes = b""
            return False
        self._bytes = self._bytes[start:]
        if self._bytes.startswith(INTERRUPT):
            self._ready.append(INTERRUPT)
            self._bytes = self._bytes[1:]
            return True
        end = self._bytes.find(b"#")
        if end < 0 or len(self._bytes) < end + 3:
            return False
        data, checksum = self._bytes[1:end], self._bytes[end + 1 : end + 3]
        self._bytes = self._bytes[end + 3 :]
        if checksum.lower() == b"%02x" % (sum(data) & 0xFF):
            self._ready.append(data)
        else:
            self.refused += 1
        return True

    def next(self) -> bytes | None:
        """The next packet; None if there is none yet."""
        return self._ready.popleft() if self._ready else None

    def take_interrupt(self) -> bool:
        """Whether Ctrl-C arrived; it is then dealt with."""
        if INTERRUPT in self._ready:
            self._ready.remove(INTERRUPT)
            return True
        return False


class Link:
    """One client. Everything may raise Gone."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._inbox = Inbox()
        self._last = b""
        self.acknowledges = True

    def _receive(self) -> None:
        refused = self._inbox.refused
        try:
            data = self._socket.recv(4096)
        except OSError:
            raise Gone from None
        if not data:
            raise Gone
        if data.startswith(b"-") and self.acknowledges:
            self._write(self._last)
        self._inbox.feed(data)
        if self._inbox.refused > refused and self.acknowledges:
            self._write(b"-")

    def _write(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError:
            raise Gone from None

    def receive(self) -> bytes:
        """The next packet, acknowledged."""
        while (packet := self._inbox.next()) is None:
            self._receive()
        if self.acknowledges and packet != INTERRUPT:
            self._write(b"+")
        return packet

    def send(self, data: bytes) -> None:
        """Send a packet."""
        self._last = frame(data)
        self._write(self._last)

    def is_interrupted(self) -> bool:
        """Whether Ctrl-C arrived meanwhile. Does not wait."""
        if select.select([self._socket], [], [], 0)[0]:
            self._receive()
        return self._inbox.take_interrupt()
