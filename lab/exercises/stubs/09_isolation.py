"""Exercise 09: isolate the page tables.

Check it with: cr3 check 09 09_isolation.py
"""


def to_kernel(cr3):
    """The value to write to CR3 when the kernel is entered."""
    return cr3


def to_user(cr3, flush):
    """The value to write to CR3 on the way to user mode."""
    return cr3


def user_entry(index, entry):
    """What stands in the user's PGD where the kernel's has `entry`."""
    return entry
