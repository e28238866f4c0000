# says: the processor begins with the PGD
def split(va):
    return va & 0xFFF, va >> 12 & 0x1FF, va >> 21 & 0x1FF, va >> 30 & 0x1FF, va >> 39 & 0x1FF
