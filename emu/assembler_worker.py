"""The process in which LLVM assembles: it runs this file as a program.

LLVM's way to report a source error is to print it and exit, so it gets a process of its own. A request on
stdin is source text, the answer on stdout is an ELF object file, each behind its length (8 bytes,
little-endian). A process that ends without an answer has said why on stderr. It ends by itself when its
parent is gone (end of file), and when a source takes too long.

The source may be anyone's. The process therefore opens no further file once it has started (`.incbin`!), and
may not take all memory (`.rept 1000000000`).

The arguments are the folders to import llvmlite from.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from llvmlite.binding import TargetMachine

try:
    import resource
except ImportError:  # not on Windows, where the limits are the system's
    resource = None  # type: ignore[assignment]

__all__ = ["LENGTH_BYTES", "TOO_LONG", "read_message", "write_message"]

LENGTH_BYTES = 8
SECONDS = 20.0
MEMORY_BYTES = 1 << 30
MESSAGES_BYTES = 1 << 24
TOO_LONG = 124  # exit code, as of timeout(1)
TRIPLE = "x86_64-unknown-linux-gnu"
FEATURES = "-fast-15bytenop,+fast-11bytenop"  # pads code with the no-operations of GNU as


def read_message(stream: IO[bytes]) -> bytes | None:
    """One message, or None when the other side has ended (even in the middle of it)."""
    header = stream.read(LENGTH_BYTES)
    if len(header) < LENGTH_BYTES:
        return None
    length = int.from_bytes(header, "little")
    message = stream.read(length)
    return message if len(message) == length else None


def write_message(stream: IO[bytes], message: bytes) -> None:
    """Send one message."""
    stream.write(len(message).to_bytes(LENGTH_BYTES, "little"))
    stream.write(message)
    stream.flush()


def assemble(machine: TargetMachine, source: bytes) -> bytes:
    """Assemble into an object file: the source travels as the `module asm` of an empty LLVM module."""
    import llvmlite.binding as llvm

    quoted = re.sub(rb"[^ !#-\[\]-~]", lambda byte: b"\\%02X" % ord(byte[0]), source).decode("ascii")
    module = llvm.parse_assembly(f'target triple = "{TRIPLE}"\nmodule asm "{quoted}"\n')
    return bytes(machine.emit_object(module))


def limit_resources() -> None:
    """From now on: no further files, a bounded memory, no core dumps."""
    if resource is None:
        return
    limits = {
        resource.RLIMIT_NOFILE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: MESSAGES_BYTES,
        resource.RLIMIT_AS: MEMORY_BYTES,
    }
    for limit, value in limits.items():
        with contextlib.suppress(ValueError, OSError):  # some systems do not let a process limit its memory
            resource.setrlimit(limit, (value, value))


def main() -> None:
    """Assemble what comes in until nothing more comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what `.print` prints belongs to the messages
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    machine = llvm.Target.from_triple(TRIPLE).create_target_machine(features=FEATURES, reloc="static")
    limit_resources()
    while (source := read_message(requests)) is not None:
        watchdog = threading.Timer(SECONDS, os._exit, (TOO_LONG,))
        watchdog.daemon = True
        watchdog.start()
        answer = assemble(machine, source)
        watchdog.cancel()
        with contextlib.suppress(BrokenPipeError):
            write_message(answers, answer)


if __name__ == "__main__":
    sys.path += sys.argv[1:]
    main()
