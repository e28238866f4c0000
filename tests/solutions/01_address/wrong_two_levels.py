# says: how many bits does it take to choose among 512 entries
def split(va):  # indices of ten bits, as with two levels of tables of four bytes an entry
    return va >> 42 & 0x1FF, va >> 32 & 0x1FF, va >> 22 & 0x1FF, va >> 12 & 0x1FF, va & 0xFFF
