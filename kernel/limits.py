"""Resource limits of a process (include/uapi/asm-generic/resource.h)."""

from __future__ import annotations

import errno
from typing import Final

from .exceptions import Errno

__all__ = ["INFINITY", "Limits", "Resource"]

INFINITY: Final = (1 << 64) - 1


class Resource:
    """RLIMIT_*."""

    CPU: Final = 0
    FSIZE: Final = 1
    DATA: Final = 2
    STACK: Final = 3
    CORE: Final = 4
    RSS: Final = 5
    NPROC: Final = 6
    NOFILE: Final = 7
    MEMLOCK: Final = 8
    AS: Final = 9
    LOCKS: Final = 10
    SIGPENDING: Final = 11
    MSGQUEUE: Final = 12
    NICE: Final = 13
    RTPRIO: Final = 14
    RTTIME: Final = 15
    COUNT: Final = 16


_FIRST: Final = {
    Resource.STACK: (8 << 20, INFINITY),
    Resource.CORE: (0, INFINITY),
    Resource.NPROC: (256, 256),
    Resource.NOFILE: (1024, 4096),
    Resource.MEMLOCK: (8 << 20, 8 << 20),
    Resource.NICE: (0, 0),
    Resource.RTPRIO: (0, 0),
}
"""What the first process starts with (INIT_RLIMITS in asm-generic/resource.h); 256 processes suit a small machine."""


class Limits:
    """Soft and hard limits. Children inherit them.

    >>> Limits().soft(Resource.STACK) >> 20
    8
    """

    def __init__(self, values: dict[int, tuple[int, int]] | None = None) -> None:
        self._values = dict(_FIRST if values is None else values)

    def get(self, resource: int) -> tuple[int, int]:
        """Soft and hard limit. Raises Errno(EINVAL)."""
        if resource >= Resource.COUNT:
            raise Errno(errno.EINVAL)
        return self._values.get(resource, (INFINITY, INFINITY))

    def soft(self, resource: int) -> int:
        """The limit that counts."""
        return self._values.get(resource, (INFINITY, INFINITY))[0]

    def set(self, resource: int, soft: int, hard: int) -> None:
        """Change both. Raises Errno(EINVAL)."""
        if resource >= Resource.COUNT or soft > hard:
            raise Errno(errno.EINVAL)
        self._values[resource] = (soft, hard)

    def copy(self) -> Limits:
        """The same limits for a child."""
        return Limits(self._values)
