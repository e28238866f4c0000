"""Exceptions of ordinary instructions: which, where, with what error code (SDM Vol. 3A 4.7 and 6.15)."""

from __future__ import annotations

import pytest
from bare import KERNEL, KERNEL_CODE, RSP0, STACK_TOP, USER_CODE, Bare, Frame, assemble

from emu import Halt
from emu.control import Msr
from emu.pte import PAGE_SIZE, Cr4, Efer, Pte

DATA = 0x50_0000
MISSING = 0xDEAD_B000
NEXT_PAGE = USER_CODE + PAGE_SIZE
NOT_CANONICAL = 0x8000_0000_0000
MODIFYING = """
    add [rbx], eax; adc byte ptr [rbx], 1; sub [rbx], rax; and dword ptr [rbx], 1; or [rbx], al; xor [rbx], eax
    inc dword ptr [rbx]; dec byte ptr [rbx]; neg qword ptr [rbx]; not dword ptr [rbx]; xchg [rbx], eax
    xadd [rbx], eax; cmpxchg [rbx], ecx; cmpxchg8b [rbx]; cmpxchg16b [rbx]; bts dword ptr [rbx], 3; btr [rbx], eax
    btc qword ptr [rbx], 1; shl dword ptr [rbx], 2; sar byte ptr [rbx], 1; rol dword ptr [rbx], cl
    ror dword ptr [rbx], 3; rcl dword ptr [rbx], 1; rcr qword ptr [rbx], cl; shld [rbx], eax, 3; shrd [rbx], rax, cl
    lock add [rbx], eax; lock inc dword ptr [rbx]; lock cmpxchg [rbx], rcx; lock bts dword ptr [rbx], 1
"""
LOADING = """
    mov eax, [rbx]; cmp [rbx], eax; test [rbx], al; movups xmm0, [rbx]; push qword ptr [rbx]; fld qword ptr [rbx]
    lodsb; scasb; div dword ptr [rbx]; jmp qword ptr [rbx]; movzx eax, byte ptr [rbx]; cmpsb; bt [rbx], eax
"""
STORING = """
    mov [rbx], eax; mov dword ptr [rbx], 1; movups [rbx], xmm0; fst qword ptr [rbx]; stosb; sete [rbx]
    movnti [rbx], eax; pop qword ptr [rbx]; movq [rbx], mm0; fnstcw [rbx]; stmxcsr [rbx]; pextrd [rbx], xmm0, 1
"""


def each(text: str) -> list[str]:
    """The instructions of a list."""
    return [one.strip() for one in text.replace("\n", ";").split(";") if one.strip()]


def fault(instruction: str, mode: str = "user", flags: Pte | None = None, va: int = DATA, **registers: int) -> Frame:
    """The exception of one instruction with RBX, RSI and RDI at `va`, whose page is mapped with `flags` if at all."""
    bare = Bare()
    if flags is not None:
        bare.map(va, flags=flags)
    getattr(bare, mode)(f"nop; {instruction}")
    bare["rsp"] = RSP0 if mode == "kernel" else STACK_TOP - 64
    for name, value in {"rbx": va, "rsi": va, "rdi": va, "rcx": 1, **registers}.items():
        bare[name] = value
    frame = bare.run()
    assert frame.rip == (USER_CODE if mode == "user" else KERNEL_CODE) + 1, frame
    assert bare.machine.retired(3 if mode == "user" else 0)[0] == (1 if mode == "user" else 2)  # and VMCALL
    return frame


# --- error codes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "user"), [("user", 4), ("kernel", 0)])
@pytest.mark.parametrize(("instructions", "write"), [(LOADING, 0), (STORING, 2), (MODIFYING, 2)])
def test_a_missing_page_says_what_the_access_wanted(instructions: str, write: int, mode: str, user: int) -> None:
    """A read-modify-write asks for a write at once, although it reads first."""
    for instruction in each(instructions):
        frame = fault(instruction, mode)
        assert (instruction, frame.name, frame.cr2, frame.error_code) == (instruction, "#PF", DATA, write | user)


@pytest.mark.parametrize("instructions", [STORING, MODIFYING])
def test_a_read_only_page_refuses_writes(instructions: str) -> None:
    for instruction in each(instructions):
        frame = fault(instruction, flags=Pte.P | Pte.U)
        assert (instruction, frame.name, frame.cr2, frame.error_code) == (instruction, "#PF", DATA, 7)


@pytest.mark.parametrize(("instructions", "write"), [(LOADING, 0), (STORING, 2), (MODIFYING, 2)])
def test_a_page_of_the_kernel_refuses_the_user(instructions: str, write: int) -> None:
    for instruction in each(instructions):
        frame = fault(instruction, flags=Pte.P | Pte.W)
        assert (instruction, frame.name, frame.cr2, frame.error_code) == (instruction, "#PF", DATA, 5 | write)


