"""The statements of random programs: what `random_programs` is made of.

Each kind of statement is a function from the grammar to lines of assembly, and most are tables of templates
with words in braces, which are filled at random.  A statement may rely on, and leaves behind:

    rbx             the first byte of the area
    VALUES          registers with data: any number, but never an address
    rbp, r12        counters of the loops around the statement
    rcx, rsi, rdi   free for use; afterwards a number or an offset into the area, not an address
    xmm0 to xmm3    data

It leaves the stack as it was and the direction flag clear, reads no flags but those it has set, and leaves no
flag that the manual calls undefined to be read by others.

>>> for line in code("mov ecx, 3; rep movsq", "ret"):
...     print(line)
    mov     ecx, 3
    rep     movsq
    ret
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from random import Random

__all__ = ["KINDS", "PAGE", "VALUES", "Grammar", "Lines", "code"]

PAGE = 4096

VALUES = ("rax", "rdx", "r8", "r9", "r10", "r13", "r14")
LEGACY = {
    "rax": {8: "rax", 4: "eax", 2: "ax", 1: "al"},
    "rdx": {8: "rdx", 4: "edx", 2: "dx", 1: "dl"},
}
SUFFIX = {8: "", 4: "d", 2: "w", 1: "b"}
POINTER = {1: "byte ptr", 2: "word ptr", 4: "dword ptr", 8: "qword ptr", 16: "xmmword ptr"}
COUNTERS = ("ebp", "r12d")
"""One for each level of nested loops."""

Lines = list[str]
Kind = Callable[["Grammar"], Lines]

KINDS: dict[str, Kind] = {}
"""Every kind of statement by its name; the name is also a comment above the statement in the program."""

_SIMPLE: list[str] = []
"""The kinds that contain no other statements."""


def _kind(function: Kind) -> Kind:
    KINDS[function.__name__] = function
    return function


def _simple(function: Kind) -> Kind:
    _SIMPLE.append(function.__name__)
    return _kind(function)


def sized(register: str, size: int) -> str:
    """Name the low `size` bytes of a 64-bit register.

    >>> sized("rax", 2), sized("r8", 4)
    ('ax', 'r8d')
    """
    return LEGACY[register][size] if register in LEGACY else register + SUFFIX[size]


def code(*lines: str) -> Lines:
    """Lay instructions out as the shipped programs do; a line may hold several, with semicolons between."""
    words = [instruction.split(" ", 1) for line in lines for instruction in line.split("; ")]
    return ["    " + " ".join([f"{first:7}", *rest]).rstrip() for first, *rest in words]


class _Fields(dict[str, str]):
    """What the words in braces in a template mean: each is drawn when it first appears."""

    def __init__(self, grammar: Grammar, size: int) -> None:
        self.grammar, self.size = grammar, size

    def __missing__(self, name: str) -> str:
        g, size = self.grammar, self.size
        draw: dict[str, Callable[[], str]] = {
            "a": g.value,
            "b": g.value,
            "v": lambda: g.value(size),  # of the size of the operand in memory
            "dword": lambda: g.value(4),
            "byte": lambda: g.value(1),
            "x": lambda: f"xmm{g.rng.randrange(4)}",
            "y": lambda: f"xmm{g.rng.randrange(4)}",
            "i": lambda: str(g.immediate(size)),
            "i64": lambda: f"{g.rng.getrandbits(64):#x}",
            "n": lambda: str(g.rng.randint(1, 8 * min(size, 8) - 1)),
            "cc": lambda: g.rng.choice(("e", "ne", "b", "ae", "l", "ge", "s", "ns")),
            "op": lambda: g.rng.choice(("add", "sub", "xor", "or", "and")),
            "unary": lambda: g.rng.choice(("inc", "dec", "not", "neg")),
            "shift": lambda: g.rng.choice(("rol", "ror", "shl", "shr", "sar")),
            "packed": lambda: g.rng.choice(("paddq", "pxor", "por", "psubd", "pmaxub")),
        }
        self[name] = draw[name]()
        return self[name]


class Grammar:
    """A program in the making: its area, its labels, its functions, and the source of its choices."""

    def __init__(self, pages: int) -> None:
        self.pages, self.bytes = pages, pages * PAGE
        self.functions: list[Lines] = []
        self.rng = Random(0)
        self._labels = count(1)
        self._depth = 0

    def statement(self, rng: Random) -> Lines:
        """Return the lines of one statement of any kind, chosen by `rng`."""
        self.rng = rng
        names = list(KINDS) if self._depth < len(COUNTERS) else _SIMPLE
        name = rng.choice(names)
        return [f"    # {name}", *KINDS[name](self)]

    def block(self, most: int, simple: bool = False) -> Lines:
        """Return the lines of one to `most` statements, one level deeper, or of simple ones only."""
        depth, self._depth = self._depth, len(COUNTERS) if simple else self._depth + 1
        lines = [line for _ in range(self.rng.randint(1, most)) for line in self.statement(self.rng)]
        self._depth = depth
        return lines

    def fill(self, templates: Sequence[str], size: int = 8, align: int = 1, memory: str = "") -> Lines:
        """Fill the braces of one of the templates: {m} is `memory`, or any `size` bytes of the area."""
        template, address = self.rng.choice(templates), Lines()
        if not memory and "{m}" in template:
            address, memory = self.memory(size, align)
        fields = _Fields(self, size)
        fields["m"] = memory
        return code(*address, template.format_map(fields))

    def counter(self) -> str:
        """Return the loop counter of this level."""
        return COUNTERS[self._depth]

    def label(self, name: str) -> str:
        """Return a new label."""
        return f"{name}_{next(self._labels)}"

    def value(self, size: int = 8) -> str:
        """Return a register that holds data."""
        return sized(self.rng.choice(VALUES), size)

    def size(self) -> int:
        """Return the size of an operand."""
        return self.rng.choice((8, 4, 2, 1))

    def immediate(self, size: int) -> int:
        """Return a number that fits an operand of `size` bytes; the processor has no immediates over four."""
        bits = 8 * min(size, 4) - 1
        return self.rng.randrange(-(1 << bits), 1 << bits)

    def offset(self, size: int, align: int = 1) -> int:
        """Return an offset into the area for `size` bytes: in its first pages, anywhere, or near a border."""
        last = self.bytes - size
        place = self.rng.randrange(3)
        if place == 2 and last >= PAGE:
            offset = PAGE * self.rng.randint(1, last // PAGE) - self.rng.randint(0, min(size, PAGE))
        else:
            offset = self.rng.randint(0, last if place == 1 else min(last, 2 * PAGE))
        return offset - offset % align

    def memory(self, size: int, align: int = 1) -> tuple[Lines, str]:
        """Return the lines that compute an address in the area, and the operand of `size` bytes there."""
        if self.rng.randrange(3):
            return [], f"{POINTER[size]} [rbx + {self.offset(size, align)}]"
        half = 1 << ((self.bytes // 2).bit_length() - 1)  # a power of two, so that `and` keeps within it
        displacement = self.rng.randint(0, self.bytes - half - size)
        address = [f"mov rsi, {self.value()}", f"and rsi, {(half - 1) & -align}"]
        return address, f"{POINTER[size]} [rbx + rsi + {displacement - displacement % align}]"


@_simple
def arithmetic(g: Grammar) -> Lines:
    """Registers only."""
    templates = (
        "{op} {a}, {b}",
        "mov {a}, {i64}",
        "imul {a}, {b}, {i}; add {b}, {a}",
        "lea {a}, [{a} + 4*{b} + {i}]",
        "{shift} {a}, {n}",
        "mov ecx, {n}; {shift} {a}, cl",
        "bswap {a}; not {b}",
        "cmp {a}, {b}; set{cc} al; cmov{cc} {a}, {b}",
        "mul {a}",
        "xor edx, edx; mov ecx, {n}; div rcx",
    )
    return g.fill(templates)


@_simple
def load(g: Grammar) -> Lines:
    """One read, of any size and extension."""
    size = g.size()
    templates = ["mov {v}, {m}", "{op} {v}, {m}", "cmp {m}, {i}; set{cc} {byte}"]
    if size > 1:  # cmov reads memory whether or not its condition holds
        templates += ["test {a}, 16; cmovz {v}, {m}"]
    templates += {8: [], 4: ["movsxd {a}, {m}"]}.get(size, ["movsx {a}, {m}", "movzx {a}, {m}"])
    return g.fill(templates, size)


@_simple
def store(g: Grammar) -> Lines:
    """One write, of a register or of an immediate."""
    return g.fill(("mov {m}, {v}", "mov {m}, {i}"), g.size())


@_simple
def modify(g: Grammar) -> Lines:
    """Read, modify, write: one instruction, two accesses to the same place."""
    return g.fill(("{op} {m}, {v}", "{op} {m}, {i}", "{unary} {m}", "{shift} {m}, {n}"), g.size())


@_simple
def crossing(g: Grammar) -> Lines:
    """A read, a write or both across the border of two pages; in an area of one page, anywhere."""
    size = g.rng.choice((2, 4, 8, 16))
    border = PAGE * g.rng.randint(1, g.pages - 1) if g.pages > 1 else g.bytes - size
    memory = f"{POINTER[size]} [rbx + {border - g.rng.randint(1, size - 1)}]"
    templates = ("mov {v}, {m}", "mov {m}, {v}", "{op} {m}, {v}", "{unary} {m}")
    return g.fill(templates if size < 16 else ("movdqu {x}, {m}", "movdqu {m}, {x}"), size, memory=memory)


@_simple
def locked(g: Grammar) -> Lines:
    """An atomic access.  It is aligned: Linux slows down programs whose LOCK splits a cache line."""
    size = g.size()
    templates = [
        "lock {op} {m}, {v}",
        "lock {unary} {m}",
        "xchg {m}, {v}",
        "lock xadd {m}, {v}",
        "lock cmpxchg {m}, {v}",  # mostly fails: then it writes back what it has read
        f"mov {sized('rax', size)}, {{m}}; lock cmpxchg {{m}}, {{v}}",
    ]
    if size > 1:
        templates += ["lock bts {m}, {n}", "lock btr {m}, {n}", "lock btc {m}, {n}"]
    return g.fill(templates, size, align=size)


@_simple
def sse(g: Grammar) -> Lines:
    """Moves of 4, 8 and 16 bytes, aligned or not, and operands of 16 bytes."""
    templates, size, align = g.rng.choice(
        (
            (("movdqu {x}, {m}", "movups {m}, {x}"), 16, 1),
            (("movdqa {x}, {m}", "movaps {m}, {x}", "movntdq {m}, {x}", "{packed} {x}, {m}"), 16, 16),
            (("movq {x}, {m}", "movq {m}, {x}", "movlps {x}, {m}", "movnti {m}, {a}"), 8, 1),
            (("movhps {x}, {m}", "movhps {m}, {x}"), 8, 1),
            (("movd {x}, {m}", "movd {m}, {x}"), 4, 1),
            (("movq {x}, {a}; punpcklqdq {x}, {y}; {packed} {y}, {x}", "pmovmskb {dword}, {x}"), 8, 1),
        )
    )
    return g.fill(templates, size, align)


@_simple
def string(g: Grammar) -> Lines:
    """A string instruction over up to three pages, in either direction, repeated or not, also zero times."""
    instruction = g.rng.choice(
        (
            "rep movs",
            "rep stos",
            "rep lods",
            "repe cmps",
            "repne cmps",
            "repe scas",
            "repne scas",
            "movs",
            "cmps",
        )
    )
    size = g.size()
    times = g.rng.choice((0, 1, g.rng.randint(2, 64), g.rng.randint(65, min(g.bytes, 3 * PAGE) // size)))
    span = max(times, 1) * size
    down = span - size if g.rng.randrange(4) == 3 else 0  # from the first element to the last, to begin there
    searched = ["xor eax, eax"] if g.rng.randrange(2) else []  # untouched memory is zero: scas will go on for long
    return code(
        f"lea rsi, [rbx + {g.offset(span) + down}]",
        f"lea rdi, [rbx + {g.offset(span) + down}]",
        f"mov ecx, {times}",
        *searched,
        *(["std"] if down else []),
        instruction + {1: "b", 2: "w", 4: "d", 8: "q"}[size],
        *(["cld"] if down else []),
        "sub rsi, rbx; sub rdi, rbx",
    )


@_simple
def sweep(g: Grammar) -> Lines:
    """Touch every page of the area once, upwards or downwards: the enemy of every TLB."""
    loop, up = g.label("sweep"), g.rng.randrange(2)
    start = g.rng.randint(0, PAGE - 8) + (0 if up else g.bytes - PAGE)
    touch = g.fill(("add {a}, {m}", "mov {m}, {a}", "add {m}, {a}"), memory="qword ptr [rsi]")
    begin = code(f"lea rsi, [rbx + {start}]", f"mov ecx, {g.pages}")
    step = code(f"add rsi, {PAGE if up else -PAGE}", "dec ecx", f"jnz {loop}", "sub rsi, rbx")
    return [*begin, f"{loop}:", *touch, *step]


@_simple
def stack(g: Grammar) -> Lines:
    """Pushes and pops, of registers and of memory."""
    height = g.rng.randint(1, 4)
    actions = ["push {a}", "push {m}"], ["pop {a}", "pop {m}"]
    return [line for action in actions for _ in range(height) for line in g.fill(action)]


@_simple
def frame(g: Grammar) -> Lines:
    """A stack frame of up to three pages; only what was written is read again."""
    size = 8 * g.rng.randint(1, 3 * PAGE // 8)
    places = [f"[rsp + {g.rng.randint(0, size - 8)}]" for _ in range(2)]
    writes = [line for place in places for line in g.fill(["mov {m}, {a}"], memory=place)]
    read = g.fill(["{op} {a}, {m}"], memory=places[0])
    return [*code(f"sub rsp, {size}"), *writes, *read, *code(f"add rsp, {size}")]


@_simple
def system_call(g: Grammar) -> Lines:
    """Into the kernel and back with getpid, which is nobody's business: the result is forgotten."""
    return g.fill(["mov eax, 39; syscall; xor eax, eax; xor ecx, ecx; xor r11d, r11d"])


