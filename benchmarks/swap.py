"""What swapping costs. Run: python -m benchmarks.swap

A program touches four times as many pages as there are frames, in order, twice: every touch of the second round is a
page that goes out and a page that comes in. That is measured for each policy, with little RAM and with four times as
much: what a page costs should not depend on how many there are.

The scan rate is how fast reclaim learns which pages were used: one by one through the reverse mapping, or all at once
from the page tables. Numbers are a second of processor time of this process, medians of several runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Final

import click

from emu import Machine
from emu.assembler import assemble_source
from kernel import Kernel
from kernel.layout import TASK_SIZE
from kernel.policies import find_policy, policy_names
from kernel.pte import pfn_of

from .kernel import END, MACROS

__all__ = ["PAGES", "SCANS", "scan_rate", "swap_ins"]

PAGES: Final = 1024
"""Frames of the small machine."""
LARGE: Final = 4
PROGRAM: Final = """
    map     4 * PAGES
    mov     rbx, rax
    touch   4 * PAGES
begin:
    touch   4 * PAGES
done:
    invoke  60
"""
TOUCH: Final = """
    map     PAGES
    mov     rbx, rax
    touch   PAGES
"""


Scan = Callable[[Kernel, list[int]], int]
"""Deals with pages of a kernel, and says with how many."""


def _kernel(body: str, pages: int, frames: int, policy: str = "active_inactive") -> Kernel:
    kernel = Kernel(Machine(ram=4096 * frames, engine="trap"), swap=5 * 4096 * pages, swap_policy=policy)
    kernel.spawn(assemble_source(MACROS + body.replace("PAGES", str(pages)), name="swap"))
    return kernel


def swap_ins(policy: str, pages: int, repetitions: int) -> float:
    """Pages that come back in a second, with as many frames."""
    rates = []
    for _ in range(repetitions):
        kernel = _kernel(PROGRAM, pages, pages, policy)
        kernel.run(until="begin")
        before, begin = kernel.manager.swap.reads, time.process_time()
        kernel.run(until="done")
        rates.append((kernel.manager.swap.reads - before) / (time.process_time() - begin))
        kernel.close()
    return median(rates)


def _one_by_one(kernel: Kernel, pages: list[int]) -> int:
    return sum(kernel.reclaim.referenced(page) for page in pages)


def _at_once(kernel: Kernel, pages: list[int]) -> int:
    return len(kernel.reclaim.used(pages))


def _swapped_out(kernel: Kernel, pages: list[int]) -> int:
    return kernel.reclaim.shrink(len(pages) // 2, "background")


SCANS: Final[dict[str, Scan]] = {
    "looked at one by one": _one_by_one,
    "looked at all at once": _at_once,
    "swapped out": _swapped_out,
}


def _mapped(kernel: Kernel) -> Iterator[int]:
    """Frames of the program's own pages."""
    mm = kernel.processes[0].mm
    for _, entry, _ in mm.page_table.leaves(0, TASK_SIZE, kernel.manager.early):
        if kernel.pages.mappings(pfn_of(entry)):
            yield pfn_of(entry)


def scan_rate(scan: Scan, pages: int, repetitions: int) -> float:
    """Pages that a scan deals with in a second. All of them were used."""
    rates = []
    for _ in range(repetitions):
        kernel = _kernel(TOUCH + END, pages, 2 * pages)
        kernel.run(until="done")
        mapped = list(_mapped(kernel))
        begin = time.process_time()
        with kernel.kernel_mode():
            count = scan(kernel, mapped)
        rates.append(count / (time.process_time() - begin))
        kernel.close()
    return median(rates)


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="One short run of each: whether it works, no more.")
def main(quick: bool) -> None:
    repetitions, pages = (1, PAGES // 4) if quick else (3, PAGES)
    names = [name for name in policy_names() if not find_policy(name).knows_future]
    click.echo(f"{'swap-ins a second':42}{f'{pages:,} frames':>14}{f'{LARGE * pages:,} frames':>16}")
    for name in names:
        small, large = (swap_ins(name, count, repetitions) for count in (pages, LARGE * pages))
        click.echo(f"{name:42}{small:14,.0f}{large:16,.0f}")
    click.echo(f"\n{'pages a second':42}")
    for what, scan in SCANS.items():
        click.echo(f"{what:42}{scan_rate(scan, 4 * pages, repetitions):14,.0f}")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.swap")
