"""The lecture's question: how many entry reads does translation cost the `sum` loop, without and with a TLB?

Run it: python examples/lecture_numbers.py
"""

from emu import Machine, assemble
from kernel import Kernel

print(f"{'':14}{'fetches':>9}{'accesses':>10}{'walks':>7}{'entry reads: fetch':>20}{'data':>6}")
for tlb in (False, True):
    kernel = Kernel(Machine(tlb=tlb), populate=True)
    kernel.spawn(assemble("programs/sum_loop.asm"))
    stats = kernel.run(until="done").stats
    user = stats["accesses"]["user"]
    walks = stats["walk"]["by"]["user"]
    reads = stats["walk"]["entry_reads"]["user"]
    accesses = user["read"] + user["write"]
    name = "with a TLB" if tlb else "without a TLB"
    total = walks["fetch"] + walks["data"]
    print(f"{name:14}{user['fetch']:>9}{accesses:>10}{total:>7}{reads['fetch']:>20}{reads['data']:>6}")
