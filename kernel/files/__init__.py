"""The file system: one tree of files in memory, the page cache that holds their content, and descriptors.

Read `inode.py` and `file.py` first, then `page_cache.py`: a page of a file is a frame, and mmap maps that frame.
"""

from __future__ import annotations

from . import huge_pages, proc, proc_maps, proc_status, proc_system, sysctl  # - they register generated files
from .file import File
from .file_system import FileSystem
from .inode import Dentry, Inode
from .page_cache import Mapping, PageCache
from .regular import Regular, RegularFile
from .table import FilesStruct

__all__ = [
    "Dentry",
    "File",
    "FileSystem",
    "FilesStruct",
    "Inode",
    "Mapping",
    "PageCache",
    "Regular",
    "RegularFile",
    "huge_pages",
    "proc",
    "proc_maps",
    "proc_status",
    "proc_system",
    "sysctl",
]
