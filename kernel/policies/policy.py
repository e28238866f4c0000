"""What a replacement policy is told and asked, and where the policies are listed.

A policy decides which page gives way when memory is short. It is told which pages there are, it may look at the bits
that the processor leaves in page-table entries, and it names a victim. A whole one:

    @policy("fifo")
    class Fifo(ReplacementPolicy):
        def __init__(self, bits, seed=1):
            super().__init__(bits, seed)
            self._queue = {}

        def added(self, page):
            self._queue[page] = None

        def removed(self, page):
            del self._queue[page]

        def victim(self):
            return next(iter(self._queue))

Pages are numbers: of frames when the kernel asks, of virtual pages when a recorded run is replayed.

>>> find_policy("fifo").__name__
'Fifo'
"""

from __future__ import annotations

import functools
import importlib.util
import random
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, TypeVar

from emu import InputError, MachineError

from ..exceptions import KernelError

__all__ = ["PageBits", "ReplacementPolicy", "find_policy", "policy", "policy_names"]

_METHODS: Final = ("__init__", "added", "removed", "victim", "refused", "tick", "accessed", "cold")
_POLICIES: dict[str, type[ReplacementPolicy]] = {}
_P = TypeVar("_P", bound="type[ReplacementPolicy]")


class PageBits(Protocol):
    """What the processor left in the page-table entries of a page."""

    def referenced(self, page: int) -> bool:
        """Whether the page was used since this was asked last (the A bit, read and cleared)."""
        ...

    def used(self, pages: Collection[int]) -> set[int]:
        """Those of some pages that were used since this was asked last: the same for many at once, which is cheaper."""
        ...

    def dirty(self, page: int) -> bool:
        """Whether the page must be written before it can go (the D bit, read only)."""
        ...


class ReplacementPolicy(ABC):
    """Chooses which page gives way.

    `bits` asks the page-table entries, `random` is for those who throw dice. `sees_accesses` says that `accessed` is
    what the policy lives on; it is called for every access where each is seen one by one (a recorded run; data
    accesses of the kernel's programs with the engine `access`), and never elsewhere.
    """

    name: ClassVar[str] = ""
    sees_accesses: ClassVar[bool] = False
    knows_future: ClassVar[bool] = False
    """Whether it must be given the whole run before it starts (`future`)."""

    def __init__(self, bits: PageBits, seed: int = 1) -> None:
        self.bits, self.random = bits, random.Random(seed)

    @abstractmethod
    def added(self, page: int) -> None:
        """A page is in memory from now on. It was just used."""

    @abstractmethod
    def removed(self, page: int) -> None:
        """A page is gone: it was the victim, or nobody wants it any more."""

    @abstractmethod
    def victim(self) -> int:
        """The page that shall go. There is at least one. It stays until `removed`."""

    def refused(self, page: int) -> None:
        """The victim cannot go now (it is locked, or the device is full): another one will be asked for."""
        self.removed(page)
        self.added(page)

    def tick(self) -> None:  # noqa: B027 - a policy may do without
        """Some time has passed: a timer interrupt while memory is short, or a thousand references of a replay."""

    def accessed(self, page: int) -> None:  # noqa: B027
        """The page was read, written or executed. See `sees_accesses`."""

    def cold(self, page: int) -> None:  # noqa: B027
        """The program says that it will not need the page soon (MADV_COLD). Its A bit is clear already."""


def policy(name: str) -> Callable[[_P], _P]:
    """Class decorator: give a policy the name by which it is chosen."""

    def register(cls: _P) -> _P:
        cls.name = name
        _POLICIES[name] = cls
        return cls

    return register


def policy_names() -> list[str]:
    """All policies, in the order of the file that lists them."""
    return list(_POLICIES)


def find_policy(name: str) -> type[ReplacementPolicy]:
    """A policy by its name, or from a file as `./my_policy.py:MyPolicy`. Raises InputError."""
    if name in _POLICIES:
        return _POLICIES[name]
    path, colon, class_name = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        known = ", ".join(_POLICIES)
        raise InputError(f"unknown replacement policy {name!r}; there are {known}, or FILE.py:CLASS for your own")
    return _from_file(Path(path), class_name)


def _from_file(path: Path, class_name: str) -> type[ReplacementPolicy]:
    module = _load(path)
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, ReplacementPolicy)):
        raise InputError(f"{path}: there is no class {class_name} that is a ReplacementPolicy")
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise InputError(f"{path}: {class_name} has no {', no '.join(missing)}")
    return _guarded(path, found)


def _guarded(path: Path, cls: type[ReplacementPolicy]) -> type[ReplacementPolicy]:
    """The same class; what goes wrong in it is told with its place, as the mistake of who wrote it."""

    def guard(name: str) -> Callable[..., Any]:
        method = getattr(cls, name)

        @functools.wraps(method)
        def guarded(*arguments: Any, **options: Any) -> Any:
            try:
                return method(*arguments, **options)
            except (InputError, MachineError, KernelError):
                raise
            except Exception as error:
                lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if at.filename == str(path)]
                place = ":".join(map(str, [path, *lines[-1:]]))
                said = f"{type(error).__name__}: {error}"
                raise InputError(f"{place}: {cls.__name__}.{name}() failed: {said}") from error

        return guarded

    return type(cls.__name__, (cls,), {"name": cls.name or cls.__name__, **{name: guard(name) for name in _METHODS}})


def _load(path: Path) -> Any:
    """Run a file of Python. What goes wrong in it is the user's to mend."""
    spec = importlib.util.spec_from_file_location(f"cr3_policy_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"cannot read the replacement policy {path}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{path}: {type(error).__name__}: {error}") from None
    return module
