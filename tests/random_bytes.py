"""Programs of random bytes: whatever a guest does, it ends by a signal, an exit, or the instruction limit.

    random_image(seed)              the same program for the same seed
    run_seed(seed)                  run it, with random registers, and say how it ended
    python random_bytes.py 0 100    do that for a hundred seeds; one line each, then the growth of the process

A signal ends such a program after an instruction or two, and little would be tried. So the signals here are stubborn:
they let a program go on behind the instruction that should have ended it, some dozen times.

Plain random bytes soon meet an undefined opcode. So most programs are stitched from pieces: instructions that are
privileged, rare, or deal with the system, system calls with random arguments, random encodings that begin like an
instruction, and random bytes in between. Code is readable, writable and executable, so it may change itself.
"""

from __future__ import annotations

import io
import resource
import sys
from random import Random

from emu import Halt, Machine
from emu.image import Image, Segment
from kernel import Kernel, Process
from kernel.layout import Selector
from kernel.process import Registers
from kernel.siginfo import SIGKILL, SigInfo
from kernel.signals import Signals

__all__ = ["LIMIT", "random_image", "run_seed"]

LIMIT = 20_000
"""Instructions after which a program is stopped."""
TEXT, DATA, READ_ONLY = 0x401000, 0x500000, 0x600000
PAGE = 4096

ENDINGS = ("f4", "0f0b", "cc", "cd80", "eb fe", "c3")

SYSTEM = (  # every one of these is refused at CPL 3, or does something that no other instruction does
    *("0f01c1", "0f01c8", "0f01c9", "0f01ca", "0f01cb", "0f01d0", "0f01d1", "0f01d4", "0f01d5", "0f01d8", "0f01f8"),
    *("0f01f9", "0f01ee", "0f01ef", "0f0100", "0f0108", "0f0113", "0f011b", "0f0123", "0f0133", "0f013b", "0f01e0"),
    *("0f0000", "0f0008", "0f0013", "0f001b", "0f0023", "0f002b", "0f00c0", "0f00d8", "0f02c0", "0f03c0", "0f05"),
    *("0f06", "0f07", "480f07", "0f08", "0f09", "f30f09", "0f0b", "0fb9c0", "0fff00", "0f20c0", "0f20d8", "0f20e0"),
    *("0f22c0", "0f22d8", "0f22e0", "440f22c0", "0f21c0", "0f23f8", "0f30", "0f31", "0f32", "0f33", "0f34", "0f35"),
    *("480f35", "0f37", "0fa2", "0faa", "f30fc7f0", "0fc7f0", "0fc7f8", "0fc733", "0fc723", "0fae00", "0fae08"),
    *("480fae00", "480fae08", "0fae10", "0fae18", "0fae20", "0fae28", "0fae30", "0fae38", "0faee8", "0faef0", "0faef8"),
    *("f3480faec0", "f3480faec8", "f3480faed0", "f3480faed8", "660f388203", "660f388003", "660f388103", "0f38f003"),
    *("f4", "fa", "fb", "f8", "f9", "f5", "fc", "fd", "9c", "9d", "669c", "669d", "9b", "d6", "f1", "cc", "ce", "cd03"),
    *("cd04", "cd0e", "cd08", "cd20", "cd80", "cdec", "cf", "48cf", "66cf", "ca0800", "cb", "48cb", "48ca0800"),
    *("e410", "e510", "e610", "e710", "ec", "ed", "ee", "ef", "6c", "6d", "6e", "6f", "f36c", "f36f", "f26e"),
    *("ff2b", "48ff2b", "ff1b", "48ff1b", "ff6b10", "ff5b10", "8ed8", "8ee0", "8ee8", "8ed0", "8ec8", "8cd8", "8cc8"),
    *("0fa0", "0fa1", "0fa8", "0fa9", "0fb4c3", "0fb503", "0fb203", "480fb203", "c4e3", "c5f8", "62", "9a", "ea"),
    *("27", "2f", "37", "3f", "60", "61", "06", "07", "0e", "16", "1e", "d40a", "d50a", "82c001", "63c0", "0f0d03"),
    *(
        "0f1f0411",
        "660f1f840000000000",
        "f390",
        "90",
        "f3c3",
        "c8100002",
        "c80000ff",
        "c9",
        "0f1803",
        "0f0e",
        "0f0fc00d",
    ),
)
STRING = tuple(
    prefix + op
    for prefix in ("", "f3", "f2", "66f3", "67f3", "f348", "f0f3", "f266", "64f3", "f36567")
    for op in ("a4", "a5", "a6", "a7", "aa", "ab", "ac", "ad", "ae", "af")
)
MEMORY = (
    *(
        "488b03",
        "488903",
        "480103",
        "f0480103",
        "f0480fb10b",
        "f0480fc10b",
        "f0480fc70b",
        "f00fc70b",
        "48870b",
        "f0ff03",
    ),
    *(
        "f0480fab03",
        "480fab03",
        "0fba2b07",
        "f0480fba2b3f",
        "488d03",
        "ff33",
        "8f03",
        "ff13",
        "ff23",
        "50",
        "58",
        "5c",
        "54",
    ),
    *("f00fabc1", "f00fbae907", "f0480fb3c3", "f0660fbbc1", "f00fa3c1", "f00fbae107", "f04090", "f0f3a4", "f0c3"),
    *("8d24f4", "4889e0", "4889c4", "c20800", "488b0425ffffff7f", "48a1f0ffffffffffffff", "48a3000000000000008000"),
    *(
        "480f38f103",
        "f20f38f003",
        "0fc303",
        "d7",
        "d013",
        "48d11b",
        "d21b",
        "c01303",
        "48c11b05",
        "f713",
        "f71b",
        "f6 33",
        "f7 3b",
    ),
    *(
        "f7fb",
        "48f7fb",
        "f6fb",
        "f7f3",
        "480fa303",
        "0fb0 0b",
        "0fa40b03",
        "480fadc3",
        "65488b03",
        "64488b03",
        "6567488903",
    ),
)
VECTOR = (
    *("0f1003", "0f1103", "0f2803", "0f2903", "660f6f03", "f30f6f03", "f30f7f03", "660f7f03", "660fe703", "0f2b03"),
    *("660ff7c1", "0ff7c1", "f20ff003", "660f383703", "660f3a0f0307", "0f5803", "f20f5e03", "f20f2a03", "f2480f2cc0"),
    *(
        "0f2f03",
        "0fc603e4",
        "660fd7c0",
        "0f77",
        "0f6f03",
        "0f7f03",
        "0ffec1",
        "660f38dc03",
        "660f3a4403 11",
        "0f38c803",
    ),
    *("d903", "d93b", "d92b", "d933", "dd23", "dd33", "db2b", "db3b", "df2b", "df3b", "dfe0", "dbe3", "9bd93b", "dbe2"),
    *(
        "d9e8",
        "d9ee",
        "d9fa",
        "d9ff",
        "d8f1",
        "def9",
        "d9f6",
        "d9c0",
        "ddd8",
        "da03",
        "de03",
        "d9d0",
        "dfc0",
        "d9f8",
        "d9e5",
    ),
    *(
        "c5f877",
        "c5fc1003",
        "c5fd6f03",
        "c4e27d1803",
        "c4e3fd0003ff",
        "c4e2f1f703",
        "c4e278f203",
        "62f17c481003",
        "c4e26992 0c13",
    ),
)
PREFIXES = ("66", "67", "f2", "f3", "f0", "2e", "36", "3e", "26", "64", "65", "40", "48", "4f", "41", "44")
CALLS = (0, 1, 9, 11, 12, 39, 186)
"""System calls that this kernel knows; others are tried, too."""


