# says: but there are only 4096 to choose from
def split(va):  # all of the address instead of what is left of it
    return va >> 39 & 0x1FF, va >> 30 & 0x1FF, va >> 21 & 0x1FF, va >> 12 & 0x1FF, va
