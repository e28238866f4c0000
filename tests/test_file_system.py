"""Files inside the kernel: their frames, what is freed when, waiting, and files that are written when they are read."""

from __future__ import annotations

import errno
import io
from pathlib import Path

import pytest
from conftest import MakeKernel
from file_programs import BUFFER, program
from native import NativeResult, requires_native, run_native

from emu import PAGE_SIZE
from emu.assembler import assemble_source
from emu.image import Image
from kernel import Errno, Kernel
from kernel.files import FilesStruct, RegularFile
from kernel.files.generated import proc_file
from kernel.files.iov import KernelIter
from kernel.files.pipe import PipeEnd
from kernel.files.sysctl import swappiness


def guest(calls: str) -> Image:
    return assemble_source(program(calls))


def output(kernel: Kernel, calls: str) -> bytes:
    """What a guest prints that makes these calls; it must end well."""
    stdout = kernel.stdout
    assert isinstance(stdout, io.BytesIO)
    before = len(stdout.getvalue())
    process = kernel.spawn(guest(calls))
    kernel.run()
    assert process.exit_code == 0
    return stdout.getvalue()[before:]


def read(kernel: Kernel, path: str) -> bytes:
    """What a guest reads from a file, up to 16 KiB."""
    length, content = output(kernel, f'open("{path}", 0); read(3, BUFFER, 0x4000); dump(0x4000)')[17:].split(b"\n", 1)
    return content[: int(length, 16)]


# --- content is frames ------------------------------------------------------------------------------------------------


