# says: bits 63 to 48 select nothing
def split(va):  # right for the user's half only
    return va >> 39, va >> 30 & 0x1FF, va >> 21 & 0x1FF, va >> 12 & 0x1FF, va & 0xFFF
