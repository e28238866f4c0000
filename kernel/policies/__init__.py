"""Page replacement policies. The order here is the one in which they are listed."""

from .generations import ActiveInactive, Mglru
from .optimal import Optimal, next_uses
from .policy import PageBits, ReplacementPolicy, find_policy, policy, policy_names
from .queues import Clock, Fifo, Random
from .sampling import Aging, Lru, Nru
from .working_set import WsClock

__all__ = [
    "ActiveInactive",
    "Aging",
    "Clock",
    "Fifo",
    "Lru",
    "Mglru",
    "Nru",
    "Optimal",
    "PageBits",
    "Random",
    "ReplacementPolicy",
    "WsClock",
    "find_policy",
    "next_uses",
    "policy",
    "policy_names",
]
