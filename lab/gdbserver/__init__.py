"""A server for GDB's remote protocol: `cr3 gdb`."""

from __future__ import annotations

from .server import GdbServer

__all__ = ["GdbServer"]
