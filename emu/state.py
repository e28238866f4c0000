"""The block of memory that Python and the native code share, drawn once.

Everything the memory hardware remembers lives here: control registers, the descriptions of the TLBs,
what is being counted, why the processor stopped. Python sees a `ctypes.Structure`; native code
sees the same bytes as a numba record, with the same field names.

Addresses and entries are unsigned for Python and signed for native code (see `native.py`).

>>> state = State()
>>> state.cr3 = 0xFFFF_8880_0000_0000
>>> hex(state.cr3)
'0xffff888000000000'
"""

from __future__ import annotations

import ctypes
from ctypes import c_uint64
from enum import IntEnum
from typing import Final

from .cache_state import CacheArray

__all__ = [
    "FLUSH_COMMAND",
    "Block",
    "Engine",
    "Event",
    "Fault",
    "RecordTable",
    "State",
    "Stop",
    "Tail",
    "TlbArray",
    "TlbEntry",
    "TlbKind",
]

FLUSH_COMMAND: Final = 11 | 1 << 30
"""uc_ctl code UC_CTL_TLB_FLUSH, a write without arguments."""

MAX_ARRAYS: Final = 16
"""TLB arrays and paging-structure caches of one processor, all together."""


class TlbKind(IntEnum):
    """What an array of translations serves. The first three are counted, in this order."""

    ITLB = 0
    DTLB = 1
    STLB = 2
    PAGING_STRUCTURE = 3


class Engine(IntEnum):
    """Who looks at an access: only those that Unicorn cannot translate itself, or every one."""

    TRAP = 0
    ACCESS = 1


class Stop(IntEnum):
    """Why execution left Unicorn."""

    NONE = 0
    FAULT = 1  # a translation was refused; see Fault
    INTERRUPT = 2  # an exception or software interrupt raised by the instruction itself
    INVALID = 3  # an instruction that Unicorn does not execute
    SYSCALL = 4
    MODEL = 5  # an instruction that Unicorn would execute, but not as the model does
    BREAKPOINT = 6
    DEADLINE = 7  # the instruction budget or the timer
    UNKNOWN_BLOCK = 8  # a basic block that was never counted before
    REFETCH = 9  # the page being executed left the ITLB
    DANGER = 10  # a page holds code that must not reach Unicorn's translator
    VMCALL = 11
    REQUESTED = 12  # an event hook asked to stop
    ITERATIONS = 13  # REP instructions repeated as often as they may
    UNDELIVERED = 14  # a page fault whose delivery met another exception
    MISPREDICTED = 15  # a block begins that the branch predictor did not expect


class Fault(IntEnum):
    """Why a translation was refused."""

    NONE = 0
    PAGE = 1
    NOT_CANONICAL = 2
    BAD_PHYSICAL = 3
    ASSIST = 4  # in a transient window: A would have to be set, which happens when an instruction retires


class Event(IntEnum):
    """What native code tells Python about at once, if someone listens (or, for the last ones, always)."""

    TLB_MISS = 0
    PAGE_WALK = 1
    ACCESS = 2
    INSTRUCTION = 3
    SELF_MODIFIED = 4
    EXCEPTION = 5  # Python builds it; page faults are then delivered by Python
    CR3_WRITE = 6  # Python builds it; MOV to CR3 is then executed by Python
    TLB_FLUSH = 7
    CPUID = 8
    RDTSC = 9
    RDTSCP = 10
    CACHE_FILL = 11
    TLB_HIT = 12
    MODE_SWITCH = 13
    TABLE_FULL = 14  # of a recording: Python empties it (-1: so many rows were recorded as were wanted)


class TlbEntry(ctypes.Structure):
    """One translation. `tag` is the page's address | PCID; `leaf` is a page-table leaf with the effective rights."""

    _fields_ = (("tag", c_uint64), ("leaf", c_uint64), ("stamp", c_uint64))


class TlbArray(ctypes.Structure):
    """One set-associative array of translations of some page sizes."""

    _fields_ = (
        ("kind", c_uint64),
        ("shifts", c_uint64),  # bit n set: holds pages of 1 << n bytes
        ("entries", c_uint64),  # host address of sets * ways TlbEntry
        ("sets", c_uint64),
        ("ways", c_uint64),
        ("hash_bits", c_uint64),  # 0: linear; n: XOR of two fields of n bits
        ("policy", c_uint64),
        ("trees", c_uint64),  # host address of one PLRU word a set
        ("last", c_uint64),  # index of the entry that was used last: looked at first
    )


