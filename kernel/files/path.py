"""From a path to a file: one component at a time, through symbolic links (fs/namei.c).

    walk "/a/link/../c"     here = root
         a                  a directory: go in
         link -> "../b"     a symbolic link: its components come next, here stays
         ..  b              up, but never above the root; into b
         ..  c              the last component: the answer is (its directory, its name, what is there)

Nothing here knows the host: every component is looked up in the guest's own tree.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..exceptions import Errno
from .directory import Directory, Symlink
from .inode import Dentry

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["PATH_MAX", "Last", "Walk"]

PATH_MAX: Final = 4096
"""Bytes of a path with its terminating null (include/uapi/linux/limits.h)."""
MAXSYMLINKS: Final = 40
"""Links in one walk (include/linux/namei.h)."""


@dataclass(frozen=True, slots=True)
class Last:
    """Where a path ends: `dentry` has the name `name` in `directory`, or is None if nothing has.

    `slash` says that the path ends with one, and so means a directory. `.`, `..` and `/` have `ordinary` False.
    """

    directory: Dentry
    name: bytes
    dentry: Dentry | None
    slash: bool = False

    @property
    def ordinary(self) -> bool:
        """Whether the path ends with a name (LAST_NORM)."""
        return self.name not in (b"/", b".", b"..")


class Walk:
    """One walk: `root` is where absolute paths begin and `..` ends, `start` where others begin."""

    def __init__(self, kernel: Kernel, root: Dentry, start: Dentry) -> None:
        self._kernel, self._root, self._start = kernel, root, start
        self._links = 0

    def find(self, path: bytes, *, follow: bool = True) -> Dentry:
        """What a path leads to; `follow` also follows a link at its end. Raises Errno."""
        last = self.last(path, follow=follow or path.endswith(b"/"))
        if last.dentry is None:
            raise Errno(errno.ENOENT)
        if last.slash and not isinstance(last.dentry.inode, Directory):
            raise Errno(errno.ENOTDIR)
        return last.dentry

    def last(self, path: bytes, *, follow: bool = False) -> Last:
        """Where a path ends, whether or not something is there. Raises Errno."""
        if not path:
            raise Errno(errno.ENOENT)
        here = self._root if path.startswith(b"/") else self._start
        pending = _components(path)
        slash = path.endswith(b"/")
        if not pending:
            return Last(here, b"/", here, slash)
        while True:
            name = pending.pop()
            dentry = self._step(here, name)
            if dentry is not None and isinstance(dentry.inode, Symlink) and (pending or follow):
                here, target = self._follow(here, dentry)
                if target is not None and not pending:
                    slash = slash or target.endswith(b"/")
                pending += _components(target or b"")
                if not pending:
                    return Last(here.parent or here, here.name if target is None else b"/", here, slash)
                continue
            if not pending:
                return Last(here, name, dentry, slash)
            if dentry is None:
                raise Errno(errno.ENOENT)
            here = dentry

    def _step(self, here: Dentry, name: bytes) -> Dentry | None:
        """What a name means in a place. Raises Errno: ENOTDIR, ENAMETOOLONG."""
        inode = here.inode
        if not isinstance(inode, Directory):
            raise Errno(errno.ENOTDIR)
        if name == b".":
            return here
        if name == b"..":
            return here if here is self._root or here.parent is None else here.parent
        return inode.lookup(self._kernel, here, name)

    def _follow(self, here: Dentry, link: Dentry) -> tuple[Dentry, bytes | None]:
        """Where a link says to go on, and by which path; None if it is already there. Raises Errno(ELOOP)."""
        assert isinstance(link.inode, Symlink)
        self._links += 1
        if self._links > MAXSYMLINKS:
            raise Errno(errno.ELOOP)
        there = link.inode.jump(self._kernel)
        if there is not None:
            return there, None
        target = link.inode.target(self._kernel)
        if not target:
            raise Errno(errno.ENOENT)
        return (self._root if target.startswith(b"/") else here), target


def _components(path: bytes) -> list[bytes]:
    """The names of a path, the first one last.

    >>> _components(b"/a//b/")
    [b'b', b'a']
    """
    return [name for name in reversed(path.split(b"/")) if name]