def test_a_reserved_bit_says_so() -> None:
    frame = fault("mov eax, [rbx]", flags=Pte.P | Pte.U | Pte.NX)  # NX is reserved until EFER.NXE
    assert frame.error_code == 4 | 9


@pytest.mark.parametrize(
    ("flags", "nxe", "code"),
    [
        (None, False, 0x4),
        (None, True, 0x14),
        (Pte.P | Pte.U | Pte.NX, True, 0x15),
        (Pte.P, True, 0x15),
        (Pte.P, False, 0x5),
    ],
)
def test_a_fetch_says_so_if_there_is_a_reason_to(flags: Pte | None, nxe: bool, code: int) -> None:
    """The I/D bit exists with EFER.NXE or CR4.SMEP only."""
    bare = Bare()
    if nxe:
        bare.machine.write_msr(Msr.EFER, bare.machine.control.efer | Efer.NXE)
    if flags is not None:
        bare.map(DATA, flags=flags)
    bare.user("jmp rbx")
    bare["rbx"] = DATA + 5
    frame = bare.run()
    assert (frame.name, frame.rip, frame.cr2, frame.error_code) == ("#PF", DATA + 5, DATA + 5, code)


def test_smep_makes_fetches_say_so_too() -> None:
    bare = Bare()
    bare.machine.write_cr4(bare.machine.control.cr4 | Cr4.SMEP)
    bare.user("jmp rbx")
    bare["rbx"] = DATA
    assert bare.run().error_code == 0x14


# --- CR2 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("instruction", ["mov rax, [rbx]", "mov [rbx], rax", "add [rbx], rax", "movups xmm0, [rbx]"])
@pytest.mark.parametrize("offset", [0, 1, 7, 100, 4088, 4089, 4092, 4095])
def test_cr2_is_the_address_of_the_access(instruction: str, offset: int) -> None:
    assert fault(instruction, va=MISSING + offset).cr2 == MISSING + offset


@pytest.mark.parametrize("size", [2, 4, 8, 16])
@pytest.mark.parametrize("instruction", ["load", "store", "modify"])
def test_an_access_that_crosses_into_a_missing_page_names_that_page(instruction: str, size: int) -> None:
    register = {2: "ax", 4: "eax", 8: "rax", 16: "xmm0"}[size]
    text = {
        "load": f"mov {register}, [rbx]" if size < 16 else "movups xmm0, [rbx]",
        "store": f"mov [rbx], {register}" if size < 16 else "movups [rbx], xmm0",
        "modify": f"add [rbx], {register}" if size < 16 else "movups [rbx], xmm0",
    }[instruction]
    for before in range(1, size):
        bare = Bare()
        bare.map(DATA)
        bare.user(text)
        bare["rbx"] = DATA + PAGE_SIZE - before
        frame = bare.run()
        assert (frame.cr2, frame.error_code) == (DATA + PAGE_SIZE, 4 if instruction == "load" else 6)
        if size < 16 or before < 8:
            assert bare.ram.read(bare.physical(DATA), PAGE_SIZE) == bytes(PAGE_SIZE), "a store in part"


def test_the_first_missing_page_of_two_is_named_first() -> None:
    frame = fault("mov rax, [rbx]", va=MISSING + PAGE_SIZE - 3)
    assert frame.cr2 == MISSING + PAGE_SIZE - 3


# --- addresses that are not canonical -------------------------------------------------------------------------


@pytest.mark.parametrize("address", [NOT_CANONICAL, 0xFFFF_7FFF_FFFF_FFFF, 1 << 63])
@pytest.mark.parametrize(
    ("instruction", "name"),
    [
        ("mov eax, [rbx]", "#GP"),
        ("mov [rbx], eax", "#GP"),
        ("lock inc dword ptr [rbx]", "#GP"),
        ("mov eax, [rsp]", "#SS"),
        ("mov [rbp], eax", "#SS"),
        ("push rax", "#SS"),
        ("pop rax", "#SS"),
        ("call rdi", "#SS"),
        ("ret", "#SS"),
        ("leave", "#SS"),
        ("enter 16, 0", "#SS"),
        ("push qword ptr [rbx]", "#GP"),
        ("mov eax, ds:[rsp]", "#SS"),
        ("mov eax, fs:[rsp]", "#GP"),
        ("rep stosb", "#GP"),
        ("movups xmm0, [rsp]", "#SS"),
    ],
)
def test_an_address_that_is_not_canonical_is_no_page_fault(instruction: str, name: str, address: int) -> None:
    bare = Bare()
    bare.put("nop", DATA)
    bare.user(f"nop; {instruction}")
    for register in ("rbx", "rsp", "rbp"):
        bare[register] = address
    bare["rdi"] = address if "stos" in instruction else DATA
    bare["rcx"] = 1
    if "push" in instruction and "rbx" in instruction:
        bare["rsp"] = STACK_TOP
    if instruction in ("push rax", "call rdi", "enter 16, 0"):
        bare["rsp"] = address + 8 if address + 8 < 1 << 64 else address
    frame = bare.run()
    assert (frame.name, frame.error_code, frame.rip) == (name, 0, USER_CODE + 1)
    assert bare.machine.control.cr2 == 0


