"""An instruction that faults has not happened: after the fault is mended it executes as if there had been none.

That is what demand paging and copy-on-write rest on (Intel SDM Vol. 3A 6.6). Every form of instruction executes on
pages that are there, on pages that appear when they are touched, and on pages that are read-only until they are
written; registers, flags, memory and counts must end up the same, on one page and across two.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from bare import Bare, Frame
from instruction_forms import DATA, HALVES, IMAGES, ONE_EVENT, OVERREADS, assemble
from unicorn import x86_const as x86

from emu.control import Msr
from emu.pte import PAGE_SIZE, Pte

CODE = 0x10_0000
EXIT = 0x2080
"""Fills the data, so that RET and JMP land there; valid as RFLAGS, MXCSR and FPU control word, too."""

FLAGS = bytes.fromhex("047f d0c4")
"""`add al, 0x7f; rol ah, 1`: flags that Unicorn has not worked out yet when the form begins."""

REGION = 4 * PAGE_SIZE
POINTERS = ("rbx", "rsi", "rdi", "rbp", "rsp", "r8")
REGIONS = {name: DATA + number * REGION for number, name in enumerate(POINTERS)}
PAGES = [*range(DATA, DATA + len(POINTERS) * REGION, PAGE_SIZE)]
CLOBBERED = ("xsave", "xrstor", "outs", "sgdt", "sidt", "smsw", "str", "sldt", "push fs", "cpuid")
"""Not of Unicorn's: no XSAVE, ports are refused, and system registers have their own tests."""

FORMS = [form for form in (*ONE_EVENT, *HALVES, *OVERREADS, *IMAGES) if not any(name in form for name in CLOBBERED)]
ALIGNED = ("movaps", "movapd", "movdqa", "movntps", "movntpd", "movntdq", "movntdqa", "cmpxchg16b", "fxsave", "fxrstor")
READ_ONLY, WRITABLE = Pte.P | Pte.U, Pte.P | Pte.U | Pte.W
ARITHMETIC = 0x8D5


@dataclass(frozen=True)
class Outcome:
    """What an instruction left behind."""

    end: tuple[str, int]
    registers: tuple[int, ...]
    flags: int
    vectors: tuple[int, ...]
    memory: bytes
    counts: tuple[int, int, int]


class Bench:
    """One machine that executes form after form."""

    def __init__(self, engine: str) -> None:
        self.bare = bare = Bare(engine=engine)
        bare.map(CODE)
        bare.put("int 0x20", EXIT)
        self.frames = {page: bare.map(page) for page in PAGES}
        bare.machine.write_msr(Msr.FS_BASE, REGIONS["rbx"] + 0x100)
        bare.machine.write_msr(Msr.GS_BASE, REGIONS["rbx"] + 0x200)
        self.power_on = bare.cpu.uc.context_save()
        self.fresh: Pte | None = None
        bare.on[14] = self._mend

    def _mend(self, frame: Frame) -> None:
        page = frame.cr2 & ~(PAGE_SIZE - 1)
        if page not in self.frames:  # a jump to what was no address
            self.bare.machine.stop()
            return
        writable = self.fresh is None or frame.error_code & 2
        self.bare.map(page, self.frames[page], WRITABLE if writable else READ_ONLY)

    def run(self, code: bytes, offset: int, before: Pte) -> Outcome:
        """Execute `code` with every pointer `offset` bytes into its second page, and the pages as `before`."""
        bare = self.bare
        self.fresh = READ_ONLY if before & Pte.P else None
        bare.cpu.uc.context_restore(self.power_on)
        for page, frame in self.frames.items():
            bare.ram.write(frame, EXIT.to_bytes(8, "little") * (PAGE_SIZE // 8))
            bare.map(page, frame, before)
            bare.machine.invlpg(page)
        bare.user(FLAGS + code, CODE)
        for name, region in REGIONS.items():
            bare[name] = region + PAGE_SIZE + offset
        for name, value in (("rax", 2), ("rcx", 3), ("rdx", 0), ("r11", EXIT)):
            bare[name] = value
        for number in range(2):
            bare.cpu.uc.reg_write(x86.UC_X86_REG_XMM0 + number, 0x3FF0_0000_0000_0000_3FF0_0000_0000_0000)
        bare.cpu.rflags = 0x2
        start = bare.machine.retired(3)
        frame = bare.run()
        counts = tuple(now - then for now, then in zip(bare.machine.retired(3), start, strict=True))
        vectors = [bare.cpu.uc.reg_read(x86.UC_X86_REG_XMM0 + number) for number in range(2)]
        vectors += [bare.cpu.uc.reg_read(x86.UC_X86_REG_MM0)]
        registers = [value for name, value in bare.cpu.registers().items() if name not in ("rip", "rflags", "rsp")]
        return Outcome(
            (frame.name, frame.rip),
            (*registers, frame.rsp),
            frame.rflags & ARITHMETIC,
            tuple(vectors),
            b"".join(bare.ram.read(self.frames[page], PAGE_SIZE) for page in PAGES),
            counts,  # type: ignore[arg-type]
        )


def differences(form: str, expected: Outcome, found: Outcome) -> list[str]:
    """Say where two outcomes differ."""
    wrong = []
    for name in expected.__dict__:
        one, other = getattr(expected, name), getattr(found, name)
        if one != other:
            shown = "" if name == "memory" else f": {one} is right, not {other}"
            wrong.append(f"{form}: {name}{shown}")
    return wrong


SLOW = pytest.mark.slow


@pytest.mark.parametrize("engine", ["trap", pytest.param("access", marks=SLOW)])
@pytest.mark.parametrize("before", [Pte(0), READ_ONLY], ids=["missing", "read-only"])
@pytest.mark.parametrize("offset", [0x40, -4, *(pytest.param(offset, marks=SLOW) for offset in (-1, -2, -6, -8, -12))])
def test_an_instruction_starts_again_as_if_it_had_never_begun(offset: int, before: Pte, engine: str) -> None:
    bench = Bench(engine)
    wrong: list[str] = []
    for form, code in zip(FORMS, assemble(tuple(FORMS)), strict=True):
        if offset < 0 and form.startswith(ALIGNED):
            continue
        expected = bench.run(code, offset, WRITABLE)
        wrong += differences(form, expected, bench.run(code, offset, before))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("engine", ["trap", "access"])
@pytest.mark.parametrize("odd", [0, 1])
def test_a_block_that_was_cut_at_a_missing_page_is_whole_the_next_time(odd: int, engine: str) -> None:
    """Also if it writes to the page that it is on, which takes that page out of the ITLB."""
    bare = Bare(engine=engine)
    border = CODE + PAGE_SIZE
    start = border - 80 - odd
    bare.user(b"\x00\x00" * 41 + b"\xff\xc9" + b"\x75\xaa", start)  # 41 add [rax], al; dec ecx; jnz start
    second = bare.physical(border)
    bare.unmap(border)
    bare.on[14] = lambda _: bare.map(border, second)
    bare["rax"], bare["rcx"] = CODE, 3
    assert bare.run().name == "int 0x20"
    assert bare.machine.retired(3)[0] == 3 * 43 + 1
    assert [frame.cr2 for frame in bare.frames[:-1]] == [border]
