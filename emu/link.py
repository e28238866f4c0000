"""The linker: gives every section of an object file its address, and patches the addresses in.

An assembler does not know where its sections will lie. Where an instruction needs an address, it leaves a
hole and a *relocation*: "put the address of S, plus A, here (at P)". Of the psABI's kinds (System V ABI,
AMD64 supplement, table 4.10) a static program needs two families: absolute (S + A) and relative to the hole
(S + A - P), each in several widths. A value that does not fit its hole is an error, not a wrong address.

Sections are laid out like `ld` does it, from 0x401000 on: code, constants, data, zeros; each begins a page,
because permissions are a matter of pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.enums import ENUM_RELOC_TYPE_x64
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import Symbol as SymbolEntry
from elftools.elf.sections import SymbolTableSection

from .exceptions import ImageError
from .image import Image, Line, Segment
from .lines import line_ranges
from .pte import PAGE_SIZE
from .source import OWN, Source

__all__ = ["FIRST_ADDRESS", "link", "symbol_entries"]

FIRST_ADDRESS = 0x401000  # where ld puts .text
ADDRESS_MASK = (1 << 64) - 1
NOT_LOADED = 1 << 63  # base of the sections that have no address: not canonical, so it meets no real one


class Kind(NamedTuple):
    """A relocation type: the width of its hole, whether it is relative to it, and which values fit."""

    size: int
    relative: bool
    lowest: int
    highest: int


KINDS = {
    "R_X86_64_64": Kind(8, False, -(1 << 63), (1 << 64) - 1),
    "R_X86_64_32": Kind(4, False, 0, (1 << 32) - 1),
    "R_X86_64_32S": Kind(4, False, -(1 << 31), (1 << 31) - 1),
    "R_X86_64_16": Kind(2, False, -(1 << 15), (1 << 16) - 1),
    "R_X86_64_8": Kind(1, False, -(1 << 7), (1 << 8) - 1),
    "R_X86_64_PC64": Kind(8, True, -(1 << 63), (1 << 63) - 1),
    "R_X86_64_PC32": Kind(4, True, -(1 << 31), (1 << 31) - 1),
    "R_X86_64_PLT32": Kind(4, True, -(1 << 31), (1 << 31) - 1),  # no libraries, no PLT: the function itself
    "R_X86_64_PC16": Kind(2, True, -(1 << 15), (1 << 15) - 1),
    "R_X86_64_PC8": Kind(1, True, -(1 << 7), (1 << 7) - 1),
}
KIND_NAMES = {number: name for name, number in ENUM_RELOC_TYPE_x64.items() if isinstance(number, int)}


@dataclass(eq=False)
class Section:
    """A section of the object file, and where it goes."""

    name: str
    data: bytearray
    size: int
    alignment: int
    flags: int
    va: int = NOT_LOADED

    @property
    def is_loaded(self) -> bool:
        """Whether the section is part of the program in memory."""
        return bool(self.flags & SH_FLAGS.SHF_ALLOC)

    @property
    def order(self) -> tuple[int, bool]:
        """Its place in memory: code, constants, data, zeros; among equals the usual name first."""
        if self.flags & SH_FLAGS.SHF_EXECINSTR:
            group = 0
        elif not self.flags & SH_FLAGS.SHF_WRITE:
            group = 1
        else:
            group = 2 if self.data else 3
        return group, self.name != (".text", ".rodata", ".data", ".bss")[group]


@dataclass(eq=False)
class Symbol:
    """A name and what it stands for: an offset in a section; a plain number; or a label defined elsewhere."""

    name: str
    offset: int
    section: Section | None = None
    is_constant: bool = False
    is_missing: bool = False

    @property
    def value(self) -> int:
        """The address or number, once the sections are placed."""
        return self.offset + (self.section.va if self.section else 0)


class Fixup(NamedTuple):
    """One relocation: a hole in a section, and what goes into it."""

    section: Section
    offset: int
    kind: str
    symbol: Symbol
    addend: int

    @property
    def va(self) -> int:
        """Address of the hole."""
        return self.section.va + self.offset


def link(
    object_file: bytes,
    source: Source,
    *,
    addresses: Mapping[str, int],
    symbols: Mapping[str, int],
    entry: str | None,
) -> Image:
    """Link one object file into an image.

    `addresses` places sections by name, `symbols` are labels defined elsewhere, `entry` is the label where
    the program begins (None: it has no beginning). Raises AssemblyError, with the source's line, for what
    does not fit.
    """
    elf = ELFFile(BytesIO(object_file))
    sections = _read_sections(elf)
    table = _read_symbols(elf, sections, symbols)
    loaded = sorted((section for section in sections.values() if section.is_loaded), key=lambda s: s.order)
    _place(loaded, addresses, source)
    tables, fixups = _read_fixups(elf, sections, table)
    for fixup in tables:
        _patch(fixup)
    lines = _lines(sections.values(), loaded, source)
    _check(fixups, table, lines, source)
    for fixup in fixups:
        _patch(fixup)
    return _image(source, loaded, table, lines, entry)


def symbol_entries(elf: ELFFile) -> Iterator[SymbolEntry]:
    """The entries of an ELF file's symbol table; none when it has no table."""
    for section in elf.iter_sections("SHT_SYMTAB"):
        if isinstance(section, SymbolTableSection):
            yield from section.iter_symbols()


