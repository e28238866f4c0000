r"""Assembly source on its way into the assembler, and positions on their way back.

Our dialect is GNU `as`'s; the assembler that we carry is LLVM's. They agree on nearly everything, so LLVM
gets the text as it is, with insertions that no reported position shows:

* `.loc 1 N` in front of every line makes LLVM write a line table, and the empty `.ascii ""` behind it gives
  lines without instructions (data, labels, macro calls) their place in that table.
* `len = . - msg` is a number to GNU `as`, but LLVM's Intel parser takes the `len` in `mov edx, len` for a
  memory operand. Each difference is therefore also kept as `cr3.true.len`; once its value is known from an
  earlier pass it comes back as `cr3.known.len`, a plain number.

A line that both accept but are known to encode differently is refused with a hint.

    >>> source = Source("mov al, 1 # one\n.globl x", "demo.asm", "intel")
    >>> print(source.prepared({}).replace(" ", "."))
    .intel_syntax.noprefix;.file.1."source";
    .loc.1.1;.ascii."";mov.al,.1......
    .loc.1.2;.ascii."";........
    >>> source.column_of(1, len('.loc 1 1;.ascii "";mov a'))
    5
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from .exceptions import AssemblyError

__all__ = ["EXPANDING", "HEADER_LINES", "LOCATION", "OWN", "TRUE", "TWICE", "Source", "Syntax"]

Syntax = Literal["intel", "att"]

OWN = "cr3."
TRUE, KNOWN, TWICE, GUESS = OWN + "true.", OWN + "known.", OWN + "twice.", OWN + "guess"

HEADERS = {"intel": ".intel_syntax noprefix;", "att": ".att_syntax prefix;"}
HEADER_LINES = 1
LOCATION = re.compile(r'\.loc 1 (\d+);\.ascii "";(?:\.print "@\d+";)?')
EXPANDING = re.compile(r"^@(\d+)$", re.MULTILINE)

STRING_OR_COMMENT = re.compile(
    r"""(?P<string>"(?:\\[^\n]|[^"\\\n])*"?|'(?:\\[^\n]|[^\\\n])')"""
    r"""|(?P<comment>\#[^\n]*|//[^\n]*|/\*.*?\*/)|(?P<endless>/\*)""",
    re.DOTALL,
)
NAME = r"[\w.$\\@()]+"
LABELS = re.compile(rf'\s*(?:(?:{NAME}|"[^"]*")\s*:\s*)*')
ASSIGNMENT = re.compile(rf"(?:\.(?:set|equ|equiv)\s+(?P<name>{NAME})\s*,|(?P<left>{NAME})\s*=(?!=))(?P<value>.*)", re.I)
ADDRESS = r"(?<![\w.$\\@])(?:[A-Za-z_.\\][\w.$\\@()]*|\d+[fb])"
DIFFERENCE = re.compile(rf"{ADDRESS}\s*\)*\s*-\s*\(*\s*{ADDRESS}")
BLOCK_START = re.compile(r"\.(?:macro|rept?|irpc?)\b", re.I)
BLOCK_END = re.compile(r"\.(?:endm|endmacro|endr)\b", re.I)
SYNTAX_SWITCH = re.compile(r"\.(intel|att)_syntax\b", re.I)
FILE_ACCESS = re.compile(r"\.(?:include|incbin)\b", re.I)
# One file is the whole program, so every label is visible everywhere. Without .globl LLVM may choose short
# jumps, as GNU as does. Line tables other than ours (from a compiler) would contradict ours.
IGNORED = re.compile(r"\.(?:globa?l|loc|file\s+\d+)\b", re.I)

# A compiler's own line table (gcc -g -S) goes aside under another name.
LINE_TABLE = re.compile(r"\.section\s+\.(debug)_line\b(?!_)", re.I)

# Spellings that GNU as accepts and LLVM does not, as compilers write them with -masm=intel.
FLAT = re.compile(r"\boffset(\s+flat:)", re.I)
JUMP_TABLE = re.compile(r"jmp\s*(\[)\s*qword\s+ptr\b.*\](\])\s*$", re.I)
MOVSX_FROM_32_BITS = re.compile(r"movsx(?=\s+r\w+\s*,\s*(?:dword\s+ptr|e[a-ds][xip]|r\d+d)\b)", re.I)

