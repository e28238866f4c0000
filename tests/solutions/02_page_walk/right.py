ADDRESS = 0x000F_FFFF_FFFF_F000


class PageFault(Exception):
    pass


def walk(load64, cr3, va, write, user):
    code = 2 * write | 4 * user
    table, writable, users = cr3 & ADDRESS, True, True
    for shift in (39, 30, 21, 12):
        entry = load64(table + 8 * (va >> shift & 0x1FF))
        if not entry & 1:
            raise PageFault(code)
        writable, users = writable and entry & 2, users and entry & 4
        if shift == 12 or (shift < 39 and entry & 0x80):
            break
        table = entry & ADDRESS
    if (write and not writable) or (user and not users):
        raise PageFault(code | 1)
    size = 1 << shift
    return entry & ADDRESS & -size | va & size - 1
