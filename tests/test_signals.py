"""Signals as programs see them: under cr3 and under the real kernel they see the same."""

from __future__ import annotations

import pytest
from conftest import RunImage
from native import NativeResult, requires_native, run_native
from signal_programs import signal_program

from emu.assembler import assemble_source

pytestmark = [pytest.mark.native, requires_native]

FRAME = {
    "a handler is told the number and gets registers and flags in order": (
        "handle SIGUSR1, handler; std; raise SIGUSR1; pushfq; pop rax; cld; show rax",
        "handler: pushfq; pop rax; show rax; show rdi; show [rsi]; show [rsi + 8]; mov rax, rsp; and eax, 15; ret",
    ),
    "what a fault was, and how to skip it": (
        """
        handle SIGSEGV, handler
        mov rbx, 0x12345678; mov [rbx], eax
        mov rbx, 0x800000000000; mov al, [rbx]
        mov rbx, 0xffff888000000000; mov al, [rbx]""",
        """
        handler:
        show [rsi]; show [rsi + SI_CODE]; show [rsi + SI_ADDR]
        show [rdx + UC_ERR]; show [rdx + UC_TRAPNO]; show [rdx + UC_CR2]; show [rdx + UC_EFLAGS]
        add qword ptr [rdx + UC_RIP], 2
        ret""",
    ),
}


def assert_alike(main: str, handlers: str, run_image: RunImage) -> None:
    source = signal_program(main, handlers)
    ended = run_image(assemble_source(source))
    assert NativeResult(ended.stdout, ended.result.exit_code, ended.result.signal) == run_native(source)


@pytest.mark.parametrize("case", FRAME)
def test_a_handler_finds_what_the_real_kernel_lays_out(case: str, run_image: RunImage) -> None:
    assert_alike(*FRAME[case], run_image)
