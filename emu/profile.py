"""CPU profiles: what one processor model is like, in numbers, and where each number comes from.

Two processors with the same instruction set differ in what a kernel course measures: how many
translations their TLBs hold, how long a page walk or a write to CR3 takes, whether they have PCIDs,
whether Meltdown works on them. A profile is one TOML file in `emu/profiles` that states all of this for
one part. Each value in it is cited, or is an assumption that says why (`provenance.py`).

>>> skylake = load_profile("skylake")
>>> stlb = skylake.tlb.stlb[0]
>>> stlb.entries, stlb.ways, stlb.sets, stlb.hash
(1536, 12, 128, 'xor')
>>> skylake.costs.stlb_hit, skylake.value("costs.stlb_hit").source[:41]
(9, "Intel's top-down metrics, Linux tools/per")
>>> skylake.value("costs.wrmsr").is_assumption
True

A profile is added by a file; docs/profiles.md shows a whole one. Its keys are the field names here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

from .exceptions import ProfileError
from .provenance import SourcedToml, Unit, Value

__all__ = [
    "PAGE_SIZES",
    "Cache",
    "Caches",
    "Costs",
    "Cpu",
    "Features",
    "OutOfOrder",
    "PagingStructureCaches",
    "Profile",
    "TlbGeometry",
    "Tlbs",
    "Vulnerabilities",
    "array_for",
    "load_profile",
    "profile_names",
]

PROFILES: Final = Path(__file__).with_name("profiles")

LINE_SIZE: Final = 64
"""Bytes of a cache line, on every part; CLFLUSH and `cache.py` count on it."""

PAGE_SIZES: Final = {"4K": 12, "2M": 21, "1G": 30}
"""Page sizes as a profile names them, and how far each shifts an address to make a page number."""

Flag = Annotated[bool, Unit()]
Text = Annotated[str, Unit()]
Number = Annotated[int, Unit()]
Cycles = Annotated[int, Unit("cycles")]
Entries = Annotated[int, Unit("entries", least=1)]
Ways = Annotated[int, Unit("ways", least=1)]

Problems = Iterator[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Cpu:
    """Who the processor says it is: CPUID leaves 0, 1, 80000002H to 80000004H and 80000008H."""

    vendor: Text  # 12 characters: EBX, EDX, ECX of leaf 0
    family: Number  # base and extended family together, as /proc/cpuinfo shows it
    model: Number  # extended and base model together
    stepping: Annotated[int, Unit(most=15)]
    brand: Text  # at most 47 characters
    physical_address_bits: Annotated[int, Unit("bits", least=32, most=52)]
    frequency_mhz: Annotated[int, Unit("MHz", least=1)]  # turns cycles into seconds

    def problems(self) -> Problems:
        """Yield (key, what is wrong) for text that CPUID has no room for."""
        if not (self.vendor.isascii() and len(self.vendor) == 12):
            yield "vendor", f'"{self.vendor}" must be 12 ASCII characters, such as GenuineIntel'
        if not (self.brand.isascii() and len(self.brand) <= 47):
            yield "brand", "must be at most 47 ASCII characters (CPUID returns 48 bytes, the last one zero)"


@dataclass(frozen=True, slots=True)
class Features:
    """What memory management asks CPUID for."""

    pcid: Flag  # CR4.PCIDE: TLB entries tagged with a process-context identifier
    invpcid: Flag
    smep: Flag
    smap: Flag
    pge: Flag  # CR4.PGE: global pages
    nx: Flag  # EFER.NXE: no-execute
    page1g: Flag  # 1 GiB pages
    la57: Flag  # CR4.LA57: 5-level paging
    clflushopt: Flag
    clwb: Flag
    prefetchw: Flag


@dataclass(frozen=True, slots=True)
class Vulnerabilities:
    """Which transient-execution attacks work on the part when software does nothing against them."""

    meltdown: Flag
    meltdown_needs_l1d: Flag  # ... of data that the L1 data cache holds at that moment
    l1tf: Flag
    spectre_v1: Flag


@dataclass(frozen=True, slots=True)
class OutOfOrder:
    """How far the core executes ahead of what retires."""

    reorder_buffer: Annotated[int, Unit("instructions", least=1)]
    store_buffer: Annotated[int, Unit("stores", least=1, most=64)]
    return_stack: Annotated[int, Unit("entries", least=1, most=32)]  # addresses behind calls that a RET is guessed from


@dataclass(frozen=True, slots=True)
class TlbGeometry:
    """One array of a TLB: which page sizes it holds, its entries and ways, how a page chooses its set."""

    sizes: Annotated[tuple[str, ...], Unit(words=tuple(PAGE_SIZES))]
    entries: Entries
    ways: Annotated[int | str, Unit("ways", least=1, words=("full",))]  # "full": fully associative
    hash: Annotated[str, Unit(words=("linear", "xor"))]

    @property
    def associativity(self) -> int:
        """Ways of each set as a number: all entries, if fully associative."""
        return self.ways if isinstance(self.ways, int) else self.entries

    @property
    def sets(self) -> int:
        """Number of sets, a power of two."""
        return self.entries // self.associativity

    @property
    def hash_bits(self) -> int:
        """0 for a linear hash; n for XOR-n, where 2**n is the number of sets."""
        return self.sets.bit_length() - 1 if self.hash == "xor" else 0

    def set_of(self, page_number: int) -> int:
        """Return the set that holds a page: an address shifted right by its page size (`PAGE_SIZES`).

        "linear" takes the low bits; "xor" first folds the next bits onto them, XOR-7 for 128 sets and
        XOR-8 for 256 (github.com/vusec/tlbdr: `TSL2` in case-studies/tlbleed/madtlb.c).

        >>> stlb = TlbGeometry(sizes=("4K", "2M"), entries=1536, ways=12, hash="xor")
        >>> stlb.set_of(0b1), stlb.set_of(0b1_0000000), stlb.set_of(0b1_0000001)
        (1, 1, 0)
        """
        if self.hash_bits:
            page_number ^= page_number >> self.hash_bits
        return page_number & (self.sets - 1)

    def problems(self) -> Problems:
        """Yield (key, what is wrong) for a geometry that cannot be built."""
        if self.entries % self.associativity:
            yield "entries", f"{self.entries} entries do not divide into {self.ways} ways"
        elif not _is_power_of_two(self.sets):
            yield (
                "entries",
                f"{self.entries} entries in {self.ways} ways make {self.sets} sets, not a power of two",
            )
        elif self.hash == "xor" and self.sets == 1:
            yield "hash", "a single set has nothing to hash: must be linear"


@dataclass(frozen=True, slots=True)
class Tlbs:
    """The two first-level TLBs, and the second-level TLB (STLB) behind both; `stlb` may be empty.

    Each level is a list of arrays that hold different page sizes.
    """

    itlb: tuple[TlbGeometry, ...]
    dtlb: tuple[TlbGeometry, ...]
    stlb: tuple[TlbGeometry, ...]

    def problems(self) -> Problems:
        """Yield (key, what is wrong) where a page would have two places, or none."""
        for level in ("itlb", "dtlb", "stlb"):
            held = [size for array in getattr(self, level) for size in array.sizes]
            for size in PAGE_SIZES:
                if held.count(size) > 1:
                    yield level, f"{size} pages have more than one place"
                elif size not in held and size != "1G" and level != "stlb":
                    yield level, f"{size} pages have no place"


@dataclass(frozen=True, slots=True)
class PagingStructureCaches:
    """Fully associative caches of the entries above the leaf (SDM Vol. 3A 4.10.3); 0: not there."""

    pml4e: Annotated[int, Unit("entries")]
    pdpte: Annotated[int, Unit("entries")]
    pde: Annotated[int, Unit("entries")]


@dataclass(frozen=True, slots=True)
class Cache:
    """One level of the data and instruction caches; `latency` is the whole load-to-use time of a hit here."""

    size_kib: Annotated[int, Unit("KiB", least=1)]
    ways: Ways
    latency: Cycles
    replacement: Annotated[str, Unit(words=("lru", "plru"))]

    def sets(self, line: int) -> int:
        """Return the number of sets for lines of so many bytes."""
        return self.size_kib * 1024 // (self.ways * line)


@dataclass(frozen=True, slots=True)
class Caches:
    """The cache hierarchy as one core sees it."""

    line: Annotated[int, Unit("bytes")]
    l1d: Cache
    l1i: Cache
    l2: Cache
    llc: Cache
    llc_inclusive: Flag  # what leaves the last level leaves the others, too
    dram_latency: Cycles

    def problems(self) -> Problems:
        """Yield (key, what is wrong) for a geometry that cannot be built.

        The last-level cache may have any whole number of sets, because it is cut into slices, one a core.
        """
        if self.line != LINE_SIZE:
            yield "line", f"{self.line} bytes; every x86-64 part has lines of {LINE_SIZE}"
        for name in ("l1d", "l1i", "l2", "llc"):
            cache: Cache = getattr(self, name)
            sets = cache.sets(self.line)
            if sets * cache.ways * self.line != cache.size_kib * 1024:
                yield (
                    name,
                    f"{cache.size_kib} KiB do not divide into {cache.ways} ways of {self.line}-byte lines",
                )
            elif name != "llc" and not _is_power_of_two(sets):
                yield name, f"{cache.size_kib} KiB in {cache.ways} ways make {sets} sets, not a power of two"


@dataclass(frozen=True, slots=True)
class Costs:
    """What things cost, on top of `instructions / instructions_per_cycle`."""

    instructions_per_cycle: Annotated[int, Unit("instructions", least=1)]

    # Translation
    stlb_hit: Cycles  # a first-level miss that the STLB answers
    walk_entry_read: Cycles  # one paging-structure entry, when data caches are not modelled
    walk_ad_assist: Cycles  # setting A or D in an entry

    # Into the kernel and back
    syscall: Cycles
    sysret: Cycles
    page_fault: Cycles  # from the access to the first instruction of the handler
    exception: Cycles  # the same for any other exception, and for INT n
    interrupt: Cycles  # the same for an external interrupt
    iret: Cycles
    swapgs: Cycles

    # Address spaces
    mov_to_cr3_flush: Cycles
    mov_to_cr3_noflush: Cycles  # bit 63 set, with CR4.PCIDE
    invlpg: Cycles
    invpcid_address: Cycles  # type 0: one address of one PCID
    invpcid_context: Cycles  # type 1: one PCID
    invpcid_all: Cycles  # type 2: all, with globals
    invpcid_all_nonglobal: Cycles  # type 3: all, without globals

    # Memory
    copied_bytes_per_cycle: Annotated[int, Unit("bytes", least=1)]  # filling or copying whole blocks

    # Other instructions that are not a plain instruction's price
    mov_to_cr0: Cycles
    mov_to_cr4: Cycles
    mov_from_cr: Cycles
    wrmsr: Cycles
    rdmsr: Cycles
    rdtsc: Cycles
    cpuid: Cycles
    cli_sti: Cycles
    stac_clac: Cycles
    hlt: Cycles

    @property
    def invpcid(self) -> tuple[int, int, int, int]:
        """Cycles of INVPCID, indexed by its type (SDM Vol. 2A, INVPCID)."""
        return (self.invpcid_address, self.invpcid_context, self.invpcid_all, self.invpcid_all_nonglobal)


@dataclass(frozen=True, slots=True)
class Profile:
    """One processor model.

    `values` lists everything in it with unit and source, in the order of the fields; `sources` is the
    file's `[sources]` table.
    """

    name: str
    title: str
    path: Path
    cpu: Cpu
    features: Features
    vulnerabilities: Vulnerabilities
    out_of_order: OutOfOrder
    tlb: Tlbs
    paging_structure_caches: PagingStructureCaches
    caches: Caches
    costs: Costs
    values: tuple[Value, ...]
    sources: Mapping[str, str]

    def value(self, key: str) -> Value:
        """Return one of `values` by its key, such as "costs.syscall". Raises KeyError."""
        return {value.key: value for value in self.values}[key]

    def seconds(self, cycles: int) -> float:
        """Return cycles of the model's clock in seconds, at the part's nominal frequency."""
        return cycles / (self.cpu.frequency_mhz * 1e6)


def array_for(level: tuple[TlbGeometry, ...], size: str) -> TlbGeometry | None:
    """Return the array of one TLB level that caches pages of a size (a key of PAGE_SIZES), or None.

    A level with no place for 1 GiB pages *smashes* them: it caches the 2 MiB piece that was used.

    >>> tlb = load_profile("skylake").tlb
    >>> array_for(tlb.dtlb, "1G").sizes, array_for(tlb.itlb, "1G").sizes
    (('1G',), ('2M',))
    """
    places = {held: array for array in level for held in array.sizes}
    return places.get(size) or (places.get("2M") if size == "1G" else None)


def profile_names() -> list[str]:
    """Return the names of the profiles in `emu/profiles`, sorted."""
    return sorted(path.stem for path in PROFILES.glob("*.toml"))


def load_profile(name_or_path: str | Path) -> Profile:
    """Return the profile with that name, or the one in that .toml file.

    Raises ProfileError, with file, line and key as far as they are known, for a name that is not there
    and for a file without the shape, the sources or the geometry that a profile must have.
    """
    path = _find(name_or_path)
    file = SourcedToml(path)
    keys = ("cpu", "features", "vulnerabilities", "out_of_order", "tlb", "paging_structure_caches", "caches", "costs")
    file.check_keys(file.raw, ["title", "sources", *keys])
    title = file.raw["title"]
    if not isinstance(title, str):
        file.refuse("title", f"{title!r} must be text in quotes")
    return Profile(
        name=path.stem,
        title=title,
        path=path,
        cpu=file.table(Cpu, "cpu"),
        features=file.table(Features, "features"),
        vulnerabilities=file.table(Vulnerabilities, "vulnerabilities"),
        out_of_order=file.table(OutOfOrder, "out_of_order"),
        tlb=file.table(Tlbs, "tlb"),
        paging_structure_caches=file.table(PagingStructureCaches, "paging_structure_caches"),
        caches=file.table(Caches, "caches"),
        costs=file.table(Costs, "costs"),
        values=tuple(file.values),
        sources=MappingProxyType(file.citations),
    )


def _find(name_or_path: str | Path) -> Path:
    name = str(name_or_path)
    if name in profile_names():
        return PROFILES / f"{name}.toml"
    if name.endswith(".toml"):
        return Path(name_or_path)
    close = difflib.get_close_matches(name, profile_names(), n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(profile_names())}"
    raise ProfileError(f'no CPU profile "{name}": {hint} (or give the path of a .toml file)')


def _is_power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0
