"""Replicas: a whole machine in a process of its own, which copies itself with fork(2).

A snapshot of a machine would have to hold RAM, all of the kernel's Python objects, and what Unicorn keeps inside, its
translated code too. fork(2) copies exactly that in one or two milliseconds, and lets copy and original share every
page that neither of them writes. So a snapshot is a process that sleeps, and to go back to it is to let it fork, and
to have the copy run.

    driver ──socket── replica at position 0 ──fork── replica at 65536 ──fork── ...
       └─────socket──────────────────────────────────────┘

Each has a socket to the driver, over which it is asked: to fork, to go to a position, to search a stretch, to call a
function. While it runs it asks back for the guest's input, and reports its output. When the driver goes away, every
replica reads the end of its socket, and ends.

Where there is no fork(2), a copy is a new process that loads the programs and executes everything up to there again.
That is as exact, but no snapshot is of any use, and every step takes as long as the run so far.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, Final

from emu import InputError

from .guest import Edit, Guest, Moment, Options, guest_of
from .scout import Found, search
from .stops import Stop

__all__ = ["Interrupted", "Replica", "ReplicaError", "can_fork"]

FORK: Final = b"fork"
"""The one request that is no pickle: a descriptor follows it."""
PATIENCE: Final = 0.05
"""Seconds between two looks at whether a person wants to interrupt a search."""


class Interrupted(Exception):  # noqa: N818 - what happened
    """A person stopped a search, which had come to `position`."""

    def __init__(self, position: int) -> None:
        self.position = position
        super().__init__(f"interrupted at {position}")


class ReplicaError(RuntimeError):
    """A replica ended without an answer: a bug of ours, or somebody killed it."""


def can_fork() -> bool:
    """Whether this system has fork(2)."""
    return hasattr(os, "fork") and hasattr(socket, "send_fds")


# --- in the driver's process ------------------------------------------------------------------------------------------


class Replica:
    """The driver's side of one replica. `host` serves it: `portion(number, size)`, `take(stream, offset, data)` and
    `is_interrupted()`.
    """

    def __init__(self, connection: Connection, pid: int, options: Options, host: Any) -> None:
        self._connection, self.pid, self._options, self._host = connection, pid, options, host
        self.position = 0

    @classmethod
    def first(cls, options: Options, host: Any) -> Replica:
        """A replica at position 0. Raises InputError for programs or options that cannot be."""
        ours, theirs = multiprocessing.Pipe()
        pid = (_forked if can_fork() else _spawned)(ours, theirs, options)
        theirs.close()
        replica = cls(ours, pid, options, host)
        with replica.ended_on_error():
            replica._answer()
        return replica

    def fork(self, edits: list[Edit]) -> Replica:
        """Another replica at the same position; `edits` are the changes of the past. Raises Interrupted."""
        if not can_fork():
            copy = Replica.first(self._options, self._host)
            with copy.ended_on_error():
                copy.advance(self.position, edits)
            return copy
        ours, theirs = multiprocessing.Pipe()
        self._send_bytes(FORK)
        with _socket_of(self._connection) as wire:
            socket.send_fds(wire, [b"f"], [theirs.fileno()])
        theirs.close()
        copy = Replica(ours, self._answer(), self._options, self._host)
        copy.position = self.position
        return copy

    @contextlib.contextmanager
    def ended_on_error(self) -> Iterator[None]:
        """End it when something is raised meanwhile: nobody would know it any more."""
        try:
            yield
        except BaseException:
            self.end()
            raise

    def advance(self, target: int, edits: list[Edit]) -> Moment:
        """Go to a position, or to the end of the run. Raises Interrupted."""
        moment: Moment = self._ask("advance", target, edits)
        self.position = moment.position
        return moment

    def search(self, stops: list[Stop], span: tuple[int, int | None, int | None], *rest: Any) -> Found:
        """Search (see `scout.search`); nothing else can be asked of it afterwards. Raises InputError, Interrupted."""
        found: Found = self._ask("search", stops, span, *rest)
        return found

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """`function(session, *arguments)` over there. Raises what it raises."""
        return self._ask("call", function, *arguments)

    def end(self) -> None:
        """Let it end, whatever it does."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        self._connection.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)  # the first one is our child, the others are not

    def _ask(self, *request: Any) -> Any:
        self._send(*request)
        return self._answer()

    def _send(self, *request: Any) -> None:
        self._send_bytes(pickle.dumps(request))

    def _send_bytes(self, message: bytes) -> None:
        try:
            self._connection.send_bytes(message)
        except OSError:
            raise ReplicaError(f"replica {self.pid} is gone") from None

    def _answer(self) -> Any:
        """What it answers; on the way it may want input, write output, and say how far it is."""
        position = self.position
        while True:
            if self._host.is_interrupted():
                raise Interrupted(position)
            if not self._connection.poll(PATIENCE):
                continue
            try:
                kind, *values = self._connection.recv()
            except (EOFError, OSError):
                raise ReplicaError(f"replica {self.pid} is gone") from None
            if kind == "answer":
                return values[0]
            if kind == "raise":
                raise values[0]
            if kind == "input":
                self._send(self._host.portion(*values))
            elif kind == "output":
                self._host.take(*values)
            else:
                position = values[0]


