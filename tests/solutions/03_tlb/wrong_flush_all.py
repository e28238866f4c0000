# says: then page 0x101 of PCID 2
EVERYBODY = None


class Tlb:
    def __init__(self, sets, ways):
        self.ways = ways
        self.sets = [{} for _ in range(sets)]

    def _find(self, pcid, page):
        chosen = self.sets[page % len(self.sets)]
        return chosen, next((key for key in ((pcid, page), (EVERYBODY, page)) if key in chosen), None)

    def lookup(self, pcid, page):
        chosen, key = self._find(pcid, page)
        return None if key is None else chosen[key]

    def insert(self, pcid, page, frame, is_global=False):
        chosen, key = self._find(pcid, page)
        if key is None:
            key = (EVERYBODY if is_global else pcid, page)
            if len(chosen) == self.ways:
                del chosen[next(iter(chosen))]
        chosen[key] = frame

    def flush_page(self, pcid, page):
        chosen, key = self._find(pcid, page)
        if key is not None:
            del chosen[key]

    def flush(self, pcid):
        for chosen in self.sets:
            for key in [key for key in chosen if key[0] is not EVERYBODY]:
                del chosen[key]
