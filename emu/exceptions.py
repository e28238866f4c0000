"""Everything that emu raises, as one tree.

    EmuError
    ├── InputError           a person's input is wrong: one clear message, exit code 2
    │   ├── AssemblyError    assembly source: file, line, column, what was expected
    │   ├── ImageError       an ELF file that is damaged or not for us
    │   └── ProfileError     a CPU profile that is missing or does not fit the schema
    ├── HookError            a hook raised something; the guest's state is with it
    ├── MachineError         the machine cannot go on (access outside RAM by its user)
    │   ├── TripleFault      not even a double fault could be delivered
    │   └── GuestHalted      HLT with interrupts disabled
    └── ProcessorException   inside the machine only: an exception on its way to the guest's IDT

A guest program's mistakes never raise: they become exceptions of the modelled processor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .events import Event
    from .guest import GuestState

__all__ = [
    "AssemblyError",
    "EmuError",
    "GuestHalted",
    "HookError",
    "ImageError",
    "InputError",
    "MachineError",
    "ProcessorException",
    "ProfileError",
    "TripleFault",
]


class EmuError(Exception):
    """Base class of all errors raised by the emu package."""


class InputError(EmuError):
    """Something a person typed or a file they named is wrong; the message says what was expected."""


class AssemblyError(InputError):
    """Assembly source does not assemble.

    `path`, `line` and `column` (both from 1; 0 when not known) say where, `text` is the offending source line.
    """

    def __init__(self, path: str, line: int, column: int, message: str, text: str = "") -> None:
        self.path, self.line, self.column, self.message, self.text = path, line, column, message, text
        place = ":".join([path, *(str(n) for n in (line, column) if n)])
        shown = f"\n    {text.strip()}" if text.strip() else ""
        super().__init__(f"{place}: {message}{shown}")

    def __reduce__(self) -> tuple[type[AssemblyError], tuple[str, int, int, str, str]]:
        """Pickles as it was made, so that it can come from another process."""
        return AssemblyError, (self.path, self.line, self.column, self.message, self.text)


class ImageError(InputError):
    """An ELF file is damaged, is not a static x86-64 executable, or a named file is no program at all."""


class ProfileError(InputError):
    """A CPU profile is unknown, or its TOML does not have the shape or the sources it must have."""


class HookError(EmuError):
    """A hook raised something, which is the cause of this error (`__cause__`); the machine has stopped.

    `event` is what the hook was told, `guest` a copy of the registers at that moment. The run can be gone on with.
    """

    def __init__(self, event: Event, guest: GuestState, error: Exception) -> None:
        self.event, self.guest, self.__cause__ = event, guest, error
        where = f"rip {guest.rip:#x}, pid {guest.pid}, cycle {guest.cycle:,}"
        super().__init__(f"a hook raised {type(error).__name__}: {error} ({where})")


class MachineError(EmuError):
    """The machine cannot go on, or was asked for something that is not there (such as RAM beyond its end)."""


class ProcessorException(EmuError):  # noqa: N818 - the manual's word
    """An exception of the modelled processor (#PF, #GP ...) on its way to the IDT; it never leaves the machine.

    `vector` is its number, `error_code` what is pushed (None: nothing), `address` goes to CR2 for #PF.
    """

    def __init__(self, vector: int, error_code: int | None = None, address: int | None = None) -> None:
        self.vector, self.error_code, self.address = vector, error_code, address
        super().__init__(f"exception {vector}, error code {error_code}, address {address}")


class TripleFault(MachineError):  # noqa: N818 - the manual's word
    """The processor could not deliver a double fault: a real one would reset now. The message tells the story."""


class GuestHalted(MachineError):  # noqa: N818 - a state, like TripleFault
    """HLT with interrupts disabled: nothing can ever wake the processor."""
