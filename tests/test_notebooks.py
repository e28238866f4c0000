"""In a notebook the objects of cr3 are tables, and the notebook among the examples runs."""

from __future__ import annotations

import os
from html.parser import HTMLParser
from typing import Any

import pytest
from command import ROOT

from emu import Machine
from emu.assembler import assemble
from emu.state import TlbKind
from kernel import Kernel


class Tables(HTMLParser):
    """The tables of a piece of HTML: a caption and rows of cells each."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.captions: list[str] = []
        self.rows: list[list[str]] = []
        self._into: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, _attributes: object) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("caption", "th", "td"):
            self._into = self.captions if tag == "caption" else self.rows[-1]
            self._into.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("caption", "th", "td"):
            self._into = None

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            self._into[-1] += data


def shown(value: Any) -> Tables:
    """What a notebook shows for a value."""
    return Tables(value._repr_html_())


def test_results_maps_walks_and_tlbs_are_tables() -> None:
    machine = Machine(ram="16M")
    kernel = Kernel(machine, pti=True)
    process = kernel.spawn(assemble(ROOT / "programs" / "segv.asm"))
    result = kernel.run(before_exit=True)
    tables = shown(result)
    assert tables.captions[0] == f"signal 11 after {result.stats['cycles']['total']:,} cycles"
    assert ["page faults, protection", "1"] in tables.rows
    assert len(str(result)) < 100
    assert str(process).startswith("<Process 1 ")

    maps = process.mm.maps()
    assert [row[4] for row in shown(maps).rows[1:]] == [process.mm.name_of(vma) for vma in maps]
    assert str(maps).splitlines()[0].startswith("401000-402000 r-xp ")

    walk = kernel.page_walk(process, process.image.entry)
    assert [row[0] for row in shown(walk).rows[1:]] == ["PML4", "PDPT", "PD", "PT"]
    assert shown(walk).captions == [f"{walk.va:#x}: physical address {walk.pa:#x}"]

    held = machine.mmu.contents(TlbKind.DTLB)
    rows = shown(held).rows[1:]
    assert [int(row[1], 16) for row in rows] == [one.va for one in held]
    assert {row[4] for row in rows} >= {"1", "2049"}
    kernel.close()


def test_the_notebook_of_the_examples_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="running notebooks needs nbformat")
    nbclient = pytest.importorskip("nbclient", reason="running notebooks needs nbclient")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    notebook = nbformat.read(ROOT / "examples" / "tour.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(ROOT)}}).execute()
    results = [output.data for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output]
    assert "exit code 0 after" in results[0]["text/html"]
    assert "COPY_ON_WRITE" in results[1]["text/plain"]
    assert all("<table>" in data["text/html"] for data in results[2:]) and len(results) == 5
