"""Random programs that scatter their accesses over few frames, seen through many views.

A program is a ring of fragments of code that jump to each other; most lie across a page boundary, and a jump may
change to another view of the same code. What they load and store lies in one of VIEWS:

    PLAIN   4 KiB pages, each with its own rights; some are missing, read-only or clean
    ALIAS   the same frames in another order
    TOP     the last three pages of the address space
    LARGE   the same frames in a 2 MiB page
    HUGE    all of RAM in a 1 GiB page

Every choice comes from the `random.Random` that is passed in.
"""

from __future__ import annotations

from random import Random

__all__ = ["ALIAS", "CODE", "CODES", "CODE_BYTES", "CODE_PAGES", "DATA", "DATA_PAGES", "HUGE", "LARGE", "NOTES"]
__all__ += ["PLAIN", "STACK", "TOP", "random_program"]

PAGE = 0x1000
DATA, CODE = 0x40_0000, 0x60_0000
"""Physical addresses, both at the start of 2 MiB."""

DATA_PAGES, CODE_PAGES = 12, 6
PLAIN, ALIAS, TOP = 0x7000_0000_0000, 0x1234_5678_0000, (1 << 64) - 3 * PAGE
LARGE, HUGE = 0x5555_4000_0000, 0x4000_0000_0000
STACK = 0x7FFF_0000_0000
VIEWS = {PLAIN: DATA_PAGES, ALIAS: DATA_PAGES, TOP: 3, LARGE: DATA_PAGES, HUGE + DATA: DATA_PAGES}
"""Where the data frames are visible, and how many of them."""

CODES = (0x40_0000, 0x7F00_0000_5000, LARGE + 0x20_0000, HUGE + CODE)
"""Where the code is visible: twice in 4 KiB pages, in a 2 MiB and in a 1 GiB page."""

NOTES = 0x2222_0000_0000
"""The code frames as data; a program writes to them only where they hold no code."""
FREE_SPACE = 0x800
CODE_BYTES = CODE_PAGES * PAGE

ACCESSES = [
    *("mov al, [rbx]", "mov rdx, [rbx]", "mov [rbx], al", "mov [rbx], rdx", "add [rbx], rdx", "add edx, [rbx]"),
    *("inc byte ptr [rbx]", "lock xadd [rbx], rdx", "xchg [rbx], rdx", "cmpxchg [rbx], rdx"),
    *("bts qword ptr [rbx], 5", "not dword ptr [rbx]", "cmp dword ptr [rbx], 5", "movzx edx, word ptr [rbx]"),
    *("movups xmm0, [rbx]", "movups [rbx], xmm0", "movq xmm1, [rbx]", "fild dword ptr [rbx]\n fistp dword ptr [rbx]"),
    *("push qword ptr [rbx]\n pop rdx", "push rdx\n pop qword ptr [rbx]"),
    *("mov rdi, rbx\n stosq", "mov rsi, rbx\n lodsw"),
    *("adc word ptr [rbx], 3", "rcl dword ptr [rbx], 3", "rcr byte ptr [rbx], 1", "setbe [rbx]", "seto [rbx]"),
]
STRINGS = [
    *("rep movsb", "rep movsw", "rep movsq", "rep stosb", "rep stosd", "rep lodsb"),
    *("repe cmpsb", "repne scasb"),
]
SWITCHES = [
    "invlpg [rbx]",
    "mov rax, cr3\n mov cr3, rax",
    "mov rax, r14\n xchg r13, r14\n mov cr3, rax",
]
"""INVLPG, a flush, and a change to the other address space, whose CR3 is in R14."""


def random_address(random: Random) -> int:
    """An address in one of VIEWS; one in four begins a few bytes before the end of a page."""
    view, pages = random.choice(list(VIEWS.items()))
    page = random.randrange(pages)
    if page < pages - 1 and not random.randrange(4):
        return view + (page + 1) * PAGE - random.randrange(1, 16)
    return view + page * PAGE + random.choice([0, 8, 2048, 4080, random.randrange(4080)])


def _access(random: Random) -> str:
    return f" mov rbx, {random_address(random)}\n {random.choice(ACCESSES)}"


def _string(random: Random) -> str:
    return f""" {random.choice(["cld", "std"])}
 mov rsi, {random_address(random)}
 mov rdi, {random_address(random)}
 mov ecx, {random.randrange(40)}
 {random.choice(STRINGS)}
 cld"""


def _loop(random: Random) -> str:
    body = "\n".join(_access(random) for _ in range(random.randrange(1, 4)))
    return f" mov ebp, {random.randrange(1, 6)}\n1:\n{body}\n dec ebp\n jnz 1b"


def _note(random: Random) -> str:
    page, offset = random.randrange(CODE_PAGES), FREE_SPACE + random.randrange(0x100)
    return f" mov rbx, {NOTES + page * PAGE + offset}\n mov [rbx], dl"


def _switch(random: Random) -> str:
    return f" mov rbx, {random_address(random)}\n {random.choice(SWITCHES)}"


def _call(random: Random) -> str:
    return f" call function{random.randrange(3)}"


def _fragment(random: Random, *, privileged: bool) -> str:
    kinds = [*[_access] * 12, *[_string] * 3, *[_loop] * 2, _note, _call, _switch if privileged else _access]
    return "\n".join(random.choice(kinds)(random) for _ in range(random.randrange(1, 5)))


def _jump(random: Random, target: str) -> str:
    if random.randrange(2):
        return f" jmp {target}"
    return f" movabs rax, offset {target} + {random.choice(CODES) - CODES[0]}\n jmp rax"


def random_program(random: Random, *, privileged: bool) -> str:
    """Source of a program for CODES[0] that begins at `start` and ends with INT 0x20."""
    count = 2 * (CODE_PAGES - 1)
    ring = random.sample(range(count), count)
    follower = dict(zip(ring, ring[1:] + ring[:1], strict=True))
    lines = ["base:"]
    for number in range(count):
        page, across = divmod(number, 2)
        place = (page + 1) * PAGE - random.randrange(1, 60) if across else page * PAGE + 0x300
        lines += [f".org base + {place}", f"fragment{number}:", _fragment(random, privileged=privileged)]
        if number == ring[-1]:
            lines.append(" dec r15\n jz finish")
        lines.append(_jump(random, f"fragment{follower[number]}"))
    lines.append(f".org base + {(CODE_PAGES - 1) * PAGE + 0x300}")
    lines += [f"function{number}:\n{_access(random)}\n ret" for number in range(3)]
    stack = STACK + PAGE + random.choice([3, 4, 8, 64])
    lines += ["start:", f" mov rsp, {stack}", f" mov r15d, {random.randrange(1, 5)}", f" jmp fragment{ring[0]}"]
    return "\n".join([*lines, "finish:", " int 0x20", ""])
