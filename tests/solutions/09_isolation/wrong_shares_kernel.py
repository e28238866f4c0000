# says: of user mode finds
USER_PCID, USER_PGD, NOFLUSH, NX = 1 << 11, 1 << 12, 1 << 63, 1 << 63
CPU_ENTRY_AREA = 508


def to_kernel(cr3):
    return cr3 & ~(USER_PCID | USER_PGD) | NOFLUSH


def to_user(cr3, flush):
    return cr3 | USER_PCID | USER_PGD | (0 if flush else NOFLUSH)


def user_entry(index, entry):
    if index < 256:
        return entry & ~NX
    return entry