def _piece(rng: Random) -> bytes:
    kind = rng.randrange(10)
    if kind < 4:
        return bytes.fromhex(rng.choice(rng.choice((SYSTEM, STRING, MEMORY, VECTOR))))
    if kind == 4:
        return _system_call(rng)
    if kind < 7:
        return _encoding(rng)
    if kind == 7:
        return _move(rng)
    if kind == 8:
        return _jump(rng)
    return rng.randbytes(rng.randint(1, 6))


def _encoding(rng: Random) -> bytes:
    """Something that has the shape of an instruction: prefixes, opcode, ModRM, displacement, immediate."""
    prefixes = "".join(rng.choice(PREFIXES) for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 3, 14))))
    escape = rng.choice(("", "", "0f", "0f", "0f38", "0f3a"))
    return bytes.fromhex(prefixes + escape) + rng.randbytes(rng.choice((1, 2, 3, 6, 7)))


def _move(rng: Random) -> bytes:
    """Mov r64, imm64 with a number that is good for something."""
    register = rng.randrange(16)
    return bytes((0x48 | register >> 3, 0xB8 | register & 7)) + _number(rng).to_bytes(8, "little")


def _jump(rng: Random) -> bytes:
    """A short jump or a near call, to somewhere near."""
    if rng.randrange(2):
        return bytes((rng.choice((0xEB, 0xE3, 0xE2, 0xE0, 0x74, 0x75, 0x72, 0x78)), rng.randrange(256)))
    return bytes((rng.choice((0xE8, 0xE9)),)) + rng.randint(-PAGE, PAGE).to_bytes(4, "little", signed=True)