def test_the_content_of_a_file_is_in_the_frames_of_its_mapping(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    process = kernel.spawn(guest(f'open("f", NEW, 0o600); fill(9000); pwrite64(3, {BUFFER}, 9000, 100)'))
    kernel.run(before_exit=True)
    file = process.files.file(3)
    assert isinstance(file, RegularFile)
    frames = [file.mapping.page(index) for index in range(4)]
    assert (len(set(frames)), frames[3], file.mapping.size) == (4, None, 9100)
    content = b"".join(kernel.machine.ram.read(pfn * PAGE_SIZE, PAGE_SIZE) for pfn in frames if pfn is not None)
    assert content == (bytes(100) + bytes(number % 256 for number in range(1, 9001))).ljust(3 * PAGE_SIZE, b"\0")


def test_files_that_nobody_reads_have_no_frames(make_kernel: MakeKernel, tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"f{number}").write_bytes(b"x" * 10_000)
    kernel = make_kernel(root=tmp_path)
    output(kernel, 'open("/", 0); getdents64(3, BUFFER, 0x8000); stat("/f7", BUFFER); open("/f7", 0)')
    assert kernel.page_cache.pages == 0
    output(kernel, 'open("/f7", 0); pread64(3, BUFFER, 1, 5000)')
    assert kernel.page_cache.pages == 1
    output(kernel, 'open("/f7", 0); read(3, BUFFER, 10000); open("/f8", 0); read(3, BUFFER, 5)')
    assert kernel.page_cache.pages == 3


def test_a_file_lives_until_its_last_name_and_its_last_descriptor_are_gone(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    write = f'open("f", NEW, 0o600); write(3, {BUFFER}, 10000)'
    output(kernel, f'{write}; dup(3); unlink("f"); close(3); pread64(4, BUFFER, 9, 0)')
    assert kernel.page_cache.pages == 0
    output(kernel, f'chdir("/"); {write}; link("f", "g"); unlink("f")')
    assert kernel.page_cache.pages == 3
    output(kernel, 'chdir("/"); truncate("g", 4097)')
    assert kernel.page_cache.pages == 2
    output(kernel, 'chdir("/"); unlink("g")')
    assert kernel.page_cache.pages == 0


def test_what_is_in_a_pipe_is_freed_with_its_last_end(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    process = kernel.spawn(guest("pipe(BUFFER); write(4, BUFFER, 30000); dup(4); close(4)"))
    kernel.run(before_exit=True)
    end = process.files.file(5)
    assert isinstance(end, PipeEnd)
    assert (len(end.pipe.slots), end.pipe.size) == (8, 30000)
    kernel.close()
    assert kernel.page_cache.pages == 0


def test_files_take_half_of_the_memory_and_no_more(make_kernel: MakeKernel) -> None:
    kernel = make_kernel({"ram": "4M"}, stdout=io.BytesIO())
    calls = 'open("f", NEW, 0o600); ' + f"write(3, {BUFFER}, 0x10000); " * 40 + "lseek(3, 0, SEEK_CUR)"
    lines = output(kernel, calls).split()
    assert int(lines[-1], 16) == kernel.page_cache.limit * PAGE_SIZE
    assert int(lines[-2], 16) - (1 << 64) == -errno.ENOSPC
    assert output(kernel, 'unlink("/d/f"); open("f", NEW, 0o600); write(3, "again", 5)').split()[-1].endswith(b"5")


# --- descriptors ------------------------------------------------------------------------------------------------------


def test_fork_shares_files_and_exec_closes_some(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    parent = FilesStruct.new(kernel)
    file = kernel.file_system.new_regular(kernel.file_system.tmpfs, 0o600)
    dentry = kernel.file_system.add(kernel.file_system.walk().last(b"/f"), file)
    parent.install(file.open(kernel, dentry, 2))
    parent.install(file.open(kernel, dentry, 2), close_on_exec=True)
    child = parent.fork()
    child.file(3).seek(7, 0)
    assert parent.file(3).offset == 7
    child.exec()
    assert [fd for fd, _ in child] == [0, 1, 2, 3]
    assert [fd for fd, _ in parent] == [0, 1, 2, 3, 4]
    for files in (parent, child):
        files.close_all()
    assert file.users == 0


def test_an_iterator_of_the_kernels_own_reads_a_file(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    dentry = kernel.file_system.walk().find(b"/proc/swaps")
    file = dentry.inode.open(kernel, dentry, 0)
    to = KernelIter(room=8)
    assert (file.read(to, 0), to.data) == (8, b"Filename")
    file.put()


# --- waiting ----------------------------------------------------------------------------------------------------------

_WAITING = """
    .equ    BUFFER, 0x70000000
    .text
    .macro  call number, a=0, b=0, c=0, d=0, e=0, f=0
    mov     rdi, \\a
    mov     rsi, \\b
    mov     rdx, \\c
    mov     r10, \\d
    mov     r8, \\e
    mov     r9, \\f
    mov     eax, \\number
    syscall
    .endm
_start:
    call    9, BUFFER, 0x40000, 3, 0x32, -1
    call    22, BUFFER                      # pipe: 3 and 4
    call    57                              # fork
    test    eax, eax
    jz      child
"""
A_READER_WAITS = """
    call    0, 3, BUFFER, 100               # the parent reads before anything is there
    call    1, 1, BUFFER, rax
    call    3, 4
    call    0, 3, BUFFER, 100               # and again, until the last writer is gone
    mov     edi, eax
    mov     eax, 60
    syscall
child:
    mov     ebx, 300000
1:  dec     ebx
    jnz     1b
    mov     rax, 0x0a21646c726f77
    mov     [BUFFER], rax
    call    1, 4, BUFFER, 7
    call    60, 0
"""
A_WRITER_WAITS = """
    call    3, 3
    call    1, 4, BUFFER, 0x30001           # three times what fits
    shr     rax, 12
    mov     edi, eax
    mov     eax, 60
    syscall
child:
    call    3, 4
    xor     ebx, ebx
1:  mov     rdi, 3
    mov     rsi, BUFFER
    mov     edx, 1000
    xor     eax, eax
    syscall
    add     rbx, rax
    test    rax, rax
    jnz     1b
    mov     [BUFFER], rbx
    call    1, 1, BUFFER, 8
    call    60, 0
"""


@pytest.mark.native
@requires_native
@pytest.mark.parametrize("program_text", [A_READER_WAITS, A_WRITER_WAITS], ids=["a reader", "a writer"])
def test_who_cannot_go_on_sleeps_until_the_other_side_moves(program_text: str, make_kernel: MakeKernel) -> None:
    stdout = io.BytesIO()
    kernel = make_kernel(stdout=stdout)
    kernel.spawn(assemble_source(_WAITING + program_text))
    result = kernel.run()
    native = run_native(_WAITING + program_text)
    assert NativeResult(stdout.getvalue(), result.exit_code, result.signal) == native


# --- files that are written when they are read ------------------------------------------------------------------------


def test_meminfo_and_buddyinfo_tell_the_frames(make_kernel: MakeKernel) -> None:
    kernel = make_kernel({"ram": "16M"}, stdout=io.BytesIO())
    meminfo = dict(line.split(":") for line in read(kernel, "/proc/meminfo").decode().splitlines())
    assert meminfo["MemTotal"].split() == [str(kernel.frames.total * 4), "kB"]
    assert 0 < int(meminfo["MemFree"].split()[0]) < kernel.frames.total * 4
    node, zone, *counts = read(kernel, "/proc/buddyinfo").decode().replace("Node 0, zone", "Node zone").split()[:20]
    assert (node, zone) == ("Node", "zone")
    free = sum(int(count) << order for order, count in enumerate(counts[1:]))
    assert 0 < free < kernel.frames.total


def test_kallsyms_tells_where_the_kernels_functions_are(make_kernel: MakeKernel) -> None:
    kernel = make_kernel(stdout=io.BytesIO())
    lines = [line.split() for line in read(kernel, "/proc/kallsyms").decode().splitlines()]
    symbols = {name: int(va, 16) for va, _, name in lines[:-1]}
    assert symbols["do_syscall_64"] == kernel.text.symbols["do_syscall_64"]
    assert list(symbols.values()) == sorted(symbols.values())


def test_a_process_finds_itself_in_proc(make_kernel: MakeKernel) -> None:
    kernel = make_kernel(stdout=io.BytesIO())
    process = kernel.spawn(
        guest(
            """
            readlink("/proc/self", BUFFER, 9); dump(1); open("/proc/self/cmdline", 0); read(3, BUFFER, 50); dump(9)
            open("/proc/1/comm", 0); read(4, BUFFER, 50); dump(4); readlink("/proc/self/exe", BUFFER, 50); dump(9)
            readlink("/proc/self/cwd", BUFFER, 9); dump(2); readlink("/proc/self/root", BUFFER, 9); dump(1)
            open("/proc/1/fd", 0); readlink("/proc/1/fd/5", BUFFER, 99); dump(10); stat("/proc/2", BUFFER)"""
        ),
        ["prog", "arg1"],
    )
    kernel.run()
    stdout = kernel.stdout
    assert isinstance(stdout, io.BytesIO)
    text = stdout.getvalue().decode()
    path = process.image.path
    for shown in ("1", "prog\0arg1", path[:3], f"/{path}"[:9], "/d", "/proc/1/fd"):
        assert shown in text


def test_a_knob_is_read_written_and_refused(make_kernel: MakeKernel) -> None:
    kernel = make_kernel(stdout=io.BytesIO())
    path = "/proc/sys/vm/swappiness"
    assert (read(kernel, path), swappiness.value(kernel)) == (b"60\n", 60)
    assert output(kernel, f'open("{path}", O_RDWR); write(3, "7\\n", 2)').split()[-1].endswith(b"2")
    assert (read(kernel, path), swappiness.value(kernel)) == (b"7\n", 7)
    refused = output(kernel, f'open("{path}", O_WRONLY); write(3, "201", 3); write(3, "x", 1); write(3, "-1", 2)')
    assert [int(line, 16) - (1 << 64) for line in refused.split()[1:]] == [-errno.EINVAL] * 3
    assert swappiness.value(kernel) == 7


def test_a_file_is_one_function(make_kernel: MakeKernel) -> None:
    @proc_file("/proc/[pid]/lesson")
    def lesson(kernel: Kernel, process: object) -> bytes:
        return b"process %d of %d\n" % (getattr(process, "pid", 0), len(kernel.processes))

    assert read(make_kernel(stdout=io.BytesIO()), "/proc/self/lesson") == b"process 1 of 1\n"


def test_randomness_repeats_from_run_to_run(make_kernel: MakeKernel) -> None:
    first, second = (read(make_kernel(stdout=io.BytesIO()), "/dev/urandom") for _ in range(2))
    assert first == second
    assert len(set(first)) == 256


def test_a_path_that_leads_nowhere_is_an_errno(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    with pytest.raises(Errno, match="ENOENT"):
        kernel.file_system.walk().find(b"/nowhere")
    with pytest.raises(Errno, match="ENOTDIR"):
        kernel.file_system.walk().find(b"/dev/null/x")
