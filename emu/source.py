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
from typing import Literal

from .exceptions import AssemblyError

__all__ = ["EXPANDING", "HEADER_LINES", "LOCATION", "OWN", "TRUE", "TWICE", "Source", "Syntax"]

Syntax = Literal["intel", "att"]

OWN = "cr3."
TRUE, KNOWN, TWICE, GUESS = OWN + "true.", OWN + "known.", OWN + "twice.", OWN + "guess"

HEADERS = {"intel": ".intel_syntax noprefix;", "att": ".att_syntax prefix;"}
HEADER_LINES = 1
LOCATION = re.compile(r'\.loc 1 (\d+);\.ascii "";(?:\.print "@\d+";)?')
EXPANDING = re.compile(r"^@(\d+)$", re.MULTILINE)

TOKEN = re.compile(r"""("(?:\\.|[^"\\])*"?|'(?:\\.|[^\\])')|(\#.*|//.*)|(/\*)|[^"'/#]+|.""", re.DOTALL)
NAME = r"[\w.$\\@()]+"
LABELS = re.compile(rf'\s*(?:(?:{NAME}|"[^"]*")\s*:\s*)*')
ASSIGNMENT = re.compile(
    rf"(?:\.(?:set|equ|equiv)\s+(?P<name>{NAME})\s*,|(?P<left>{NAME})\s*=(?!=))(?P<value>.*)", re.I
)
ADDRESS = r"(?:[A-Za-z_.\\][\w.$\\@()]*|\d+[fb])"
DIFFERENCE = re.compile(rf"{ADDRESS}\s*\)*\s*-\s*\(*\s*{ADDRESS}")
BLOCK_START = re.compile(r"\.(?:macro|rept?|irpc?)\b", re.I)
BLOCK_END = re.compile(r"\.(?:endm|endmacro|endr)\b", re.I)
SYNTAX_SWITCH = re.compile(r"\.(intel|att)_syntax\b", re.I)
FILE_ACCESS = re.compile(r"\.(?:include|incbin)\b", re.I)
# One file is the whole program, so every label is visible everywhere. Without .globl LLVM may choose short
# jumps, as GNU as does. Line tables other than ours (from a compiler) would contradict ours.
IGNORED = re.compile(r"\.(?:globa?l|loc|file\s+\d+)\b", re.I)

# Spellings that GNU as accepts and LLVM does not, as compilers write them with -masm=intel.
FLAT = re.compile(r"\boffset(\s+flat:)", re.I)
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


