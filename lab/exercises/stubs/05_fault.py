"""Exercise 05: handle page faults.

HandlePageFault of the lecture. Check it with: cr3 check 05 05_fault.py
"""


def handle_page_fault(mm, address, error_code):
    """True if the access can be repeated, False for SIGSEGV."""
    pfn = mm.allocate_pfn()
    mm.install_pte(address, pfn, True)
    return True
