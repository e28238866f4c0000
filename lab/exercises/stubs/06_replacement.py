"""Exercise 06: choose who gives way.

Check it with: cr3 check 06 06_replacement.py
"""

from kernel.policies import ReplacementPolicy


class SecondChance(ReplacementPolicy):
    """First in, first out, but who was used again gets a second chance."""

    def __init__(self, bits, seed=1):
        super().__init__(bits, seed)
        self.queue = []

    def added(self, page):
        self.queue.append(page)

    def removed(self, page):
        self.queue.remove(page)

    def victim(self):
        return self.queue[0]
