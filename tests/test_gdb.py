"""`cr3 gdb`: the real GDB drives a run in both directions, and nothing that a client does harms the server."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from command import ROOT, compile_once, cr3_process, program, source

from lab.cli import cli

needs_gdb = pytest.mark.skipif(shutil.which("gdb") is None, reason="needs GDB (apt install gdb)")

Serve = Callable[..., "Server"]

CALLS = """
        .globl _start, add, done, total
_start: mov edi, 40
        call add
        mov edi, 2
        call add
done:   mov edi, [rip + total]
        mov eax, 60
        syscall
add:    add [rip + total], edi
        ret
        .bss
total:  .skip 8
"""


class Server:
    """A running `cr3 gdb`."""

    def __init__(self, *arguments: object, stdin: bytes = b"") -> None:
        compile_once()
        self.clients: list[Client] = []
        command = [sys.executable, "-m", "lab", "gdb", "--port", "0", "--ram", "8M", *map(str, arguments)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, cwd=ROOT, **pipes)
        assert self.process.stdin and self.process.stderr
        self.process.stdin.write(stdin)
        self.process.stdin.close()
        self.process.stdin = None
        said = self.process.stderr.readline().decode()
        found = re.search(r"target remote 127\.0\.0\.1:(\d+)", said)
        assert found, said
        self.port = int(found[1])

    def gdb(self, *commands: str) -> list[str]:
        """What GDB prints for each command."""
        script = [f"target remote 127.0.0.1:{self.port}", *commands]
        arguments = ["-nx", "-batch", "-ex", "set confirm off", "-ex", "set width 0"]
        for command in script:
            arguments += ["-ex", "echo ~~~", "-ex", command]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run(["gdb", *arguments], **pipes, timeout=100, cwd=ROOT)
        return [part.strip() for part in done.stdout.decode().split("~~~")[2:]]

    def client(self) -> Client:
        """A client of our own."""
        self.clients.append(Client(self.port))
        return self.clients[-1]

    def ended(self) -> tuple[int, str]:
        """Exit code and standard output."""
        stdout, _ = self.process.communicate(timeout=60)
        return self.process.returncode, stdout.decode()


class Client:
    """A client that speaks the protocol by hand."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)

    def send(self, data: bytes) -> None:
        self.socket.sendall(b"$%b#%02x" % (data, sum(data) & 0xFF))

    def receive(self) -> bytes:
        """The next packet."""
        data = b""
        while not (whole := re.search(rb"\$([^#]*)#..", data)):
            more = self.socket.recv(1 << 16)
            assert more, "the server hung up"
            data += more
        self.socket.sendall(b"+")
        return whole[1]

    def ask(self, data: bytes) -> bytes:
        """The answer to a packet."""
        self.send(data)
        return self.receive()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers; none is left."""
    servers: list[Server] = []

    def start(*arguments: object, stdin: bytes = b"") -> Server:
        servers.append(Server(*arguments, stdin=stdin))
        return servers[-1]

    yield start
    for server in servers:
        for client in server.clients:
            client.socket.close()
        with contextlib.suppress(ProcessLookupError):
            server.process.kill()
        server.process.communicate()


# --- GDB --------------------------------------------------------------------------------------------------------------


def register(printed: str) -> int:
    """The number in what GDB prints for a value: `$1 = 40`."""
    return int(printed.split()[-1], 0)


@needs_gdb
def test_gdb_breaks_steps_looks_and_asks_for_what_it_does_not_know_itself(serve: Serve) -> None:
    server = serve(source(CALLS))
    symbol, _, at_add, edi, cpl, code, walk, tlb, maps, helped, unknown, _, _, at_done, total, last, quits = server.gdb(
        *("info symbol $pc", "break add", "continue", "p $edi", "p $cpl", "x/i $pc"),
        *("monitor walk total", "monitor tlb itlb dtlb", "monitor maps", "monitor help", "monitor wlak total"),
        *("delete", "tbreak *done", "continue", "p (int)total", "continue", "continue"),
    )
    assert symbol == "_start in section .text"
    assert "Breakpoint 1," in at_add and "in add ()" in at_add
    assert (register(edi), register(cpl)) == (40, 3)
    assert re.search(r"<add>:\s+add\s+%edi,", code)
    assert [line.split()[0] for line in walk.splitlines() if line[:1] == "P"] == ["PML4", "PDPT", "PD", "PT"]
    assert "not present" in walk, "nobody has touched it yet"
    assert re.search(r"^itlb +0x401000 ", tlb, re.MULTILINE) and re.search(r"^dtlb +0x7ff", tlb, re.MULTILINE)
    assert "[stack]" in maps and "r-xp" in maps
    assert "walk ADDRESS" in helped and "did you mean walk?" in unknown
    assert "in done ()" in at_done and register(total) == 42
    assert "No more reverse-execution history" in last, "a last look, at the program's last instruction"
    assert "exited with code 052" in quits
    assert server.ended() == (0, "")


@needs_gdb
def test_gdb_goes_back_to_the_same_registers_and_memory(serve: Serve) -> None:
    server = serve(source(CALLS))
    look = "info registers rip rdi rsp eflags cr3 cr2", "p (int)total"
    printed = server.gdb(
        *(*["stepi"] * 4, *look, *["stepi"] * 2, *["reverse-stepi"] * 2, *look),
        *("watch *(int*)&total", "continue", "continue", "reverse-continue", "reverse-continue", "delete"),
        *("break add", "reverse-continue", "continue", "p $edi", "set $edi = 3", "continue", "delete", "continue"),
        "continue",
    )
    assert printed[4] == printed[10]
    assert register(printed[5]) == register(printed[11]) == 40
    watched, once, twice, undone, more_undone = printed[12:17]
    assert watched.startswith("Hardware watchpoint")
    assert re.search(r"Old value = 40\s+New value = 42", once), "the first call was over already"
    assert "history" in twice
    assert re.search(r"Old value = 42\s+New value = 40", undone)
    assert re.search(r"Old value = 40\s+New value = 0", more_undone)
    assert "No more reverse-execution history" in printed[19]
    assert "Breakpoint 2," in printed[20] and register(printed[21]) == 40
    assert "exited with code 05]" in printed[-1], "3 + 2: another future"


@pytest.mark.slow
@needs_gdb
def test_gdb_hears_of_a_crash_where_it_happens_and_goes_back_from_there(serve: Serve) -> None:
    server = serve(program("segv"))
    crash, code, _, before, again, dead = server.gdb(
        "continue", "x/i $pc", "reverse-stepi", "x/i $pc", "continue", "continue"
    )
    assert "SIGSEGV" in crash and re.search(r"movb\s+\$0x1,\(%rbx\)", code)
    assert re.search(r"mov\s+\$0xdead0000,%ebx", before)
    assert "Program received signal SIGSEGV" in again and "Program terminated with signal SIGSEGV" in dead
    assert server.ended() == (0, "writing to 0xdead0000\n"), "shown once"


# --- without GDB ------------------------------------------------------------------------------------------------------

NONSENSE = (
    *(b"m", b"mzz,4", b"m0", b"M0,4:zz", b"M401000,4:00", b"P99=00", b"P", b"p", b"pffff", b"Z", b"Z0", b"Z9,0,0"),
    *(b"z7,1,1", b"X0,1", b"vCont;", b"vCont;x", b"qRcmd,zz", b"qRcmd,", b"QPassSignals:zz", b"G00", b"vFile:pread:"),
    *(b"vFile:open:2f,0,0", b"qXfer:features:read:target.xml:", b"qXfer:nothing:read::0,1", b"\xff\xfe", b""),
)


def test_nonsense_a_client_that_vanishes_and_an_interrupt_leave_the_server_whole(serve: Serve) -> None:
    server = serve(source("_start: inc rbx\n jmp _start"))
    rude = server.client()
    for packet in NONSENSE:
        answer = rude.ask(packet)
        assert answer == b"" or answer[:1] in (b"E", b"O", b"F", b"T"), (packet, answer)
    rude.socket.sendall(b"$g#00$m401000#zz\x00\xff" + bytes(range(256)))
    rude.socket.sendall(b"$c#63")
    rude.socket.close()  # while the guest runs

    client = server.client()
    assert b"ReverseStep+" in client.ask(b"qSupported:swbreak+")
    assert client.ask(b"?").startswith(b"T")
    rip = bytes.fromhex(client.ask(b"p10").decode())
    assert int.from_bytes(rip, "little") in (0x401000, 0x401003)
    client.send(b"c")
    threading.Timer(0.5, lambda: client.socket.sendall(b"\x03")).start()
    assert client.receive().startswith(b"T02")
    assert client.ask(b"bs").startswith(b"T05")
    assert client.ask(b"m401000,3") == b"48ffc3"
    assert client.ask(b"m0,4") == b"E14"
    client.send(b"k")
    assert server.ended() == (0, "")


@pytest.mark.slow
def test_the_examples_of_help_wait_for_gdb(serve: Serve) -> None:
    for line, _meaning in cast(Any, cli.commands["gdb"]).examples:
        arguments = [word for word in line.split(" <")[0].split()[2:] if word not in ("--port", "4000")]
        assert serve(*arguments).client().ask(b"?").startswith(b"T05")


def test_only_this_computer_can_connect(serve: Serve) -> None:
    server = serve(program("hello"))
    listening = Path("/proc/net/tcp").read_text() if Path("/proc/net/tcp").exists() else ""
    places = [line.split()[1] for line in listening.splitlines()[1:] if line.split()[1].endswith(f":{server.port:04X}")]
    assert set(places) <= {f"0100007F:{server.port:04X}"}
    taken = cr3_process("gdb", program("hello"), "--port", server.port)
    assert (taken.exit_code, taken.stderr.count("\n")) == (2, 1)
    assert f"port {server.port}: " in taken.stderr
    assert server.client().ask(b"D") == b"OK"


def test_a_program_that_cannot_be_is_one_message() -> None:
    missing = cr3_process("gdb", "nowhere.asm", "--port", "0")
    assert (missing.exit_code, missing.stderr.count("\n"), missing.stdout) == (2, 1, "")
