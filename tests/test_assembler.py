"""Assembly source: what the dialect has, where things go in memory, and what errors say.

The oracle for all of it is GNU `as` and `ld`: see the tests marked native at the end.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from expectations import PROGRAMS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native import requires_native
from random_programs import PLACES, random_program

from emu.assembler import assemble, assemble_source, start
from emu.exceptions import AssemblyError, ImageError, InputError
from emu.image import Image
from lab.listing import listing

INVALID_UTF8 = b"_start: nop\n# caf\xe9"


def code(source: str, **options: object) -> str:
    """The bytes of .text, as hexadecimal digits."""
    return bytes_of(assemble_source(f"_start:\n{source}\n", **options), ".text")


def bytes_of(image: Image, section: str) -> str:
    return next(segment.data.hex(" ") for segment in image.segments if segment.name == section)


def refused(source: str, **options: object) -> AssemblyError:
    with pytest.raises(AssemblyError) as caught:
        assemble_source(textwrap.dedent(source), name="demo.asm", **options)
    return caught.value


# Sections, and where they go


def test_sections_lie_as_ld_would_put_them_each_on_pages_of_its_own() -> None:
    image = assemble_source(
        """
        .bss
buffer: .skip 5000
        .data
value:  .quad 1
        .section .rodata
text:   .ascii "hi"
        .text
_start: ret
        """
    )
    rows = [(s.name, s.va, s.size, s.permissions) for s in image.segments]
    assert rows == [
        (".text", 0x401000, 1, "r-x"),
        (".rodata", 0x402000, 2, "r--"),
        (".data", 0x403000, 8, "rw-"),
        (".bss", 0x404000, 5000, "rw-"),
    ]
    assert image.symbols == {"_start": 0x401000, "text": 0x402000, "value": 0x403000, "buffer": 0x404000}
    assert image.entry == 0x401000


def test_bss_takes_no_room_in_the_image() -> None:
    image = assemble_source("_start: ret\n.bss\n.skip 0x4000000000")
    assert [(s.size, s.data) for s in image.segments if s.name == ".bss"] == [(0x4000000000, b"")]


def test_a_section_of_ones_own_has_the_permissions_of_its_flags() -> None:
    source = """