def _socket_of(connection: Connection) -> socket.socket:
    """The socket of a connection, to send descriptors through."""
    return socket.socket(fileno=os.dup(connection.fileno()))


def _forked(ours: Connection, theirs: Connection, options: Options) -> int:
    """A child of the driver that is a replica. Returns its pid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child uses no thread of ours
        pid = os.fork()
    if pid == 0:
        ours.close()
        _become_replica(theirs, options)
    return pid


def _spawned(_ours: Connection, theirs: Connection, options: Options) -> int:
    """The same where there is no fork(2)."""
    process = multiprocessing.get_context("spawn").Process(target=_become_replica, args=(theirs, options), daemon=True)
    process.start()
    return process.pid or 0


# --- in the replica's process -----------------------------------------------------------------------------------------


def _become_replica(connection: Connection, options: Options) -> None:
    """Make a guest, and serve until the driver is gone. Never returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's affair
    if can_fork():
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the copies
    try:
        server = _Server(connection)
        server.answer(lambda: server.boot(options))
        if server.guest is not None:
            server.serve()
    finally:
        os._exit(0)


class _Server:
    """A replica's own side."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.guest: Guest | None = None

    def boot(self, options: Options) -> None:
        """Load the programs. Raises InputError."""
        self.guest = guest_of(options, self._input, lambda *output: self._connection.send(("output", *output)))
        gc.collect()
        gc.freeze()  # what the collector does not touch stays shared

    def _input(self, number: int, size: int) -> bytes:
        self._connection.send(("input", number, size))
        (portion,) = self._connection.recv()
        return bytes(portion)

    def serve(self) -> None:
        """Do what the driver asks, until it is gone."""
        guest = self.guest
        assert guest is not None
        requests: dict[str, Callable[..., Any]] = {
            "advance": guest.advance,
            "search": lambda stops, span, edits, log=(): search(guest, stops, span, edits, self._report, log),
            "call": guest.call,
        }
        while True:
            try:
                request = self._connection.recv_bytes()
            except (EOFError, OSError):
                return
            if request == FORK:
                self._fork()
            else:
                self.answer(lambda: _served(requests, request))  # noqa: B023 - called at once

    def _report(self, position: int) -> None:
        self._connection.send(("position", position))

    def _fork(self) -> None:
        with _socket_of(self._connection) as wire:
            _, (descriptor, *_), _, _ = socket.recv_fds(wire, 1, 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid:
            os.close(descriptor)
            self._connection.send(("answer", pid))
            return
        self._connection.close()
        self._connection = Connection(descriptor)

    def answer(self, function: Callable[[], Any]) -> None:
        """Send what a function returns, or raises."""
        try:
            message = pickle.dumps(("answer", function()))
        except BaseException as error:
            message = _pickled(error)
        with contextlib.suppress(OSError):
            self._connection.send_bytes(message)


def _served(requests: dict[str, Callable[..., Any]], request: bytes) -> Any:
    """What a request gives."""
    name, *arguments = pickle.loads(request)
    return requests[name](*arguments)


def _pickled(error: BaseException) -> bytes:
    """A message with an exception; one that does not travel is told in words."""
    with contextlib.suppress(Exception):
        message = pickle.dumps(("raise", error))
        pickle.loads(message)
        return message
    print(f"cr3: a replica failed: {error!r}", file=sys.stderr)
    kind = InputError if isinstance(error, InputError) else ReplicaError
    return pickle.dumps(("raise", kind(str(error))))
