# says: does not have victim yet
from collections import deque

from kernel.policies import ReplacementPolicy


class SecondChance(ReplacementPolicy):
    def __init__(self, bits, seed=1):
        super().__init__(bits, seed)
        self.queue = deque()

    def added(self, page):
        self.queue.append(page)

    def removed(self, page):
        self.queue.remove(page)

    def chosen(self):
        while self.bits.referenced(self.queue[0]):
            self.queue.rotate(-1)
        return self.queue[0]