_start: ret
        .section .both, "awx"
        ret
        .section .table, "a"
        .byte 1
        .section .more, "aw", @nobits
        .skip 9
    """
    rows = {s.name: s.permissions for s in assemble_source(source).segments}
    assert rows == {".text": "r-x", ".both": "rwx", ".table": "r--", ".more": "rw-"}


def test_sections_that_are_not_loaded_are_no_part_of_the_program() -> None:
    source = '_start: ret\n.section .note.GNU-stack, "", @progbits\n.section .comment\n.ascii "by hand"'
    assert [s.name for s in assemble_source(source).segments] == [".text"]


def test_a_comm_symbol_lies_in_bss_aligned_as_it_asks() -> None:
    image = assemble_source("_start: ret\n.bss\n.skip 1\n.comm shared, 100, 64")
    assert image.address_of("shared") == 0x402040
    assert image.segments[-1].size == 0x40 + 100


def test_sections_go_where_addresses_says_and_the_others_behind_them() -> None:
    kernel = 0xFFFFFFFF81000000
    image = assemble_source(
        "entry: call do_work\nret\n.data\n.quad entry",
        addresses={".text": kernel},
        symbols={"do_work": kernel + 0x1000},
        entry=None,
    )
    assert image.entry == 0
    assert image.symbols == {"entry": kernel}
    assert bytes_of(image, ".text") == "e8 fb 0f 00 00 c3"
    assert [(s.va, s.data) for s in image.segments[1:]] == [(kernel + 0x1000, kernel.to_bytes(8, "little"))]


def test_the_entry_point_may_have_another_name() -> None:
    assert assemble_source("nop\nmain: ret", entry="main").entry == 0x401001


# The dialect


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("mov al, 1 # to the end of the line; hlt", "b0 01"),
        ("mov al, /* inside */ 1", "b0 01"),
        ("/* over\nlines */ nop", "90"),
        ("nop; nop ; hlt", "90 90 f4"),
        ("mov al, '#'; mov al, ';'; mov al, '\"'", "b0 23 b0 3b b0 22"),
        (".equ N, 3\n mov al, N*2+1", "b0 07"),
        (".set N, 3\n.set N, N+1\n mov al, N", "b0 04"),
        ("N = 5\n mov al, N", "b0 05"),
        (".rept 3\n nop\n.endr", "90 90 90"),
        (".irp r, al, bl\n inc \\r\n.endr", "fe c0 fe c3"),
        (".macro twice what\n \\what\n \\what\n.endm\n twice nop", "90 90"),
        (".macro load reg, value=7\n mov \\reg, \\value\n.endm\n load al\n load bl, 1", "b0 07 b3 01"),
        (".macro spin\nloop\\@: jmp loop\\@\n.endm\n spin\n spin", "eb fe eb fe"),
        (".if 2 > 1\n nop\n.else\n hlt\n.endif", "90"),
        (".ifdef N\n nop\n.else\n hlt\n.endif", "f4"),
        ("1: jmp 1b\n jmp 1f\n1:", "eb fe eb 00"),
        ("nop\n.align 4\n hlt", "90 0f 1f 00 f4"),
        (".balign 8\n nop", "90"),
        (".byte 1, 'a', 0x10, 0b11, 010", "01 61 10 03 08"),
        (".word 1\n.long 2\n.quad 3", "01 00 02 00 00 00 03 00 00 00 00 00 00 00"),
        ('.ascii "a\\n\\t\\"\\\\\\0\\x41"', "61 0a 09 22 5c 00 41"),
        ('.asciz "a", "b"\n.string "c"', "61 00 62 00 63 00"),
        ('.ascii "# no comment; no statement"', b"# no comment; no statement".hex(" ")),
        ('.ascii "\u00e9"', "c3 a9"),
        (".skip 2\n.space 2, 0xff\n.zero 1\n.fill 2, 1, 7", "00 00 ff ff 00 07 07"),
        (".globl other\nother: .global more, _start\nmore: jmp _start", "eb fe"),
        ("endbr64; sysretq; swapgs; invpcid rax, [rbx]", "f3 0f 1e fa 48 0f 07 0f 01 f8 66 0f 38 82 03"),
    ],
)
def test_the_dialect_has(source: str, expected: str) -> None:
    assert code(source) == expected


def test_both_syntaxes_make_the_same_program() -> None:
    intel = "_start: mov rax, [rbx+rcx*8+16]\n lea rsi, [rip+text]\n add dword ptr [rdi], 5\n.data\ntext: .byte 1"
    att = "_start: mov 16(%rbx,%rcx,8), %rax\n lea text(%rip), %rsi\n addl $5, (%rdi)\n.data\ntext: .byte 1"
    assert assemble_source(intel).segments == assemble_source(att, syntax="att").segments


def test_a_source_may_say_its_syntax_itself() -> None:
    source = ".att_syntax prefix\nmov $1, %al\n.intel_syntax noprefix\nmov al, 2\nmov al, 1 | (2 + 4)"
    assert code(source) == code(source, syntax="att") == "b0 01 b0 02 b0 07"


@pytest.mark.parametrize("text", ["_start:\r\n\tmov al, 1\r\n", "_start:\r\tmov al, 1\r", "\ufeff_start: mov al, 1"])
def test_line_ends_and_byte_order_marks_of_any_system_will_do(text: str, tmp_path: Path) -> None:
    path = tmp_path / "demo.asm"
    path.write_bytes(text.encode())
    assert bytes_of(assemble(path), ".text") == "b0 01"


def test_what_compilers_write_in_intel_syntax_is_understood() -> None:
    source = "mov edi, OFFSET FLAT:_start\nmovsx rax, DWORD PTR -8[rbp]\nmovsx rcx, eax\nmovsx ecx, al"
    assert code(source) == "bf 00 10 40 00 48 63 45 f8 48 63 c8 0f be c8"
    assert code("jmp [QWORD PTR _start[0+rax*8]]") == "ff 24 c5 00 10 40 00"


# Differences between labels are numbers


def test_the_length_of_a_string_is_a_number() -> None:
    data = '.data\nmsg: .ascii "hello"\nlen = . - msg\n.equ twice, (. - msg) * 2\n.text\n'
    source = "mov dl, len\nmov dl, len*2\ncmp edx, len\nmov al, [rsi+len]\nmov al, [msg+len-1]\nmov dl, twice"
    assert code(data + source) == "b2 05 b2 0a 83 fa 05 8a 46 05 8a 04 25 04 20 40 00 b2 0a"
    assert code(data + "mov byte ptr [rdi], len") == "c6 07 05"
    assert assemble_source(data, entry=None).constants == {"len": 5, "twice": 10}


def test_a_macro_may_define_lengths() -> None:
    macro = '.macro text name, what\n\\name: .ascii "\\what"\n\\name\\()_len = . - \\name\n.endm\n'
    assert code(f"{macro}.data\ntext one, abc\ntext two, defgh\n.text\nmov al, one_len\nmov bl, two_len") == (
        "b0 03 b3 05"
    )


def test_the_length_of_code_may_depend_on_itself() -> None:
    source = "size = end - begin\n_start: begin: cmp rax, size\n.skip 122\nend: mov ecx, size"
    image = assemble_source(source)
    length = image.address_of("end") - image.address_of("begin")
    assert image.constants["size"] == length
    assert bytes_of(image, ".text").endswith(f"b9 {length:02x} 00 00 00")


def test_a_symbol_assigned_many_times_counts() -> None:
    assert code("i = 0\n.rept 3\ni = i + 1\n.byte i\n.endr\nj = 9\nj = j - i\nmov al, j\nj = j - i\nmov al, j") == (
        "01 02 03 b0 06 b0 03"
    )


# Errors


@pytest.mark.parametrize(
    ("source", "line", "column", "message"),
    [
        ("_start: bogus", 1, 9, "invalid instruction mnemonic 'bogus'"),
        ("_start:\n\tmov\trax, rbx, 1", 2, 2, "invalid operand"),
        ("_start: nop; nop; mov rax, eax", 1, 19, "invalid operand"),
        ('_start: .ascii "\u00e9\u00e9"; bogus', 1, 22, "invalid instruction"),
        ("_start: nop /* x */ ; bogus # y", 1, 23, "invalid instruction"),
        ("_start: /* x\ny */ bogus", 2, 6, "invalid instruction"),
        ('# 33 "other.c"\n_start: bogus', 2, 9, "invalid instruction"),
        ("_start: mov [rax], 1", 1, 13, "ambiguous operand size"),
        ("_start: nop\n_start: nop", 2, 1, "'_start' is already defined"),
        ("_start: .byte 256", 1, 15, "out of range"),
        ("_start: jrcxz far\n.skip 200\nfar: nop", 1, 15, "too large for field of 1 byte"),
        ("_start: .unknown 1", 1, 9, "unknown directive"),
        ('_start: .ascii "open', 1, 16, "expected string"),
        ('_start: nop\n .error "stop here"', 2, 2, "stop here"),
        ("_start: nop /* no end", 1, 13, "no end"),
        (".macro m\n_start: nop", 1, 1, "no matching '.endmacro'"),
        (".rept 2\n_start: nop", 1, 1, "no matching '.endr'"),
        ("_start: nop\n.if 1\nnop", 3, 0, "unmatched .ifs"),
        ("_start: nop\ncall nowhere # nowhere\njmp nowhere", 2, 6, "undefined symbol 'nowhere'"),
        ("_start: nop\n.data\n.quad 1, nowhere", 3, 10, "undefined symbol 'nowhere'"),
        (".data\n.quad two\n.text\n_start: jmp one", 2, 7, "undefined symbol 'two'"),
        ("_start: mov rax, [end]\n.bss\n.skip 0x80000000\nend: .skip 1", 1, 19, "does not fit into 32 bits"),
        ("_start: ret\n.byte value\n.data\nvalue: .byte 1", 2, 7, "does not fit into 8 bits"),
        ("_start: mov rax, value@GOTPCREL[rip]\nvalue: nop", 1, 18, "expected a plain address"),
        ("_start: mov rax, fs:value@tpoff", 1, 21, "undefined symbol 'value'"),
        ("_start: iret", 1, 9, "iretq"),
        ("_start: sysret", 1, 9, "sysretq"),
        ("_start: nop\n push fs", 2, 2, "go through a register"),
        ("_start: mov eax, 1 + 2 << 3", 1, 24, "use parentheses"),
        ("_start: mov eax, 1 | 2 + 3", 1, 24, "use parentheses"),
        (".data\n_start: nop", 2, 1, "not in a section with code"),
        ("start: nop", 0, 0, "expected the label _start"),
        ("", 0, 0, "expected the label _start"),
    ],
)
def test_an_error_says_line_and_column_and_what(source: str, line: int, column: int, message: str) -> None:
    error = refused(source)
    assert (error.path, error.line, error.column) == ("demo.asm", line, column)
    assert message in error.message
    assert str(error).startswith(":".join(["demo.asm", *(str(n) for n in (line, column) if n)]) + ": ")


@pytest.mark.parametrize(
    ("source", "line", "column", "message"),
    [
        (".macro m a\n nop\n mov \\a, 1, 2\n.endm\n_start: nop\n m rbx", 3, 2, "line 6: mov rbx, 1, 2"),
        (".macro m a\n mov rax, \\a\n.endm\n_start: m 1\n m rip", 2, 11, "line 5: mov rax, rip"),
        (".macro m\n bad\n.endm\n.macro n\n m\n.endm\n_start: nop\n n", 2, 2, "line 8: bad"),
        ("_start:\n.rept 2\n nop\n bad\n.endr", 4, 2, "line 2: bad"),
        ("_start:\n.rept 2\n\tmov\teax, rbx\n.endr", 3, 2, "line 2: mov"),
        ("_start:\n.irp r, eax\n\tnop; mov\t\\r, rbx\n.endr", 3, 7, "line 2: nop; mov"),
        (".macro m; bad; .endm\n_start: nop\n m", 3, 2, "invalid instruction"),
        (".macro m x\n call \\x\n.endm\n_start: nop\n m nowhere", 5, 4, "undefined symbol 'nowhere'"),
        (".macro m\n m\n.endm\n_start: m", 2, 3, "nested"),
    ],
)
def test_an_error_in_a_macro_or_repetition_says_both_lines(source: str, line: int, column: int, message: str) -> None:
    error = refused(source)
    assert (error.line, error.column) == (line, column)
    assert message in error.message


@pytest.mark.parametrize("directive", ["include", "incbin", "INCBIN"])
def test_a_source_cannot_read_other_files(directive: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(".byte 1")
    error = refused(f'_start: nop\n .{directive} "{secret}"')
    assert (error.line, error.column) == (2, 2)
    assert "a program is one file" in error.message


@pytest.mark.skipif(sys.platform == "win32", reason="needs the limits of POSIX")
@pytest.mark.parametrize("directive", ["lude", "bin", "LUDE"])
def test_not_even_through_a_macro(directive: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(".byte 1")
    error = refused(f'.macro m x\n .inc\\x "{secret}"\n.endm\n_start: nop\n m {directive}')
    assert (error.line, error.column) == (2, 6)
    assert "Could not find" in error.message


@pytest.mark.parametrize(
    ("data", "line", "column"), [(INVALID_UTF8, 2, 6), (b"_start: nop\n\n \0", 3, 2), (b"\xff\xfe_\0", 1, 1)]
)
def test_bytes_that_are_no_text_are_shown_where_they_are(data: bytes, line: int, column: int, tmp_path: Path) -> None:
    path = tmp_path / "demo.asm"
    path.write_bytes(data)
    with pytest.raises(AssemblyError, match="is not text") as caught:
        assemble(path)
    assert (caught.value.line, caught.value.column) == (line, column)


def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file"):
        assemble(tmp_path / "missing.asm")


@pytest.mark.parametrize(
    ("addresses", "message"),
    [
        ({".code": 0x1000}, "no section .code to place; there are .text, .data"),
        ({".data": 0x401800}, "shares a page"),
        ({".text": 0x400008}, "alignment to 16 bytes"),
        ({".text": 1 << 64}, "does not fit into the address space"),
    ],
)
def test_sections_cannot_be_where_they_do_not_fit(addresses: dict[str, int], message: str) -> None:
    assert message in refused("_start: .balign 16\nnop\n.data\n.byte 1", addresses=addresses).message


def test_labels_elsewhere_must_be_within_reach() -> None:
    error = refused("_start: nop\n call far", symbols={"far": 0xFFFF888000000000})
    assert (error.line, error.column) == (2, 7)
    assert "the distance to far" in error.message


# The process behind it


def test_the_next_source_assembles_after_an_error() -> None:
    refused("_start: bogus")
    start()
    start()
    assert code("nop") == "90"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        pytest.param("_start: .byte " + "(" * 100_000, "nested very deeply", id="parentheses"),
        pytest.param("_start: .skip 1 << 40", "too much memory", id="bytes", marks=pytest.mark.slow),
        pytest.param("_start: .rept 1 << 60\nnop\n.endr", "too", id="lines", marks=pytest.mark.slow),
    ],
)
def test_a_source_that_is_too_much_is_an_error_too(source: str, why: str) -> None:
    error = refused(source)
    assert "the assembler gave up" in error.message
    assert why in error.message
    assert code("nop") == "90"


def run_python(script: str) -> str:
    """Run a script with all warnings on; it must end well and silently. Returns what it printed."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_program_ends_cleanly_with_its_assembler() -> None:
    run_python("""
        from emu.assembler import assemble_source, start
        start()
    """)
    run_python("""
        from emu.assembler import AssemblyError, assemble_source
        assemble_source("_start: nop")
        try:
            assemble_source("_start: bogus")
        except AssemblyError:
            assemble_source("_start: nop")
    """)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_an_assembler_of_its_own() -> None:
    printed = run_python("""
        import os
        from emu.assembler import assemble_source
        assemble_source("_start: nop")
        child = os.fork()
        data = assemble_source("_start: hlt" if child else "_start: nop").segments[0].data
        print(data.hex(), flush=True)
        if child:
            assert os.waitpid(child, 0)[1] == 0
    """)
    assert sorted(printed.split()) == ["90", "f4"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc")
def test_the_assembler_ends_when_its_program_is_killed() -> None:
    script = "from emu.assembler import assemble_source; assemble_source('_start: nop')"
    command = [sys.executable, "-c", f"{script}; print(flush=True); input()"]
    folder = Path(__file__).parent.parent
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout
        program.stdout.readline()
        children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
        program.kill()
    assert len(children) == 1
    deadline = time.monotonic() + 20
    while Path(f"/proc/{children[0]}/cmdline").exists() and Path(f"/proc/{children[0]}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "the assembler outlives its program"
        time.sleep(0.01)


# What an image knows


HELLO = """\
        .macro exit status
        mov edi, \\status
        mov eax, 60
        syscall
        .endm
        .data
msg:    .ascii "hi"
len = . - msg
        .text
        .globl _start
_start: mov eax, 1
        lea rsi, [rip+msg]
work:   exit len
"""


def test_an_image_knows_symbols_and_lines() -> None:
    image = assemble_source(HELLO, name="hello.asm")
    assert image.symbolize(0x401000) == "_start"
    assert image.symbolize(0x401007) == "_start+0x7"
    assert image.symbolize(image.address_of("work") + 2) == "work+0x2"
    assert image.symbolize(image.address_of("msg") + 1) == "msg+0x1"
    assert image.symbolize(0x10) == "0x10"
    assert image.symbolize(5) == "0x5", "a constant is no address"
    assert [image.line_of(va) for va in (0x400FFF, 0x401000, 0x401004, 0x401005)] == [
        None,
        *[("hello.asm", 11)] * 2,
        ("hello.asm", 12),
    ]
    assert image.line_of(image.address_of("work")) == ("hello.asm", 2), "inside the macro: its line"
    assert image.line_of(image.address_of("msg") + 1) == ("hello.asm", 7)


def test_every_byte_has_a_line() -> None:
    image = assemble_source(HELLO)
    for segment in image.segments:
        assert all(image.line_of(va) for va in range(segment.va, segment.end))


def test_an_unknown_symbol_comes_with_the_nearest_one() -> None:
    with pytest.raises(ImageError, match=r"demo.asm has no symbol 'wrok'; did you mean 'work'\?"):
        assemble_source(HELLO, name="demo.asm").address_of("wrok")


def test_an_image_can_be_pickled() -> None:
    image = assemble_source(HELLO)
    image.symbolize(0x401000)
    again = pickle.loads(pickle.dumps(image))
    assert again == image
    assert again.symbolize(0x401007) == "_start+0x7"


# Listings


def test_a_listing_shows_address_bytes_line_and_source() -> None:
    lines = listing(assemble_source(HELLO, name="hello.asm")).splitlines()
    assert lines[0] == "hello.asm: entry 0x401000 (_start)"
    assert ".text  0x401000-0x401018  24 bytes  r-x" in lines
    assert "  401000  b8 01 00 00 00              11  _start: mov eax, 1" in lines
    assert "  40100c                              13  work:   exit len" in lines
    assert "  40100c  bf 02 00 00 00               2          mov edi, \\status" in lines
    assert '  402000  68 69                        7  msg:    .ascii "hi"' in lines


def test_a_listing_folds_what_is_long() -> None:
    image = assemble_source("_start: nop\n.data\n.fill 100, 1, 7\n.bss\n.skip 1 << 40")
    assert "... 84 more bytes" in listing(image)
    assert f"00 x {1 << 40}" in listing(image)


# Any text


WORDS = st.sampled_from(
    [
        *(
            "_start:",
            "1:",
            "mov",
            "call",
            "jmp",
            "nowhere",
            "rax",
            "rip",
            "ptr",
            "dword",
            "1f",
            "1",
            "0x10",
            "'a'",
        ),
        *(",", "[", "]", "(", ")", "+", "-", "*", "<<", "=", ".", "@", "$", "%", '"s"', "\\", "\\x", "x"),
        *("#", ";", "/*", "*/", "//", "\n", "\n", "\n", "\t", "\u00e9"),
        *(
            ".macro m",
            ".endm",
            ".rept 2",
            ".irp x,",
            ".endr",
            ".if",
            ".else",
            ".endif",
            ".altmacro",
            ".purgem",
        ),
        *(".equ", ".set", ".data", ".text", ".bss", ".section", ".skip", ".byte", ".align", ".org", ".globl"),
        *(".loc", ".file", ".end", ".print", ".cfi_startproc", ".incbin", ".code32"),
    ]
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.text(st.characters()), st.lists(WORDS, max_size=30).map(" ".join)))
def test_any_text_assembles_or_is_refused_with_a_place(text: str) -> None:
    try:
        assemble_source(text, name="any", entry=None)
    except InputError as error:
        assert str(error).startswith("any")


# GNU as and ld


def gnu(source: str, image: Image, *options: str) -> tuple[dict[str, bytes], dict[str, int]]:
    """The sections and symbols that as and ld make, at the image's addresses."""
    with tempfile.TemporaryDirectory() as folder:
        starts = [f"--section-start={segment.name}={segment.va:#x}" for segment in image.segments]
        for command in (
            ["as", *options, "-o", "program.o", "-"],
            ["ld", "-o", "program", *starts, "program.o"],
        ):
            subprocess.run(command, cwd=folder, input=source.encode(), check=True, capture_output=True)
        with (Path(folder) / "program").open("rb") as file:
            elf = ELFFile(file)
            names = [s.name for s in elf.iter_sections() if s["sh_addr"]]
            sections = {name: elf.get_section_by_name(name).data() for name in names}
            bss = elf.get_section_by_name(".bss")
            sections |= {".bss": b""} if bss else {}
            symbols = {s.name: s["st_value"] for s in elf.get_section_by_name(".symtab").iter_symbols()}
    ends = ("", "program.o", "__bss_start", "_edata", "_end")
    return sections, {name: value for name, value in symbols.items() if name not in ends}


def check_against_gnu(source: str, *, syntax: str = "intel") -> None:
    image = assemble_source(source, syntax=syntax)
    options = ["-msyntax=intel", "-mnaked-reg"] if syntax == "intel" else []
    sections, symbols = gnu(source, image, *options)
    assert symbols == {**image.symbols, **image.constants}
    assert sections.keys() == {segment.name for segment in image.segments}
    for segment in image.segments:
        for line in (line for line in image.lines if line.va in segment):
            place = slice(line.va - segment.va, line.va - segment.va + line.size)
            assert_same(line.text, segment.data[place], sections[segment.name][place])


def assert_same(line: str, ours: bytes, theirs: bytes) -> None:
    """One line's bytes. Two things that make no difference may differ.

    To a border more than 87 bytes away GNU as jumps; LLVM fills all of them. And of REP and the prefix of
    16-bit operands, either may come first.
    """
    if ".balign" not in line:
        assert ours == theirs or ("rep" in line and sorted(ours) == sorted(theirs)), line


@pytest.mark.native
@requires_native
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_shipped_programs_are_the_same_byte_for_byte(program: Path) -> None:
    check_against_gnu(program.read_text())


@pytest.mark.native
@requires_native
@pytest.mark.parametrize("seed", range(10))
def test_random_programs_are_the_same_byte_for_byte(seed: int) -> None:
    check_against_gnu(random_program(seed, place=PLACES[seed % len(PLACES)]))


@pytest.mark.native
@requires_native
def test_the_dialect_means_the_same() -> None:
    check_against_gnu(HELLO)
    check_against_gnu(
        """
        .equ N, 3
        .globl _start, shared
        .macro fill name, count=N
\\name:  .rept \\count
        .byte \\count
        .endr
\\name\\()_len = . - \\name
        .endm
        .data
        fill one
        fill two, 5
        .balign 8
table:  .quad one, two + 1, table - 8
        .long two - one, table - .
        .section .rodata
text:   .asciz "a\\tb", "c"
        .text
_start: mov rax, one_len
        mov ecx, two_len * 2 + N
        lea rsi, [rip + text]
        mov rdi, offset table
        mov rdx, [table + rcx*8]
        movabs r8, offset table
        cmp byte ptr [rsi + two_len], 'b'
        jne 1f
        call shared
1:      jmp 1b
        .balign 16
shared: push two_len
        mov qword ptr [table], N
        ret
        """
    )


@pytest.mark.native
@requires_native
def test_the_dialect_means_the_same_in_att_syntax() -> None:
    check_against_gnu(
        """
        .data
text:   .ascii "hello"
len = . - text
        .text
        .globl _start
_start: mov $len, %edx
        lea text(%rip), %rsi
        mov text(,%rcx,4), %eax
        movl $1+2*3, -8(%rbp)
        jmp *%rax
        """,
        syntax="att",
    )
