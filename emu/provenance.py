"""TOML in which every value says where it comes from, read into dataclasses.

A model is only as good as its numbers, so a number without a source is refused. A value is written
plain, when its table has a `source`, or as `{ value = ..., source = ... }`. A source is a key of the
file's `[sources]` table, if wanted with `: detail`, or `assumption: why`.

The dataclass is the schema. Its annotations give type, unit and limits; keys too many or too few are
refused. It may have `problems()`, which yields (key, message) for values that do not fit together.

>>> from dataclasses import make_dataclass
>>> from typing import Annotated
>>> Count = Annotated[int, Unit("entries", least=1)]
>>> Tlb = make_dataclass("Tlb", [("pcids", Count), ("entries", Count)])
>>> file = SourcedToml("example.toml", '''
... [sources]
... sdm = "Intel SDM Vol. 3A"
... [tlb]
... source = "sdm: 4.10.1"
... pcids = 4096
... entries = { value = 64, source = "assumption: a round number" }
... ''')
>>> file.table(Tlb, "tlb")
Tlb(pcids=4096, entries=64)
>>> [value.source for value in file.values]
['Intel SDM Vol. 3A: 4.10.1', 'assumption: a round number']
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from .exceptions import ProfileError

__all__ = ["SourcedToml", "Unit", "Value"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unit:
    """What a field's annotation says beyond its type: unit, limits of a number, words that are allowed."""

    name: str = ""
    least: int = 0
    most: int = 1 << 32
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Value:
    """One value with its provenance; `key` is its path, such as "tlb.dtlb[0].entries".

    `reference` is the source as the file has it, "cpuid: leaf 4"; `source` has the citation in full.
    """

    key: str
    value: int | bool | str
    unit: str
    reference: str
    source: str

    @property
    def is_assumption(self) -> bool:
        """True when no measurement and no manual stands behind the value."""
        return self.reference.startswith("assumption")


