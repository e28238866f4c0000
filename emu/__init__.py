"""The hardware of cr3: what a processor manual describes, and nothing about any operating system.

Real x86-64 code runs in Unicorn; the page walker, TLBs, privilege, exceptions and time around it are modelled here.
Start with `Machine`, which shows a complete example.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .assembler import assemble
    from .events import Event, event, event_names
    from .exceptions import (
        AssemblyError,
        EmuError,
        GuestHalted,
        HookError,
        ImageError,
        InputError,
        MachineError,
        ProfileError,
        TripleFault,
    )
    from .guest import Guest, GuestState
    from .hub import Hub, Subscription
    from .machine import Halt, Machine
    from .profile import Profile, load_profile, profile_names
    from .pte import PAGE_SHIFT, PAGE_SIZE, Access, Cr0, Cr4, Efer, Pte, Rflags
    from .recording import Recording
    from .walk_report import PageWalkReport, Step, page_walk

__all__ = [
    "PAGE_SHIFT",
    "PAGE_SIZE",
    "Access",
    "AssemblyError",
    "Cr0",
    "Cr4",
    "Efer",
    "EmuError",
    "Event",
    "Guest",
    "GuestHalted",
    "GuestState",
    "Halt",
    "HookError",
    "Hub",
    "ImageError",
    "InputError",
    "Machine",
    "MachineError",
    "PageWalkReport",
    "Profile",
    "ProfileError",
    "Pte",
    "Recording",
    "Rflags",
    "Step",
    "Subscription",
    "TripleFault",
    "assemble",
    "event",
    "event_names",
    "load_profile",
    "page_walk",
    "profile_names",
]

_HOMES: Final = {
    "assembler": ("assemble",),
    "events": ("Event", "event", "event_names"),
    "exceptions": (
        "AssemblyError",
        "EmuError",
        "GuestHalted",
        "HookError",
        "ImageError",
        "InputError",
        "MachineError",
        "ProfileError",
        "TripleFault",
    ),
    "guest": ("Guest", "GuestState"),
    "hub": ("Hub", "Subscription"),
    "machine": ("Halt", "Machine"),
    "profile": ("Profile", "load_profile", "profile_names"),
    "pte": ("PAGE_SHIFT", "PAGE_SIZE", "Access", "Cr0", "Cr4", "Efer", "Pte", "Rflags"),
    "recording": ("Recording",),
    "walk_report": ("PageWalkReport", "Step", "page_walk"),
}
"""Where each public name is at home. They are imported when they are asked for first: a program that only assembles
need not wait for the machine."""


def __getattr__(name: str) -> Any:
    """Import a public name from its home."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