# What both accept but encode differently: GNU as takes the operand size of the mode, LLVM the 16-bit form.
UNEQUAL = (
    (re.compile(r"iret\s*$", re.I), "say which return: iretq is the one of 64-bit mode"),
    (re.compile(r"sysret\s*$", re.I), "say which return: sysretq is the one of 64-bit mode"),
    (re.compile(r"(?:push|pop)\s+[fg]s\s*$", re.I), "assemblers disagree on its size: go through a register"),
)

MNEMONIC_AND_OPERANDS = re.compile(r"(\S+\s*)(.*)", re.DOTALL)
OPERAND_TOKEN = re.compile(r"<<|>>|[-+*/%&|^()\[\],]|[^\s()\[\],<>*/%&|^+-]+")
WORDS = {"shl": "<<", "shr": ">>", "and": "&", "or": "|", "xor": "^", "mod": "%"}
# How tightly operators bind: for GNU as (gas/expr.c, op_rank); for LLVM in an Intel operand, as in C.
GNU_RANK = {"*": 3, "/": 3, "%": 3, "<<": 3, ">>": 3, "|": 2, "&": 2, "^": 2, "+": 1, "-": 1}
C_RANK = {"*": 6, "/": 6, "%": 6, "+": 5, "-": 5, "<<": 4, ">>": 4, "&": 3, "^": 2, "|": 1}


class Edit(NamedTuple):
    """Put `text` in the place of line[start:end]: an insertion (start == end), or something as long."""

    start: int
    end: int
    text: str


class Source:
    """One source text, annotated for the assembler.

    `name` is what errors call it. Raises AssemblyError for what must not reach the assembler: statements that
    read other files or that GNU `as` and LLVM would encode differently, and a comment without an end.
    """

    def __init__(self, text: str, name: str, syntax: Syntax) -> None:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        self.name, self.syntax = name, syntax
        self.lines = text.split("\n")
        self.has_differences = False
        self._mode = syntax
        self._has_blocks = BLOCK_START.search(text) is not None
        self._block_depth = 0
        clean = STRING_OR_COMMENT.sub(self._without_comment, text)
        self._clean = clean.split("\n")
        masked = STRING_OR_COMMENT.sub(lambda found: "'" * len(found[0]), clean).split("\n")
        self._pieces = [list(self._annotate(number, line)) for number, line in enumerate(masked, 1)]

    def error(self, line: int, column: int, message: str) -> AssemblyError:
        """An AssemblyError for a position in this source (0 when not known)."""
        line = min(line, len(self.lines))
        return AssemblyError(self.name, line, column, message, self.lines[line - 1] if line else "")

    def prepared(self, known: Mapping[str, int], *, guess: bool = False) -> str:
        """The text for the assembler, with the values that an earlier pass found for differences.

        With `guess` any number stands for those that are not known: some instructions take numbers only.
        """
        values = "".join(f".set {KNOWN}{name},{value};" for name, value in known.items())
        values += f".set {GUESS},1;" if guess else ""
        header = f'{HEADERS[self.syntax]}.file 1 "source";{values}'
        return "\n".join([header, *("".join(text for text, _ in pieces) for pieces in self._pieces)])

    def column_of(self, line: int, column: int) -> int:
        """The column (from 1) in the user's line for a column of the prepared line."""
        remaining, users = column - 1, 0
        for text, inserted in self._pieces[line - 1]:
            taken = min(len(text), remaining)
            users += 0 if inserted else taken
            remaining -= taken
        return users + 1

    def position_of(self, name: str, line: int) -> tuple[int, int]:
        """Line and column where a symbol is named: in this line, else (a macro's argument) first of all."""
        named = re.compile(rf"(?<![\w.$@]){re.escape(name)}(?![\w.$])" if name else r"\S")
        for number in (*([line] if line else []), *range(1, len(self.lines) + 1)):
            if found := named.search(self._clean[number - 1]):
                return number, found.start() + 1
        return line, 0

    def _without_comment(self, found: re.Match[str]) -> str:
        """A string as it is; blanks for a comment, which may go over several lines."""
        if found["endless"]:
            line, before = (
                found.string.count("\n", 0, found.start()),
                found.string.rfind("\n", 0, found.start()),
            )
            raise self.error(line + 1, found.start() - before, "this comment has no end: expected */")
        return found["string"] or re.sub(r"[^\n]", " ", found["comment"])

    def _annotate(self, number: int, masked: str) -> Iterator[tuple[str, bool]]:
        """A line in pieces: its own text (False) and what we insert (True)."""
        line, at = self._clean[number - 1], 0
        for start, end, text in self._edits(number, masked):
            yield line[at:start], False
            yield text, start == end
            at = end
        yield line[at:], False

    def _edits(self, number: int, masked: str) -> Iterator[Edit]:
        """The edits of a line, which is given with its strings masked."""
        if masked.strip() and not BLOCK_END.match(masked.lstrip()):
            marker = f'.print "@{number}";' if self._has_blocks and not self._block_depth else ""
            yield Edit(0, 0, f'.loc 1 {number};.ascii "";{marker}')
        for statement in re.finditer(r"[^;]+", masked):
            labels = LABELS.match(statement[0])
            start = statement.start() + (labels.end() if labels else 0)
            if start < statement.end():
                yield from self._statement(number, start, masked[start : statement.end()])

    def _statement(self, number: int, at: int, code: str) -> Iterator[Edit]:
        """The edits of one statement, which stands at a column (from 0)."""
        assignment = ASSIGNMENT.match(code)
        if FILE_ACCESS.match(code):
            raise self.error(number, at + 1, "a program is one file: .include and .incbin are not supported")
        if IGNORED.match(code):
            yield _blank(at, at + len(code))
        elif table := LINE_TABLE.match(code):
            yield Edit(at + table.start(1), at + table.end(1), "other")
        elif BLOCK_START.match(code):
            self._block_depth += 1
        elif BLOCK_END.match(code):
            self._block_depth = max(self._block_depth - 1, 0)
        elif switch := SYNTAX_SWITCH.match(code):
            self._mode = "intel" if switch[1].lower() == "intel" else "att"
        elif self._mode == "intel" and assignment and DIFFERENCE.search(assignment["value"]):
            self.has_differences = True
            value = self._clean[number - 1][at + assignment.start("value") : at + len(code)]
            yield from _difference(assignment["name"] or assignment["left"], value, at, at + len(code))
        elif self._mode == "intel" and not assignment and not code.startswith("."):
            yield from self._instruction(number, at, code)

    def _instruction(self, number: int, at: int, code: str) -> Iterator[Edit]:
        """Check an Intel instruction for what assemblers read differently, and spell it as LLVM does."""
        for pattern, hint in UNEQUAL:
            if pattern.match(code):
                raise self.error(number, at + 1, hint)
        mnemonic, operands = MNEMONIC_AND_OPERANDS.findall(code)[0]
        dispute = _disputed(operands)
        if dispute is not None:
            hint = "assemblers disagree on the order of these operators: use parentheses"
            raise self.error(number, at + len(mnemonic) + dispute + 1, hint)
        if movsx := MOVSX_FROM_32_BITS.match(code):
            yield Edit(at + movsx.end(), at + movsx.end(), "d")
        for superfluous in filter(None, (FLAT.search(code), JUMP_TABLE.match(code))):
            for group in range(1, superfluous.re.groups + 1):
                yield _blank(at + superfluous.start(group), at + superfluous.end(group))


