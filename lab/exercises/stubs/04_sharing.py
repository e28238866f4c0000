"""Exercise 04: share the TLB between processes.

This is the lecture's answer B: flush the whole TLB at every switch. It is right, and slow. Check yours with:
cr3 check 04 04_sharing.py
"""


class Asids:
    """Which identifier a process gets, 0 to 5."""

    def switch(self, mm, generation):
        """(asid, flush) for the address space that runs next."""
        return 0, True
