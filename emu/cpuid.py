"""CPUID from a table of ours (SDM Vol. 2A, CPUID): what the profile is, and only features that the machine executes.

Unicorn would answer with a Haswell of its own, a hypervisor bit and a host random-number generator.

>>> from emu.profile import load_profile
>>> eax, ebx, ecx, edx = cpuid(load_profile("skylake"), 0, 0)
>>> b"".join(word.to_bytes(4, "little") for word in (ebx, edx, ecx))
b'GenuineIntel'
"""

from __future__ import annotations

from typing import Final

from .profile import Profile

__all__ = ["cpuid"]

Words = tuple[int, int, int, int]
NOTHING: Final[Words] = (0, 0, 0, 0)

LEAF1_EDX: Final = sum(1 << bit for bit in (0, 3, 4, 5, 6, 8, 11, 15, 19, 23, 24, 25, 26))
"""FPU PSE TSC MSR PAE CX8 SEP CMOV CLFSH MMX FXSR SSE SSE2; PGE is the profile's."""
LEAF1_ECX: Final = sum(1 << bit for bit in (0, 1, 9, 13, 19, 20, 22, 23, 25))
"""SSE3 PCLMULQDQ SSSE3 CX16 SSE4.1 SSE4.2 MOVBE POPCNT AES; no XSAVE, no AVX, no RDRAND; PCID is the profile's."""
LEAF7_EBX: Final = sum(1 << bit for bit in (0, 3, 8))
"""FSGSBASE BMI1 BMI2; SMEP, INVPCID, SMAP, CLFLUSHOPT and CLWB are the profile's."""
EXTENDED_ECX: Final = 1 << 0 | 1 << 5
"""LAHF in 64-bit mode, LZCNT; PREFETCHW is the profile's."""
EXTENDED_EDX: Final = 1 << 11 | 1 << 27 | 1 << 29
"""SYSCALL RDTSCP long mode; NX and 1 GiB pages are the profile's."""
LAST_LEAF: Final = 7
LAST_EXTENDED: Final = 0x8000_0008


def _signature(profile: Profile) -> int:
    """Family, model and stepping as leaf 1 packs them (SDM Vol. 2A Figure 3-6)."""
    cpu = profile.cpu
    base, extended = min(cpu.family, 15), max(cpu.family - 15, 0)
    return extended << 20 | (cpu.model >> 4) << 16 | base << 8 | (cpu.model & 15) << 4 | cpu.stepping


def _word(data: bytes, index: int) -> int:
    return int.from_bytes(data[4 * index : 4 * index + 4], "little")


def cpuid(profile: Profile, leaf: int, subleaf: int) -> Words:
    """EAX, EBX, ECX, EDX of one leaf; zeros for a leaf that does not exist."""
    f, cpu = profile.features, profile.cpu
    if leaf in (0, 0x8000_0000):
        vendor = cpu.vendor.encode().ljust(12, b"\0")
        last = LAST_EXTENDED if leaf else LAST_LEAF
        return last, _word(vendor, 0), _word(vendor, 2), _word(vendor, 1)
    if leaf == 1:
        return _signature(profile), 8 << 8, LEAF1_ECX | f.pcid << 17, LEAF1_EDX | f.pge << 13
    if leaf == 7 and subleaf == 0:
        memory = f.smep << 7 | f.invpcid << 10 | f.smap << 20 | f.clflushopt << 23 | f.clwb << 24
        return 0, LEAF7_EBX | memory, f.la57 << 16, 0
    if leaf == 0x8000_0001:
        return 0, 0, EXTENDED_ECX | f.prefetchw << 8, EXTENDED_EDX | f.nx << 20 | f.page1g << 26
    if 0x8000_0002 <= leaf <= 0x8000_0004:
        part = cpu.brand.encode().ljust(48, b"\0")[16 * (leaf - 0x8000_0002) :]
        return _word(part, 0), _word(part, 1), _word(part, 2), _word(part, 3)
    if leaf == LAST_EXTENDED:
        return cpu.physical_address_bits | (57 if f.la57 else 48) << 8, 0, 0, 0
    return NOTHING
