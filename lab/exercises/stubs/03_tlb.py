"""Exercise 03: build a TLB.

This one remembers everything for ever and for everybody. Check it with: cr3 check 03 03_tlb.py
"""


class Tlb:
    """`sets` sets of `ways` entries."""

    def __init__(self, sets, ways):
        self.sets, self.ways = sets, ways
        self.entries = {}

    def lookup(self, pcid, page):
        """The frame number of a page, or None."""
        return self.entries.get(page)

    def insert(self, pcid, page, frame, is_global=False):
        """Remember a translation."""
        self.entries[page] = frame

    def flush_page(self, pcid, page):
        """Forget one page of this PCID, and a global one."""

    def flush(self, pcid):
        """Forget everything of this PCID that is not global."""
