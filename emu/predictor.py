"""The branch predictor: a guess where execution goes on, made before anybody knows (native).

A core that waited for every comparison would mostly wait. So it guesses, executes on, and throws away what it did if
the guess was wrong; until then it was in a transient window (`window.py`). Two kinds of branches are guessed here:

- Conditional ones, by a *pattern history table*: two-bit counters that say which way such a branch went the last
  times (J. E. Smith, A Study of Branch Prediction Strategies, ISCA 1981). Which counter it is depends on the branch's
  address and on the way that the last few branches went, so one branch may have several habits.
- RET, by a *return stack* with the addresses behind the last calls. It is wrong where a program changed its stack.

Where a direct jump or call goes is no guess. An indirect one is not guessed: the core waits (no branch target buffer).

A wrong guess is noticed when the branch executes. That is at once where its operands are there, and no window is long
enough to matter. But a branch behind a load that missed the L1 data cache waits as long as the load does, and the core
executes on as far as it gets in that time. It is taken to wait for the loads of its own block.
"""

from __future__ import annotations

from typing import Any, Final

from .counting import BRANCH_KIND, NOWHERE
from .native import native, words
from .records import block_at, leave, predictor_at
from .state import Stop
from .window_state import BranchKind

__all__ = ["mispredicted", "remember_branch"]

KIND_BITS: Final = 3
CONDITIONAL, CALL, RETURN = int(BranchKind.CONDITIONAL), int(BranchKind.CALL), int(BranchKind.RETURN)
STOP_MISPREDICTED: Final = int(Stop.MISPREDICTED)
HISTORY: Final = 0xF
"""The last four conditional branches, a bit for each."""
HISTORY_SHIFT: Final = 8
TAKEN: Final = 2
"""A counter from here on says that the branch is taken."""
STRONGEST: Final = 3


@native
def _direction(p: Any, va: Any, target: Any) -> Any:
    """A conditional branch went to `va`: learn that, and return where the guess went, if it was another."""
    counters = words(p.counters)
    index = (p.end_va ^ (p.end_va >> 12) ^ (p.history << HISTORY_SHIFT)) & p.mask
    taken = 1 if va != p.end_va else 0
    guess = 1 if counters[index] >= TAKEN else 0
    counters[index] = min(counters[index] + 1, STRONGEST) if taken else max(counters[index] - 1, 0)
    p.history = ((p.history << 1) | taken) & HISTORY
    if guess == taken:
        return NOWHERE
    return target if guess else p.end_va


@native
def _return(p: Any, va: Any) -> Any:
    """A RET went to `va`; return where the return stack said, if that was another place."""
    if p.returns_held == 0:
        return NOWHERE
    p.returns_held -= 1
    p.returns_top = (p.returns_top - 1) % p.returns_size
    guess = p.returns[p.returns_top]
    return NOWHERE if guess == va else guess


@native
def _wrong_path(p: Any, branch: Any, va: Any) -> Any:
    """A branch led to the block that begins at `va`: where it was guessed to lead, if that is elsewhere, or NOWHERE."""
    if branch & BRANCH_KIND == CONDITIONAL:
        return _direction(p, va, p.end_va + (branch >> KIND_BITS))
    if branch & BRANCH_KIND == RETURN:
        return _return(p, va)
    if branch & BRANCH_KIND == CALL:
        p.returns[p.returns_top] = p.end_va
        p.returns_top = (p.returns_top + 1) % p.returns_size
        p.returns_held = min(p.returns_held + 1, p.returns_size)
    return NOWHERE


@native
def mispredicted(s: Any, va: Any) -> Any:
    """The block that begins at `va` follows the last one. If another was executed meanwhile, leave Unicorn: True."""
    p = predictor_at(s.predictor, 0)
    branch = p.branch
    p.branch = 0
    if branch == 0 or s.block_key == 0:  # no branch led here, but a fault, an interrupt or the kernel
        return False
    guess = _wrong_path(p, branch, va)
    p.wait = s.load_cycles - p.waited
    if guess == NOWHERE or p.wait == 0:
        return False
    s.stop_value = guess
    leave(s, STOP_MISPREDICTED, branch & BRANCH_KIND)
    return True


@native
def remember_branch(s: Any, end: Any) -> None:
    """The block that begins ends at `end`, perhaps with a branch."""
    p = predictor_at(s.predictor, 0)
    p.branch = block_at(s.blocks, s.block_index).branch
    p.end_va = end
    p.waited = s.load_cycles
