"""From options to a machine with a kernel and processes, and from there to a result.

Everything that runs a program goes this way: the commands, the tests, and scripts of your own.

>>> import tempfile
>>> from pathlib import Path
>>> with tempfile.TemporaryDirectory() as folder:
...     path = Path(folder) / "seven.asm"
...     _ = path.write_text("_start: mov edi, 7; mov eax, 60; syscall")
...     session = Session(Options(programs=(str(path),)))
>>> session.run().exit_code
7
>>> session.config()["engine"]
'trap'
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Final

from emu import Halt, InputError, Machine
from emu.elf import load_program
from emu.pte import PAGE_SIZE
from kernel import Kernel, Result

from .options import Options

__all__ = ["EXIT_LIMIT", "Options", "Session", "exit_status", "host_file", "interruptible"]

EXIT_LIMIT: Final = 124
"""Exit code when the instruction limit ended a run, or all processes wait for ever, as timeout(1) has it."""


class Session:
    """One run: a machine with a booted kernel, to which events can be subscribed, and programs to run on it.

    The guest's standard streams are binary files, by default an empty input and nowhere. Raises InputError
    for options, programs or a symbol that cannot be.
    """

    def __init__(
        self,
        options: Options,
        stdin: BinaryIO | None = None,
        stdout: BinaryIO | None = None,
        stderr: BinaryIO | None = None,
    ) -> None:
        self.options = options
        self.images = [load_program(program, syntax=options.syntax) for program in options.programs]
        if options.until is not None:
            self.images[0].address_of(options.until)
        self.machine = Machine(
            cpu=options.cpu,
            ram=options.ram,
            engine=options.engine,
            tlb=options.tlb,
            tlb_policy=options.tlb_policy,
            seed=options.seed,
            caches=options.caches != "off",
        )
        self.pti = self._choose_pti(options.pti)
        self.pcid = self._choose_pcid(options.pcid)
        self.kernel = Kernel(
            self.machine,
            pti=self.pti,
            pcid=self.pcid,
            asid=options.asid,
            populate=options.populate,
            aslr=options.aslr,
            thp=options.thp,
            empty_caches=options.caches == "flush",
            pte_inversion=options.pte_inversion,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            root=Path(options.root) if options.root is not None else None,
            files=dict(map(host_file, options.files)),
            swap=options.swap,
            swap_file=Path(options.swap_file) if options.swap_file is not None else None,
            swap_device=options.swap_device,
            swap_policy=options.swap_policy,
            secret=None if options.secret is None else options.secret.encode("utf-8", "surrogateescape"),
        )

    def _choose_pti(self, wanted: bool | None) -> bool:
        return self.machine.profile.vulnerabilities.meltdown if wanted is None else wanted

    def _choose_pcid(self, wanted: bool | None) -> bool:
        able = self.machine.profile.features.pcid
        if wanted and not able:
            raise InputError(f"CPU {self.machine.profile.name} has no PCIDs; leave out --pcid on")
        return able if wanted is None else wanted

    def run(self, *, before_exit: bool = False) -> Result:
        """Make a process of each program, and run to their end, to `until`, or to the instruction limit.

        With `before_exit` the first process is left as it is when it ends, with its memory.
        """
        for image in self.images:
            self.kernel.spawn(image, [image.path, *self.options.arguments])
        self.machine.max_instructions = self.options.max_instructions
        with interruptible(self.machine):
            return self.kernel.run(until=self.options.until, before_exit=before_exit)

    def close(self) -> None:
        """Close the swap file. What the run counted can still be looked at, but it cannot go on."""
        self.kernel.manager.swap.close()

    def config(self) -> dict[str, Any]:
        """Every option as it was resolved; on and off are spelled as on the command line."""
        given = asdict(self.options)
        del given["programs"], given["tlb"]
        resolved = {
            "arguments": list(self.options.arguments),
            "cpu": self.machine.profile.name,
            "ram": self.machine.ram.size,
            "swap": self.kernel.manager.swap.total * PAGE_SIZE,
            "engine": self.machine.engine,
            "tlb_policy": self.machine.tlb_policy,
            "pti": "on" if self.pti else "off",
            "pcid": "on" if self.pcid else "off",
            "pte_inversion": "on" if self.options.pte_inversion else "off",
        }
        return given | resolved


def host_file(pair: str) -> tuple[str, Path]:
    """The guest's path and the host's of a HOST:GUEST pair; `:rw` stays with the guest's. Raises InputError.

    >>> guest, host = host_file("notes.txt:/tmp/notes:rw")
    >>> guest, host.name
    ('/tmp/notes:rw', 'notes.txt')
    """
    paths, writable = pair.removesuffix(":rw"), pair.endswith(":rw")
    host, _, guest = paths.rpartition(":")
    if not host or not guest.startswith("/"):
        raise InputError(f"--file {pair}: expected HOST:GUEST, where GUEST begins with /")
    return guest + (":rw" if writable else ""), Path(host)


def exit_status(result: Result) -> int:
    """What the command exits with: the first process's code, or 128 + its signal; 0 where it was stopped."""
    if result.halt is Halt.INSTRUCTION_LIMIT or (result.is_stuck and (result.exit_code, result.signal) == (None, None)):
        return EXIT_LIMIT
    if result.signal is not None:
        return 128 + result.signal
    return result.exit_code or 0


@contextmanager
def interruptible(machine: Machine) -> Iterator[None]:
    """Let Ctrl-C reach a guest that loops without ever leaving native code.

    Python's own handler has to wait for that. A thread hears of the signal at once (signal.set_wakeup_fd) and
    sets the instruction deadline to now; the guest is left at its next jump, and KeyboardInterrupt is raised.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def listen() -> None:
        while received := reader.recv(64):
            if signal.SIGINT in received:
                machine.state.deadline = 0

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    previous = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        writer.close()
        listener.join()
        reader.close()
