"""The tree of files, and what changes it: create, link, rename and their like (fs/namei.c, mm/shmem.c).

    /           tmpfs, or a directory of the host's that the user passed
    /dev        devices: null zero full random urandom tty; stdin stdout stderr fd, links into /proc
    /proc /sys  files that are written anew whenever they are read (generated.py)
    /tmp        tmpfs

All of it is the guest's own. Boot makes names, not content: not one frame is taken before a file is read or written.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final

from ..exceptions import Errno
from . import page_cache
from .device import Device
from .directory import Directory, Symlink, TreeDirectory
from .generated import generated_tree
from .host import HostDirectory, HostTree, add_host_files
from .inode import NAME_MAX, Dentry, Inode, SuperBlock
from .page_cache import PageCache, Source
from .path import Last, Walk
from .pipe import Fifo
from .regular import Regular
from .stream import Stream, standard_streams

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ..kernel import Kernel
    from .file import File

__all__ = ["FileSystem", "Magic"]

DEVICES: Final = {b"null": (1, 3), b"zero": (1, 5), b"full": (1, 7), b"random": (1, 8), b"urandom": (1, 9)}
"""Character devices that everybody may use (Documentation/admin-guide/devices.txt)."""
DEVICE_LINKS: Final = {
    **{b"fd": b"/proc/self/fd", b"stdin": b"/proc/self/fd/0"},
    **{b"stdout": b"/proc/self/fd/1", b"stderr": b"/proc/self/fd/2"},
}
MAX_LINKS: Final = 65000
RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2


class Magic:
    """f_type of file systems (include/uapi/linux/magic.h)."""

    TMPFS: Final = 0x0102_1994
    PROC: Final = 0x9FA0
    SYSFS: Final = 0x6265_6572
    PIPEFS: Final = 0x5049_5045
    OVERLAY: Final = 0x794C_7630


class FileSystem:
    """The one tree of a kernel. `clock` tells nanoseconds; `mounts` are (path, file system) for /proc/mounts.

    `root` and `files` are the host's, see `Kernel`. Raises InputError if they are not there.
    """

    def __init__(
        self,
        kernel: Kernel,
        cache: PageCache,
        clock: Callable[[], int],
        root: Path | None = None,
        files: Mapping[str, Path] | None = None,
    ) -> None:
        self._kernel, self.cache, self._clock = kernel, cache, clock
        self.mounts: list[tuple[bytes, SuperBlock]] = []
        self.tmpfs = self._super_block(b"tmpfs", Magic.TMPFS)
        self.pipefs = self._super_block(b"pipefs", Magic.PIPEFS)
        self._streams = standard_streams(self.pipefs, kernel.stdin, kernel.stdout, kernel.stderr)
        self._written_back: list[page_cache.Mapping] = []
        self._host = HostTree(root) if root is not None else None
        self.root = self._make_root()
        self.mounts.append((b"/", self.root.inode.sb))
        self.mount(b"tmp", TreeDirectory(self.tmpfs, 0o1777))
        self.mount(b"proc", generated_tree(self._super_block(b"proc", Magic.PROC), b"/proc"))
        self.mount(b"sys", generated_tree(self._super_block(b"sysfs", Magic.SYSFS), b"/sys"))
        self._populate_dev(self.mount(b"dev", TreeDirectory(self._super_block(b"devtmpfs", Magic.TMPFS))))
        add_host_files(self, files or {})

    def _make_root(self) -> Dentry:
        """`/`: empty, or the directory that the user passed."""
        if self._host is None:
            return Dentry(b"/", None, TreeDirectory(self.tmpfs))
        directory = HostDirectory(self._super_block(b"overlay", Magic.OVERLAY), self.cache, self._host)
        directory.dentry = Dentry(b"/", None, directory)
        return directory.dentry

    def _super_block(self, name: bytes, magic: int) -> SuperBlock:
        device = os.makedev(0, 20 + len(self.mounts))
        return SuperBlock(name, device, magic, self._clock)

    def mount(self, name: bytes, directory: Directory) -> Dentry:
        """Put a directory into the root, in place of what has the name."""
        root = self.root.inode
        assert isinstance(root, TreeDirectory)
        if name in root.children:
            root.detach(root.children[name])
        if directory.sb is not root.sb:
            self.mounts.append((b"/" + name, directory.sb))
        return root.add(self.root, name, directory)

    def _populate_dev(self, dev: Dentry) -> None:
        directory = dev.inode
        assert isinstance(directory, TreeDirectory)
        for name, number in {**DEVICES, b"tty": (5, 0)}.items():
            directory.add(dev, name, Device(directory.sb, stat.S_IFCHR | 0o666, os.makedev(*number)))
        for name, target in DEVICE_LINKS.items():
            directory.add(dev, name, Symlink(directory.sb, target))

    def standard_files(self) -> list[File]:
        """Standard input, output and error, opened for a first process."""
        streams = [dentry.inode for dentry in self._streams]
        flags = [inode.flags for inode in streams if isinstance(inode, Stream)]
        return [dentry.inode.open(self._kernel, dentry, flag) for dentry, flag in zip(self._streams, flags)]

    def sync(self) -> None:
        """Write what was changed to the host's files that can be written."""
        for mapping in self._written_back:
            mapping.sync()

    def close(self) -> None:
        """Free the content of all files."""
        self.root.inode.evict()
        if self._host is not None:
            self._host.close()

    # --- new inodes -------------------------------------------------------------------------------------------------

    def new_regular(self, sb: SuperBlock, permissions: int) -> Regular:
        """An empty regular file."""
        return Regular(sb, page_cache.Mapping(self.cache), permissions)

    def new_node(self, sb: SuperBlock, mode: int, rdev: int) -> Inode:
        """What mknod(2) makes. Raises Errno: EPERM for a directory, EINVAL."""
        kind, permissions = stat.S_IFMT(mode), mode & 0o7777
        if kind in (0, stat.S_IFREG):
            return self.new_regular(sb, permissions)
        if kind == stat.S_IFIFO:
            return Fifo(sb, permissions)
        if kind in (stat.S_IFCHR, stat.S_IFBLK):
            return Device(sb, mode, rdev)
        raise Errno(errno.EPERM if kind == stat.S_IFDIR else errno.EINVAL)

    def leave_host(self) -> None:
        """From now on no file of the host's changes: what the guest writes to it stays here. Raises Errno(EIO)."""
        for mapping in self._written_back:
            mapping.leave_source()

    def add_file(
        self, path: bytes, source: Source, size: int, permissions: int = 0o644, *, writable: bool = True
    ) -> Dentry:
        """Put a file with content into the tree, for the kernel itself. Raises Errno."""
        mapping = page_cache.Mapping(self.cache, size, source, write_back=writable)
        dentry = self.add_inode(path, Regular(self.tmpfs, mapping, permissions, read_only=not writable))
        if writable:
            self._written_back.append(mapping)
        return dentry

    def add_inode(self, path: bytes, inode: Inode) -> Dentry:
        """Give an inode a place in the tree; directories on the way are made. Raises Errno(ENOTDIR)."""
        *folders, name = [part for part in path.split(b"/") if part]
        here = self.root
        for folder in folders:
            directory = here.inode
            if not isinstance(directory, TreeDirectory):
                raise Errno(errno.ENOTDIR)
            found = directory.lookup(self._kernel, here, folder)
            here = found or directory.add(here, folder, TreeDirectory(self.tmpfs))
        directory = here.inode
        if not isinstance(directory, TreeDirectory):
            raise Errno(errno.ENOTDIR)
        inode.nlink = 1
        return directory.add(here, name, inode)

    # --- changes ----------------------------------------------------------------------------------------------------

    def walk(self, start: Dentry | None = None, root: Dentry | None = None) -> Walk:
        """A walk from a directory, by default from the root."""
        return Walk(self._kernel, root or self.root, start or root or self.root)

    def add(self, last: Last, inode: Inode) -> Dentry:
        """Give a new inode its first name. Raises Errno: EEXIST, ENOENT, ENAMETOOLONG."""
        directory = self._directory_for(last, is_directory=isinstance(inode, Directory))
        return directory.add(last.directory, last.name, inode)

    def _directory_for(self, last: Last, *, is_directory: bool = False) -> TreeDirectory:
        """The directory that takes a new name (filename_create). Raises Errno."""
        if last.dentry is not None:
            raise Errno(errno.EEXIST)
        if last.slash and not is_directory:
            raise Errno(errno.ENOENT)
        return _changeable(last.directory, creating=True)

    def link(self, dentry: Dentry, last: Last) -> None:
        """One more name for a file. Raises Errno: EPERM for directories, EXDEV, EMLINK."""
        if last.dentry is not None:
            raise Errno(errno.EEXIST)
        inode = dentry.inode
        if inode.sb is not last.directory.inode.sb:
            raise Errno(errno.EXDEV)
        directory = self._directory_for(last)
        if isinstance(inode, Directory):
            raise Errno(errno.EPERM)
        if not inode.nlink:
            raise Errno(errno.ENOENT)
        if inode.nlink >= MAX_LINKS:
            raise Errno(errno.EMLINK)
        inode.nlink += 1
        inode.ctime = inode.sb.clock()
        directory.add(last.directory, last.name, inode)

    def unlink(self, last: Last) -> None:
        """Remove a name that is no directory's. Raises Errno."""
        if not last.ordinary:
            raise Errno(errno.EISDIR)
        if last.dentry is None:
            raise Errno(errno.ENOENT)
        is_directory = isinstance(last.dentry.inode, Directory)
        if last.slash:
            raise Errno(errno.EISDIR if is_directory else errno.ENOTDIR)
        directory = _changeable(last.directory)
        if is_directory:
            raise Errno(errno.EISDIR)
        self._remove(directory, last.dentry)

    def rmdir(self, last: Last) -> None:
        """Remove an empty directory. Raises Errno."""
        if not last.ordinary:
            raise Errno({b".": errno.EINVAL, b"..": errno.ENOTEMPTY}.get(last.name, errno.EBUSY))
        if last.dentry is None:
            raise Errno(errno.ENOENT)
        directory = _changeable(last.directory)
        self._check_removable(last.dentry)
        self._remove(directory, last.dentry)

    def _check_removable(self, dentry: Dentry) -> None:
        """Raises Errno if this is no empty directory, or another file system's root."""
        if not isinstance(dentry.inode, Directory):
            raise Errno(errno.ENOTDIR)
        _check_no_mount(dentry)
        if any(True for _ in dentry.inode.entries(self._kernel, dentry, 0)):
            raise Errno(errno.ENOTEMPTY)

    def _remove(self, directory: TreeDirectory, dentry: Dentry) -> None:
        directory.detach(dentry)
        self._forget(dentry)

    def _forget(self, dentry: Dentry) -> None:
        """A name is gone; the file goes with its last one."""
        dentry.unlinked = True
        inode = dentry.inode
        if isinstance(inode, TreeDirectory):
            inode.dead, inode.nlink = True, 0
        else:
            inode.nlink -= 1
        inode.ctime = inode.sb.clock()
        inode.drop_if_unused()

    def rename(self, old: Last, new: Last, flags: int) -> None:
        """Move a name, over what has the new one (do_renameat2, vfs_rename). Raises Errno."""
        if old.directory.inode.sb is not new.directory.inode.sb:
            raise Errno(errno.EXDEV)
        if not old.ordinary:
            raise Errno(errno.EBUSY)
        if not new.ordinary:
            raise Errno(errno.EEXIST if flags & RENAME_NOREPLACE else errno.EBUSY)
        dentry, target = old.dentry, new.dentry
        if dentry is None:
            raise Errno(errno.ENOENT)
        if flags & RENAME_NOREPLACE and target is not None:
            raise Errno(errno.EEXIST)
        exchange = bool(flags & RENAME_EXCHANGE)
        if exchange and target is None:
            raise Errno(errno.ENOENT)
        _check_no_mount(dentry)
        self._check_rename(old, new, dentry, exchange=exchange)
        if target is not None and target.inode is dentry.inode:
            return
        source, destination = _changeable(old.directory), _changeable(new.directory, creating=target is None)
        if target is not None and not exchange:
            self._check_replaceable(dentry, target)
            destination.detach(target)
            self._forget(target)
        source.detach(dentry)
        if exchange and target is not None:
            destination.detach(target)
            _move(target, old.directory, source, old.name)
        _move(dentry, new.directory, destination, new.name)

    def _check_rename(self, old: Last, new: Last, dentry: Dentry, *, exchange: bool) -> None:
        """Raises Errno: ENOTDIR for a slash behind what is no directory, EINVAL and ENOTEMPTY for circles."""
        if not isinstance(dentry.inode, Directory) and (old.slash or (new.slash and not exchange)):
            raise Errno(errno.ENOTDIR)
        if _is_below(new.directory, dentry):
            raise Errno(errno.EINVAL)
        if new.dentry is not None and _is_below(old.directory, new.dentry):
            raise Errno(errno.EINVAL if exchange else errno.ENOTEMPTY)
        if len(new.name) > NAME_MAX:
            raise Errno(errno.ENAMETOOLONG)

    def _check_replaceable(self, dentry: Dentry, target: Dentry) -> None:
        """Raises Errno: a directory replaces only an empty one, and nothing else does."""
        if isinstance(dentry.inode, Directory):
            self._check_removable(target)
        elif isinstance(target.inode, Directory):
            raise Errno(errno.EISDIR)


def _changeable(dentry: Dentry, *, creating: bool = False) -> TreeDirectory:
    """A directory whose names can be changed. Raises Errno."""
    directory = dentry.inode
    assert isinstance(directory, Directory)
    directory.check_changeable(creating=creating)
    assert isinstance(directory, TreeDirectory)
    return directory


def _check_no_mount(dentry: Dentry) -> None:
    """Raises Errno(EBUSY) for the root of another file system."""
    if dentry.parent is not None and dentry.inode.sb is not dentry.parent.inode.sb:
        raise Errno(errno.EBUSY)


def _is_below(dentry: Dentry, ancestor: Dentry) -> bool:
    here: Dentry | None = dentry
    while here is not None and here is not ancestor:
        here = here.parent
    return here is ancestor


def _move(dentry: Dentry, parent: Dentry, directory: TreeDirectory, name: bytes) -> None:
    """Give a detached dentry its new place; all who have it open see it move."""
    dentry.parent, dentry.name = parent, name
    dentry.inode.ctime = dentry.inode.sb.clock()
    directory.attach(dentry)