def _system_call(rng: Random) -> bytes:
    number = rng.choice(CALLS) if rng.randrange(4) else rng.randrange(1 << rng.choice((9, 32)))
    return b"\xb8" + number.to_bytes(4, "little") + rng.choice((b"", _move(rng))) + b"\x0f\x05"


def _number(rng: Random) -> int:
    near = rng.choice((TEXT, DATA, READ_ONLY, DATA + PAGE, 0x7FFFFFFDF000, 0x7FFFFFFFF000, 1 << 47, -(1 << 47), 0, -8))
    numbers = (
        near + rng.randint(-16, 16),
        DATA + rng.randrange(2 * PAGE),
        TEXT + rng.randrange(PAGE),
        rng.randrange(8),
        1 << rng.randrange(64),
        0xFFFF_8880_0000_0000 + rng.randrange(1 << 22),
        0xFFFF_FFFF_8100_0000 + rng.randrange(PAGE),
        rng.getrandbits(64),
        rng.getrandbits(32),
        rng.choice((0x22, 0x32, 0x8022, 3, 7, PAGE, 1 << 20)),  # mmap's flags and sizes
    )
    return rng.choice(numbers) % (1 << 64)


def _code(rng: Random) -> bytes:
    size = rng.randint(16, 2 * PAGE)
    if rng.randrange(4) == 0:
        return rng.randbytes(size)
    code = b"".join(_piece(rng) for _ in range(rng.randint(4, 400)))
    return (code + bytes.fromhex(rng.choice(ENDINGS)))[: 2 * PAGE]


def random_image(seed: int) -> Image:
    """The program number `seed`."""
    rng = Random(seed)
    segments = (
        Segment("text", TEXT, _code(rng), 2 * PAGE, readable=True, writable=True, executable=True),
        Segment("data", DATA, rng.randbytes(PAGE), 2 * PAGE, readable=True, writable=True),
        Segment("read-only", READ_ONLY, rng.randbytes(PAGE), PAGE, readable=True),
    )
    return Image(f"seed {seed}", TEXT + rng.choice((0, 0, rng.randrange(64))), segments)


class StubbornSignals(Signals):
    """A program does not end at its first signal, but goes on at another address, up to `lives` times."""

    def __init__(self, kernel: Kernel, process: Process) -> None:
        super().__init__()
        self._kernel, self._process, self._lives = kernel, process, 30

    def take(self, wanted: int | None = None) -> SigInfo | None:
        """Let a program go on with the byte after the one at which it failed; a jump too far ends in its text."""
        info = super().take(wanted)
        if info is None or info.number == SIGKILL or not self._lives:
            return info
        self._lives -= 1
        registers = Registers(self._kernel.memory, self._process.registers_va)
        after = registers["rip"] + 1
        registers["cs"], registers["ss"] = Selector.USER_CS, Selector.USER_DS  # rt_sigreturn may have broken them
        registers["rip"] = after if TEXT <= after < TEXT + 2 * PAGE else TEXT + after % PAGE
        return None


def _set_registers(kernel: Kernel, process: Process, rng: Random) -> None:
    registers = Registers(kernel.memory, process.registers_va)
    for name in ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r15"):
        registers[name] = rng.choice((DATA + rng.randrange(PAGE), _number(rng)))
    if rng.randrange(8) == 0:
        registers["rsp"] = _number(rng)


def run_seed(seed: int) -> str:
    """Run a program and say how it ended, "exit N", "signal N" or "limit", and after how many instructions."""
    rng = Random(-seed - 1)
    options = rng.choice(
        ({}, {"engine": "access", "tlb_policy": "plru"}, {"tlb": False}, {"tlb_policy": "fifo"}, {"caches": True})
    )
    machine = Machine(rng.choice(("skylake", "haswell", "zen2")), "2M", **options)
    machine.max_instructions = LIMIT
    kernel = Kernel(machine, stdin=io.BytesIO(rng.randbytes(5000)), pcid=bool(rng.randrange(2)))
    process = kernel.spawn(random_image(seed))
    process.signals = StubbornSignals(kernel, process)
    _set_registers(kernel, process, rng)
    result = kernel.run()
    assert result.stats["frames"]["leaked"] == 0
    kernel.close()
    assert kernel.frames.used == kernel.boot_frames
    ending = f"exit {result.exit_code}" if result.signal is None else f"signal {result.signal}"
    if result.halt is Halt.INSTRUCTION_LIMIT:
        ending = "limit"
    return f"{ending} after {process.instructions}"


def main(first: int, count: int) -> None:
    """Run `count` seeds; then say by how many KiB the process grew after the first few."""
    before = 0
    for number in range(count):
        print(f"seed {first + number}:", end=" ", flush=True)
        print(run_seed(first + number), flush=True)
        if number == min(20, count // 2):
            before = _peak_memory()
    print(f"grown {_peak_memory() - before}")


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
