"""Fixtures. Every kernel made here is checked for leaks when its test ends, and before for what does not agree."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from emu import Machine
from emu.image import Image
from kernel import Kernel, Result
from kernel.consistency import inconsistencies


@dataclass(frozen=True)
class Ended:
    """A run that is over: its result, what it wrote, and the kernel that ran it."""

    result: Result
    stdout: bytes
    kernel: Kernel


MakeKernel = Callable[..., Kernel]
RunImage = Callable[..., Ended]


@pytest.fixture
def make_kernel() -> Iterator[MakeKernel]:
    """Make kernels; `machine` options are keywords with the names of Machine's. Nothing may leak."""
    kernels: list[Kernel] = []

    def make(machine: dict[str, Any] | None = None, **options: Any) -> Kernel:
        kernel = Kernel(Machine(**(machine or {})), **options)
        kernels.append(kernel)
        return kernel

    yield make
    for kernel in kernels:
        assert inconsistencies(kernel) == [], "the books do not agree"
        kernel.close()
        assert kernel.leaks() == {}, "something leaked"


@pytest.fixture
def run_image(make_kernel: MakeKernel) -> RunImage:
    """Run one image to its end."""

    def run(image: Image, machine: dict[str, Any] | None = None, *, stdin: bytes = b"", **options: Any) -> Ended:
        stdout = io.BytesIO()
        kernel = make_kernel(machine, stdin=io.BytesIO(stdin), stdout=stdout, **options)
        kernel.spawn(image)
        return Ended(kernel.run(), stdout.getvalue(), kernel)

    return run


@pytest.fixture(scope="session")
def host_huge_pages() -> Iterator[None]:
    """A host that has huge pages for programs that ask; if it can be, its khugepaged is kept from making others."""
    folder = Path("/sys/kernel/mm/transparent_hugepage")
    if not folder.exists() or "[madvise]" not in (folder / "enabled").read_text():
        pytest.skip("the host's transparent huge pages are not at madvise")
    knob = folder / "khugepaged" / "pages_to_scan"
    before = knob.read_text() if os.access(knob, os.W_OK) else "1\n"
    if before != "1\n":  # else another process of the tests has turned it, and will turn it back
        knob.write_text("1")
    yield
    if before != "1\n":
        knob.write_text(before)
