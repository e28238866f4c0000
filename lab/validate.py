"""The model held to published measurements, each row with both numbers.

A row is *fitted* if a cost in a CPU profile or in the kernel was chosen so that it comes out, and *validated* if
the model was only compared with it. What page-table isolation adds is never fitted: the entry code's two writes of
CR3, the TLB misses that follow, the walks, and the instructions around them add up to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from .compare import Outcome, label, standard
from .compare_suite import outcomes_of
from .compare_view import new_table, print_table
from .options import Options
from .workloads import Workload, computing, dont_need, null_system_calls, working_set, zero_page_faults

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["CHECKS", "Check", "Results", "Row", "as_dict", "measure", "render"]

SCHEMA: Final = "cr3.validation/1"

GARLOFF: Final = "K. Garloff, KPTI/IBRS/Retpoline Microbenchmarks, 2018: getppid() (columns read as off, auto, nopcid)"
GREGG: Final = "B. Gregg, KPTI/KAISER Meltdown Initial Performance Regressions, 2018-02-09 (overheads at 3 GHz)"
TORVALDS: Final = "L. Torvalds, Google+, 2014-04-30: page faults on Haswell (715 + 330, 80.7 % of the whole)"
AMIT: Final = "N. Amit, LKML, 2019-08: madvise(MADV_DONTNEED) on Skylake with PTI, local flush"
KAISER: Final = "D. Gruss et al., KASLR is Dead, ESSoS 2017: compute-bound suites, 0.28 % on average, 0.68 % at most"

OFF, PCID, NO_PCID = "PTI off", "PTI, PCID", "PTI, no PCID"
ALL: Final = (OFF, PCID, NO_PCID)

NULL: Final = null_system_calls(300)
RATE_10K: Final = computing(10, 300_000, "10k a second")
RATE_50K: Final = computing(10, 60_000, "50k a second")
RATE_200K: Final = computing(20, 15_000, "200k a second")
WORKING_SET: Final = working_set(40, 1000, 560_000, 25_600, "5k a second, 100 MB")
HUGE_PAGES: Final = replace(WORKING_SET, name="5k a second, 100 MB in huge pages")
COMPUTE: Final = working_set(1, 1_000_000, 60_000_000, 1000, "compute-bound")
FAULTS: Final = zero_page_faults(300)
DONT_NEED: Final = {pages: dont_need(100, pages) for pages in (1, 10)}

RUNS: Final[tuple[tuple[Workload, str, tuple[str, ...]], ...]] = (
    (WORKING_SET, "skylake", ALL),
    (HUGE_PAGES, "skylake", (PCID,)),
    (COMPUTE, "skylake", (OFF, PCID)),
    *((NULL, cpu, ALL) for cpu in ("broadwell", "skylake", "haswell")),
    *((workload, "skylake", ALL) for workload in (RATE_10K, RATE_50K)),
    (RATE_200K, "skylake", (OFF, PCID)),
    (FAULTS, "haswell", (OFF,)),
    *((workload, "skylake", (PCID,)) for workload in DONT_NEED.values()),
)
"""What is run: a workload, a processor, the machines; the longest first."""


class Results:
    """What was measured, by workload, processor and machine."""

    def __init__(self, outcomes: dict[tuple[str, str, str], Outcome]) -> None:
        self._outcomes = outcomes

    def each(self, workload: Workload, machine: str = OFF, cpu: str = "skylake") -> float:
        """Cycles of one operation."""
        return self._outcomes[workload.name, cpu, machine].cycles / workload.count

    def added(self, workload: Workload, machine: str, cpu: str = "skylake") -> float:
        """Cycles that isolation adds to one operation."""
        return self.each(workload, machine, cpu) - self.each(workload, OFF, cpu)

    def percent(self, workload: Workload, machine: str, baseline: Workload | None = None) -> float:
        """What an operation takes more than without isolation (there maybe as another workload), in percent of that."""
        before = self.each(baseline or workload)
        return 100 * (self.each(workload, machine) - before) / before

    def causes(self, workload: Workload, cpu: str, *names: str) -> float:
        """Cycles of some causes in one operation without isolation."""
        by_cause = self._outcomes[workload.name, cpu, OFF].stats["cycles"]["by_cause"]
        return float(sum(by_cause[name] for name in names) / workload.count)

    def timed(self, workload: Workload) -> float:
        """What a program with PTI and PCIDs says itself that one of its operations takes."""
        return int.from_bytes(self._outcomes[workload.name, "skylake", PCID].stdout, "little") / workload.count


@dataclass(frozen=True, slots=True)
class Check:
    """A published number: what was published, between which bounds ours is right, and how to get ours."""

    what: str
    published: str
    low: float
    high: float
    unit: str
    source: str
    ours: Callable[[Results], float]
    fitted: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A check that was made."""

    what: str
    published: str
    low: float
    high: float
    unit: str
    source: str
    fitted: bool
    ours: float

    @property
    def is_right(self) -> bool:
        """Whether ours is within the bounds."""
        return self.low <= self.ours <= self.high


def _null(cpu: str, off: str, pcid: str, no_pcid: str) -> list[Check]:
    """The null system call on one processor; the bounds are those of all its published rows without IBRS."""
    return [
        Check(
            f"null call, {cpu}, PTI off", off, 115, 150, "cycles", GARLOFF,
            lambda r: r.each(NULL, OFF, cpu), fitted=True,
        ),
        Check(
            f"null call, {cpu}, PTI with PCID adds", pcid, 400, 480, "cycles", GARLOFF,
            lambda r: r.added(NULL, PCID, cpu),
        ),
        Check(
            f"null call, {cpu}, PTI without PCID adds", no_pcid, 700, 1250, "cycles", GARLOFF,
            lambda r: r.added(NULL, NO_PCID, cpu),
        ),
    ]  # fmt: skip


