"""`make demo`: a tour in a minute. Each step shows the command that you could type yourself."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

BIN = Path(sys.executable).parent
PLOT = " --plot null_syscall.svg" if find_spec("matplotlib") else ""
STEPS = (
    ("Real machine code, over real page tables, under a kernel written in Python:", "cr3 run programs/hello.asm"),
    ("The lecture's translation numbers, with and without a TLB:", "python examples/lecture_numbers.py"),
    ("The lecture's example address, walked level by level:", "cr3 walk programs/lecture_walk.asm 0x180001008"),
    (
        "Every page arrives by a page fault, when it is touched first:",
        "cr3 trace programs/hello.asm --events fault,syscall",
    ),
    ("Two engines, one model: every counter is the same.", "python examples/engines_agree.py"),
    ("A secret of the kernel's, read by an ordinary program, until page tables are isolated:", "cr3 meltdown"),
    (
        "What page-table isolation costs a program that does nothing but system calls:",
        f"cr3 compare programs/null_syscall.asm{PLOT}",
    ),
)

environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"}
for title, command in STEPS:
    print(f"\n# {title}\n$ {command}", flush=True)
    subprocess.run(command.split(), env=environment, check=True)
if PLOT:
    print("\nThe same as a picture: null_syscall.svg")
