"""The price of isolation depends on which pages a program uses between two system calls.

Always about 5,000 calls a second at 3 GHz. Without PCIDs each call forgets what the STLB held (1,536 pages on skylake):
that is dear where the same pages are used again, and cheap where the program would have missed anyway.
"""

from lab.compare import standard
from lab.compare_suite import outcomes_of
from lab.options import Options
from lab.workloads import working_set

COUNT = 20
PATTERNS = ((25_600, 1000), (25_600, 3000), (4_096, 1000), (1_500, 1000), (1_500, 3000), (500, 1000))


def main() -> None:
    """Run every pattern on the three machines, side by side."""
    workloads = {
        (pages, loads): working_set(COUNT, loads, 600_000 - 40 * loads, pages, f"{loads} loads from {pages} pages")
        for pages, loads in PATTERNS
    }
    machines = standard(Options(programs=("",), populate=True))
    outcomes = iter(outcomes_of([(workload, machine) for workload in workloads.values() for machine in machines]))
    print(f"{'pages':>8}{'loads':>8}{'PCID':>10}{'no PCID':>10}{'times':>8}")
    for pages, loads in workloads:
        off, pcid, no_pcid = (next(outcomes).cycles for _ in machines)
        more, most = pcid / off - 1, no_pcid / off - 1
        print(f"{pages:8,}{loads:8,}{more:10.3%}{most:10.3%}{most / more:8.1f}")


if __name__ == "__main__":
    main()
