"""Every shipped program on both engines: the same output, the same counters.

The trap engine looks only at what Unicorn cannot translate by itself; the access engine looks at every access.
That they agree to the last miss is what makes the fast one trustworthy. Run it: python examples/engines_agree.py
"""

import io
import sys
import time
from pathlib import Path

from emu import Machine, assemble
from kernel import Kernel


def run(program: Path, engine: str) -> tuple[dict, bytes, float]:
    """Statistics, output and seconds of one run."""
    output = io.BytesIO()
    kernel = Kernel(Machine(engine=engine), stdin=io.BytesIO(b"hello\n"), stdout=output)
    kernel.spawn(assemble(program))
    begin = time.perf_counter()
    result = kernel.run()
    return result.stats, output.getvalue(), time.perf_counter() - begin


print(f"{'program':14}{'instructions':>13}{'accesses':>10}{'L1 misses':>11}{'walks':>8}   trap     access   agree")
agreed = True
for program in sorted(Path("programs").glob("*.asm")):
    (trap, trap_out, trap_s), (access, access_out, access_s) = run(program, "trap"), run(program, "access")
    same = trap == access and trap_out == access_out
    agreed &= same
    user, tlb = trap["accesses"]["user"], trap["tlb"]
    misses = tlb["itlb"]["misses"] + tlb["dtlb"]["misses"]
    print(
        f"{program.stem:14}{user['fetch']:>13,}{user['read'] + user['write']:>10,}{misses:>11,}"
        f"{trap['walk']['count']:>8,}{trap_s:>7.2f} s{access_s:>8.2f} s   {'yes' if same else 'NO'}"
    )
sys.exit(not agreed)