def _read_sections(elf: ELFFile) -> dict[int, Section]:
    sections = {}
    for index, section in enumerate(elf.iter_sections()):
        data = bytearray() if section["sh_type"] == "SHT_NOBITS" else bytearray(section.data())
        size, flags = section["sh_size"], section["sh_flags"]
        sections[index] = Section(section.name, data, size, max(section["sh_addralign"], 1), flags)
    return sections


def _read_symbols(elf: ELFFile, sections: dict[int, Section], elsewhere: Mapping[str, int]) -> list[Symbol]:
    """The symbol table, in order: relocations refer to it by index. `.comm` symbols get a place in .bss."""
    table = []
    for symbol in symbol_entries(elf):
        name, value, place = symbol.name, symbol["st_value"], symbol["st_shndx"]
        if place == "SHN_ABS":
            is_constant = symbol["st_info"]["type"] != "STT_FILE" and not name.startswith(OWN)
            table.append(Symbol(name, value, is_constant=is_constant))
        elif place == "SHN_COMMON":
            table.append(_allocate_common(sections, name, symbol["st_size"], alignment=value))
        elif place == "SHN_UNDEF":
            is_weak = symbol["st_info"]["bind"] == "STB_WEAK"
            table.append(Symbol(name, elsewhere.get(name, 0), is_missing=not is_weak and name not in elsewhere))
        else:
            table.append(Symbol(name, value, sections[place]))
    return table


def _allocate_common(sections: dict[int, Section], name: str, size: int, alignment: int) -> Symbol:
    bss = next((section for section in sections.values() if section.name == ".bss"), None)
    if bss is None:
        bss = Section(".bss", bytearray(), 0, 1, SH_FLAGS.SHF_ALLOC | SH_FLAGS.SHF_WRITE)
        sections[len(sections)] = bss
    symbol = Symbol(name, _align(bss.size, alignment), bss)
    bss.size, bss.alignment = symbol.offset + size, max(bss.alignment, alignment)
    return symbol


def _place(sections: list[Section], addresses: Mapping[str, int], source: Source) -> None:
    """Give every section its address: the one asked for, else the next page that is free."""
    names = [section.name for section in sections]
    for name in addresses:
        if name not in names:
            raise source.error(0, 0, f"there is no section {name} to place; there are {', '.join(names)}")
    end = FIRST_ADDRESS
    for section in sections:
        section.va = addresses.get(section.name, _align(end, max(section.alignment, PAGE_SIZE)))
        if section.va % section.alignment:
            where = f"section {section.name} cannot be at {section.va:#x}"
            raise source.error(0, 0, f"{where}: it asks for alignment to {section.alignment} bytes")
        end = section.va + section.size


def _read_fixups(elf: ELFFile, sections: dict[int, Section], table: list[Symbol]) -> tuple[list[Fixup], list[Fixup]]:
    """The fixups of the line table, and those of the program; other sections stay as they are."""
    tables, loaded = [], []
    for relocations in elf.iter_sections():
        if not isinstance(relocations, RelocationSection):
            continue
        section = sections[relocations["sh_info"]]
        for entry in relocations.iter_relocations():
            number = entry["r_info_type"]
            kind = KIND_NAMES.get(number, f"relocation type {number}")
            fixup = Fixup(section, entry["r_offset"], kind, table[entry["r_info_sym"]], entry["r_addend"])
            if section.is_loaded and kind != "R_X86_64_NONE":
                loaded.append(fixup)
            elif section.name == ".debug_line":
                tables.append(fixup)
    return tables, loaded


