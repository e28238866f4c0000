"""A guest sees of the host what the user passed, and changes nothing of it but what the user let it write.

`--root` shows a folder. The tests build one beside a secret, let guests try everything that could lead there, and
listen to every file that Python opens meanwhile.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from command import cr3, source
from file_programs import program
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emu import InputError, Machine
from emu.assembler import assemble_source
from kernel import Kernel

pytestmark = pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="this host cannot open files without links")

SECRET = b"nobody but the host may read this"
EIO, EROFS, ENOENT, ENXIO, EINVAL = 5, 30, 2, 6, 22

_opened: list[object] | None = None


def _listen(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _opened is not None:
        _opened.append(arguments[0])


sys.addaudithook(_listen)


@contextmanager
def every_open_is_one_name(passed: Collection[Path]) -> Iterator[None]:
    """Nothing may be opened but by a single name, relative to a directory that is open, and what the user passed."""
    global _opened
    _opened = []
    try:
        yield
        paths = {os.fsdecode(path) for path in _opened if isinstance(path, str | bytes)} - set(map(str, passed))
        assert all("/" not in path and path not in (".", "..") for path in paths), paths
    finally:
        _opened = None


@pytest.fixture(scope="module", autouse=True)
def everything_is_imported() -> None:
    """What the first run of all imports is no file of the guest's."""
    kernel = Kernel(Machine(ram="8M"))
    kernel.spawn(assemble_source(program("getpid()")))
    kernel.run()
    kernel.close()


@pytest.fixture(scope="module")
def jail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to be the guest's root, full of ways out, beside a secret."""
    outside = tmp_path_factory.mktemp("host")
    (outside / "secret").write_bytes(SECRET)
    (outside / "more").mkdir()
    jail = outside / "jail"
    (jail / "dir" / "deep").mkdir(parents=True)
    (jail / "file").write_bytes(b"the guest may read this")
    (jail / "dir" / "file").write_bytes(b"x" * 10_000)
    (jail / "inside").symlink_to("/dir/file")
    (jail / "up").symlink_to("..")
    (jail / "relative").symlink_to("../secret")
    (jail / "absolute").symlink_to(outside / "secret")
    (jail / "rootlink").symlink_to("/")
    (jail / "dir" / "far").symlink_to("../../../../../.." + str(outside))
    (jail / "host proc").symlink_to("/proc/self/root")
    os.mkfifo(jail / "fifo")
    return jail


def run(root: Path | None, calls: str, files: Mapping[str, Path] | None = None) -> bytes:
    """What a guest prints that makes these calls with this root and these files."""
    stdout = io.BytesIO()
    kernel = Kernel(Machine(ram="8M"), stdout=stdout, root=root, files=files)
    image = assemble_source(program(calls))
    kernel.spawn(image)
    with every_open_is_one_name(list((files or {}).values())):
        result = kernel.run()
    kernel.close()
    assert (result.exit_code, result.signal) == (0, None)
    assert kernel.frames.used == kernel.boot_frames
    return stdout.getvalue()


def answers(output: bytes) -> list[int]:
    """The numbers that a guest printed, one a line."""
    numbers = [int(line, 16) for line in output.splitlines()]
    return [number - (1 << 64) if number >> 63 else number for number in numbers]


def read_all(path: str, fd: int) -> str:
    return f'open("{path}", O_RDONLY); read({fd}, BUFFER, 100)'


def test_what_is_in_the_root_can_be_read(jail: Path) -> None:
    output = run(jail, 'open("/file", 0); read(3, BUFFER, 100); dump(23); open("/inside", 0); fstat(4, BUFFER)')
    assert b"the guest may read this" in output
    assert answers(output.replace(b"the guest may read this", b"")) == [3, 23, 4, 0]


@pytest.mark.parametrize(
    "path",
    [
        *("../secret", "/../secret", "../../../../secret", "/dir/../../secret", "dir/deep/../../../secret"),
        *("/relative", "/absolute", "/up/secret", "/up/../secret", "/dir/far/secret", "/rootlink/../secret"),
        *("/proc/self/root/../secret", "/proc/self/cwd/../../secret", "/proc/1/root/../../secret"),
        *("/host proc/../secret", "/proc/self/fd/../../../secret", "/dev/fd/../../../secret", "/dev/../../secret"),
    ],
)
def test_no_path_gets_out(jail: Path, path: str) -> None:
    output = run(jail, f'open("{path}", O_RDONLY); stat("{path}", BUFFER); access("{path}", 0)')
    assert answers(output) == [-ENOENT, -ENOENT, -ENOENT]


