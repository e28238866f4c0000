def split(va):
    pgd, pud, pmd, pte = (va >> shift & 0x1FF for shift in (39, 30, 21, 12))
    return pgd, pud, pmd, pte, va & 0xFFF
