"""The load average: how many processes wanted to run lately (kernel/sched/loadavg.c).

Every five seconds the number of those that do is mixed into three averages, which forget by a factor of e in 1, 5 and
15 minutes. Linux has no floating point in the kernel: one is 2048.

>>> load = LoadAverage()
>>> for _ in range(12):
...     load.update(running=1)  # a minute of one busy process
>>> load.shown()
'0.63 0.18 0.06'
"""

from __future__ import annotations

from typing import Final

__all__ = ["LOAD_PERIOD", "LoadAverage"]

SHIFT: Final = 11
ONE: Final = 1 << SHIFT
KEPT: Final = (1884, 2014, 2037)
"""What is kept of an average after five seconds: 1/exp(5 s / 1, 5 and 15 min) (EXP_1 in linux/sched/loadavg.h)."""
HALF_A_HUNDREDTH: Final = ONE // 200
LOAD_PERIOD: Final = 5 * 250 + 1
"""Timer ticks from one update to the next (LOAD_FREQ)."""


class LoadAverage:
    """The three averages."""

    def __init__(self) -> None:
        self._averages = [0] * len(KEPT)

    def update(self, running: int) -> None:
        """Five seconds have passed (calc_load)."""
        active = running << SHIFT
        for index, kept in enumerate(KEPT):
            load = self._averages[index]
            rounding = ONE - 1 if active >= load else 0
            self._averages[index] = (load * kept + active * (ONE - kept) + rounding) >> SHIFT

    def shown(self) -> str:
        """As /proc/loadavg shows them."""
        rounded = [load + HALF_A_HUNDREDTH for load in self._averages]
        return " ".join(f"{load >> SHIFT}.{(load % ONE) * 100 >> SHIFT:02}" for load in rounded)
