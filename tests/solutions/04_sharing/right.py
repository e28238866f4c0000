class Asids:
    def __init__(self):
        self.slots = [None] * 6
        self.next = 0

    def switch(self, mm, generation):
        for asid, slot in enumerate(self.slots):
            if slot is not None and slot[0] == mm:
                self.slots[asid] = mm, generation
                return asid, slot[1] != generation
        asid = self.next
        self.next = (asid + 1) % 6
        self.slots[asid] = mm, generation
        return asid, True