class Source:
    """One source text, annotated for the assembler.

    `name` is what errors call it. Raises AssemblyError for what must not reach the assembler: statements that
    read other files or that GNU `as` and LLVM would encode differently, and a comment without an end.
    """

    def __init__(self, text: str, name: str, syntax: Syntax) -> None:
        self.name, self.syntax = name, syntax
        self.lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self.has_differences = False
        self._mode = syntax
        self._has_blocks = BLOCK_START.search(text) is not None
        self._block_depth = 0
        self._open_comment: tuple[int, int] | None = None
        self._pieces = [self._annotate(number, line) for number, line in enumerate(self.lines, 1)]
        if self._open_comment:
            raise self.error(*self._open_comment, "this comment has no end: expected */")

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
            text = "".join(text for text, inserted in self._pieces[number - 1] if not inserted)
            if found := named.search(text):
                return number, found.start() + 1
        return line, 0

    def _annotate(self, number: int, line: str) -> list[tuple[str, bool]]:
        """The line in pieces: its text (False) and what we insert (True)."""
        clean, masked = self._strip_comments(number, line)
        if not clean.strip():
            return [("", False)]
        marker = f'.print "@{number}";' if self._has_blocks and not self._block_depth else ""
        ends_block = BLOCK_END.match(masked.lstrip())
        insertions = [] if ends_block else [(0, f'.loc 1 {number};.ascii "";{marker}')]
        for statement in re.finditer(r"[^;]+", masked):
            labels = LABELS.match(statement[0])
            start = statement.start() + (labels.end() if labels else 0)
            code = masked[start : statement.end()]
            if IGNORED.match(code):
                clean = clean[:start] + " " * len(code) + clean[start + len(code) :]
            elif code:
                clean, more = self._statement(number, start, code, clean)
                insertions += more
        return list(_split(clean, insertions))

    def _strip_comments(self, number: int, line: str) -> tuple[str, str]:
        """The line with blanks for comments; and the same with its strings and characters masked, too."""
        clean, masked, at = "", "", 0
        while at < len(line):
            if self._open_comment:
                end = line.find("*/", at) + 2
                self._open_comment = None if end > 1 else self._open_comment
                end = end if end > 1 else len(line)
                clean, masked, at = clean + " " * (end - at), masked + " " * (end - at), end
                continue
            token = TOKEN.match(line, at)
            assert token is not None, "the last alternative matches any character"
            string, comment, block = token.groups()
            if block:
                self._open_comment = number, at + 1
            blank = " " * len(token[0])
            clean += blank if comment or block else token[0]
            masked += blank if comment or block else "'" * len(string) if string else token[0]
            at = token.end()
        return clean, masked

    def _statement(self, number: int, at: int, code: str, line: str) -> tuple[str, list[tuple[int, str]]]:
        """One statement's column and masked text: the line with its changes, and the insertions."""
        assignment = ASSIGNMENT.match(code)
        if FILE_ACCESS.match(code):
            raise self.error(number, at + 1, "a program is one file: .include and .incbin are not supported")
        if BLOCK_START.match(code):
            self._block_depth += 1
        elif BLOCK_END.match(code):
            self._block_depth = max(self._block_depth - 1, 0)
        elif switch := SYNTAX_SWITCH.match(code):
            self._mode = "intel" if switch[1].lower() == "intel" else "att"
        elif self._mode == "att":
            return line, []
        elif assignment and DIFFERENCE.search(assignment["value"]):
            self.has_differences = True
            name = assignment["name"] or assignment["left"]
            return line, _difference(
                name, line[at + assignment.start("value") : at + len(code)], at, at + len(code)
            )
        elif not assignment and not code.startswith("."):
            return self._instruction(number, at, code, line)
        return line, []

    def _instruction(self, number: int, at: int, code: str, line: str) -> tuple[str, list[tuple[int, str]]]:
        """Check an Intel instruction for what assemblers read differently, and spell it as LLVM does."""
        for pattern, hint in UNEQUAL:
            if pattern.match(code):
                raise self.error(number, at + 1, hint)
        mnemonic, operands = MNEMONIC_AND_OPERANDS.findall(code)[0]
        dispute = _disputed(operands)
        if dispute is not None:
            hint = "assemblers disagree on the order of these operators: use parentheses"
            raise self.error(number, at + len(mnemonic) + dispute + 1, hint)
        if flat := FLAT.search(code):
            start, end = at + flat.start(1), at + flat.end(1)
            line = line[:start] + " " * (end - start) + line[end:]
        movsx = MOVSX_FROM_32_BITS.match(code)
        return line, [(at + movsx.end(), "d")] if movsx else []


def _split(line: str, insertions: list[tuple[int, str]]) -> Iterator[tuple[str, bool]]:
    at = 0
    for column, text in insertions:
        yield line[at:column], False
        yield text, True
        at = column
    yield line[at:], False


def _difference(name: str, value: str, start: int, end: int) -> list[tuple[int, str]]:
    """Insertions around an assignment: take the value that is known, and report the true one."""
    before = f".ifdef {KNOWN}{name};.set {name},{KNOWN}{name};.else;.ifdef {GUESS};.set {name},1;.else;"
    after = f";.endif;.endif;.ifdef {TRUE}{name};.set {TWICE}{name},1;.else;.set {TRUE}{name},{value};.endif"
    return [(start, before), (end, after)]


def _disputed(operands: str) -> int | None:
    """Where in Intel operands two operators stand whose order GNU as and LLVM see differently."""
    groups: list[list[str]] = [[]]
    after_value = False
    for token in OPERAND_TOKEN.finditer(operands):
        word = WORDS.get(token[0].lower(), token[0])
        if word in ("(", "["):
            groups.append([])
        elif word in (")", "]", ","):
            groups = groups[:-1] or [[]]
            groups += [[]] if word == "," else []
        elif word in C_RANK and after_value:
            if any((GNU_RANK[w] >= GNU_RANK[word]) != (C_RANK[w] >= C_RANK[word]) for w in groups[-1]):
                return token.start()
            groups[-1].append(word)
        after_value = word not in C_RANK and word not in ("(", "[", ",")
    return None
