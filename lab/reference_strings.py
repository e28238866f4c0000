"""Ways in which programs use their pages, as textbooks have them, to compare replacement policies on.

Each is a *reference string*, the order in which pages are used, made by a few lines. There is one on which each policy
does best, and none on which all do well:

>>> table = {name: pattern.faults(["lru", "random"]) for name, pattern in PATTERNS.items()}
>>> table["rounds, then elsewhere"]["lru"] < table["rounds, then elsewhere"]["random"]
True
>>> table["a circle too large"]["lru"] > table["a circle too large"]["random"]
True
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Final

from .policies import Recording, replay

__all__ = ["LENGTH", "PATTERNS", "Pattern"]

LENGTH: Final = 8000
"""References of each."""
ELSEWHERE: Final = 10_000
"""Pages from here on are others than those before."""


@dataclass(frozen=True)
class Pattern:
    """`references(dice)` goes on for ever; `frames` is how many there are for it."""

    frames: int
    references: Callable[[random.Random], Iterator[int]]

    def recording(self) -> Recording:
        """The first references."""
        return Recording.of(list(islice(self.references(random.Random(1)), LENGTH)))

    def faults(self, policies: Sequence[str]) -> dict[str, int]:
        """Page faults of each policy."""
        recording = self.recording()
        return {name: replay(name, recording, self.frames) for name in policies}


PATTERNS: Final[dict[str, Pattern]] = {}


def pattern(name: str, frames: int) -> Callable[[Callable[[random.Random], Iterator[int]]], Pattern]:
    """Decorator: a function that yields pages is a pattern from now on."""

    def register(references: Callable[[random.Random], Iterator[int]]) -> Pattern:
        PATTERNS[name] = Pattern(frames, references)
        return PATTERNS[name]

    return register


def circles(size: int, rounds: int) -> Iterator[int]:
    """Go round some pages so many times, then round others."""
    for start in count(step=size):
        for _ in range(rounds):
            yield from range(start, start + size)


def rounds(dice: random.Random, size: int, others: int, among: int) -> Iterator[int]:
    """Some pages in order, then so many uses of others."""
    while True:
        yield from range(size)
        for _ in range(others):
            yield ELSEWHERE + dice.randrange(among)


@pattern("a window that moves on", frames=32)
def _window(_dice: random.Random) -> Iterator[int]:
    """A page is used when it comes, once more 30 pages later, and never again."""
    for page in count():
        yield page
        if page >= 30:
            yield page - 30


@pattern("rounds, then elsewhere", frames=16)
def _rounds(dice: random.Random) -> Iterator[int]:
    yield from rounds(dice, 12, 4, among=67)


@pattern("a circle too large", frames=16)
def _circle(_dice: random.Random) -> Iterator[int]:
    yield from circles(27, rounds=40)


@pattern("a circle one too large", frames=32)
def _circle_by_one(_dice: random.Random) -> Iterator[int]:
    yield from circles(33, rounds=10)


@pattern("the same, after a while", frames=32)
def _returning(dice: random.Random) -> Iterator[int]:
    yield from rounds(dice, 20, 113, among=22)


@pattern("used often, and a scan", frames=32)
def _scan(dice: random.Random) -> Iterator[int]:
    """20 pages at random, then 19 that are used once."""
    for start in count(ELSEWHERE, step=19):
        for _ in range(92):
            yield dice.randrange(20)
        yield from range(start, start + 19)


@pattern("a circle, and others", frames=32)
def _circle_and_others(dice: random.Random) -> Iterator[int]:
    """16 pages in order; after every fifth, about, one of 21 others."""
    for page in circles(16, rounds=LENGTH):
        yield page
        if dice.random() < 0.21:
            yield ELSEWHERE + dice.randrange(21)


@pattern("slowly elsewhere", frames=64)
def _drift(dice: random.Random) -> Iterator[int]:
    """Pages around a centre that moves."""
    for step in count():
        yield ELSEWHERE + round(dice.gauss(step * 0.068, 14.7))


@pattern("phases that overlap", frames=32)
def _phases(dice: random.Random) -> Iterator[int]:
    """30 pages at random for a while; 26 of them are among the next 30."""
    for start in count(step=4):
        for _ in range(1000):
            yield start + dice.randrange(30)


@pattern("every page once", frames=32)
def _once(_dice: random.Random) -> Iterator[int]:
    yield from count()
