"""What mkdocs asks when it builds the site: pages that lie outside this folder, and links to files of the project."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

import reference

ROOT = Path(__file__).parent.parent
OUTSIDE = {
    "README.md": "index.md",
    "programs/README.md": "programs/README.md",
    "examples/README.md": "examples/README.md",
}
"""Files of the project that lie elsewhere, and the pages that they become."""
LINK = re.compile(r"(\]\()([^)#\s]+)([^)]*\))")
PUBLISHED = (".asm", ".py", ".ipynb", ".json", ".toml", ".s")
"""Kinds of the project's files that pages link to; they are copied into the site."""


def on_files(files: Files, config: Any) -> Files:
    """Add the README as the first page, and the programs' page."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    files.append(File.generated(config, "reference/events.md", content=reference.events_page()))
    files.append(File.generated(config, "reference/statistics.md", content=reference.statistics_page()))
    for folder in ("programs", "examples", "lab/schemas", "emu", "kernel"):
        for path in sorted((ROOT / folder).iterdir()):
            if path.suffix in PUBLISHED:
                files.append(File.generated(config, f"{folder}/{path.name}.txt", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Turn links to files of the project into links to pages of the site."""
    here = posixpath.dirname(_place(page.file.src_uri))

    def resolve(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(here, match[2]))
        if "://" in match[2] or match[2].startswith("mailto:"):
            return match[0]
        for name in _names(target):
            if files.get_file_from_path(name) is not None:
                return f"{match[1]}{posixpath.relpath(name, posixpath.dirname(page.file.src_uri) or '.')}{match[3]}"
        return match[0]

    return LINK.sub(resolve, markdown)


def _place(src_uri: str) -> str:
    """Where a page lies in the project."""
    return next((source for source, page in OUTSIDE.items() if page == src_uri), f"docs/{src_uri}")


def _names(target: str) -> list[str]:
    """What a file of the project may be called in the site."""
    return [OUTSIDE.get(target, target.removeprefix("docs/")), f"{target}.txt", f"{target}/README.md"]
