"""ELF files and program files: what loads, where it lies then, and what is refused with which words."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native import build_native, requires_native

from emu.assembler import assemble_source
from emu.elf import load_elf, load_program, write_elf
from emu.exceptions import AssemblyError, ImageError, InputError
from emu.image import Image, Segment
from lab.listing import listing

HELLO = """\
        .globl _start
        .equ STDOUT, 1
        .section .rodata
text:   .ascii "hello, ELF\\n"
len = . - text
        .data
times:  .quad 2
        .bss
copy:   .skip 20000
        .section .scratch, "aw", @nobits
        .skip 5000
        .text
_start: lea rsi, [rip + text]
        lea rdi, [rip + copy]
        mov ecx, len
        rep movsb
again:  mov eax, 1
        mov edi, STDOUT
        lea rsi, [rip + copy]
        mov edx, len
        syscall
        dec qword ptr [rip + times]
        jnz again
        mov eax, 60
        movzx edi, byte ptr [rip + copy + 19999]
        add edi, 42
        syscall
"""

# Offsets in the file header and in a program header (System V gABI, chapters 4 and 5).
CLASS, ORDER, TYPE, MACHINE, ENTRY, PHOFF, PHENTSIZE, PHNUM, SHNUM = 4, 5, 16, 18, 24, 32, 54, 56, 60
P_TYPE, P_OFFSET, P_VADDR, P_FILESZ, P_MEMSZ = 0, 8, 16, 32, 40
FIRST_LOAD = 64 + 56  # the file that write_elf makes begins with GNU_STACK, then .text, .rodata, .data, .bss


@pytest.fixture(scope="module")
def hello(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("elf") / "hello"
    write_elf(assemble_source(HELLO), path)
    return path


# Written files


def test_a_written_file_loads_as_it_was(hello: Path) -> None:
    image, again = assemble_source(HELLO), load_elf(hello)
    assert again.segments == image.segments
    assert (again.entry, again.symbols, again.constants) == (image.entry, image.symbols, image.constants)
    assert again.path == str(hello)


@st.composite
def images(draw: st.DrawFn) -> Image:
    """Any image that fits into user space; the first segment has the entry point."""
    segments, va = [], 0x10000
    for number in range(draw(st.integers(1, 5))):
        va += draw(st.integers(0, 1 << 40))
        data = draw(st.binary(max_size=200))
        size = len(data) + draw(st.integers(0 if data else 1, 10_000))
        flags = [draw(st.booleans()), draw(st.booleans()), number == 0 or draw(st.booleans())]
        segments.append(Segment(f".s{number}", va, data, size, *flags))
        va = (va + size + 0xFFF) & ~0xFFF
    names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
    labels = draw(st.dictionaries(names, st.integers(0, segments[0].size), max_size=5))
    symbols = {name: segments[0].va + offset for name, offset in labels.items()}
    constants = draw(st.dictionaries(names.filter(lambda name: name not in symbols), st.integers(0, (1 << 64) - 1)))
    return Image("", segments[0].va, tuple(segments), symbols, constants)


@settings(deadline=None, max_examples=50)
@given(images())
def test_any_image_survives_a_file(tmp_path_factory: pytest.TempPathFactory, image: Image) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    write_elf(image, path)
    again = load_elf(path)
    assert again.segments == image.segments
    assert (again.symbols, again.constants) == (image.symbols, image.constants)


def test_a_written_file_can_be_executed_as_the_umask_allows(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write_elf(assemble_source(HELLO), tmp_path / "hello")
    finally:
        os.umask(mask)
    assert (tmp_path / "hello").stat().st_mode & 0o777 == 0o750


def test_a_file_that_cannot_be_written_leaves_everything_as_it_was(tmp_path: Path) -> None:
    image = assemble_source(HELLO)
    with pytest.raises(ImageError, match="cannot write"):
        write_elf(image, tmp_path / "nowhere" / "hello")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ImageError, match="cannot write"):
        write_elf(image, tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.native
@requires_native
def test_a_written_file_runs_natively(hello: Path) -> None:
    ours = subprocess.run([hello], capture_output=True)
    theirs = subprocess.run([build_native(HELLO)], capture_output=True)
    assert (ours.stdout, ours.returncode) == (theirs.stdout, theirs.returncode) == (b"hello, ELF\n" * 2, 42)


@pytest.mark.native
@requires_native
@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
def test_other_tools_see_the_symbols_of_a_written_file(hello: Path) -> None:
    printed = subprocess.run(["nm", hello], capture_output=True, text=True, check=True).stdout
    image = load_elf(hello)
    rows = {name: int(value, 16) for value, _, name in (line.split() for line in printed.splitlines())}
    assert rows == {**image.symbols, **image.constants}


# Files that others made


@pytest.mark.native
@requires_native
def test_what_ld_made_loads() -> None:
    image = load_elf(build_native(HELLO))
    assert image.entry == image.address_of("_start") == 0x401000
    assert image.symbolize(image.address_of("again") + 5) == "again+0x5"
    assert image.constants["len"] == 11
    text = next(segment for segment in image.segments if segment.name == ".text")
    assert (text.va, text.permissions) == (0x401000, "r-x")
    data = next(segment for segment in image.segments if image.address_of("times") in segment)
    assert (data.permissions, image.address_of("copy") in data) == ("rw-", True)


C_PROGRAM = '#include <stdio.h>\nint main(void) { puts("hello"); return 3; }\n'


def compiled(folder: Path, *options: str) -> Path:
    """A C program, or a skipped test where it cannot be compiled."""
    (folder / "hello.c").write_text(C_PROGRAM)
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    done = subprocess.run(["gcc", *options, "-o", folder / "hello", folder / "hello.c"], capture_output=True)
    if done.returncode:
        pytest.skip("this gcc cannot: " + " ".join(options))
    return folder / "hello"


@pytest.mark.native
@requires_native
def test_a_static_c_program_loads(tmp_path: Path) -> None:
    image = load_elf(compiled(tmp_path, "-static", "-no-pie"))
    assert image.symbolize(image.entry) == "_start"
    main = image.segment_at(image.address_of("main"))
    assert main is not None
    assert main.permissions == "r-x"
    headers = image.segment_at(image.phdr)
    assert headers is not None, "AT_PHDR: the C library finds its thread-local storage there"
    offset = image.phdr - headers.va
    assert struct.unpack_from("<I", headers.data, offset + 56 * (image.phnum - 1))[0] != 0


@pytest.mark.native
@requires_native
def test_a_position_independent_static_program_loads_where_linux_puts_it(tmp_path: Path) -> None:
    image = load_elf(compiled(tmp_path, "-static-pie"))
    assert image.segments[0].va == 0x555555554000
    assert image.symbolize(image.entry) == "_start"


FREESTANDING = """
static const char *words[] = {"zero", "one", "two", "three"};
static unsigned char counts[64];
static short minus = -3;
static long call(long number, long a, const void *b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}
static int length(const char *text) { int n = 0; while (text[n]) n++; return n; }
void _start(void) {
    int sum = 0;
    for (int i = 0; i < 64; i++) counts[i] = i * minus;
    for (int i = 0; i < 64; i++) sum += counts[i] * (signed char)(counts[63 - i] >> 1);
    switch (sum & 7) { case 0: sum += 5; break; case 1: sum ^= 7; break; case 2: sum -= 9; break;
                       case 3: sum *= 3; break; case 4: sum /= 3; break; default: sum %= 11; }
    for (int i = 0; i < 4; i++) call(1, 1, words[i], length(words[i]));
    call(60, sum & 127, 0, 0);
}
"""


@pytest.mark.native
@requires_native
@pytest.mark.parametrize("options", ["-O0 -g", "-O2", "-O2 -masm=intel", "-O0 -masm=intel", "-O3 -mavx2 -masm=intel"])
def test_what_a_compiler_writes_assembles_and_does_the_same(options: str, tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    (tmp_path / "program.c").write_text(FREESTANDING)
    flags = ["-ffreestanding", "-fno-stack-protector", "-fno-pic", *options.split()]
    for command in (
        ["gcc", *flags, "-S", "program.c"],
        ["gcc", "-nostdlib", "-static", "-no-pie", "-o", "native", "program.s"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    write_elf(
        load_program(tmp_path / "program.s", syntax="intel" if "intel" in options else "att"),
        tmp_path / "ours",
    )
    ours, theirs = (subprocess.run([tmp_path / name], capture_output=True) for name in ("ours", "native"))
    assert (ours.stdout, ours.returncode) == (theirs.stdout, theirs.returncode)
    assert ours.stdout == b"zeroonetwothree"


@pytest.mark.native
@requires_native
@pytest.mark.parametrize(
    ("options", "message"),
    [((), "a dynamic program.*expected a static one"), (("-c",), "an object file, not yet linked")],
)
def test_half_a_program_is_refused(options: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=message):
        load_elf(compiled(tmp_path, *options))


def test_a_listing_of_an_elf_file_is_disassembled(hello: Path) -> None:
    lines = [line.split() for line in listing(load_elf(hello)).splitlines()]
    assert ["40101a", "bf", "01", "00", "00", "00", "mov", "edi,", "1"] in lines
    assert ["402000", "text:"] in lines
    assert ["404000", "00", "x", "20000"] in lines


# Refused files


def patched(hello: Path, folder: Path, *patches: tuple[int, str, int]) -> Path:
    """The file with other numbers at some offsets."""
    data = bytearray(hello.read_bytes())
    for offset, layout, value in patches:
        struct.pack_into("<" + layout, data, offset, value)
    path = folder / "patched"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("patches", "message"),
    [
        ([(CLASS, "B", 1)], "32-bit"),
        ([(ORDER, "B", 2)], "big-endian"),
        ([(MACHINE, "H", 183)], "for AArch64; expected 64-bit little-endian x86-64"),
        ([(MACHINE, "H", 3)], "for Intel 80386"),
        ([(TYPE, "H", 1)], "an object file, not yet linked"),
        ([(TYPE, "H", 4)], "a core dump; expected an executable"),
        ([(TYPE, "H", 77)], "type 77; expected an executable"),
        ([(ENTRY, "Q", 0)], "no entry point"),
        ([(ENTRY, "Q", 0x402000)], "entry point 0x402000 is not in an executable segment"),
        ([(ENTRY, "Q", 0x1234567)], "entry point 0x1234567 is not in an executable segment"),
        ([(PHNUM, "H", 0)], "no PT_LOAD"),
        ([(PHNUM, "H", 60000)], "60000 program headers of 56 bytes at 0x40, in a file of"),
        ([(PHENTSIZE, "H", 55)], "program headers of 55 bytes.*expected 56"),
        ([(PHOFF, "Q", 1 << 63)], "program headers .* at 0x8000000000000000"),
        ([(SHNUM, "H", 60000)], "60000 section headers"),
        ([(FIRST_LOAD + P_TYPE, "I", 3)], "a dynamic program"),
        ([(FIRST_LOAD + P_VADDR, "Q", 0xFFFFFFFF81000000)], "outside user space, 0x10000-0x7ffffffff000"),
        ([(FIRST_LOAD + P_VADDR, "Q", 0x1000)], "at 0x1000-.* is outside user space"),
        ([(FIRST_LOAD + P_MEMSZ, "Q", 1 << 62)], "outside user space"),
        ([(FIRST_LOAD + P_MEMSZ, "Q", 0x1001)], "overlaps segment .text"),
        ([(FIRST_LOAD + P_VADDR, "Q", 0x402000)], "shares a page"),
        ([(FIRST_LOAD + P_VADDR, "Q", 0x401010)], "differ within the page"),
        ([(FIRST_LOAD + P_MEMSZ, "Q", 1)], "in the file but only 0x1 in memory"),
        ([(FIRST_LOAD + P_OFFSET, "Q", 0x100000)], "truncated"),
        ([(FIRST_LOAD + P_FILESZ, "Q", 0x2000000), (FIRST_LOAD + P_MEMSZ, "Q", 0x2000000)], "truncated"),
    ],
)
def test_a_file_that_is_not_for_us_is_refused_with_what_was_found(
    patches: list[tuple[int, str, int]], message: str, hello: Path, tmp_path: Path
) -> None:
    path = patched(hello, tmp_path, *patches)
    with pytest.raises(ImageError, match=message) as caught:
        load_elf(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [1, 3, 4, 5, 16, 63, 64, 100, 400, 0x1000, 0x2000, 0x4000, -1])
def test_a_truncated_file_is_refused(length: int, hello: Path, tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(hello.read_bytes()[:length])
    with pytest.raises(ImageError):
        load_elf(tmp_path / "cut")


def test_load_elf_wants_an_elf_file(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("_start: nop")
    with pytest.raises(ImageError, match="not an ELF file, begins with 5f 73 74 61; expected 7f 45 4c 46"):
        load_elf(tmp_path / "text")


# Damage to the tables hurts most: file and program headers, symbols, names and section headers.
@settings(deadline=None, max_examples=300)
@given(st.data())
def test_no_damage_does_more_than_be_refused(
    hello: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(hello.read_bytes())
    tables = st.one_of(st.integers(0, 64 + 7 * 56), st.integers(0x3000, len(content) - 1))
    for offset, value in data.draw(st.dictionaries(tables, st.integers(0, 255), min_size=1, max_size=8)).items():
        content[offset] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        image = load_elf(path)
    except InputError as error:
        assert str(error).startswith(str(path))
    else:
        image.symbolize(image.entry)
        assert all(0x10000 <= segment.va < segment.end < 1 << 47 for segment in image.segments)


# Whichever it is


def test_a_program_file_may_be_either(hello: Path, tmp_path: Path) -> None:
    source = tmp_path / "without-suffix"
    source.write_text(HELLO)
    assert load_program(source).segments == load_program(hello).segments
    source.write_text("_start: mov $1, %eax")
    assert load_program(str(source), syntax="att").segments[0].data == bytes.fromhex("b8 01 00 00 00")


def test_a_name_that_is_no_program_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name, message in [
        ("missing", "No such file or directory"),
        ("empty", "this file is empty"),
        (".", "this is a directory"),
        ("empty/below", "Not a directory"),
        ("null\0byte", "null byte"),
    ]:
        with pytest.raises(ImageError, match=f"{message}; expected assembly source .text. or a static"):
            load_program(tmp_path / name)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_a_device_is_no_program() -> None:
    with pytest.raises(ImageError, match="not a regular file"):
        load_program("/dev/zero")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(HELLO)
    (tmp_path / "secret").chmod(0)
    with pytest.raises(ImageError, match="Permission denied"):
        load_program(tmp_path / "secret")


@pytest.mark.parametrize("data", [bytes(range(256)), b"PK\x03\x04" + bytes(100), b"\x7fEL", b"MZ\x90\0"])
def test_binary_rubbish_is_one_clear_error(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "rubbish").write_bytes(data)
    with pytest.raises(InputError, match=r"rubbish:1") as caught:
        load_program(tmp_path / "rubbish")
    assert isinstance(caught.value, AssemblyError)
