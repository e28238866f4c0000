# says: then 1 was used again
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
        while False:
            self.queue.rotate(-1)
        return self.queue[0]
