"""Exercise 01: take a virtual address apart.

With four levels of page tables, an address selects one of 512 entries in each of four tables, and then a byte of a
page of 4 KiB. Check it with: cr3 check 01 01_address.py
"""


def split(va):
    """(pgd, pud, pmd, pte, offset) of a virtual address, the kernel's half too."""
    pgd = 0
    pud = 0
    pmd = 0
    pte = 0
    offset = va
    return pgd, pud, pmd, pte, offset
