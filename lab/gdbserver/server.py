"""A server that GDB connects to: `target remote 127.0.0.1:1234`, then break, step, watch, and reverse-step.

To GDB this is one processor, which runs the first program's machine code. It stops with signals where Linux would send
some to the program. Every packet is a method with the decorator; one that nobody knows gets the empty answer, which
means so.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any, BinaryIO, Final, TypeVar

from emu import InputError
from emu.elf import with_file
from kernel.siginfo import SIGTRAP

from ..debugger import AtAddress, Debugger, Interrupted, OnAccess, Outcome, Stop, Why, look
from ..options import Options
from . import monitor, target
from .packets import INTERRUPT, Gone, Link, unescaped
from .signals import gdb_signal, linux_signal
from .transfer import Files, chunk

__all__ = ["GdbServer"]

LOOPBACK: Final = "127.0.0.1"
PACKET_SIZE: Final = 0x4000
FEATURES: Final = (
    f"PacketSize={PACKET_SIZE:x};QStartNoAckMode+;ReverseStep+;ReverseContinue+;vContSupported+;swbreak+;hwbreak+;"
    "QPassSignals+;qXfer:features:read+;qXfer:exec-file:read+"
)
BAD_PACKET, NO_MEMORY, REFUSED = b"E01", b"E14", b"E16"
SIGINT_OF_GDB: Final = 2
WATCHES: Final = {2: ("write", "watch"), 3: ("read", "rwatch"), 4: ("access", "awatch")}
"""Kinds of Z packets: what a stop looks for, and how the stop reply says it."""

BREAKS: Final = (b"swbreak:;", b"hwbreak:;")

Handler = Callable[["GdbServer", bytes], "bytes | None"]
_H = TypeVar("_H", bound=Handler)
_HANDLERS: list[tuple[bytes, Handler]] = []


class Ended(Exception):  # noqa: N818 - what happened
    """The client wants no more."""


def packet(*prefixes: str) -> Callable[[_H], _H]:
    """Register a method for packets that begin with one of these; the longest one counts. It gets what follows."""

    def register(handler: _H) -> _H:
        _HANDLERS.extend((prefix.encode(), handler) for prefix in prefixes)
        _HANDLERS.sort(key=lambda pair: -len(pair[0]))
        return handler

    return register


class GdbServer:
    """One run, for one client at a time. Raises InputError for programs or a port that cannot be used.

    `passes_kernel` says that a step in user mode is a step of the user's program.
    """

    def __init__(self, options: Options, port: int, stdin: BinaryIO, stdout: BinaryIO, stderr: BinaryIO) -> None:
        self._listener = _bound(port)
        self.port: int = self._listener.getsockname()[1]
        self._link: Link | None = None
        self.debugger = Debugger(options, stdin, stdout, stderr, is_interrupted=self._is_interrupted)
        self.passes_kernel = True
        self._stops: dict[tuple[int, int, int], Stop] = {}
        self._files = Files(self.debugger.ask(executable))
        self._reply = self._told(self.debugger.start())
        self._listener.listen(1)  # not before: GDB does not wait long for an answer

    def close(self) -> None:
        """End everything."""
        self.debugger.timeline.close()
        self._listener.close()

    def _is_interrupted(self) -> bool:
        return self._link is not None and self._link.is_interrupted()

    def serve(self) -> None:
        """Serve clients until one says that it is done: detaches, kills the program, or sees its end."""
        while True:
            connection, _ = self._listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._link = Link(connection)
                try:
                    self._talk(self._link)
                except Gone:
                    continue
                except Ended:
                    return
                finally:
                    self._link = None

    def _talk(self, link: Link) -> None:
        """Answer packets. Raises Gone, Ended."""
        while True:
            request = link.receive()
            if request == INTERRUPT:
                continue  # nothing runs
            answer = self._answer(request)
            if answer is not None:
                link.send(answer)
            if request.startswith(b"QStartNoAckMode"):
                link.acknowledges = False
            if answer is not None and answer[:1] in (b"W", b"X"):
                raise Ended

    def _answer(self, request: bytes) -> bytes | None:
        for prefix, handler in _HANDLERS:
            if request.startswith(prefix):
                try:
                    return handler(self, request[len(prefix) :])
                except (ValueError, IndexError):
                    return BAD_PACKET
                except InputError:
                    return REFUSED
        return b""

    # --- hello and good-bye -----------------------------------------------------------------------------------------

    @packet("qSupported")
    def _supported(self, _rest: bytes) -> bytes:
        return FEATURES.encode()

    @packet("QStartNoAckMode", "H", "T", "qSymbol", "!")
    def _agreed(self, _rest: bytes) -> bytes:
        return b"OK"

    @packet("qAttached")
    def _attached(self, _rest: bytes) -> bytes:
        return b"1"

    @packet("qfThreadInfo")
    def _threads(self, _rest: bytes) -> bytes:
        return b"m1"

    @packet("qsThreadInfo")
    def _no_more_threads(self, _rest: bytes) -> bytes:
        return b"l"

    @packet("qC")
    def _current_thread(self, _rest: bytes) -> bytes:
        return b"QC1"

    @packet("qXfer:features:read:target.xml:")
    def _features(self, rest: bytes) -> bytes:
        return chunk(target.description().encode(), rest)

    @packet("qXfer:exec-file:read:")
    def _exec_file(self, rest: bytes) -> bytes:
        return chunk(self._files.name.encode(), rest.rpartition(b":")[2])

    @packet("vFile:")
    def _file(self, rest: bytes) -> bytes:
        return self._files.answer(rest)

    @packet("QPassSignals:")
    def _pass_signals(self, rest: bytes) -> bytes:
        numbers = (linux_signal(int(number, 16)) for number in rest.split(b";") if number)
        self.debugger.quiet = frozenset(number for number in numbers if number)
        return b"OK"

    @packet("D")
    def _detach(self, _rest: bytes) -> None:
        assert self._link is not None
        self._link.send(b"OK")
        raise Ended

    @packet("k")
    def _kill(self, _rest: bytes) -> None:
        raise Ended

    @packet("vKill")
    def _kill_politely(self, _rest: bytes) -> None:
        self._detach(b"")

    # --- registers and memory ---------------------------------------------------------------------------------------

    @packet("g")
    def _read_registers(self, _rest: bytes) -> bytes:
        return b"".join(self.debugger.ask(target.read_registers)).hex().encode()

    @packet("p")
    def _read_register(self, rest: bytes) -> bytes:
        registers: list[bytes] = self.debugger.ask(target.read_registers)
        return registers[int(rest, 16)].hex().encode()

    @packet("P")
    def _write_register(self, rest: bytes) -> bytes:
        number, _, content = rest.partition(b"=")
        self.debugger.timeline.edit(target.write_register, int(number, 16), bytes.fromhex(content.decode()))
        return b"OK"

    @packet("G")
    def _write_registers(self, rest: bytes) -> bytes:
        content, at = bytes.fromhex(rest.decode()), 0
        before: list[bytes] = self.debugger.ask(target.read_registers)
        for number, register in enumerate(target.REGISTERS):
            new = content[at : at + register.bits // 8]
            at += register.bits // 8
            if new != before[number]:
                self.debugger.timeline.edit(target.write_register, number, new)
        return b"OK"

    @packet("m")
    def _read_memory(self, rest: bytes) -> bytes:
        va, size = (int(number, 16) for number in rest.split(b","))
        size = min(size, PACKET_SIZE // 2 - 8)
        content: bytes = self.debugger.ask(look.read, va, size)
        if len(content) < size:  # ptrace(2) would bring the page
            content = self.debugger.timeline.suppose(look.read_promised, va, size) or content
        return content.hex().encode() if content or not size else NO_MEMORY

    @packet("M")
    def _write_memory(self, rest: bytes) -> bytes:
        place, _, content = rest.partition(b":")
        return self._change_memory(place, bytes.fromhex(content.decode()))

    @packet("X")
    def _write_binary(self, rest: bytes) -> bytes:
        place, _, content = rest.partition(b":")
        return self._change_memory(place, unescaped(content))

    def _change_memory(self, place: bytes, content: bytes) -> bytes:
        va, size = (int(number, 16) for number in place.split(b","))
        if size != len(content):
            return BAD_PACKET
        if content:
            self.debugger.timeline.edit(look.write, va, content)
        return b"OK"

    # --- stops ------------------------------------------------------------------------------------------------------

    @packet("Z")
    def _insert(self, rest: bytes) -> bytes:
        kind, va, size = self._stop_key(rest)
        if kind in WATCHES:
            self._stops[kind, va, size] = OnAccess(self.debugger.moment.pid, va, size, WATCHES[kind][0])
        elif kind in (0, 1):
            self._stops[kind, va, size] = AtAddress(va)
        else:
            return b""
        return b"OK"

    @packet("z")
    def _remove(self, rest: bytes) -> bytes:
        self._stops.pop(self._stop_key(rest), None)
        return b"OK"

    @staticmethod
    def _stop_key(rest: bytes) -> tuple[int, int, int]:
        kind, va, size = rest.split(b";")[0].split(b",")
        return int(kind), int(va, 16), int(size, 16)

    @packet("?")
    def _why(self, _rest: bytes) -> bytes:
        return self._reply

    # --- running ----------------------------------------------------------------------------------------------------

    @packet("vCont?")
    def _actions(self, _rest: bytes) -> bytes:
        return b"vCont;c;C;s;S"

    @packet("vCont;")
    def _resume(self, rest: bytes) -> bytes:
        verbs = {b"s": self._step, b"S": self._step, b"c": self._continue, b"C": self._continue}
        verb = verbs.get(rest[:1])
        return verb(b"") if verb else BAD_PACKET

    @packet("s", "S")
    def _step(self, _rest: bytes) -> bytes:
        return self._go(self.debugger.step_user if self.passes_kernel else self.debugger.step)

    @packet("c", "C")
    def _continue(self, _rest: bytes) -> bytes:
        return self._go(lambda: self.debugger.forward(list(self._stops.values())))

    @packet("bs")
    def _reverse_step(self, _rest: bytes) -> bytes:
        return self._go(self.debugger.reverse_step_user if self.passes_kernel else self.debugger.reverse_step)

    @packet("bc")
    def _reverse_continue(self, _rest: bytes) -> bytes:
        return self._go(lambda: self.debugger.backward(list(self._stops.values())))

    def _go(self, verb: Callable[[], Outcome]) -> bytes:
        """Run, and say how it ended."""
        start = self.debugger.moment.position
        try:
            outcome = verb()
        except Interrupted as interruption:
            self.debugger.go(max(interruption.position, start))
            self._reply = b"T%02xthread:1;" % SIGINT_OF_GDB
            return self._reply
        if outcome.why is Why.END:
            outcome = self._last_look(start, outcome)
        self._reply = self._told(outcome)
        return self._reply

    def _last_look(self, start: int, end: Outcome) -> Outcome:
        """Stop at the program's last instruction first, since nothing can be asked when it has ended."""
        last = self.debugger.last_of_user()
        if last <= start or end.moment.trouble:
            return end
        return Outcome(Why.END, self.debugger.go(last).moment)

    def _told(self, outcome: Outcome) -> bytes:
        """The stop reply."""
        moment, hit = outcome.moment, outcome.hit
        if moment.ended:
            if moment.signal is not None:
                return b"X%02x" % gdb_signal(moment.signal)
            return b"W%02x" % (moment.exit_code or 0)
        signal, more = SIGTRAP, b""
        if outcome.why is Why.SIGNAL and hit is not None:
            signal = gdb_signal(int(hit.what.split()[0]))
        elif outcome.why is Why.END:
            more = b"replaylog:end;"
        elif outcome.why is Why.START:
            more = b"replaylog:begin;"
        elif outcome.why is Why.STOP and hit is not None and hit.number < len(self._stops):
            kind, va, _ = list(self._stops)[hit.number]
            more = b"%s:%x;" % (WATCHES[kind][1].encode(), va) if kind in WATCHES else BREAKS[kind]
        return b"T%02x%sthread:1;" % (signal, more)

    # --- monitor ----------------------------------------------------------------------------------------------------

    @packet("qRcmd,")
    def _monitor(self, rest: bytes) -> bytes:
        assert self._link is not None
        text = monitor.run(self, bytes.fromhex(rest.decode()).decode(errors="replace"))
        for start in range(0, len(text), PACKET_SIZE // 4):
            self._link.send(b"O" + text[start : start + PACKET_SIZE // 4].encode().hex().encode())
        return b"OK"


def executable(session: Any) -> tuple[str, bytes]:
    """Guest's path and content of the first program as an ELF file."""
    image = with_file(session.images[0])
    return "/" + re.sub(r"\.(asm|s|S)$", "", image.path).lstrip("/"), image.file


def _bound(port: int) -> socket.socket:
    """A socket on the loopback address: whoever can connect can do anything to the guest. Raises InputError."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
    except OSError as error:
        listener.close()
        raise InputError(f"port {port}: {error.strerror}; choose another one with --port") from None
    return listener
