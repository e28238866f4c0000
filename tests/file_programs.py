"""Programs made of system calls on files, which print every answer: for cr3 and for the real kernel alike.

    program('open("f", O_RDWR | O_CREAT, 0o644); write(3, "text", 4); close(3)')

An argument is a number or a name of one, a string (its address is passed), `BUFFER` (the address of 64 KiB of memory),
or words(...), a table of 64-bit numbers. dump(n) writes the first n bytes of the buffer to standard output,
dump_at(offset, n) others; fill(n) makes the buffer's first n bytes 1, 2, 3 ...; poke(address, value) stores a word.

Under the real kernel a program runs in a new, empty directory; under cr3 in the root of a new kernel. Both begin by
making a directory `d` and entering it.
"""

from __future__ import annotations

import ast
import resource
import subprocess
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from native import NativeResult, build_native

from kernel.syscalls import syscall_at

__all__ = ["BUFFER", "CONSTANTS", "NUMBERS", "program", "run_in"]

BUFFER = 0x7000_0000
"""Where every program maps its buffer."""

CONSTANTS = {
    **{"BUFFER": BUFFER, "AT_FDCWD": -100, "AT_SYMLINK_NOFOLLOW": 0x100, "AT_EMPTY_PATH": 0x1000},
    **{"O_RDONLY": 0, "O_WRONLY": 1, "O_RDWR": 2, "O_CREAT": 0o100, "O_EXCL": 0o200, "O_TRUNC": 0o1000},
    **{"O_APPEND": 0o2000, "O_NONBLOCK": 0o4000, "O_DIRECTORY": 0o200000, "O_NOFOLLOW": 0o400000},
    **{"O_CLOEXEC": 0o2000000, "O_PATH": 0o10000000, "O_TMPFILE": 0o20200000, "NEW": 0o102},
    **{"SEEK_SET": 0, "SEEK_CUR": 1, "SEEK_END": 2, "SEEK_DATA": 3, "SEEK_HOLE": 4, "F_DUPFD": 0},
}
"""What the calls can name; NEW is O_RDWR | O_CREAT."""
NUMBERS = {call.name: number for number in range(512) if (call := syscall_at(number)) is not None}
"""System calls by name."""

_BEGIN = f"""
    .equ    BUFFER, {BUFFER:#x}
    .text
_start:
    mov     edi, BUFFER
    mov     esi, 0x10000
    mov     edx, 3
    mov     r10d, 0x32
    mov     r8, -1
    xor     r9d, r9d
    mov     eax, 9
    syscall
"""
_SHOW = """
# prints rax as a line of sixteen hexadecimal digits
show:
    sub     rsp, 24
    mov     byte ptr [rsp + 16], 10
    mov     ecx, 16
1:  mov     edx, eax
    and     edx, 15
    add     edx, 48
    cmp     edx, 58
    jb      2f
    add     edx, 39
2:  mov     [rsp + rcx - 1], dl
    shr     rax, 4
    dec     ecx
    jnz     1b
    mov     edi, 1
    mov     rsi, rsp
    mov     edx, 17
    mov     eax, 1
    syscall
    add     rsp, 24
    ret
"""
_REGISTERS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")


@dataclass
class _Source:
    """A program that is being written."""

    code: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)

    def label(self, directive: str) -> str:
        name = f"data{len(self.data)}"
        self.data.append(f"    .balign 8\n{name}: {directive}")
        return name

    def argument(self, register: str, value: Any) -> str:
        match value:
            case int():
                return f"    mov {register}, {value}"
            case str() | bytes():
                text = value.encode() if isinstance(value, str) else value
                return f"    lea {register}, [rip + {self.label('.byte ' + ', '.join(map(str, text + bytes(1))))}]"
            case ("words", *words):
                return f"    lea {register}, [rip + {self.label('.quad ' + ', '.join(map(str, words)))}]"
        raise TypeError(value)

    def call(self, number: int, *arguments: Any) -> None:
        self.code += [self.argument(register, value) for register, value in zip(_REGISTERS, arguments)]
        self.code += [f"    mov eax, {number}", "    syscall"]

    def step(self, name: str, *arguments: Any) -> None:
        match name:
            case "dump":
                self.call(1, 1, BUFFER, arguments[0])
            case "dump_at":
                self.call(1, 1, BUFFER + arguments[0], arguments[1])
            case "fill":
                self.code.append(
                    f"    mov ecx, {arguments[0]}\n1:  mov [rcx + BUFFER - 1], cl\n    dec ecx\n    jnz 1b"
                )
            case "poke":
                address, value = arguments
                self.code.append(f"    mov rbx, {address}\n    mov rax, {value}\n    mov [rbx], rax")
            case _:
                self.call(NUMBERS[name], *arguments)
                self.code.append("    call show")


def _steps(calls: str) -> list[tuple[Any, ...]]:
    """Name and arguments of each call."""
    names: dict[str, Any] = {**CONSTANTS, "words": lambda *numbers: ("words", *numbers)}
    found = []
    for statement in ast.parse(textwrap.dedent(calls).strip()).body:
        assert isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call), ast.unparse(statement)
        name = ast.unparse(statement.value.func)
        found.append((name, *(eval(ast.unparse(argument), names) for argument in statement.value.args)))
    return found


def program(calls: str) -> str:
    """The source of a program that makes these calls, one after another, and exits with 0."""
    source = _Source()
    source.call(NUMBERS["mkdir"], "d", 0o755)
    source.call(NUMBERS["chdir"], "d")
    for step in _steps(calls):
        source.step(*step)
    source.call(NUMBERS["exit"], 0)
    return "\n".join([_BEGIN, *source.code, _SHOW, "    .data", *source.data, ""])


def run_in(folder: Path, text: str, stdin: bytes = b"") -> NativeResult:
    """Run a program under the real kernel in a folder, with the limits and the umask that a process has by default."""
    done = subprocess.run(
        [build_native(text)],
        input=stdin,
        stdout=subprocess.PIPE,
        cwd=folder,
        timeout=10,
        umask=0o022,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024)),
    )
    status = done.returncode
    return NativeResult(done.stdout, status if status >= 0 else None, -status if status < 0 else None)