@_kind
def branch(g: Grammar) -> Lines:
    """Jump forward over a few statements, or not."""
    label = g.label("after")
    condition = g.fill(("cmp {a}, {b}; j{cc} ", "test {byte}, 4; j{cc} ", "cmp {a}, {m}; j{cc} "))
    condition[-1] += f" {label}"
    return [*condition, *g.block(3), f"{label}:"]


@_kind
def loop(g: Grammar) -> Lines:
    """Repeat a few statements up to six times."""
    counter, label = g.counter(), g.label("loop")
    begin = code(f"mov {counter}, {g.rng.randint(1, 6)}")
    return [*begin, f"{label}:", *g.block(3), *code(f"dec {counter}", f"jnz {label}")]


@_kind
def call(g: Grammar) -> Lines:
    """Call a function: next to the others, on a page of its own, or across the border of two pages."""
    name = g.label("function")
    place = g.rng.choice(([], [".balign 4096"], [".balign 4096", f".skip {PAGE - g.rng.randint(1, 12)}"]))
    g.functions.append([*code(*place), f"{name}:", *g.block(3, simple=True), *code("ret")])
    if g.rng.randrange(2):
        return code(f"call {name}")
    return code(f"lea rdi, [rip + {name}]", "call rdi", "xor edi, edi")