def test_the_hosts_own_paths_mean_nothing(jail: Path) -> None:
    output = run(jail, f'open("{jail.parent}/secret", O_RDONLY); chdir("{jail.parent}"); open("{jail}/file", 0)')
    assert answers(output) == [-ENOENT] * 3


def test_a_descriptor_of_the_root_is_no_way_out(jail: Path) -> None:
    output = run(
        jail,
        """
        open("/", O_DIRECTORY); openat(3, "../secret", O_RDONLY); fchdir(3); open("../secret", O_RDONLY)
        openat(3, "up/secret", 0); open("/proc/self/fd/3/../secret", 0)""",
    )
    assert answers(output) == [3, -ENOENT, 0, -ENOENT, -ENOENT, -ENOENT]


def test_links_that_the_guest_makes_lead_nowhere(jail: Path) -> None:
    output = run(
        jail,
        f"""
        symlink("{jail.parent}/secret", "/a"); open("/a", O_RDONLY)
        link("/absolute", "/b"); open("/b", O_RDONLY)
        linkat(AT_FDCWD, "/absolute", AT_FDCWD, "/c", 0x400); rename("/dir/far", "/far"); open("/far/secret", 0)""",
    )
    assert answers(output) == [0, -ENOENT, 0, -ENOENT, -ENOENT, 0, -ENOENT]


def test_what_is_no_file_folder_or_link_does_not_exist(jail: Path) -> None:
    output = run(jail, 'open("/fifo", O_RDONLY); stat("/fifo", BUFFER)')
    assert answers(output) == [-ENOENT, -ENOENT]


def test_device_nodes_are_the_guests_kernels(jail: Path) -> None:
    memory, disk, null = os.makedev(1, 1), os.makedev(8, 0), os.makedev(1, 3)
    output = run(
        jail,
        f"""
        mknod("/mem", 0o020666, {memory}); open("/mem", O_RDWR)
        mknod("/sda", 0o060666, {disk}); open("/sda", O_RDONLY)
        mknod("/null", 0o020666, {null}); open("/null", O_RDWR); write(3, "gone", 4); read(3, BUFFER, 4)""",
    )
    assert answers(output) == [0, -ENXIO, 0, -ENXIO, 0, 3, 4, 0]


def snapshot(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
        found[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_nlink, content)
    return found


def test_what_the_guest_changes_stays_with_the_guest(jail: Path) -> None:
    before = snapshot(jail.parent)
    output = run(
        jail,
        """
        open("/file", O_RDWR); write(3, "HACKED", 6); pread64(3, BUFFER, 10, 0); dump(10)
        open("/dir/file", O_WRONLY | O_TRUNC); unlink("/inside"); mkdir("/new", 0o755); open("/new/f", NEW, 0o600)
        rename("/dir", "/moved"); truncate("/moved/file", 5); chmod("/file", 0); link("/file", "/new/g")
        symlink("a", "/s"); unlink("/file"); rmdir("/moved/deep"); fsync(3); utimensat(AT_FDCWD, "/new", 0, 0)""",
    )
    assert b"HACKED" in output
    assert all(answer >= 0 for answer in answers(output.replace(b"HACKEDest ", b"")))
    assert snapshot(jail.parent) == before


def test_a_folder_that_becomes_a_link_while_the_guest_runs_is_not_followed(tmp_path: Path) -> None:
    outside, jail = tmp_path / "outside", tmp_path / "jail"
    for folder in (outside, jail / "dir"):
        folder.mkdir(parents=True)
    (outside / "file").write_bytes(SECRET)
    (jail / "dir" / "file").write_bytes(b"what the guest was promised......")
    stdout = io.BytesIO()
    kernel = Kernel(Machine(ram="8M"), stdout=stdout, root=jail)
    kernel.file_system.walk().find(b"/dir/file")  # the guest knows the name already
    (jail / "dir").rename(jail / "was")
    (jail / "dir").symlink_to(outside)
    kernel.spawn(assemble_source(program('open("/dir/file", O_RDONLY); read(3, BUFFER, 100)')))
    kernel.run()
    kernel.close()
    assert answers(stdout.getvalue()) == [3, -EIO]


NAMES = ["..", "..", ".", "dir", "deep", "up", "relative", "absolute", "rootlink", "far", "host proc", "secret", "more"]
ANY_PATH = st.lists(st.sampled_from(NAMES), min_size=1, max_size=7).map("/".join)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(ANY_PATH, st.sampled_from(["", "/", "/proc/self/root/", "/proc/self/cwd/"])), max_size=40))
def test_no_walk_whatever_ends_at_the_secret(jail: Path, paths: list[tuple[str, str]]) -> None:
    calls = [f'open("{prefix}{path}", O_RDONLY); read(3, BUFFER, 100); dump(40); close(3)' for path, prefix in paths]
    moves = [f'chdir("{prefix}{path}")' for path, prefix in paths[::3]]
    output = run(jail, "\n".join([*calls, *moves, 'open("secret", 0)', *calls, "getpid()"]))
    assert SECRET not in output