def _blank(start: int, end: int) -> Edit:
    return Edit(start, end, " " * (end - start))


def _difference(name: str, value: str, start: int, end: int) -> Iterator[Edit]:
    """Edits around an assignment: take the value that is known, and report the true one."""
    before = f".ifdef {KNOWN}{name};.set {name},{KNOWN}{name};.else;.ifdef {GUESS};.set {name},1;.else;"
    after = f";.endif;.endif;.ifdef {TRUE}{name};.set {TWICE}{name},1;.else;.set {TRUE}{name},{value};.endif"
    yield Edit(start, start, before)
    yield Edit(end, end, after)


def _disputed(operands: str) -> int | None:
    """Where in Intel operands an operator stands whose place in the order GNU as and LLVM see differently."""
    groups: list[set[str]] = [set()]  # the operators so far, of each parenthesis that is open
    after_value = False
    for token in OPERAND_TOKEN.finditer(operands):
        word = WORDS.get(token[0].lower(), token[0])
        if word in ("(", "["):
            groups.append(set())
        elif word in (")", "]", ","):
            groups = groups[:-1] or [set()]
            groups += [set()] if word == "," else []
        elif word in C_RANK and after_value:
            if any((GNU_RANK[w] >= GNU_RANK[word]) != (C_RANK[w] >= C_RANK[word]) for w in groups[-1]):
                return token.start()
            groups[-1].add(word)
        after_value = word not in C_RANK and word not in ("(", "[", ",")
    return None
