"""Bytes at which Unicorn's translator calls abort(): LOCK before a bit test of a register, #UD on a processor.

The guest can put them anywhere, and whatever it does the host process must survive; a failure here is a pytest that
disappears. Where execution reaches them, they are #UD.
"""

from __future__ import annotations

import random

import pytest
from bare import END, STACK_TOP, USER_CODE, Bare, Frame, assemble

from emu.guard import MOST
from emu.pte import PAGE_SIZE, Rflags

BAD = bytes.fromhex("f0 0f ab c1")  # lock bts ecx, eax
BAD_NUMBER = int.from_bytes(BAD, "little")
NEXT_PAGE = USER_CODE + PAGE_SIZE
DATA = 0x50_0000
OTHER = 0x50_0000
EXIT = bytes((0xCD, END))
LONGEST = "2e" * 9 + "f0" + "6666" + "0fabc1"


def ended(bare: Bare) -> tuple[str, int]:
    """Run, and say what ended it and where."""
    frame = bare.run()
    return frame.name, frame.rip


@pytest.mark.parametrize("before", ["", "90", "31c0", "4883c101" * 20])
@pytest.mark.parametrize(
    "form", ["f00fabc1", "f00fa3c1", "f00fb3ff", "f00fbbc0", "f00fbae005", "f00fbaff05", "66f0480fabc1", LONGEST]
)
def test_reached_they_are_an_invalid_opcode(form: str, before: str) -> None:
    bare = Bare()
    bare.user(bytes.fromhex(before + form))
    assert ended(bare) == ("#UD", USER_CODE + len(before) // 2)
    assert bare.machine.retired(3)[0] == {"": 0, "90": 1, "31c0": 1}.get(before, 20)


@pytest.mark.parametrize("split", range(1, len(BAD)))
def test_they_may_lie_on_two_pages(split: int) -> None:
    bare = Bare()
    bare.user(b"\x90" * 8 + BAD, NEXT_PAGE - 8 - split)
    assert ended(bare) == ("#UD", NEXT_PAGE - split)


@pytest.mark.parametrize("split", [1, 2, 5, 9, 11])
def test_prefixes_may_lie_on_the_page_before(split: int) -> None:
    bare = Bare()
    bare.user(b"\x90" * 8 + b"\x66" * 11 + BAD, NEXT_PAGE - 8 - split)
    assert ended(bare) == ("#UD", NEXT_PAGE - split)


def test_the_page_before_need_not_be_mapped() -> None:
    bare = Bare()
    bare.user(BAD)
    assert (*ended(bare), bare.last.cr2) == ("#UD", USER_CODE, 0)


def test_the_second_page_may_be_missing_at_first() -> None:
    bare = Bare()
    bare.user(b"\x90" + BAD, NEXT_PAGE - 3)
    second = bare.physical(NEXT_PAGE)
    bare.unmap(NEXT_PAGE)
    bare.on[14] = lambda _: bare.map(NEXT_PAGE, second)
    assert ended(bare) == ("#UD", NEXT_PAGE - 2)
    assert [(frame.name, frame.rip, frame.cr2) for frame in bare.frames[:-1]] == [("#PF", NEXT_PAGE - 2, NEXT_PAGE)]


def test_where_they_are_not_reached_they_do_no_harm() -> None:
    bare = Bare()
    bare.user(b"\xeb\x04" + BAD + b"\xff\xc0")  # jmp over them; inc eax
    assert (bare.run().name, bare["rax"]) == ("int 0x20", 1)


def test_as_the_operand_of_something_they_are_a_number() -> None:
    bare = Bare()
    bare.user(b"\xb8" + BAD)  # mov eax, imm32
    assert (bare.run().name, bare["rax"]) == ("int 0x20", BAD_NUMBER)


def test_but_one_can_jump_into_the_middle() -> None:
    bare = Bare()
    bare.user(b"\xb8" + BAD + b"\xeb\xfa")  # mov eax, imm32; jmp into it
    assert ended(bare) == ("#UD", USER_CODE + 1)


def test_an_ordinary_lock_across_pages_executes() -> None:
    """Its first half looks as if it might become one of them."""
    bare = Bare()
    bare.map(OTHER)
    bare["rbx"], bare["rax"] = OTHER, 5
    bare.user("lock xadd [rbx], eax; lock xadd [rbx], eax", NEXT_PAGE - 2)
    assert (bare.run().name, bare["rax"]) == ("int 0x20", 5)
    assert bare.ram.load64(bare.physical(OTHER)) == 5
    assert bare.machine.retired(3) == (3, 2, 2)


def test_a_jump_before_a_page_that_begins_with_them_jumps() -> None:
    bare = Bare()
    bare.user(b"\xff\xe7", NEXT_PAGE - 2)  # jmp rdi
    bare.put(BAD, NEXT_PAGE)
    bare.put(EXIT, OTHER)
    bare["rdi"] = OTHER
    assert ended(bare) == ("int 0x20", OTHER + 2)
    assert bare.machine.retired(3)[0] == 2


def test_a_repeated_instruction_before_such_a_page_repeats() -> None:
    bare = Bare()
    bare.user(b"\xf3\xaa", NEXT_PAGE - 2)  # rep stosb
    bare.put(BAD, NEXT_PAGE)
    bare["rdi"], bare["rcx"] = STACK_TOP - 100, 50
    assert ended(bare) == ("#UD", NEXT_PAGE)
    assert (bare["rcx"], *bare.machine.retired(3)) == (0, 1, 0, 50)


def test_a_repeated_instruction_can_make_itself_one_of_them() -> None:
    """Downwards: its opcode becomes one more prefix of what comes behind, before the second iteration."""
    bare = Bare()
    bare.user(b"\xf3\xaa", NEXT_PAGE - 2)  # rep stosb
    bare.put(BAD, NEXT_PAGE)
    bare["rax"], bare["rdi"], bare["rcx"] = 0x66, NEXT_PAGE - 1, 2
    bare.cpu.rflags |= Rflags.DF
    assert ended(bare) == ("#UD", NEXT_PAGE - 2)


@pytest.mark.parametrize("engine", ["trap", "access"])
@pytest.mark.parametrize("target", [USER_CODE + 0x800, OTHER])
def test_the_guest_may_write_them(target: int, engine: str) -> None:
    bare = Bare(engine=engine)
    bare.map(OTHER)
    bare.user("mov [rdi], eax; jmp rdi")
    bare["rdi"], bare["rax"] = target, BAD_NUMBER
    assert ended(bare) == ("#UD", target)


@pytest.mark.parametrize("engine", ["trap", "access"])
def test_the_guest_may_write_them_just_before_it_gets_there(engine: str) -> None:
    bare = Bare(engine=engine)
    bare.user("mov [rdi], eax; nop; nop; nop; nop")
    bare["rdi"], bare["rax"] = USER_CODE + 2, BAD_NUMBER
    assert ended(bare) == ("#UD", USER_CODE + 2)


@pytest.mark.parametrize("engine", ["trap", "access"])
@pytest.mark.parametrize(
    ("code", "retired"),
    [
        ("mov byte ptr [rip + 1], 0x90; nop; nop; nop", 4),  # the instruction behind it
        ("nop; mov byte ptr [rip - 1], 0x90; nop", 3),  # its own last byte, the number: not executed again
        ("nop; nop; mov byte ptr [rip - 8], 0x90; nop", 4),  # what came before it
        ("mov ecx, 40; lea rdi, [rip + 1f]; mov al, 0x90; rep stosb; 1: .skip 40, 0x90", 44),
    ],
)
def test_beside_them_the_guest_may_write_to_the_block_that_it_executes(code: str, retired: int, engine: str) -> None:
    """Unicorn translates such a store anew, alone, before it happens: again and again, if it may not look."""
    bare = Bare(engine=engine)
    bare.user(code)
    bare.put(BAD, USER_CODE + 0x800)
    assert bare.run().name == "int 0x20"
    assert bare.machine.retired(3)[0] == retired + 1


@pytest.mark.parametrize("engine", ["trap", "access"])
def test_the_guest_may_write_them_over_what_it_has_executed(engine: str) -> None:
    bare = Bare(engine=engine)
    bare.user("""
            lea rdi, [rip + patched]
        again:
            call patched
            inc ecx
            cmp ecx, 2
            jne again
            mov [rdi], eax
            jmp again
        patched:
            nop; nop; nop; nop
            ret
    """)
    bare["rax"] = BAD_NUMBER
    assert ended(bare) == ("#UD", bare["rdi"])
    assert bare["rcx"] == 2


@pytest.mark.parametrize("engine", ["trap", "access"])
def test_the_guest_may_write_them_through_another_address(engine: str) -> None:
    bare = Bare(engine=engine)
    bare.user("call rdi; mov [rbx], eax; call rdi")
    bare.put(b"\xc3", OTHER)
    bare.map(0x60_0000, bare.physical(OTHER))
    bare["rdi"], bare["rbx"], bare["rax"] = OTHER, 0x60_0000, BAD_NUMBER
    assert ended(bare) == ("#UD", OTHER)


def test_the_guest_may_mend_them() -> None:
    bare = Bare()
    bare.user("mov dword ptr [rdi], 0x90909090; jmp rdi")
    bare.put(BAD + EXIT, OTHER)
    bare["rdi"] = OTHER
    assert ended(bare) == ("int 0x20", OTHER + 6)


def test_after_the_exception_they_may_be_mended_in_place() -> None:
    bare = Bare()
    bare.user(b"\x90" + BAD)

    def mend(frame: Frame) -> None:
        bare.ram.write(bare.physical(frame.rip), b"\x90" * 4)

    bare.on[6] = mend
    assert ended(bare) == ("int 0x20", USER_CODE + 7)
    assert len(bare.frames) == 2


def test_the_host_may_write_them_over_what_was_executed() -> None:
    bare = Bare()
    bare.user(b"\x90" * 8)
    bare.run()
    bare.user(b"\x90\x90" + BAD)
    assert ended(bare) == ("#UD", USER_CODE + 2)


def test_another_page_may_come_to_their_address() -> None:
    bare = Bare()
    bare.user(BAD)
    bare.run()
    bare.map(USER_CODE)
    bare.machine.invlpg(USER_CODE)
    bare.user(b"\xff\xc0" * 3)  # inc eax
    assert (bare.run().name, bare["rax"]) == ("int 0x20", 3)


def test_the_kernel_may_meet_them_too() -> None:
    bare = Bare()
    bare.kernel(b"\x90" + BAD)
    assert bare.run().name == "#UD"


def test_a_data_fault_beside_them_has_its_own_address() -> None:
    """Unicorn looks its exit addresses up when it stops; the address of the fault is not lost."""
    bare = Bare()
    bare.user(b"\x8b\x07" + BAD)  # mov eax, [rdi]
    bare["rdi"] = 0xDEAD_B004
    assert (*ended(bare), bare.last.cr2) == ("#PF", USER_CODE, 0xDEAD_B004)


def test_there_may_be_more_than_are_remembered() -> None:
    bare = Bare()
    pages = range(OTHER, OTHER + 24 * PAGE_SIZE, PAGE_SIZE)
    for page in pages:
        bare.ram.write(bare.map(page), b"\xf0" * (PAGE_SIZE - 3) + BAD[1:])
    assert len(pages) * PAGE_SIZE > MOST
    choice = random.Random(1)
    for _ in range(60):
        place = choice.choice([0, 1, 2000, PAGE_SIZE - 5, PAGE_SIZE - 4])
        bare.user("jmp rdi")
        bare["rdi"] = target = choice.choice(pages) + place
        assert ended(bare) == ("#GP" if place <= 2000 else "#UD", target)  # more than 15 bytes are #GP


def test_noise_never_ends_the_host() -> None:
    """The guest executes random bytes, rich in what is dangerous, on two pages that it can write."""
    choice = random.Random(7)
    bare = Bare()
    bare.map(USER_CODE)
    bare.map(NEXT_PAGE)
    prefixes = bytes.fromhex("f0f0f0f2f36667484f41642e")
    for _ in range(300):
        noise = b"".join(
            bytes(choice.choices(prefixes, k=choice.randrange(3)))
            + choice.choice([b"\x0f", BAD, b"\xf0\x0f\xba", b"", b"\x0f\x38"])
            + choice.randbytes(choice.randrange(6))
            for _ in range(20)
        )
        bare.user(noise, USER_CODE + choice.choice([0, 100, PAGE_SIZE - 10, PAGE_SIZE - 40]))
        bare.machine.max_instructions = bare.machine.state.instructions + 100
        for number in range(16):
            bare.cpu.gprs[number] = choice.choice([USER_CODE, NEXT_PAGE, STACK_TOP - 64]) + choice.randrange(64)
        bare.machine.run()


def test_the_bytes_are_what_the_assembler_makes_of_the_harmless_form() -> None:
    assert assemble("lock bts [rcx], eax") == BAD[:3] + b"\x01"


# --- blocks that are too long ---------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["trap", "access"])
@pytest.mark.parametrize(
    "code", ["d9c1", "dac1", "da", "d903", "ddc1", "0f70c105", "660f3a21c105", "f20f38f0c1", "8ee0"]
)
def test_as_many_instructions_as_a_page_has_may_follow_each_other(code: str, engine: str) -> None:
    """Unicorn has no room for so many that it loses a temporary value of."""
    bare = Bare(engine=engine)
    bare.map(DATA)
    size = len(code) // 2 if code != "da" else 2
    bare.user(bytes.fromhex(code) * (6000 // len(code)), USER_CODE + PAGE_SIZE - 1001)
    bare["rbx"] = DATA
    assert bare.run().name == "int 0x20"
    assert bare.machine.retired(3)[0] == 3000 // size + 1
