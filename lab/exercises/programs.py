"""What exercises in assembly share: run the student's program, and look at how it went."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Final

from emu import AssemblyError, InputError
from lab.options import Options
from lab.session import Session

from .exercise import Wrong

__all__ = ["run"]

LIMIT: Final = 50_000_000


def run(path: str, **options: Any) -> dict[str, Any]:
    """Run a program to its end; its statistics. Raises Wrong if it does not exit by itself."""
    return _run(path, Path(path).read_bytes(), tuple(options.items()))


@functools.lru_cache(maxsize=4)
def _run(path: str, _content: bytes, options: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    """Several checks look at one run."""
    try:
        session = Session(Options(programs=(path,), max_instructions=LIMIT, **dict(options)))
    except AssemblyError as error:
        raise Wrong(f"it does not assemble: {error}") from None
    except InputError as error:
        raise Wrong(str(error)) from None
    result = session.run()
    if result.signal is not None:
        raise Wrong(f"the program was ended by signal {result.signal}; cr3 run {path} tells where")
    if result.exit_code is None:
        raise Wrong(f"the program does not end: it was stopped after {LIMIT:,} instructions")
    return result.stats