def test_an_access_may_not_run_off_the_canonical_addresses() -> None:
    bare = Bare()
    bare.map(NOT_CANONICAL - PAGE_SIZE)
    bare.user("mov rax, [rbx]")
    bare["rbx"] = NOT_CANONICAL - 4
    assert (bare.run().name, bare.last.error_code) == ("#GP", 0)


@pytest.mark.parametrize(
    ("code", "at"),
    [
        ("jmp rbx", 1),
        ("call rbx", 1),
        ("push rbx; ret", 2),
        ("push rbx; ret 16", 2),
        ("jmp [rip + 1f]; 1: .quad 1<<60", 1),
    ],
)
def test_a_jump_to_an_address_that_is_not_canonical_faults_where_it_is(code: str, at: int) -> None:
    """On Intel parts: JMP, CALL and RET check the target before anything changes."""
    bare = Bare()
    bare.user(f"nop; {code}")
    bare["rbx"] = NOT_CANONICAL
    frame = bare.run()
    assert (frame.name, frame.error_code, frame.rip) == ("#GP", 0, USER_CODE + at)
    assert frame.rsp == STACK_TOP - 8 * (at - 1)
    assert bare.machine.retired(3)[0] == at


# --- other exceptions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instruction", "name"),
    [
        ("xor ecx, ecx; div ecx", "#DE"),
        ("mov edx, 5; mov ecx, 5; div ecx", "#DE"),  # the quotient does not fit
        ("mov eax, 0x80000000; cdq; mov ecx, -1; idiv ecx", "#DE"),
        ("xor edx, edx; div dl", "#DE"),
        ("ud2", "#UD"),
        ("int3", "#BP"),
        (".byte 0xf1", "#DB"),  # INT1
        ("cmpxchg16b [rbx + 8]", "#GP"),
        ("fxsave [rbx + 8]", "#GP"),
        ("fldcw [rip + 1f]; fld1; fldz; fdivp; fwait; 1: .word 0x33b", "#MF"),  # division by zero, unmasked
    ],
)
def test_instructions_raise_their_exceptions(instruction: str, name: str) -> None:
    bare = Bare()
    bare.map(DATA)
    bare.user(instruction)
    bare["rbx"] = DATA
    assert bare.run().name == name


def test_int1_is_a_trap_and_needs_no_permission() -> None:
    bare = Bare()
    bare.gate(1, dpl=0)
    bare.user(b"\x90\xf1\x90")
    assert (bare.run().name, bare.last.rip) == ("#DB", USER_CODE + 2)


def test_a_divide_error_points_at_the_division() -> None:
    bare = Bare()
    bare.user("inc eax; inc eax; div ecx; inc eax")
    frame = bare.run()
    assert (frame.rip, bare["rax"], bare.machine.retired(3)[0]) == (USER_CODE + 4, 2, 2)


# --- fetches --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", range(1, 15))
def test_what_comes_before_a_missing_page_of_code_executes_first(before: int) -> None:
    """Unicorn fetches a whole block ahead; a processor does not fault for what it may never reach."""
    bare = Bare()
    bare.map(USER_CODE)
    start = NEXT_PAGE - before
    bare.put(b"\x90" * before, start)
    bare.user(b"", NEXT_PAGE)
    bare.unmap(NEXT_PAGE)
    bare.cpu.rip = start
    frame = bare.run()
    assert (frame.name, frame.rip, frame.cr2, frame.error_code) == ("#PF", NEXT_PAGE, NEXT_PAGE, 4)
    assert bare.machine.retired(3)[0] == before


@pytest.mark.parametrize("split", range(1, 10))
def test_an_instruction_that_lies_on_a_missing_page_in_part_faults_where_it_begins(split: int) -> None:
    bare = Bare()
    code = assemble("inc eax; inc eax; movabs rcx, 0x1122334455667788; inc eax")
    start = NEXT_PAGE - 4 - split
    bare.user(code, start)
    second = bare.physical(NEXT_PAGE)
    bare.unmap(NEXT_PAGE)
    bare.on[14] = lambda _: bare.map(NEXT_PAGE, second)
    assert bare.run().name == "int 0x20"
    fault = bare.frames[0]
    assert (fault.rip, fault.cr2, fault.error_code) == (NEXT_PAGE - split, NEXT_PAGE, 4)
    assert (bare["rax"], bare["rcx"], bare.machine.retired(3)[0]) == (3, 0x1122_3344_5566_7788, 5)


