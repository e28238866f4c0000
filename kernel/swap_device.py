"""The swap device: a file of the host's with one page a slot, and the time that a disk would take.

The file begins as mkswap(8) leaves it, with a header page that says SWAPSPACE2; slot 0 is the header. A temporary file
goes with the run; a file with a name stays.

>>> device = SwapDevice(SwapFile(size=8 * 4096), DEVICES["nvme"])
>>> device.file.write(1, bytes(4096))
>>> device.time_for(1), device.time_for(2), device.time_for(9)
(81300, 1300, 81300)
>>> device.file.close()
"""

from __future__ import annotations

import mmap
import struct
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

from emu import InputError
from emu.pte import PAGE_SIZE
from emu.ram import parse_size

__all__ = ["DEVICES", "DeviceProfile", "SwapDevice", "SwapFile", "open_swap_device"]

SIGNATURE: Final = b"SWAPSPACE2"
_PRIVATE: Final = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
"""What keeps memory from being shared with a child; where there is no fork(2), nobody could share it."""


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """Times in nanoseconds: `latency` of a request, and `page` to move 4 KiB once it has begun."""

    name: str
    latency: int
    page: int


DEVICES: Final = {
    device.name: device
    for device in (
        DeviceProfile("nvme", latency=80_000, page=1_300),
        DeviceProfile("ssd", latency=100_000, page=7_600),
        DeviceProfile("disk", latency=8_000_000, page=27_000),
    )
}
"""Assumptions, of the size that makers give for 4 KiB at queue depth 1 and for long transfers (3.2 GB/s, 540 MB/s,
150 MB/s). A disk's latency is its seek and half a turn."""


class SwapFile:
    """The bytes. Raises InputError for a size that is too small or a file that cannot be used or is something else."""

    def __init__(self, size: int, path: Path | None = None) -> None:
        self.slots = size // PAGE_SIZE
        self.name = str(path) if path else "/swapfile"
        if self.slots < 2:
            raise InputError(f"a swap area of {size} bytes is too small; give it two pages or more")
        try:
            self._file = _named(path) if path else tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - until close
            self._file.truncate(self.slots * PAGE_SIZE)
            self._write_at(0, self._header())
        except OSError as error:
            raise InputError(f"swap file {path or ''}: {error.strerror}") from None
        weakref.finalize(self, self._file.close)  # a kernel that is never closed keeps no file open

    def _header(self) -> bytes:
        """Union swap_header (include/linux/swap.h): version, last page, and the signature at the page's end."""
        start = bytes(1024) + struct.pack("<II", 1, self.slots - 1)
        return start.ljust(PAGE_SIZE - len(SIGNATURE), b"\0") + SIGNATURE

    def _write_at(self, slot: int, data: bytes) -> None:
        self._file.seek(slot * PAGE_SIZE)
        written = self._file.write(data)
        if written != len(data):
            raise OSError(28, "No space left on device")

    def leave_host(self) -> None:
        """From now on the pages are in our own memory, which fork(2) copies, and no file of the host's changes."""
        self._file.seek(0)
        header = self._file.read(PAGE_SIZE)
        self._file.close()
        self._file = cast(BinaryIO, mmap.mmap(-1, self.slots * PAGE_SIZE, **_PRIVATE))
        self._write_at(0, header)

    def write(self, slot: int, data: bytes) -> None:
        """Write one page. Raises OSError."""
        self._write_at(slot, data)

    def read(self, slot: int) -> bytes:
        """Read one page. Raises OSError, also if the file has become shorter."""
        self._file.seek(slot * PAGE_SIZE)
        data = self._file.read(PAGE_SIZE)
        if data is None or len(data) != PAGE_SIZE:
            raise OSError(5, "Input/output error")
        return data

    def close(self) -> None:
        """Close it; a temporary one is gone then."""
        self._file.close()


def _named(path: Path) -> BinaryIO:
    """Open a file that stays. One that holds something else is not touched."""
    if path.exists() and path.stat().st_size:
        with path.open("rb") as file:
            if not file.read(PAGE_SIZE).endswith(SIGNATURE):
                raise InputError(f"{path} exists and is no swap file; name one that is not there yet")
    return path.open("w+b", buffering=0)


class SwapDevice:
    """A swap file with the times of a device. It has one queue: a request waits until those before it are done.

    A request that goes on where the last one ended needs no seek and has no latency of its own.
    """

    def __init__(self, file: SwapFile, profile: DeviceProfile) -> None:
        self.file, self.profile = file, profile
        self._next = -1

    def time_for(self, slot: int) -> int:
        """Nanoseconds for a request, which is the latest from now on."""
        seek = 0 if slot == self._next else self.profile.latency
        self._next = slot + 1
        return seek + self.profile.page


def open_swap_device(size: str | int, path: Path | None, device: str) -> SwapDevice | None:
    """The swap device that was asked for, by its size and name; None for no size. Raises InputError."""
    if device not in DEVICES:
        raise InputError(f"unknown swap device {device!r}; there are {', '.join(DEVICES)}")
    area = parse_size(size)
    if path is not None and not area:
        raise InputError(f"swap file {path}: say how large it shall be (--swap SIZE)")
    return SwapDevice(SwapFile(area, path), DEVICES[device]) if area else None