class SourcedToml:
    """A file being read: `table` reads its parts, and `values` grows on the way."""

    def __init__(self, path: str | Path, text: str | None = None) -> None:
        """Parse a file (or `text`, to be called `path` in messages). Raises ProfileError."""
        self.path = Path(path)
        self.text = _read(self.path) if text is None else text
        self.values: list[Value] = []
        try:
            self.raw = tomllib.loads(self.text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ProfileError(_syntax_error(self.path, str(error))) from error
        self.citations = self._citations()

    def refuse(self, key: str, message: str) -> NoReturn:
        """Raise ProfileError for a key, with its line (or that of the table it should be in)."""
        line = _line_of(self.text, key)
        raise ProfileError(f"{self.path}:{line}: {key}: {message}" if line else f"{self.path}: {key}: {message}")

    def check_keys(
        self, raw: dict[str, Any], must: Collection[str], may: Collection[str] = (), table: str = ""
    ) -> None:
        """Refuse a table with a key too many or too few."""
        prefix = f"{table}." if table else ""
        for name in raw:
            if name not in must and name not in may:
                close = difflib.get_close_matches(name, [*must, *may], n=1)
                self.refuse(prefix + name, "unknown key" + (f", did you mean {close[0]}?" if close else ""))
        for name in must:
            if name not in raw:
                self.refuse(prefix + name, "missing")

    def table(self, cls: type[T], key: str) -> T:
        """Read the top-level table `key` as the dataclass `cls`."""
        return self._table(cls, self.raw.get(key), key, None)

    def _citations(self) -> dict[str, str]:
        raw = self.raw.get("sources")
        if not isinstance(raw, dict):
            self.refuse("sources", "missing table [sources]: who measured or documents the values, and where")
        for key, text in raw.items():
            if not isinstance(text, str) or not text.strip() or key == "assumption":
                self.refuse(f"sources.{key}", "must be text that says who measured or documents it, and where")
        return raw

    def _table(self, cls: type[T], raw: object, key: str, source: object) -> T:
        """Read one table; `source` is what the table around it cites."""
        if not isinstance(raw, dict):
            self.refuse(key, f"expected a table [{key}]")
        hints = get_type_hints(cls, include_extras=True)
        self.check_keys(raw, hints, ["source"], key)
        source = raw.get("source", source)
        part = cls(**{name: self._field(hint, raw[name], f"{key}.{name}", source) for name, hint in hints.items()})
        problems: Iterable[tuple[str, str]] = part.problems() if hasattr(part, "problems") else ()
        for name, message in problems:
            self.refuse(f"{key}.{name}", message)
        return part

    def _field(self, hint: Any, raw: object, key: str, source: object) -> Any:
        """Read what an annotation asks for: a table, a list of tables, or one value."""
        if is_dataclass(hint):
            return self._table(hint, raw, key, source)  # type: ignore[arg-type]  # a class, never an instance
        if get_origin(hint) is not tuple:
            return self._value(hint, raw, key, source)
        if not isinstance(raw, list):
            self.refuse(key, f"expected a list of tables [[{key}]]")
        return tuple(self._table(get_args(hint)[0], item, f"{key}[{n}]", source) for n, item in enumerate(raw))

    def _value(self, hint: Any, raw: object, key: str, source: object) -> Any:
        """Read one value, plain or as `{ value = ..., source = ... }`, and remember its provenance."""
        if isinstance(raw, dict):
            self.check_keys(raw, ["value"], ["source"], key)
            source = raw.get("source", source)
            raw = raw["value"]
        kind, unit = get_args(hint)
        if complaint := _complaint(kind, unit, raw):
            self.refuse(key, complaint)
        value: Any = tuple(raw) if isinstance(raw, list) else raw
        shown = " ".join(value) if isinstance(value, tuple) else value
        unit_name = "" if isinstance(shown, str) else unit.name
        self.values.append(Value(key, shown, unit_name, *self._cite(source, key)))
        return value

    def _cite(self, source: object, key: str) -> tuple[str, str]:
        """Return a source as it was written, and in full."""
        if not isinstance(source, str) or not source.strip():
            self.refuse(key, 'no source: give the value or its table source = "..."')
        name, _, detail = (part.strip() for part in source.partition(":"))
        if name == "assumption":
            return (source, source) if detail else self.refuse(key, 'say why: source = "assumption: ..."')
        if name not in self.citations:
            known = ", ".join(self.citations) or "which is empty"
            self.refuse(key, f'source "{name}" is neither a key of [sources] ({known}) nor "assumption: why"')
        return source, f"{self.citations[name]}: {detail}" if detail else self.citations[name]


def _complaint(kind: Any, unit: Unit, raw: Any) -> str:
    """Say what is wrong with a value for its annotation; empty if nothing."""
    seen = json.dumps(raw, default=str)  # as TOML writes it
    if get_origin(kind) is tuple:
        fits = isinstance(raw, list) and raw and all(word in unit.words for word in raw)
        return "" if fits else f"{seen} must be a list of {_either(unit.words)}"
    if kind is bool:
        return "" if isinstance(raw, bool) else f"{seen} must be true or false"
    if kind is str:
        fits = isinstance(raw, str) and (not unit.words or raw in unit.words)
        return "" if fits else f"{seen} must be {_either(unit.words) or 'text in quotes'}"
    if isinstance(raw, int) and not isinstance(raw, bool):
        return "" if unit.least <= raw <= unit.most else f"{raw} must be from {unit.least} to {unit.most}"
    if raw in unit.words:
        return ""
    return " or ".join([f"{seen} must be a whole number", *map(json.dumps, unit.words)])


def _either(words: tuple[str, ...]) -> str:
    return " or ".join(map(json.dumps, words))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror or 'cannot be read'}") from error
    except ValueError as error:
        raise ProfileError(f"{path}: not UTF-8 text, so not TOML") from error


def _syntax_error(path: Path, message: str) -> str:
    """Turn tomllib's "What (at line 3, column 7)" into "file:3:7: What"."""
    where = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if not where:
        return f"{path}: not TOML: {message}"
    return f"{path}:{where[1]}:{where[2]}: not TOML: {message[: where.start()]}"


def _line_of(text: str, key: str) -> int:
    """Return the line (from 1) of a key such as "tlb.dtlb[1].entries", else of the table around it, else 0.

    >>> toml = '''title = "t"
    ... [[tlb.dtlb]]
    ... entries = 64
    ... [[tlb.dtlb]]
    ... entries = 32'''
    >>> [_line_of(toml, key) for key in ("tlb.dtlb[1].entries", "tlb.dtlb[1].ways", "cpu.model")]
    [5, 4, 0]
    """
    lines: dict[str, int] = {}
    counts: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*(\[\[?)\s*([\w.-]+)\s*\]", line):
            table = header[2]
            if header[1] == "[[":
                lines.setdefault(table, number)
                counts[table] = counts.get(table, -1) + 1
                table = f"{table}[{counts[table]}]"
            lines.setdefault(table, number)
        elif assignment := re.match(r"\s*([\w-]+)\s*=", line):
            lines.setdefault(f"{table}.{assignment[1]}" if table else assignment[1], number)
    while key and key not in lines:
        key = key[: max(key.rfind("."), key.rfind("["), 0)]
    return lines.get(key, 0)