def test_code_before_a_missing_page_may_turn_back_before_it_gets_there() -> None:
    """The store makes a jump of a NOP further on."""
    bare = Bare()
    bare.map(USER_CODE)
    bare.put("mov word ptr [rip + 1f], 0xf3eb; nop; nop; 1: nop; nop; nop; nop", NEXT_PAGE - 15)  # jmp to the store
    bare.user(b"", NEXT_PAGE)
    bare.unmap(NEXT_PAGE)
    bare.cpu.rip = NEXT_PAGE - 15
    bare.machine.max_instructions = 1000
    assert bare.machine.run() is Halt.INSTRUCTION_LIMIT
    assert bare.machine.retired(3)[0] == 1000


def test_a_data_fault_before_a_missing_page_of_code_comes_first() -> None:
    bare = Bare()
    bare.map(USER_CODE)
    bare.put("mov eax, [rbx]; nop; nop", NEXT_PAGE - 4)
    bare.user(b"", NEXT_PAGE)
    bare.unmap(NEXT_PAGE)
    bare.cpu.rip, bare["rbx"] = NEXT_PAGE - 4, MISSING
    frame = bare.run()
    assert (frame.rip, frame.cr2, bare.machine.retired(3)[0]) == (NEXT_PAGE - 4, MISSING, 0)


def test_a_call_to_a_missing_page_has_pushed_its_return_address() -> None:
    bare = Bare()
    bare.user("call rbx; nop")
    bare["rbx"] = MISSING
    frame = bare.run()
    assert (frame.rip, frame.cr2, frame.rsp) == (MISSING, MISSING, STACK_TOP - 8)
    assert bare.ram.load64(bare.physical(STACK_TOP - 8)) == USER_CODE + 2


# --- repeated instructions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["cld", "std"])
@pytest.mark.parametrize("width", "bwdq")
def test_a_repeated_store_stops_at_the_missing_page_and_goes_on_from_there(width: str, direction: str) -> None:
    size = {"b": 1, "w": 2, "d": 4, "q": 8}[width]
    step = size if direction == "cld" else -size
    bare = Bare()
    bare.map(DATA)
    other = DATA + PAGE_SIZE if step > 0 else DATA - PAGE_SIZE
    start = DATA + PAGE_SIZE - 5 * size if step > 0 else DATA + 4 * size
    bare.user(f"{direction}; rep stos{width}")
    bare["rdi"], bare["rcx"], bare["rax"] = start, 12, 0x4141_4141_4141_4141
    seen: list[tuple[int, int, int]] = []

    def mend(frame: Frame) -> None:
        seen.append((frame.rip - USER_CODE, bare["rcx"], bare["rdi"]))
        bare.map(other)

    bare.on[14] = mend
    assert bare.run().name == "int 0x20"
    assert seen == [(1, 7, start + 5 * step)]
    assert bare.frames[0].cr2 == (other if step > 0 else DATA - size)
    assert (bare["rcx"], bare["rdi"], *bare.machine.retired(3)) == (0, start + 12 * step, 3, 0, 12)


def test_a_repeated_move_may_fault_on_either_side() -> None:
    bare = Bare()
    bare.map(DATA)
    bare.map(DATA + 4 * PAGE_SIZE)
    bare.user("rep movsb")
    bare["rsi"], bare["rdi"], bare["rcx"] = DATA + PAGE_SIZE - 3, DATA + 5 * PAGE_SIZE - 7, 20
    bare.on[14] = lambda frame: bare.map(frame.cr2 & ~0xFFF)
    bare.run()
    codes = [(frame.cr2, frame.error_code) for frame in bare.frames[:-1]]
    assert codes == [(DATA + PAGE_SIZE, 4), (DATA + 5 * PAGE_SIZE, 6)]
    assert bare.machine.retired(3) == (2, 20, 20)


def test_the_kernels_own_faults_come_back_to_it() -> None:
    bare = Bare()
    bare.unmap(KERNEL + 0x3F_0000)
    bare.kernel("mov rax, [rbx]; inc rax")
    bare["rbx"], bare["rsp"] = KERNEL + 0x3F_0008, RSP0
    bare.on[14] = lambda _: bare.map(KERNEL + 0x3F_0000, 0x3F_0000, Pte.P | Pte.W)
    frame = bare.run()
    assert (frame.name, bare["rax"], bare.frames[0].error_code) == ("int 0x20", 1, 0)
