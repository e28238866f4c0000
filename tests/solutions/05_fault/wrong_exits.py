# says: it shall return
PRESENT, WRITE, FETCH = 1, 2, 16


def handle_page_fault(mm, address, error_code):
    exit(1)
    if vma is None or error_code & PRESENT:
        return False
    if error_code & FETCH:
        permitted = vma.executable
    else:
        permitted = vma.writable if error_code & WRITE else vma.readable
    if not permitted:
        return False
    pfn = mm.allocate_pfn()
    mm.clear(pfn)
    mm.install_pte(address & ~0xFFF, pfn, vma.writable)
    return True