# --- single files -------------------------------------------------------------------------------------------------


def test_a_file_is_read_only_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    file = tmp_path / "notes"
    file.write_bytes(b"some notes")
    output = run(
        None,
        """
        open("/data/notes", O_RDONLY); read(3, BUFFER, 100); dump(10); open("/data/notes", O_RDWR)
        open("/data/notes", O_TRUNC); truncate("/data/notes", 0); access("/data/notes", 2); ftruncate(3, 0)""",
        files={"/data/notes": file},
    )
    assert b"some notes" in output
    wanted = [3, 10, -EROFS, -EROFS, -EROFS, -EROFS, -EINVAL]
    assert answers(output.replace(b"some notes", b"")) == wanted
    assert file.read_bytes() == b"some notes"


def test_a_writable_file_has_what_the_guest_wrote_when_it_is_closed(tmp_path: Path) -> None:
    file = tmp_path / "out"
    file.write_bytes(b"x" * 5000)
    kernel = Kernel(Machine(ram="8M"), files={"/out:rw": file})
    kernel.spawn(
        assemble_source(
            program('open("/out", O_RDWR); pwrite64(3, "some text", 9, 4092); ftruncate(3, 4200); close(3)')
        )
    )
    kernel.run()
    assert file.read_bytes() == b"x" * 4092 + b"some text" + b"x" * 99
    kernel.close()
    assert kernel.frames.used == kernel.boot_frames


def test_fsync_does_not_wait_for_the_end(tmp_path: Path) -> None:
    file = tmp_path / "out"
    file.touch()
    kernel = Kernel(Machine(ram="8M"), files={"/out:rw": file})
    kernel.spawn(assemble_source(program('open("/out", O_RDWR); write(3, "now", 3); fsync(3)')))
    kernel.run(before_exit=True)
    assert file.read_bytes() == b"now"
    kernel.close()


@pytest.mark.parametrize("guest", ["relative", "/dev/null/x", ""])
def test_a_file_needs_a_place_in_the_guests_tree(tmp_path: Path, guest: str) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(InputError, match="guest"):
        Kernel(Machine(ram="8M"), files={guest: tmp_path / "f"})


def test_a_root_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    for wrong in (tmp_path / "f", tmp_path / "nowhere"):
        with pytest.raises(InputError, match="root directory"):
            Kernel(Machine(ram="8M"), root=wrong)


# --- on the command line ------------------------------------------------------------------------------------------

PRINT_FILE = program('open("/notes", O_RDONLY); read(3, BUFFER, 10); dump(10)')


def test_the_command_line_passes_a_folder_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "notes").write_bytes(b"some notes")
    for options in (["--root", tmp_path], ["--file", f"{tmp_path / 'notes'}:/notes"]):
        assert "some notes" in cr3("run", *options, source(PRINT_FILE)).stdout
    assert "some notes" not in cr3("run", source(PRINT_FILE)).stdout


@pytest.mark.parametrize(
    "options", [["--root", "nowhere"], ["--file", "nowhere:/x"], ["--file", "README.md"], ["--file", "README.md:x"]]
)
def test_wrong_files_are_one_clear_message(options: list[str]) -> None:
    outcome = cr3("run", *options, source(PRINT_FILE))
    assert (outcome.exit_code, len(outcome.stderr.splitlines())) == (2, 1)
