"""The attack bench: a secret in the kernel, a program that wants it, and a processor that may give it away.

The program is an ordinary process (`programs/meltdown_string.asm`), and nothing here helps it. It is asked
afterwards what it found, and what its clock said for the last byte: how long each of 256 loads took, of which one
found its line in the caches, or none did.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emu import PageWalkReport
from kernel.pagewalk import peek

from . import walk_view
from .compare_plot import PALETTE, figure_of, picture
from .options import Options
from .session import Session

if TYPE_CHECKING:
    from rich.console import Console

    from .report import Observation
    from .report import Run as Observed

__all__ = ["PROGRAM", "SCHEMA", "Attack", "as_dict", "attack", "draw", "figure", "page", "render", "schema"]

SCHEMA: Final = "cr3.meltdown/1"
VALUES: Final = 256
NAME: Final = "meltdown_string.asm"


def _program() -> Path:
    """The attacking program: among the programs of a source tree, or where it is installed with this package."""
    here = Path(__file__).parent
    source = here.parent / "programs" / NAME
    return source if source.exists() else here / "programs" / NAME


PROGRAM: Final = _program()


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack. `latencies` are the cycles of the 256 loads that told the last byte, or did not."""

    cpu: str
    pti: bool
    secret: bytes
    leaked: bytes
    attempts: int
    cycles: int
    seconds: float
    latencies: tuple[int, ...]
    windows: int
    walk: PageWalkReport
    observed: Observed | None = None
    """What the machine looked like over time, for a report."""

    @property
    def correct(self) -> int:
        """Bytes of the secret that were found, each at its place."""
        return sum(found == byte for found, byte in zip(self.leaked, self.secret, strict=True))

    @property
    def text(self) -> str:
        """What was found, without what was not found at the end."""
        return self.leaked.rstrip(b"\0").decode("utf-8", "replace")

    @property
    def name(self) -> str:
        """The setting of page-table isolation, as on the command line."""
        return "on" if self.pti else "off"


def attack(options: Options, *, recorded: bool = False) -> Attack:
    """Attack the machine of the options, whose kernel keeps their `secret`; `recorded` for a report of it.

    Raises InputError.
    """
    session = Session(options)
    observation = _observation(session) if recorded else None
    result = session.run(before_exit=True)
    process, kernel = result.processes[0], session.kernel
    assert options.secret is not None and kernel.secret is not None
    secret = options.secret.encode()
    cycles, symbols = result.stats["cycles"]["total"], process.image.symbols
    return Attack(
        cpu=session.machine.profile.name,
        pti=session.pti,
        secret=secret,
        leaked=peek(kernel, process, symbols["leaked"], len(secret)),
        attempts=struct.unpack("<Q", peek(kernel, process, symbols["attempts"], 8))[0],
        cycles=cycles,
        seconds=session.machine.profile.seconds(cycles),
        latencies=struct.unpack(f"<{VALUES}I", peek(kernel, process, symbols["latencies"], 4 * VALUES)),
        windows=result.stats["transient"]["windows"]["fault"],
        walk=kernel.page_walk(process, kernel.secret.address, user=True),
        observed=observation.finish(result, f"PTI {'on' if session.pti else 'off'}", b"") if observation else None,
    )


def _observation(session: Session) -> Observation:
    from .report import Observation

    return Observation(session)


def page(attacks: Sequence[Attack]) -> str:
    """A report of recorded attacks side by side."""
    from .report import Report, render

    return render(Report.of([str(PROGRAM)], [one.observed for one in attacks if one.observed is not None]))


def schema() -> dict[str, Any]:
    """The JSON Schema of `as_dict`."""
    text = resources.files(__package__).joinpath("schemas", "meltdown-1.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def as_dict(attacks: Sequence[Attack]) -> dict[str, Any]:
    """All attacks on one secret, in the schema cr3.meltdown/1."""
    runs = [
        {
            "pti": one.name,
            "leaked": one.text,
            "correct_bytes": one.correct,
            "attempts": one.attempts,
            "cycles": one.cycles,
            "latencies": list(one.latencies),
        }
        for one in attacks
    ]
    return {"schema": SCHEMA, "secret": attacks[0].secret.decode(), "runs": runs}


# --- for people ------------------------------------------------------------------------------------------------------


def render(attacks: Sequence[Attack], console: Console) -> None:
    """Print what leaked, and where nothing can leak the reason."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("PTI", "correct", "attempts", "windows", "cycles", "bytes/s"):
        table.add_column(heading, justify="right" if heading != "PTI" else "left")
    for one in attacks:
        numbers = (one.attempts, one.windows, one.cycles, round(one.correct / one.seconds))
        table.add_row(one.name, f"{one.correct} of {len(one.secret)}", *(f"{number:,}" for number in numbers))
    size = len(attacks[0].secret)
    lines = [f"{attacks[0].cpu}, a secret of {size} byte{'s' * (size > 1)} in the kernel's memory", ""]
    lines += [f"PTI {one.name + ':':4} {_quoted(one.text)}" for one in attacks]
    console.print("\n".join([*lines, ""]), soft_wrap=True, markup=False)
    console.print(table)
    for one in attacks:
        if one.correct < len(one.secret):
            console.print(f"\n{_reason(one)}", soft_wrap=True, markup=False)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text else "nothing leaked"


def _reason(one: Attack) -> str:
    """Why an attack did not succeed."""
    if one.walk.pa is None:
        walk = walk_view.render(one.walk, f"{one.walk.va:#x}", "from the PGD that user mode runs on")
        return f"With page-table isolation there is nothing to forward, for user mode has no translation:\n\n{walk}"
    if not one.windows:
        return f"{one.cpu} forwards nothing to a load that may not have it: no transient window ever opened."
    return "The windows opened, but too little of the secret was in the L1 data cache."


def figure(attacks: Sequence[Attack]) -> Any:
    """Plot the latencies of the last byte's 256 loads, an attack below the other; returns matplotlib's Figure."""
    drawing, plots = figure_of(len(attacks), height=1.2 + 2.2 * len(attacks))
    for one, axes in zip(attacks, plots, strict=True):
        _plot(one, axes)
    plots[-1].set_xlabel("page of the array that is loaded, for the last byte of the secret")
    return drawing


def _plot(one: Attack, axes: Any) -> None:
    lowest = min(range(VALUES), key=one.latencies.__getitem__)
    axes.plot(range(VALUES), one.latencies, ".", markersize=4, color=PALETTE[0])
    if one.latencies[lowest] < max(one.latencies) / 2:
        place = (lowest, one.latencies[lowest])
        axes.plot(*([value] for value in place), "o", markersize=7, color=PALETTE[2])
        label = f"{lowest} = {chr(lowest)!r}, {one.latencies[lowest]} cycles"
        axes.annotate(label, place, xytext=(9, -3), textcoords="offset points", fontsize=9)
    axes.set_ylim(0, 1.15 * max(one.latencies))
    axes.set_xlim(-3, VALUES + 2)
    axes.set_xticks(range(0, VALUES + 1, 32))
    axes.set_ylabel("cycles")
    axes.set_title(f"PTI {one.name}: {one.correct} of {len(one.secret)} bytes", loc="left", fontsize=10)


def draw(attacks: Sequence[Attack], suffix: str) -> bytes:
    """The figure as a file with this suffix."""
    return picture(figure(attacks), f"Flush+Reload on {attacks[0].cpu}", suffix)
