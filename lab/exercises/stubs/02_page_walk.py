"""Exercise 02: walk the page tables.

Entries are 8 bytes: P is bit 0, W bit 1, U bit 2, PS bit 7, the address of the next table or of the page is in bits
51 to 12. Check it with: cr3 check 02 02_page_walk.py
"""


class PageFault(Exception):
    """raise PageFault(error_code)"""


def walk(load64, cr3, va, write, user):
    """The physical address of `va`, or a PageFault."""
    entry = load64(cr3)
    return entry
