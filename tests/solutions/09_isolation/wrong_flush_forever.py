# says: expected PGD 0x1235000, PCID 0x802, NOFLUSH
USER_PCID, USER_PGD, NOFLUSH, NX = 1 << 11, 1 << 12, 1 << 63, 1 << 63
CPU_ENTRY_AREA = 508


def to_kernel(cr3):
    return cr3 & ~(USER_PCID | USER_PGD) | NOFLUSH


FLUSHED = []


def to_user(cr3, flush):
    FLUSHED.extend([flush] * flush)
    flush = bool(FLUSHED)
    return cr3 | USER_PCID | USER_PGD | (0 if flush else NOFLUSH)


def user_entry(index, entry):
    if index < 256:
        return entry & ~NX
    return entry if index == CPU_ENTRY_AREA else 0