def _lines(sections: Iterable[Section], loaded: list[Section], source: Source) -> tuple[Line, ...]:
    """The image's lines: the line table, up to the end of each section."""
    debug_line = next((section.data for section in sections if section.name == ".debug_line"), None)
    if not debug_line:
        return ()
    lines = []
    for va, size, number in line_ranges(bytes(debug_line)):
        if any(section.va <= va <= section.va + section.size for section in loaded):
            lines.append(Line(va, size, source.name, number, source.lines[number - 1]))
    return tuple(lines)


def _check(fixups: list[Fixup], table: list[Symbol], lines: tuple[Line, ...], source: Source) -> None:
    """Refuse what cannot be linked, beginning with the first line of the source that has such a thing."""
    whereabouts = Image(source.name, 0, (), lines=lines)
    errors: dict[tuple[str, int], Fixup] = {}
    for fixup in fixups:
        if not _fits(fixup):
            place = whereabouts.line_of(fixup.va)
            errors.setdefault((_name(fixup, table), place[1] if place else 0), fixup)
    if errors:
        places = [(*source.position_of(name, line), name, fixup) for (name, line), fixup in errors.items()]
        line, column, name, fixup = min(places, key=lambda place: place[:2])
        raise source.error(line, column, _objection(fixup, name))


def _name(fixup: Fixup, table: list[Symbol]) -> str:
    """What the source calls the target. A label that is not global comes as its section and the distance."""
    if fixup.symbol.name or fixup.symbol.section is None:
        return fixup.symbol.name
    kind = KINDS.get(fixup.kind)
    distance = fixup.addend + (kind.size if kind and kind.relative else 0)
    labels = (symbol for symbol in table if symbol.section is fixup.symbol.section and symbol.name)
    before = [symbol for symbol in labels if symbol.offset <= distance]
    return max(before, key=lambda symbol: symbol.offset).name if before else ""


def _fits(fixup: Fixup) -> bool:
    """Whether the value is known and the hole is wide enough, as a signed or an unsigned number."""
    kind = KINDS.get(fixup.kind)
    if kind is None or fixup.symbol.is_missing:
        return False
    value = _value(fixup)
    return any(kind.lowest <= number <= kind.highest for number in (value, value - (1 << 64)))


def _objection(fixup: Fixup, name: str) -> str:
    """Why a fixup that does not fit does not."""
    kind = KINDS.get(fixup.kind)
    if fixup.symbol.is_missing:
        return f"undefined symbol {name!r}: expected a label or constant of this source"
    if kind is None:
        return f"{fixup.kind} needs a dynamic linker or threads; expected a plain address: [rip + symbol]"
    what = "distance to" if kind.relative else "address of"
    value = f"{_value(fixup):#x}"
    return f"the {what} {name or 'this'} ({value}) does not fit into {kind.size * 8} bits ({fixup.kind})"


def _value(fixup: Fixup) -> int:
    """S + A, or S + A - P, as an unsigned 64-bit number."""
    base = fixup.va if KINDS[fixup.kind].relative else 0
    return (fixup.symbol.value + fixup.addend - base) & ADDRESS_MASK


def _patch(fixup: Fixup) -> None:
    size = KINDS[fixup.kind].size
    low_bytes = _value(fixup).to_bytes(8, "little")[:size]
    fixup.section.data[fixup.offset : fixup.offset + size] = low_bytes


def _image(
    source: Source, sections: list[Section], table: list[Symbol], lines: tuple[Line, ...], entry: str | None
) -> Image:
    symbols = {symbol.name: symbol.value for symbol in table if symbol.section in sections and symbol.name}
    constants = {symbol.name: symbol.value for symbol in table if symbol.is_constant}
    segments = tuple(_segment(section) for section in sections if section.size)
    if entry is not None and entry not in symbols:
        raise source.error(0, 0, f"no entry point: expected the label {entry}: where the program begins")
    if entry is not None and not any(s.executable and symbols[entry] in s for s in segments):
        place = source.position_of(entry, 0)
        raise source.error(*place, f"the entry point {entry} is not in a section with code, such as .text")
    try:
        return Image(source.name, symbols[entry] if entry else 0, segments, symbols, constants, lines)
    except ImageError as error:
        raise source.error(0, 0, str(error).removeprefix(f"{source.name}: ")) from None


def _segment(section: Section) -> Segment:
    writable, executable = (bool(section.flags & f) for f in (SH_FLAGS.SHF_WRITE, SH_FLAGS.SHF_EXECINSTR))
    return Segment(section.name, section.va, bytes(section.data), section.size, True, writable, executable)


def _align(address: int, alignment: int) -> int:
    return -(-address // max(alignment, 1)) * max(alignment, 1)