class Block(ctypes.Structure):
    """What one basic block counts, found again by the physical address and size of its code."""

    _fields_ = (
        ("key", c_uint64),  # physical address | size << 48; 0: free
        ("instructions", c_uint64),
        ("reads", c_uint64),
        ("writes", c_uint64),
        ("is_plain", c_uint64),  # on one page, with no hook that could ask where it is
        ("checksum", c_uint64),  # of its bytes, compared where code may have been written
        ("va", c_uint64),  # where it was learned
        ("is_watched", c_uint64),  # some of its instructions have a hook, so it is known only at that address
        ("model_va", c_uint64),  # va of the first instruction that the model executes itself; 0: none
        ("branch", c_uint64),  # a BranchKind, if it ends with one | how far behind the block that leads << 3
        ("rep_va", c_uint64),  # va of the REP instruction that ends the block; 0: none
        ("rep_reads", c_uint64),  # accesses of one iteration
        ("rep_writes", c_uint64),
        ("rep_mask", c_uint64),  # of RCX: 32 or 64 bits
        ("tails", c_uint64),  # host address of a Tail for every byte, once an instruction of it was looked for; or 0
        ("cache_instructions", c_uint64),  # host address of a list, or 0; with it a block has 128 bytes: a shift
    )


class Tail(ctypes.Structure):
    """What a block counts from one of its instructions on; all 0 where no known instruction begins."""

    _fields_ = (
        ("instructions", c_uint64),
        ("reads", c_uint64),
        ("writes", c_uint64),
        ("modifies", c_uint64),  # the instruction writes where it reads, so a page that is missing is missed by a write
    )


class RecordTable(ctypes.Structure):
    """Where rows of one kind of event are recorded (`recorder.py`)."""

    _fields_ = (
        ("rows", c_uint64),  # host address
        ("row_size", c_uint64),  # bytes
        ("used", c_uint64),  # rows
        ("capacity", c_uint64),
        ("is_ring", c_uint64),
        ("laps", c_uint64),  # how often a ring began again
    )


