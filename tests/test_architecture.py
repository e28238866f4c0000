"""The shape of the code: imports go one way, files stay small, every module says what it is and what it offers."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {"emu": {"emu"}, "kernel": {"emu", "kernel"}, "lab": {"emu", "kernel", "lab"}}
MODULES = [
    path
    for package in ALLOWED
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.parent.name != "stubs"  # what students begin with
]
MOST_LINES = 450

each_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))


def imported(path: Path) -> set[str]:
    """First names of everything that a module imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@each_module
def test_imports_go_from_lab_to_kernel_to_emu(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    assert imported(path) & set(ALLOWED) <= ALLOWED[package]


@each_module
def test_a_module_begins_by_saying_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))


@each_module
def test_a_file_stays_small_enough_to_read(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= MOST_LINES


def top_level(path: Path) -> dict[str, Any]:
    """What a module binds: name to node. Importing instead would compile the native code anew."""
    names: dict[str, Any] = {}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names[name] = node
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names[name] = node
            case ast.Assign(targets=[ast.Tuple(elts=several)]):
                names |= {one.id: node for one in several if isinstance(one, ast.Name)}
            case ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name: node for alias in aliases}
    return names


def defines_something(path: Path) -> bool:
    body = ast.parse(path.read_text("utf-8")).body
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in body)


@pytest.mark.parametrize(
    "path", [path for path in MODULES if defines_something(path)], ids=lambda path: str(path.relative_to(ROOT))
)
def test_a_module_says_what_it_offers(path: Path) -> None:
    namespace = top_level(path)
    assert "__all__" in namespace
    offered = ast.literal_eval(namespace["__all__"].value)
    assert set(offered) <= set(namespace)


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_offers_the_same_names_after_everything_else_was_imported(package: str) -> None:
    """A module with the name of a function would hide it, but only once it is imported."""
    check = f"""
import types, emu.machine, kernel, lab.cli, {package}
public = {{name: getattr({package}, name) for name in getattr({package}, "__all__", ())}}
assert not [name for name, value in public.items() if isinstance(value, types.ModuleType)]
"""
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT)


MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|Users|root|work|mnt|opt|var)/\w")
TEXTS = [
    path
    for folder in (*ALLOWED, "programs", "docs", "examples", "benchmarks", "tests")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".s", ".asm", ".toml", ".md", ".json")
]


def test_nothing_names_a_place_on_somebodys_machine() -> None:
    found = [path for path in TEXTS if MACHINE_PATH.search(path.read_text("utf-8"))]
    assert found == []
    assert MACHINE_PATH.search("see /" + "home/me/cr3")


def test_the_check_sees_an_import_that_goes_the_wrong_way(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text("def late():\n    from lab.cli import main\n    return main\n")
    assert "lab" in imported(wrong)