CHECKS: Final = (
    *_null("broadwell", "140", "440", "760"),
    *_null("skylake", "120 to 130 (guest)", "400 to 430 (guest)", "1030 to 1070 (guest)"),
    *_null("haswell", "115 to 150", "435 to 480", "1250 (guest)"),
    Check(
        "10k calls a second, PCID", "below 0.5", 0, 0.5, "%", GREGG,
        lambda r: r.percent(RATE_10K, PCID),
    ),
    Check(
        "50k calls a second, no PCID", "about 2 (PCID not known)", 1, 3, "%", GREGG,
        lambda r: r.percent(RATE_50K, NO_PCID),
    ),
    Check(
        "50k calls a second over 10k, PCID", "5 (linear)", 4.5, 5.5, "times", GREGG,
        lambda r: r.percent(RATE_50K, PCID) / r.percent(RATE_10K, PCID),
    ),
    Check(
        "200k calls a second over 10k, PCID", "20 (linear)", 18, 22, "times", GREGG,
        lambda r: r.percent(RATE_200K, PCID) / r.percent(RATE_10K, PCID),
    ),
    Check(
        "5k a second, 100 MB, PCID", "about 0.5", 0.4, 0.6, "%", GREGG,
        lambda r: r.percent(WORKING_SET, PCID),
    ),
    Check(
        "5k a second, 100 MB, no PCID", "2.1", 1.7, 2.5, "%", GREGG,
        lambda r: r.percent(WORKING_SET, NO_PCID),
    ),
    Check(
        "the same, no PCID over PCID", "4.2", 3, 5, "times", GREGG,
        lambda r: r.percent(WORKING_SET, NO_PCID) / r.percent(WORKING_SET, PCID),
    ),
    Check(
        "the same in huge pages, PCID", "-3.0, a gain", -100, 0, "%", GREGG,
        lambda r: r.percent(HUGE_PAGES, PCID, WORKING_SET),
    ),
    Check(
        "worst case, no PCID", "above 800", 300, float("inf"), "%", GREGG,
        lambda r: r.percent(NULL, NO_PCID),
    ),
    Check(
        "compute-bound, PCID", "0.28, at most 0.68", 0, 1, "%", KAISER,
        lambda r: r.percent(COMPUTE, PCID),
    ),
    Check(
        "page fault and IRET, haswell", "1050", 945, 1155, "cycles", TORVALDS,
        lambda r: r.causes(FAULTS, "haswell", "exceptions", "entry_exit"), fitted=True,
    ),
    Check(
        "a whole zero-page fault, haswell", "about 1301", 1171, 1431, "cycles", TORVALDS,
        lambda r: r.each(FAULTS, OFF, "haswell"),
    ),
    Check(
        "madvise, a page more, PTI", "519", 415, 623, "cycles", AMIT,
        lambda r: (r.timed(DONT_NEED[10]) - r.timed(DONT_NEED[1])) / 9, fitted=True,
    ),
    Check(
        "madvise, 1 page, PTI", "2119", 1695, 2543, "cycles", AMIT,
        lambda r: r.timed(DONT_NEED[1]),
    ),
    Check(
        "madvise, 10 pages, PTI", "6791", 5433, 8149, "cycles", AMIT,
        lambda r: r.timed(DONT_NEED[10]),
    ),
)  # fmt: skip
"""Bounds are the published range where there is one, else 20 % around the number, 10 % for page faults."""


def measure(*, jobs: int | None = None) -> list[Row]:
    """Run everything, and check every number."""
    todo, keys = [], []
    for workload, cpu, wanted in RUNS:
        populate, thp = workload in (WORKING_SET, HUGE_PAGES), "always" if workload is HUGE_PAGES else "never"
        for options in standard(Options(programs=("",), cpu=cpu, populate=populate, thp=thp)):
            if label(options) in wanted:
                todo.append((workload, options))
                keys.append((workload.name, cpu, label(options)))
    results = Results(dict(zip(keys, outcomes_of(todo, jobs=jobs), strict=True)))
    return [_row(check, results) for check in CHECKS]


def _row(check: Check, results: Results) -> Row:
    values = {field: getattr(check, field) for field in Check.__slots__ if field != "ours"}
    return Row(**values, ours=check.ours(results))


def render(rows: Sequence[Row], console: Console) -> None:
    """Print the table, and the sources behind it."""
    sources = list(dict.fromkeys(row.source for row in rows))
    table = new_table()
    for head, justify in (
        ("", "left"),
        ("unit", "left"),
        ("published", "right"),
        ("ours", "right"),
        ("", "left"),
        ("", "left"),
    ):
        table.add_column(head, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for row in rows:
        verdict = f"{'fitted' if row.fitted else 'validated'}, {'ok' if row.is_right else 'misses'}"
        source = f"({sources.index(row.source) + 1})"
        table.add_row(row.what, row.unit, row.published, number(row.ours), verdict, source)
    print_table(table, console)
    console.print()
    for place, source in enumerate(sources, 1):
        console.print(f"({place}) {source}", soft_wrap=True)


def number(value: float) -> str:
    """Three or four figures, as far as they mean anything.

    >>> number(1234.56), number(4.2345), number(0.13456)
    ('1235', '4.23', '0.135')
    """
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def as_dict(rows: Sequence[Row]) -> dict[str, Any]:
    """The rows for JSON; a bound that is not there is null."""
    return {"schema": SCHEMA, "rows": [_row_dict(row) for row in rows]}


def _row_dict(row: Row) -> dict[str, Any]:
    high = row.high if row.high != float("inf") else None
    return {**asdict(row), "high": high, "verdict": "ok" if row.is_right else "misses"}
