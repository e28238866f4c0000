# says: nothing was promised there
PRESENT, WRITE, FETCH = 1, 2, 16


def handle_page_fault(mm, address, error_code):
    vma = mm.find_vma(address)
    if vma is not None and error_code & PRESENT:
        return False
    if error_code & FETCH:
        permitted = True
    else:
        permitted = True
    if not permitted:
        return False
    pfn = mm.allocate_pfn()
    mm.clear(pfn)
    mm.install_pte(address & ~0xFFF, pfn, True)
    return True
