"""What every kernel function touches, in pages: its footprint in the TLBs.

`python examples/footprint.py [PROGRAM]` runs a program under page-table isolation. For each function it prints how
often it was entered, and on the average the loads and stores that it made and the pages that it touched, by where they
are. After a flush of the TLB each of these pages is a page walk.
"""

import sys
from collections import Counter, defaultdict

from emu import Machine
from emu.assembler import assemble
from emu.events import AccessEvent
from emu.pte import PAGE_SIZE
from kernel import Kernel
from kernel.layout import CPU_ENTRY_AREA, KERNEL_TEXT, TASK_SIZE, VMALLOC, VMEMMAP
from kernel.work import all_work

PLACES = ("text", "entry", "stack", "direct", "vmemmap", "user")

machine = Machine(ram="16M")
kernel = Kernel(machine, pti=True)
entered: Counter[str] = Counter()
loads: Counter[str] = Counter()
stores: Counter[str] = Counter()
pages: defaultdict[str, Counter[str]] = defaultdict(Counter)
touched: set[int] = set()
last = within = ""


def place_of(va: int) -> str:
    """The part of the address space that an address is in (`cr3 maps --kernel` has them all)."""
    if va < TASK_SIZE:
        return "user"
    starts = {KERNEL_TEXT: "text", CPU_ENTRY_AREA: "entry", VMEMMAP: "vmemmap", VMALLOC: "stack", 0: "direct"}
    return next(name for start, name in starts.items() if va >= start)


def function_at(rip: int) -> str:
    """The kernel function that executes; what the processor does by itself happens at an instruction of the user's."""
    return kernel.symbolize(rip).partition("+")[0] if rip >= TASK_SIZE else "(the processor delivers a fault)"


def enter(function: str) -> None:
    """Another function executes from now on."""
    global last, touched
    last, touched = function, set()
    entered[function] += 1


@kernel.on("access")
def access(event: AccessEvent) -> None:
    """One load or store; or a fetch: one of the functions that Python stands for begins."""
    global within
    if event.cpl:
        return
    rip = machine.cpu.rip
    if event.kind == "fetch":
        within = function_at(rip)
        enter(kernel.text.works[event.va])
    elif (name := function_at(rip)) != within:  # else it is still the one that was fetched
        within = ""
        if name != last:
            enter(name)
    loads[last] += event.kind == "read"
    stores[last] += event.kind == "write"
    for page in {event.va // PAGE_SIZE, event.va // PAGE_SIZE if within else rip // PAGE_SIZE} - touched:
        touched.add(page)
        pages[last][place_of(page * PAGE_SIZE)] += 1


kernel.spawn(assemble(sys.argv[1] if len(sys.argv) > 1 else "programs/kernel_tour.asm"))
for counter in (entered, loads, stores, pages):
    counter.clear()  # what it takes to load a program is no function's
kernel.run()

own = {work.name: f"{work.each} a page" if work.each else f"{work.cycles:,}" for work in all_work()}
own |= {function.name: f"{function.cycles:,}" for function in kernel.text.functions.values()}
heads = "".join(f"{head:>9}" for head in ("loads", "stores", *PLACES))
print(f"{'':42}{'entered':>8}{'own cycles':>12}{heads}")
for name, count in entered.most_common():
    averages = [number / count for number in (loads[name], stores[name], *(pages[name][place] for place in PLACES))]
    print(f"{name:42}{count:8}{own.get(name, ''):>12}" + "".join(f"{number:9.1f}" for number in averages))
