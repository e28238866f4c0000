"""Assembly source on its way into the assembler, and positions on their way back.

Two assemblers read our dialect: GNU `as` (whose language it is) and LLVM's, which we carry. They agree on nearly
everything, so the text goes to LLVM as it is, with small insertions that no reported position shows:

* `.loc 1 N` in front of every line makes LLVM write a line table, and the empty `.ascii ""` behind it gives
  lines without instructions (data, labels, macro calls) a place in that table too.
* `len = . - msg` is a number to GNU `as`, but LLVM's Intel parser takes `mov edx, len` for a memory access.
  Each difference is therefore also assigned to `cr3.true.len`; when its value is known from an earlier pass it
  is handed in as `cr3.known.len`, a plain number.
* Where the two would quietly make different code, the source is refused with a hint.

    >>> source = Source("mov rax, 1 # one\\n.globl x\\n", "demo.asm", "intel")
    >>> print(source.prepared({}))
    .intel_syntax noprefix;.file 1 "source";.loc 1 1;.ascii "";mov rax, 1 # one
    .loc 1 2;.ascii "";        
    <BLANKLINE>
    >>> source.column_of(1, len('.intel_syntax noprefix;.file 1 "source";.loc 1 1;.ascii "";mov r'))
    5
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from emu.exceptions import AssemblyError

__all__ = ["EXPANSION", "KNOWN", "LOCATION", "TRUE", "TWICE", "Source", "Syntax"]

Syntax = Literal["intel", "att"]

TRUE, KNOWN, TWICE = "cr3.true.", "cr3.known.", "cr3.twice."
EXPANSION = re.compile(r"^@line (\d+)$", re.MULTILINE)
LOCATION = re.compile(r'\.loc 1 (\d+);\.ascii "";(?:\.print "@line \d+";)?')
MODES = {"intel": ".intel_syntax noprefix;", "att": ".att_syntax prefix;"}

TOKEN = re.compile(r"""(?P<string>"(?:\\.|[^"\\])*"?|'(?:\\.|[^\\])')|(?P<block>/\*)|(?P<comment>\#.*|//.*)|.""", re.X)
NAME = r"[\w.$\\@()]+"
LABELS = re.compile(rf"\s*(?:(?:{NAME}|\"[^\"]*\")\s*:\s*)*")
HEAD = re.compile(r"[\w.$\\@()]+")
ASSIGNMENT = re.compile(rf"(?:\.(?:set|equ|equiv)\s+)?(?P<name>{NAME})\s*(?:=(?!=)|,)\s*(?P<value>.*\S)", re.I)
ADDRESS = r"(?:[A-Za-z_.\\][\w.$\\@()]*|\d+[fb])"
DIFFERENCE = re.compile(rf"{ADDRESS}\s*\)*\s*-\s*\(*\s*{ADDRESS}")
OPERATOR = re.compile(r"(?P<binary><<|>>|[-+*/%&|^]|\b(?:shl|shr|and|or|xor|mod)\b)|[()\[\],]|[^\s()\[\],<>*/%&|^+-]+", re.I)

# How tightly operators bind: in GNU as (gas/expr.c, op_rank), and in an Intel operand in LLVM, where it is as in C.
GNU_RANK = {"*": 3, "/": 3, "%": 3, "mod": 3, "<<": 3, ">>": 3, "shl": 3, "shr": 3}
GNU_RANK |= {"|": 2, "&": 2, "^": 2, "or": 2, "and": 2, "xor": 2, "+": 1, "-": 1}
C_RANK = {"*": 6, "/": 6, "%": 6, "mod": 6, "+": 5, "-": 5, "<<": 4, ">>": 4, "shl": 4, "shr": 4}
C_RANK |= {"&": 3, "and": 3, "^": 2, "xor": 2, "|": 1, "or": 1}
