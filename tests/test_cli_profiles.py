"""`cr3 profiles`: the processors that there are, and where every number comes from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from command import cr3

from emu.profile import PROFILES, profile_names


def test_every_profile_is_one_line() -> None:
    lines = cr3("profiles").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == profile_names()


def test_one_profile_shows_every_value_with_its_source() -> None:
    lines = cr3("profiles", "skylake").stdout.splitlines()
    document = json.loads(cr3("profiles", "skylake", "--json").stdout)
    assert len(lines) == len(document["values"])
    for line, value in zip(lines, document["values"], strict=True):
        assert line.startswith(value["key"]) and line.endswith(value["source"])


def test_json_has_all_of_them() -> None:
    document = json.loads(cr3("profiles", "--json").stdout)
    assert [row["name"] for row in document["profiles"]] == profile_names()


def test_a_file_of_your_own_is_a_profile_everywhere(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    shutil.copy(PROFILES / "zen2.toml", mine)
    assert json.loads(cr3("profiles", mine, "--json").stdout)["name"] == "mine"
    assert (
        cr3("run", "--cpu", mine, Path(__file__).parent.parent / "programs" / "hello.asm").stdout == "Hello, world!\n"
    )