class State(ctypes.Structure):
    """All state shared with native code. Host addresses of C functions come first."""

    _fields_ = (
        # C functions
        ("uc", c_uint64),  # the Unicorn handle
        ("uc_ctl", c_uint64),
        ("uc_emu_start", c_uint64),
        ("uc_emu_stop", c_uint64),
        ("uc_reg_read", c_uint64),
        ("uc_reg_write", c_uint64),
        ("memmove", c_uint64),
        ("memset", c_uint64),
        ("scratch", c_uint64),  # address of one word, for reading and writing registers
        ("popped", c_uint64),  # address of five words
        ("notify", c_uint64),  # Python, called when an event has a listener
        # Unicorn's own data, found by calibration (softcore.py)
        ("env", c_uint64),
        ("soft_tlb", c_uint64),  # address of its {mask, table} pair
        ("soft_used", c_uint64),
        ("soft_victims", c_uint64),
        ("old_exception", c_uint64),  # address of an int32
        ("gs_base", c_uint64),  # address of the GS base
        ("fs_base", c_uint64),
        ("nesting", c_uint64),  # address of an int32: 2 while Unicorn looks up its exit addresses
        ("unsynced", c_uint64),  # address of the word with the bit below, if the access engine may use it; or 0
        ("unsynced_bit", c_uint64),  # set: Unicorn does not restore RIP and flags before it tells of an access
        ("invalid_address", c_uint64),  # address of the address that was refused last
        ("is_software", c_uint64),  # address of an int32: the interrupt came from INT n
        # guest memory
        ("ram", c_uint64),
        ("ram_size", c_uint64),
        ("frame_flags", c_uint64),  # one word a frame: the flags at the end of this file
        ("frame_va", c_uint64),  # one word a frame: the page that the soft-TLB maps to it, | 1 (access engine)
        # the processor's state
        ("cpl", c_uint64),
        ("counted_as", c_uint64),  # the mode that is being counted: CPL, but 0 already while entering the kernel
        ("interrupt_flag", c_uint64),
        ("single_step", c_uint64),  # RFLAGS.TF
        ("cs", c_uint64),
        ("ss", c_uint64),
        ("gdt_base", c_uint64),
        ("gdt_limit", c_uint64),
        ("idt_base", c_uint64),
        ("idt_limit", c_uint64),
        ("task_base", c_uint64),
        ("task_limit", c_uint64),
        ("star", c_uint64),
        ("lstar", c_uint64),
        ("fmask", c_uint64),
        ("kernel_gs_base", c_uint64),
        ("tsc_aux", c_uint64),
        ("syscalls_enabled", c_uint64),  # EFER.SCE
        ("has_smap", c_uint64),
        ("cr3", c_uint64),  # physical address of the top table
        ("cr3_low", c_uint64),  # the rest of CR3: the PCID, or PWT and PCD
        ("pcids_enabled", c_uint64),
        ("physical_limit", c_uint64),  # the first physical address that the processor cannot form
        ("pcid", c_uint64),
        ("write_protect", c_uint64),  # CR0.WP
        ("smep", c_uint64),
        ("smap", c_uint64),
        ("alignment_check", c_uint64),  # RFLAGS.AC, which lifts SMAP
        ("globals_enabled", c_uint64),  # CR4.PGE
        ("nxe", c_uint64),
        ("levels", c_uint64),  # 4 or 5
        ("physical_mask", c_uint64),  # bits of an entry's address field that must be zero
        ("page1g", c_uint64),
        # translation hardware
        ("engine", c_uint64),
        ("no_tlb", c_uint64),
        ("window", c_uint64),  # host address of a Window, or 0: the part runs strictly in order
        ("predictor", c_uint64),  # host address of a Predictor, or 0
        ("in_window", c_uint64),  # what is done now is transient
        ("arrays", TlbArray * MAX_ARRAYS),
        ("array_count", c_uint64),
        ("evicted_tag", c_uint64),  # of the entry that the last insert overwrote
        ("clock", c_uint64),  # stamps for FIFO and LRU
        ("random", c_uint64),  # xorshift state
        # data and instruction caches
        ("caches", c_uint64),  # whether they are modelled
        ("cache", CacheArray * 4),  # by CacheLevel
        ("llc_is_inclusive", c_uint64),
        ("dram_latency", c_uint64),
        ("stall_limit", c_uint64),  # look at the timer when so many cycles were waited for caches and walks
        ("load_is_pending", c_uint64),  # a load was executed that nobody has waited for
        # code
        ("fast_page", c_uint64),  # the page being executed, | 1, while nothing can have changed on it
        ("fetch_page", c_uint64),  # va of the page being executed, | 1 when known
        ("fetch_pa", c_uint64),
        ("second_pa", c_uint64),  # of the page that the block ends on, if it is another
        ("fetched_0", c_uint64),  # pages that the last fetches brought, | 1
        ("fetched_1", c_uint64),
        ("fetched_pa_0", c_uint64),
        ("fetched_pa_1", c_uint64),
        ("blocks", c_uint64),  # host address of the block table
        ("block_mask", c_uint64),
        ("block_va", c_uint64),  # the block being executed
        ("block_key", c_uint64),
        ("block_index", c_uint64),
        ("hooked_va", c_uint64),  # the last instruction before which a CODE hook was called
        ("rep_va", c_uint64),  # the REP instruction that ended the last block; 0: none
        ("repeats", c_uint64),  # this block is a further iteration of that instruction
        ("rep_rcx", c_uint64),  # RCX before the iteration that was counted last
        ("passed_va", c_uint64),  # the breakpoint that execution goes on from; all ones: none
        ("guarded", c_uint64 * 2),  # dangerous pages whose instructions are guarded (guard.py), | 1
        ("guarded_code", c_uint64),  # host address of two copies: how those pages were then
        ("dropped_page", c_uint64),  # physical address of a page of which Unicorn drops translated code, | 1
        # why it stopped
        ("stop", c_uint64),
        ("stop_detail", c_uint64),
        ("stop_value", c_uint64),
        ("fault", c_uint64),
        ("fault_page", c_uint64),
        ("fault_code", c_uint64),
        ("fault_access", c_uint64),
        ("cr2", c_uint64),
        ("pending_vector", c_uint64),  # the exception that a control transfer met
        ("pending_code", c_uint64),
        ("pending_address", c_uint64),
        ("loaded", c_uint64),  # what the last load of a control transfer read
        ("gate_low", c_uint64),
        ("code_written", c_uint64),  # a control transfer wrote to a frame with code
        # costs in cycles
        ("cost_syscall", c_uint64),
        ("cost_sysret", c_uint64),
        ("cost_swapgs", c_uint64),
        ("cost_stac_clac", c_uint64),
        ("cost_iret", c_uint64),
        ("cost_page_fault", c_uint64),
        ("cost_cr3_flush", c_uint64),
        ("cost_cr3_noflush", c_uint64),
        ("cost_read_control", c_uint64),
        ("cost_stlb_hit", c_uint64),
        ("cost_entry_read", c_uint64),  # 0 where the caches say what it costs
        ("cost_assist", c_uint64),
        ("cost_rdtsc", c_uint64),
        ("instructions_per_cycle", c_uint64),
        ("copied_bytes_per_cycle", c_uint64),
        # what was counted
        ("entry_exit_cycles", c_uint64),
        ("cr3_cycles", c_uint64),
        ("control_cycles", c_uint64),
        ("cr3_flushing", c_uint64),  # writes of CR3 without Python
        ("cr3_keeping", c_uint64),
        ("exception_cycles", c_uint64),  # of page faults that were delivered without Python
        ("copied_bytes", c_uint64),  # whole pages that the kernel filled or copied, and user memory
        ("rdtsc_cycles", c_uint64),
        ("load_cycles", c_uint64),  # of waiting for loads that missed the L1D
        ("fetch_cycles", c_uint64),  # of waiting for code that missed the L1I
        ("walk_cycles", c_uint64),  # of page walks, where the caches say what an entry costs
        ("charged_cycles", c_uint64),  # by Python, for causes that it names
        ("cause_cycles", c_uint64 * 13),  # the causes that native code counts, added up by `cycles.now`
        ("mode_totals", c_uint64 * 6),  # user instructions, reads, writes; the same of the kernel
        ("mode_start", c_uint64 * 3),
        ("deadline", c_uint64),  # stop before the block that would pass this many instructions
        ("iteration_limit", c_uint64),  # stop when so many are done, and a REP is under way
        ("iterations", c_uint64),  # of REP instructions
        ("instructions", c_uint64),
        ("reads", c_uint64),
        ("writes", c_uint64),
        ("misses", c_uint64 * 3),
        ("evictions", c_uint64 * 3),
        ("entry_reads", c_uint64 * 4),  # user fetch, user data, kernel fetch, kernel data
        ("walks_by", c_uint64 * 4),
        ("walk_depth", c_uint64),  # the last walk: how many entries it read, where, and what
        ("walk_shift", c_uint64),  # of the address bits below those that chose the last entry
        ("walk_addresses", c_uint64 * 5),
        ("walk_entries", c_uint64 * 5),
        ("accessed_assists", c_uint64),
        ("dirty_assists", c_uint64),
        ("soft_flushes", c_uint64),
        ("other_lookups", c_uint64),  # of the DTLB, by what is neither a load nor a store: CLFLUSH, PREFETCHh
        ("seen_reads", c_uint64),  # by the access engine's hooks
        ("seen_writes", c_uint64),
        ("crossing_va", c_uint64),  # an access whose second page is not there yet: told when it is; 0: none
        ("crossing_access", c_uint64),  # its kind | size << 8
        ("crossing_pa", c_uint64),
        ("is_unicorns", c_uint64),  # Unicorn asks for a page: an access of the guest's that hits is seen elsewhere
        ("filled_page", c_uint64),  # a page that the DTLB did not hold, | 1, until its access: that is no hit
        ("fetched_page", c_uint64),  # the same of the ITLB, until an instruction of it
        # events: bit n set when event kind n has a listener
        ("listeners", c_uint64),
        ("told_va", c_uint64),  # the instruction that was told before Unicorn was left; all ones: none
        ("access_first", c_uint64),  # listeners want accesses to these addresses, as signed numbers
        ("access_last", c_uint64),
        # recordings: bit n set when event kind n is recorded
        ("recorded", c_uint64),
        ("records_not", c_uint64),  # bit n set: nothing of privilege level n
        ("tables", RecordTable * 16),  # by Event
        ("sequence", c_uint64),  # rows of all tables together
        ("last_sequence", c_uint64),  # no more rows than these; all ones: no limit
        ("pid", c_uint64),
    )


FETCHED: Final = 1 << 0
WRITTEN: Final = 1 << 1
"""The guest ever executed this frame, ever could write it."""

SCANNED: Final = 1 << 2
WRITABLE: Final = 1 << 3
"""Unicorn's soft-TLB may let the guest execute this frame (it was searched for danger), or write it; never both."""

DANGEROUS: Final = 1 << 4
"""The search found code that must not reach Unicorn's translator."""
