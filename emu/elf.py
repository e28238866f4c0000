r"""ELF files: the format in which Linux keeps programs.

An ELF file has two tables of contents. The *program headers* are for the kernel: each PT_LOAD one says which
bytes of the file go to which addresses, with which permissions. The *section headers* and the symbols that
they lead to are for linkers and people. Linux needs little more of a file: the right machine, and segments
that fit into the user half of the address space (fs/binfmt_elf.c, load_elf_binary). We also need it to be
static: a dynamic program is only half of one.

    >>> import tempfile
    >>> image = assemble_source("_start: mov edi, 42; mov eax, 60; syscall")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_elf(image, Path(folder) / "exit42")  # this file also runs natively
    ...     again = load_elf(Path(folder) / "exit42")
    >>> again.segments == image.segments, again.symbols
    (True, {'_start': 4198400})
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from struct import Struct

from elftools.elf.constants import P_FLAGS, SH_FLAGS
from elftools.elf.descriptions import describe_e_machine
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import Segment as ElfSegment

from .assembler import Syntax, assemble_source
from .exceptions import ImageError
from .image import Image, Segment
from .inputs import decode_source, read_input
from .link import symbol_entries
from .pte import PAGE_SIZE

__all__ = ["load_elf", "load_program", "parse_elf", "with_file", "write_elf"]

MAGIC = b"\x7fELF"
USER_START = 0x10000  # Linux: the default of vm.mmap_min_addr
USER_END = (1 << 47) - PAGE_SIZE  # Linux: TASK_SIZE_MAX
NAME_LIMIT = 80  # characters of a file's own names in a message
PIE_BASE = 0x555555554000  # Linux: ELF_ET_DYN_BASE, when addresses are not randomized

# The structures of the 64-bit format (System V gABI, chapters 4 and 5; elf.h).
EHDR = Struct("<16sHHIQQQIHHHHHH")
PHDR = Struct("<IIQQQQQQ")
SHDR = Struct("<IIQQQQIIQQ")
SYM = Struct("<IBBHQQ")
IDENT = MAGIC + bytes([2, 1, 1]) + bytes(9)  # ELFCLASS64, ELFDATA2LSB, EV_CURRENT, System V
ET_EXEC, EM_X86_64, PT_LOAD, PT_GNU_STACK, STB_GLOBAL = 2, 62, 1, 0x6474E551, 1
SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_NOBITS, SHN_ABS = 1, 2, 3, 8, 0xFFF1
NAMING = ("STT_NOTYPE", "STT_OBJECT", "STT_FUNC", "STT_COMMON", "STT_LOOS")  # the last is GNU_IFUNC

SectionName = tuple[int, tuple[bool, int], str]


def load_program(path: str | Path, *, syntax: Syntax = "intel") -> Image:
    """What a file holds, an ELF executable or assembly source.

    Raises ImageError or AssemblyError (both are InputError) for a file that is neither, or is damaged.
    """
    data = read_input(path)
    if data.startswith(MAGIC):
        return parse_elf(data, str(path))
    return assemble_source(decode_source(data, str(path)), name=str(path), syntax=syntax)


def load_elf(path: str | Path) -> Image:
    """A static x86-64 executable where Linux would load it; a position-independent one at `PIE_BASE`.

    Raises ImageError for anything else, saying what was found and what was expected.
    """
    return parse_elf(read_input(path), str(path))


def parse_elf(data: bytes, name: str) -> Image:
    """The executable in the bytes of a file. Raises ImageError."""
    try:
        return _image(data, name)
    except ImageError:
        raise
    except Exception as error:  # whatever pyelftools stumbles over in a damaged file
        what = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{name}: damaged ELF file ({what}); expected a static x86-64 executable") from error


def _image(data: bytes, name: str) -> Image:
    if not data.startswith(MAGIC):
        raise ImageError(f"{name}: not an ELF file, begins with {data[:4].hex(' ')}; expected 7f 45 4c 46")
    elf = ELFFile(BytesIO(data))
    _check_header(elf, len(data), name)
    base = PIE_BASE if elf["e_type"] == "ET_DYN" else 0
    headers = [header for header in elf.iter_segments("PT_LOAD") if header["p_memsz"]]
    for number, header in enumerate(headers):
        _check_segment(header, base, len(data), f"{name}: segment {number}")
    names = _section_names(elf)
    segments = tuple(_segment(header, base, data, names) for header in headers)
    symbols, constants = _symbols(elf, base)
    phdr = _program_headers(elf, base)
    phnum = elf["e_phnum"] if phdr else 0
    image = Image(name, base + elf["e_entry"], segments, symbols, constants, phdr=phdr, phnum=phnum, file=data)
    start = image.segment_at(image.entry)
    if start is None or not start.executable:
        raise ImageError(f"{name}: the entry point {image.entry:#x} is not in an executable segment")
    return image


def _check_header(elf: ELFFile, size: int, name: str) -> None:
    """Refuse what is not a static program for this machine, and headers that lead out of the file."""
    machine, kind = describe_e_machine(elf["e_machine"]), elf["e_type"]
    if elf.elfclass != 64 or not elf.little_endian or elf["e_machine"] != "EM_X86_64":
        order = "little" if elf.little_endian else "big"
        what = f"a {elf.elfclass}-bit {order}-endian program for {machine}"
        raise ImageError(f"{name}: this is {what}; expected 64-bit little-endian x86-64")
    if kind not in ("ET_EXEC", "ET_DYN"):
        what = {"ET_REL": "an object file, not yet linked (ld)", "ET_CORE": "a core dump"}.get(kind, f"type {kind}")
        raise ImageError(f"{name}: this is {what}; expected an executable")
    tables = (("program", "ph", elf.num_segments(), PHDR), ("section", "sh", elf.num_sections(), SHDR))
    for what, table, count, layout in tables:
        start, entry_size = elf[f"e_{table}off"], elf[f"e_{table}entsize"]
        if count and (entry_size != layout.size or start + count * layout.size > size):
            found = f"{count} {what} headers of {entry_size} bytes at {start:#x}, in a file of {size:#x} bytes"
            raise ImageError(f"{name}: damaged or truncated ELF file: {found}; expected {layout.size} bytes each")
    if any(section["sh_entsize"] != SYM.size for section in elf.iter_sections("SHT_SYMTAB")):
        raise ImageError(f"{name}: damaged ELF file: expected symbols of {SYM.size} bytes")
    for header in elf.iter_segments("PT_INTERP"):
        needs = header.data().split(b"\0")[0][:NAME_LIMIT].decode("ascii", "backslashreplace")
        raise ImageError(f"{name}: a dynamic program (needs {needs!r}); expected a static one (gcc -static)")
    if not any(header["p_memsz"] for header in elf.iter_segments("PT_LOAD")) or not elf["e_entry"]:
        raise ImageError(f"{name}: nothing to run: no PT_LOAD segment, or no entry point; expected an executable")


def _check_segment(header: ElfSegment, base: int, size: int, where: str) -> None:
    start, end = base + header["p_vaddr"], base + header["p_vaddr"] + header["p_memsz"]
    offset, in_file, in_memory = header["p_offset"], header["p_filesz"], header["p_memsz"]
    if in_file > in_memory:
        raise ImageError(f"{where} has {in_file:#x} bytes in the file but only {in_memory:#x} in memory")
    if offset + in_file > size:
        raise ImageError(f"{where} ends at {offset + in_file:#x}, but the file has only {size:#x} bytes: truncated?")
    if start < USER_START or end > USER_END:
        raise ImageError(f"{where} at {start:#x}-{end:#x} is outside user space, {USER_START:#x}-{USER_END:#x}")
    if (start - offset) % PAGE_SIZE:
        raise ImageError(f"{where}: address {start:#x} and file offset {offset:#x} differ within the page")


def _segment(header: ElfSegment, base: int, data: bytes, names: list[SectionName]) -> Segment:
    """A segment, called after the largest of its sections (one with contents, if there is any)."""
    start, offset, flags = header["p_vaddr"], header["p_offset"], header["p_flags"]
    inside = [(rank, name) for va, rank, name in names if start <= va < start + header["p_memsz"]]
    return Segment(
        name=max(inside)[-1] if inside else "LOAD",
        va=base + start,
        data=data[offset : offset + header["p_filesz"]],
        size=header["p_memsz"],
        readable=bool(flags & P_FLAGS.PF_R),
        writable=bool(flags & P_FLAGS.PF_W),
        executable=bool(flags & P_FLAGS.PF_X),
        offset=offset,
    )


def _section_names(elf: ELFFile) -> list[SectionName]:
    """Of the sections that are loaded: address, rank (contents in the file before none; size), and name."""
    loaded = (section for section in elf.iter_sections() if section["sh_flags"] & SH_FLAGS.SHF_ALLOC)
    return [
        (s["sh_addr"], (s["sh_type"] != "SHT_NOBITS", s["sh_size"]), s.name) for s in loaded if s.name.isprintable()
    ]


def _symbols(elf: ELFFile, base: int) -> tuple[dict[str, int], dict[str, int]]:
    """Addresses and constants by name; a global symbol before local ones that are called the same."""
    symbols: dict[str, int] = {}
    constants: dict[str, int] = {}
    named = (entry for entry in symbol_entries(elf) if entry.name and entry["st_info"]["type"] in NAMING)
    entries = [entry for entry in named if entry["st_shndx"] != "SHN_UNDEF"]
    for entry in sorted(entries, key=lambda entry: entry["st_info"]["bind"] == "STB_LOCAL"):
        if entry["st_shndx"] == "SHN_ABS":
            constants.setdefault(entry.name, entry["st_value"])
        else:
            symbols.setdefault(entry.name, base + entry["st_value"])
    return symbols, constants


def _program_headers(elf: ELFFile, base: int) -> int:
    """Where the program headers lie in memory, 0 when no segment holds them."""
    start, end = elf["e_phoff"], elf["e_phoff"] + elf["e_phnum"] * PHDR.size
    for header in elf.iter_segments("PT_LOAD"):
        if header["p_offset"] <= start and end <= header["p_offset"] + header["p_filesz"]:
            return int(base + header["p_vaddr"] + start - header["p_offset"])
    return 0


def write_elf(image: Image, path: str | Path) -> None:
    """Write an image as a static executable that Linux runs and debuggers understand.

    Raises ImageError when the file cannot be written; no half-written file is left behind.
    """
    path = Path(path)
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(_elf(image))
            Path(temporary).chmod(0o777 & ~_umask())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink()
            raise
    except OSError as error:
        raise ImageError(f"{path}: cannot write this file: {error.strerror}") from None


def with_file(image: Image) -> Image:
    r"""The same program with a file: its own, or the one that `write_elf` would write.

    >>> image = assemble_source("_start: jmp _start")
    >>> [hex(segment.offset) for segment in with_file(image).segments], with_file(image).file[:4]
    (['0x1000'], b'\x7fELF')
    """
    if image.file:
        return image
    segments = _in_file(image)
    placed = tuple(replace(segment, offset=at) for segment, at in zip(segments, _offsets(segments), strict=True))
    return replace(image, segments=placed, file=_elf(image))


def _in_file(image: Image) -> list[Segment]:
    return [segment for segment in image.segments if segment.size]


def _offsets(segments: list[Segment]) -> list[int]:
    """Where each segment lies in a file: behind the headers, at its place in a page. Linux maps whole pages."""
    offsets, end = [], EHDR.size + PHDR.size * (len(segments) + 1)
    for segment in segments:
        end += (segment.va - end) % PAGE_SIZE
        offsets.append(end)
        end += len(segment.data)
    return offsets


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


class _Strings:
    """A string table: names, each with a zero byte behind it, referred to by where they begin."""

    def __init__(self) -> None:
        self.data = bytearray(1)

    def add(self, name: str) -> int:
        """Where the name begins, from now on."""
        start = len(self.data)
        self.data += name.encode() + b"\0"
        return start


def _elf(image: Image) -> bytes:
    """The file: header, program headers, segments, symbol table, names, section headers."""
    segments = _in_file(image)
    names, symbol_names = _Strings(), _Strings()
    content = bytearray(EHDR.size + PHDR.size * (len(segments) + 1))
    phdrs, shdrs = (
        [PHDR.pack(PT_GNU_STACK, P_FLAGS.PF_R | P_FLAGS.PF_W, 0, 0, 0, 0, 0, 16)],
        [bytes(SHDR.size)],
    )
    for segment, offset in zip(segments, _offsets(segments), strict=True):
        content += bytes(offset - len(content))
        phdrs.append(_phdr(segment, offset))
        shdrs.append(_shdr(segment, offset, names.add(segment.name)))
        content += segment.data
    symbols = _symbol_table(image, segments, symbol_names)
    for name, kind, data, link, info, entry_size in (
        (".symtab", SHT_SYMTAB, symbols, len(shdrs) + 1, 1, SYM.size),
        (".strtab", SHT_STRTAB, symbol_names.data, 0, 0, 0),
        (".shstrtab", SHT_STRTAB, names.data, 0, 0, 0),
    ):
        content += bytes(-len(content) % 8)
        start = names.add(name)  # before the length is taken, as it may grow the very table
        shdrs.append(SHDR.pack(start, kind, 0, 0, len(content), len(data), link, info, 8, entry_size))
        content += data
    content += bytes(-len(content) % 8)
    sizes = (EHDR.size, PHDR.size, len(phdrs), SHDR.size, len(shdrs), len(shdrs) - 1)
    ehdr = EHDR.pack(IDENT, ET_EXEC, EM_X86_64, 1, image.entry, EHDR.size, len(content), 0, *sizes)
    content[: EHDR.size + PHDR.size * len(phdrs)] = ehdr + b"".join(phdrs)
    return bytes(content) + b"".join(shdrs)


def _phdr(segment: Segment, offset: int) -> bytes:
    flags = segment.readable * P_FLAGS.PF_R | segment.writable * P_FLAGS.PF_W | segment.executable * P_FLAGS.PF_X
    size = len(segment.data)
    return PHDR.pack(PT_LOAD, flags, offset, segment.va, segment.va, size, segment.size, PAGE_SIZE)


def _shdr(segment: Segment, offset: int, name: int) -> bytes:
    kind = SHT_PROGBITS if segment.data else SHT_NOBITS
    flags = SH_FLAGS.SHF_ALLOC | segment.writable * SH_FLAGS.SHF_WRITE
    flags |= segment.executable * SH_FLAGS.SHF_EXECINSTR
    return SHDR.pack(name, kind, flags, segment.va, offset, segment.size, 0, 0, 1, 0)


def _symbol_table(image: Image, segments: list[Segment], names: _Strings) -> bytes:
    """All symbols as global ones without a type, as GNU as makes them from labels."""
    entries = [bytes(SYM.size)]
    for name, va in image.symbols.items():
        around = [number for number, s in enumerate(segments, 1) if s.va <= va <= s.end]
        section = around[-1] if around else SHN_ABS
        entries.append(SYM.pack(names.add(name), STB_GLOBAL << 4, 0, section, va, 0))
    for name, value in image.constants.items():
        entries.append(SYM.pack(names.add(name), STB_GLOBAL << 4, 0, SHN_ABS, value, 0))
    return b"".join(entries)
