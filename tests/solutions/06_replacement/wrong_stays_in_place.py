# says: the queue is 3, 1, 4
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

    def victim(self):
        for page in self.queue:
            if not self.bits.referenced(page):
                return page
        return self.queue[0]
