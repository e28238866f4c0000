"""System instructions: what they do at CPL 0, and that they are refused at CPL 3 (Intel SDM Vol. 2, Vol. 3A 5.9)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bare import (
    GDT,
    IDT,
    ISTS,
    KERNEL,
    KERNEL_CODE,
    KERNEL_CS,
    KERNEL_SS,
    RSP0,
    SKYLAKE,
    STACK_TOP,
    TSS,
    USER_CODE,
    USER_CS,
    USER_SS,
    Bare,
)

from emu import GuestHalted
from emu.control import Msr
from emu.pte import PAGE_SIZE, Cr0, Cr4, Efer, Pte, Rflags
from emu.state import TlbKind

IF, TF, DF, AC, ZF = (int(getattr(Rflags, name)) for name in ("IF", "TF", "DF", "AC", "ZF"))
DATA = KERNEL + 0x7E000
NOT_CANONICAL = 1 << 47


def kernel(code: str, **registers: int) -> Bare:
    """Run code at CPL 0, with RBX at a page of data."""
    bare = Bare()
    bare.kernel(code)
    bare["rsp"], bare["rbx"] = RSP0, DATA
    for name, value in registers.items():
        bare[name] = value
    bare.run()
    return bare


def user(code: str, **registers: int) -> Bare:
    """Run code at CPL 3, with RBX at a page of data."""
    bare = Bare()
    bare.map(0x50_0000)
    bare.user(code)
    bare["rbx"] = 0x50_0000
    for name, value in registers.items():
        bare[name] = value
    bare.run()
    return bare


def split(value: int) -> dict[str, int]:
    """EDX:EAX."""
    return {"rax": value & 0xFFFF_FFFF, "rdx": value >> 32}


# --- who may --------------------------------------------------------------------------------------------------

PRIVILEGED = """
    mov cr0, rax; mov cr2, rax; mov cr3, rax; mov cr4, rax; mov rax, cr0; mov rax, cr2; mov rax, cr3; mov rax, cr4
    mov dr7, rax; mov rax, dr6; clts; hlt; cli; sti; rdmsr; wrmsr; swapgs; sysretq; invlpg [rbx]; invd; wbinvd
    lgdt [rbx]; lidt [rbx]; lldt ax; ltr ax; lmsw ax; in al, 0x60; out dx, eax; insb; outsd; invpcid rax, [rbx]
    rdpmc; sysexitq; mov cr8, rax; mov rax, cr8
"""
UNDEFINED = """
    ud2; vmcall; stac; clac; monitor; mwait; xgetbv; rdrand rax; rdseed ecx; vmxoff; rdpid rax; xsave [rbx]
    vzeroupper; extrq xmm0, 1, 2; xtest; rdfsbase rax; wrgsbase rax; vmovaps ymm0, ymm1; .byte 0x0f, 0x04; .byte 0x06
    .byte 0xf0, 0x90
"""
HARMLESS = "cpuid; rdtsc; rdtscp; sgdt [rbx]; sidt [rbx]; sldt ax; str eax; smsw rax; pushfq; popfq; verr ax; pause"


def each(text: str) -> list[str]:
    """The instructions of a list."""
    return [one.strip() for one in text.replace("\n", ";").split(";") if one.strip()]


@pytest.mark.parametrize("instruction", each(PRIVILEGED))
def test_the_user_may_not(instruction: str) -> None:
    bare = user(f"nop; {instruction}", rax=2, rcx=0x10)
    assert (bare.last.name, bare.last.error_code, bare.last.rip) == ("#GP", 0, USER_CODE + 1)
    assert bare.machine.retired(3)[0] == 1


@pytest.mark.parametrize("instruction", each(UNDEFINED))
def test_for_the_user_there_is_no_such_instruction(instruction: str) -> None:
    bare = user(f"nop; {instruction}")
    assert (bare.last.name, bare.last.error_code, bare.last.rip) == ("#UD", None, USER_CODE + 1)
    assert bare.machine.retired(3)[0] == 1


@pytest.mark.parametrize("instruction", each(HARMLESS))
def test_the_user_may(instruction: str) -> None:
    bare = Bare()
    bare.map(0x50_0000)
    bare.user(f"nop; {instruction}; mov r15d, 1")
    bare["rbx"], bare["rsp"] = 0x50_0000, STACK_TOP - 64
    assert (bare.run().name, bare["r15"]) == ("int 0x20", 1)
    assert bare.machine.retired(3)[0] == 4


@pytest.mark.parametrize("instruction", each("mov cr1, rax; mov rax, cr7; vmxoff; rdrand rax; ud2"))
def test_some_are_undefined_in_the_kernel_too(instruction: str) -> None:
    bare = kernel(f"nop; {instruction}")
    assert (bare.last.name, bare.last.rip) == ("#UD", KERNEL_CODE + 1)


# --- control registers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("register", ["cr0", "cr2", "cr3", "cr4"])
def test_a_control_register_reads_as_it_was_written(register: str) -> None:
    bare = kernel(f"mov rax, {register}; mov {register}, rax; mov rcx, {register}")
    assert bare["rax"] == bare["rcx"] == getattr(bare.machine.control, register)


@pytest.mark.parametrize(
    ("register", "value"),
    [
        ("cr0", 0),
        ("cr0", int(Cr0.PE)),  # no paging
        ("cr0", int(Cr0.PG)),  # paging without protection
        ("cr0", 1 << 40 | int(Cr0.PE | Cr0.PG)),
        ("cr3", 1 << 60),
        ("cr3", 1 << 63),  # without CR4.PCIDE bit 63 is an address bit like any other
        ("cr4", 0),  # no PAE in long mode
        ("cr4", int(Cr4.PAE) | 1 << 31),
        ("cr4", int(Cr4.PAE | Cr4.LA57)),  # cannot change while paging is on
        ("cr4", int(Cr4.PAE) | 1 << 14),  # SMX
        ("cr4", int(Cr4.PAE | Cr4.OSXSAVE)),  # CPUID has no XSAVE
    ],
)
def test_a_value_that_a_control_register_cannot_have_is_refused(register: str, value: int) -> None:
    bare = Bare()
    bare.kernel(f"mov rax, {value:#x}; mov {register}, rax")
    before = getattr(bare.machine.control, register)
    assert (bare.run().name, bare.last.error_code) == ("#GP", 0)
    assert getattr(bare.machine.control, register) == before


def test_mov_to_cr2_keeps_the_address_of_the_last_fault_for_whoever_asks() -> None:
    bare = kernel("mov rax, 0x123456789abc; mov cr2, rax; xor eax, eax; mov rcx, cr2")
    assert bare["rcx"] == 0x1234_5678_9ABC


def test_clearing_wp_lets_the_kernel_write_what_is_read_only() -> None:
    bare = Bare()
    bare.map(DATA, flags=Pte.P)
    bare.kernel(
        "mov rax, cr0; btr rax, 16; mov cr0, rax; mov qword ptr [rbx], 5;bts rax, 16; mov cr0, rax; inc qword ptr [rbx]"
    )
    bare["rbx"] = DATA
    frame = bare.run()
    assert (frame.name, frame.error_code, bare.ram.load64(bare.physical(DATA))) == ("#PF", 3, 5)


def test_turning_pcids_on_needs_a_cr3_without_one() -> None:
    on = int(Cr4.PAE | Cr4.PCIDE)
    assert kernel(f"mov eax, {on}; mov cr4, rax").last.name == "int 0x20"
    assert kernel(f"mov rax, cr3; or rax, 8; mov cr3, rax; mov eax, {on}; mov cr4, rax").last.name == "#GP"


def test_bit_63_of_cr3_keeps_translations() -> None:
    """SDM Vol. 3A 4.10.4.1."""
    bare = Bare()
    bare.kernel("""
        mov rax, cr4; bts rax, 17; mov cr4, rax
        mov rax, cr3
        mov rcx, [rbx]                  # brings the translation
        bts rax, 63; mov cr3, rax
    """)
    bare["rbx"] = DATA
    bare.run()
    assert DATA in {entry.va for entry in bare.machine.mmu.entries(TlbKind.DTLB)}
    bare.kernel("btr rax, 63; mov cr3, rax")
    bare.machine.stop_before(KERNEL_CODE + 8)
    bare.machine.run()
    assert not list(bare.machine.mmu.entries(TlbKind.DTLB))
    assert bare["rax"] == bare.machine.control.cr3


def test_smep_keeps_the_kernel_from_executing_user_pages() -> None:
    bare = Bare()
    bare.put("int 0x20", USER_CODE)
    bare.kernel(f"mov rax, cr4; bts rax, 20; mov cr4, rax; mov eax, {USER_CODE}; jmp rax")
    assert (bare.run().name, bare.last.error_code, bare.last.rip) == ("#PF", 0x11, USER_CODE)


def test_smap_keeps_the_kernel_from_user_data_until_it_says_stac() -> None:
    bare = Bare()
    bare.map(0x50_0000)
    bare.kernel("mov rax, cr4; bts rax, 21; mov cr4, rax; stac; mov ecx, [rbx]; inc edx; clac; mov ecx, [rbx]; inc edx")
    bare["rbx"], bare["rdx"], bare["rsp"] = 0x50_0000, 0, RSP0
    frame = bare.run()
    assert (frame.name, frame.error_code, frame.cr2, bare["rdx"]) == ("#PF", 1, 0x50_0000, 1)


def test_popf_can_set_ac_as_well_as_stac() -> None:
    bare = Bare()
    bare.map(0x50_0000)
    bare.kernel("""
        mov rax, cr4; bts rax, 21; mov cr4, rax
        pushfq; or dword ptr [rsp], 0x40000; popfq; mov ecx, [rbx]; pushfq; pop rdx
        push rdx; and dword ptr [rsp], ~0x40000; popfq; mov ecx, [rbx]
    """)
    bare["rbx"], bare["rsp"] = 0x50_0000, RSP0
    frame = bare.run()
    assert (frame.name, frame.cr2, bool(bare["rdx"] & AC), bool(frame.rflags & AC)) == ("#PF", 0x50_0000, True, False)


@pytest.mark.parametrize("instruction", ["stac", "clac", "mov eax, 0x200020; mov cr4, rax", "invpcid rax, [rbx]"])
def test_what_the_processor_does_not_have_is_refused(instruction: str) -> None:
    old = replace(SKYLAKE, features=replace(SKYLAKE.features, smap=False, invpcid=False))
    bare = Bare(old)
    bare.kernel(instruction)
    bare["rsp"], bare["rbx"] = RSP0, DATA
    assert bare.run().name == ("#GP" if "cr4" in instruction else "#UD")


# --- translations ---------------------------------------------------------------------------------------------


def test_a_stale_translation_is_used_until_invlpg() -> None:
    bare = Bare()
    old, new = bare.map(DATA - PAGE_SIZE, flags=Pte.P | Pte.W), bare.map(DATA)
    bare.map(DATA - PAGE_SIZE, old, Pte.P | Pte.W)
    bare.ram.store64(old, 1)
    bare.ram.store64(new, 2)
    entry = KERNEL + bare.entry(DATA - PAGE_SIZE)
    bare.kernel("mov rax, [rbx]; mov [rdi], rsi; mov rcx, [rbx]; invlpg [rbx + 123]; mov rdx, [rbx]")
    bare["rbx"], bare["rdi"], bare["rsi"] = DATA - PAGE_SIZE, entry, new | Pte.P | Pte.W
    bare.run()
    assert (bare["rax"], bare["rcx"], bare["rdx"]) == (1, 1, 2)


def test_invlpg_takes_any_address_and_reads_nothing() -> None:
    bare = kernel("invlpg [rbx]; invlpg [rax]; invlpg gs:[0]", rbx=0xDEAD_B000, rax=NOT_CANONICAL)
    assert (bare.last.name, bare.machine.flushes["invlpg"]) == ("int 0x20", 3)


INVPCID = """
    mov rax, cr4; bts rax, 17; mov cr4, rax
    mov qword ptr [rbx], {pcid}; mov rax, {va}; mov [rbx + 8], rax
    mov eax, {kind}; invpcid rax, [rbx]
"""


@pytest.mark.parametrize(
    ("kind", "pcid", "va", "name"),
    [
        (0, 5, 0x1000, "int 0x20"),
        (1, 5, NOT_CANONICAL, "int 0x20"),  # only type 0 looks at the address
        (2, 0, 0, "int 0x20"),
        (3, 0, 0, "int 0x20"),
        (0, 5, NOT_CANONICAL, "#GP"),
        (0, 0x1000, 0, "#GP"),  # PCIDs have 12 bits
        (3, 0x1000, 0, "#GP"),
        (4, 0, 0, "#GP"),
    ],
)
def test_invpcid_checks_its_descriptor(kind: int, pcid: int, va: int, name: str) -> None:
    assert kernel(INVPCID.format(kind=kind, pcid=pcid, va=va)).last.name == name


def test_invpcid_reads_its_descriptor_through_the_page_tables() -> None:
    bare = kernel("invpcid rax, [rcx]", rcx=0xDEAD_B008, rax=2)
    assert (bare.last.name, bare.last.cr2, bare.last.error_code) == ("#PF", 0xDEAD_B008, 0)


def test_without_pcids_invpcid_knows_only_pcid_0() -> None:
    assert kernel("mov qword ptr [rbx], 5; mov eax, 1; invpcid rax, [rbx]").last.name == "#GP"


# --- model-specific registers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [Msr.STAR, Msr.LSTAR, Msr.CSTAR, Msr.FMASK, Msr.KERNEL_GS_BASE, Msr.TSC_AUX])
@pytest.mark.parametrize("number_of", [Msr.FS_BASE, Msr.GS_BASE])
def test_registers_keep_what_is_written(number: int, number_of: int) -> None:
    for register in (number, number_of):
        value = 0x1234_5678 if register == Msr.TSC_AUX else 0x7FFF_1234_5678
        bare = kernel("wrmsr; xor eax, eax; xor edx, edx; rdmsr", rcx=register | 0xABCD << 32, **split(value))
        assert (bare.last.name, bare["rdx"] << 32 | bare["rax"]) == ("int 0x20", value)


@pytest.mark.parametrize("number", [0x1B, 0x8B, 0x174, 0x277, 0xC000_0104, 0xFFFF_FFFF])
@pytest.mark.parametrize("instruction", ["rdmsr", "wrmsr"])
def test_a_register_that_does_not_exist_is_refused(number: int, instruction: str) -> None:
    bare = kernel(instruction, rcx=number, rax=0, rdx=0)
    assert (bare.last.name, bare.last.error_code, bare.last.rip) == ("#GP", 0, KERNEL_CODE)


@pytest.mark.parametrize("number", [Msr.LSTAR, Msr.CSTAR, Msr.KERNEL_GS_BASE, Msr.FS_BASE, Msr.GS_BASE])
def test_an_address_register_wants_a_canonical_address(number: int) -> None:
    assert kernel("wrmsr", rcx=number, **split(NOT_CANONICAL)).last.name == "#GP"


@pytest.mark.parametrize(
    ("value", "name"), [(0xD01, "int 0x20"), (0x500, "int 0x20"), (0x401, "#GP"), (1 << 20, "#GP")]
)
def test_efer_has_few_bits(value: int, name: str) -> None:
    """SCE, LME, LMA (read-only) and NXE; LME cannot go while paging is on."""
    bare = kernel("wrmsr", rcx=Msr.EFER, **split(value))
    assert bare.last.name == name
    if name != "#GP":
        assert bare.machine.control.efer == value | Efer.LMA


def test_nx_exists_once_efer_says_so() -> None:
    bare = Bare()
    bare.map(DATA, flags=Pte.P | Pte.W | Pte.NX)
    bare.kernel("mov eax, [rbx]")
    bare["rbx"] = DATA
    assert (bare.run().name, bare.last.error_code) == ("#PF", 9)  # a reserved bit
    bare.kernel("rdmsr; bts eax, 11; wrmsr; mov eax, [rbx]; jmp rbx")
    bare["rcx"], bare["rbx"] = Msr.EFER, DATA
    assert (bare.run().name, bare.last.error_code, bare.last.rip) == ("#PF", 0x11, DATA)


# --- into the kernel and back ---------------------------------------------------------------------------------

ENTRY = KERNEL_CODE + 0x800


def with_syscall(code: str, entry: str, fmask: int = IF | TF | DF) -> Bare:
    """A program whose SYSCALL arrives at `entry`."""
    bare = Bare()
    bare.put(entry, ENTRY)
    msrs = {Msr.STAR: 0x23 << 48 | KERNEL_CS << 32, Msr.LSTAR: ENTRY, Msr.FMASK: fmask}
    for number, value in msrs.items():
        bare.machine.write_msr(number, value)
    bare.user(code)
    return bare


def test_syscall_enters_the_kernel() -> None:
    bare = with_syscall("stc; std; syscall", "int 0x20")
    bare.cpu.rflags = IF
    frame = bare.run()
    assert (frame.rip, frame.cs, frame.ss, frame.rsp) == (ENTRY + 2, KERNEL_CS, KERNEL_SS, STACK_TOP)
    assert (bare["rcx"], bare["r11"]) == (USER_CODE + 4, IF | DF | Rflags.CF | 2)
    assert frame.rflags & ~0x8D5 == 2  # what FMASK names is clear


def test_sysret_goes_back() -> None:
    bare = with_syscall("syscall; mov ebx, 5", "mov r8, rcx; sysretq")
    bare.cpu.rflags = IF | ZF
    frame = bare.run()
    assert (bare["rbx"], frame.cs, frame.ss, frame.rflags) == (5, USER_CS, USER_SS, IF | ZF | 2)
    assert bare.machine.retired(3)[0] == 3


def test_sysret_to_an_address_that_is_not_canonical_faults_in_the_kernel() -> None:
    """On Intel parts; with the user's RSP still in place (CVE-2012-0217)."""
    bare = with_syscall("syscall", f"mov rcx, {NOT_CANONICAL}; sysretq")
    bare.gate(13, ist=1)
    frame = bare.run()
    assert (frame.name, frame.cs, frame.rsp, frame.stack) == ("#GP", KERNEL_CS, STACK_TOP, ISTS[1] - 48)


def test_syscall_is_undefined_until_efer_allows_it() -> None:
    bare = with_syscall("nop; syscall", "int 0x20")
    bare.machine.write_msr(Msr.EFER, Efer.LME)
    assert (bare.run().name, bare.last.rip, bare.machine.retired(3)[0]) == ("#UD", USER_CODE + 1, 1)


def test_swapgs_exchanges_the_gs_bases() -> None:
    bare = Bare()
    bare.machine.write_msr(Msr.GS_BASE, 0x1111_0000)
    bare.machine.write_msr(Msr.KERNEL_GS_BASE, DATA)
    bare.kernel("swapgs; mov qword ptr gs:[8], 7; swapgs")
    bare.run()
    assert bare.ram.load64(bare.physical(DATA + 8)) == 7
    assert bare.machine.read_msr(Msr.GS_BASE) == 0x1111_0000


def test_swapgs_shows_in_both_registers() -> None:
    bare = Bare()
    bare.machine.write_msr(Msr.GS_BASE, 0x1111_0000)
    bare.machine.write_msr(Msr.KERNEL_GS_BASE, 0x2222_0000)
    bare.kernel("swapgs")
    bare.run()
    assert bare.machine.read_msr(Msr.GS_BASE) == 0x2222_0000
    assert bare.machine.read_msr(Msr.KERNEL_GS_BASE) == 0x1111_0000


# --- flags ----------------------------------------------------------------------------------------------------


def test_pushf_shows_the_interrupt_flag() -> None:
    assert kernel("cli; pushfq; pop rax; sti; pushfq; pop rcx")["rcx"] & IF
    assert not kernel("cli; pushfq; pop rax")["rax"] & IF


def test_popf_restores_the_interrupt_flag_in_the_kernel() -> None:
    bare = kernel("sti; pushfq; cli; popfq")
    assert bare.last.rflags & IF
    bare = kernel("cli; pushfq; sti; popfq")
    assert not bare.last.rflags & IF


def test_popf_leaves_the_interrupt_flag_alone_for_the_user() -> None:
    bare = Bare()
    bare.user("pushfq; and dword ptr [rsp], ~0x200; popfq; pushfq; pop rax")
    bare.cpu.rflags = IF
    assert (bare.run().name, bare["rax"] & IF) == ("int 0x20", IF)


def test_popf_changes_id_ac_nt_and_the_arithmetic_flags() -> None:
    assert user("push -1; and dword ptr [rsp], ~0x100; popfq; pushfq; pop rax")["rax"] == 0x24_4ED7 & ~IF | 0


def test_16_bit_popf_leaves_the_upper_flags() -> None:
    bare = user("push 0x40000; popfq; push 1; popfw; pushfq; pop rax")
    assert bare["rax"] & (AC | Rflags.CF) == AC | Rflags.CF


@pytest.mark.parametrize(("code", "write"), [("pushfq", 6), ("popfq", 4)])
def test_pushf_and_popf_fault_like_every_access_to_the_stack(code: str, write: int) -> None:
    bare = user(code, rsp=0xDEAD_B008)
    at = 0xDEAD_B000 if code == "pushfq" else 0xDEAD_B008
    assert (bare.last.name, bare.last.error_code, bare.last.cr2, bare["rip"] != 0) == ("#PF", write, at, True)
    assert bare.last.rsp == 0xDEAD_B008
    assert user(code, rsp=NOT_CANONICAL + 8).last.name == "#SS"


# --- descriptor tables, segments ------------------------------------------------------------------------------


def test_lgdt_and_lidt_load_what_sgdt_and_sidt_store() -> None:
    bare = kernel(f"""
        mov word ptr [rbx], 0x4f; mov rax, {KERNEL + GDT}; mov [rbx + 2], rax; lgdt [rbx]; sgdt [rbx + 16]
        mov word ptr [rbx], 0xfff; mov rax, {KERNEL + IDT}; mov [rbx + 2], rax; lidt [rbx]; sidt [rbx + 32]
    """)
    data = bare.physical(DATA)
    assert bare.ram.read(data + 16, 10) == (0x4F).to_bytes(2, "little") + (KERNEL + GDT).to_bytes(8, "little")
    assert bare.ram.read(data + 32, 10) == (0xFFF).to_bytes(2, "little") + (KERNEL + IDT).to_bytes(8, "little")


def test_ltr_takes_the_tss_from_its_descriptor_and_marks_it_busy() -> None:
    bare = Bare()
    bare.ram.store64(GDT + 0x40, 0x0000_8900_0000_0067 | TSS << 16)
    bare.kernel("mov eax, 0x40; ltr ax; str rcx")
    bare.run()
    assert (bare["rcx"], bare.machine.control.task.base) == (0x40, KERNEL + TSS)
    assert bare.ram.load64(GDT + 0x40) >> 40 & 0xF == 11


@pytest.mark.parametrize(
    ("selector", "name", "code"),
    [(0x40, "#GP", 0x40), (0, "#GP", 0), (0x10, "#GP", 0x10), (0x50, "#GP", 0x50), (0x44, "#GP", 0x44)],
    ids=["busy", "null", "code", "beyond", "local"],
)
def test_ltr_wants_a_free_tss(selector: int, name: str, code: int) -> None:
    bare = kernel(f"mov ecx, {selector}; ltr cx")
    assert (bare.last.name, bare.last.error_code) == (name, code)


def test_the_user_sees_the_selectors_that_linux_gives_it() -> None:
    bare = user("mov eax, cs; mov ecx, ss; mov edx, ds; mov esi, fs")
    assert [bare[name] for name in ("rax", "rcx", "rdx", "rsi")] == [USER_CS, USER_SS, 0, 0]


def test_the_kernel_sees_its_own() -> None:
    bare = kernel("mov rax, -1; .byte 0x66; mov eax, cs; mov rcx, ss; mov word ptr [rbx], cs")
    assert (bare["rax"], bare["rcx"]) == (0xFFFF_FFFF_FFFF_0000 | KERNEL_CS, KERNEL_SS)
    assert bare.ram.load64(bare.physical(DATA)) == KERNEL_CS


@pytest.mark.parametrize("segment", ["ds", "es", "fs", "gs"])
def test_a_data_segment_can_be_loaded_if_its_descriptor_allows_it(segment: str) -> None:
    bare = user(f"mov eax, {USER_SS}; mov {segment}, eax; mov ecx, {segment}; xor eax, eax; mov {segment}, eax")
    assert (bare.last.name, bare["rcx"]) == ("int 0x20", USER_SS)
    bare = user(f"mov eax, {KERNEL_SS}; mov {segment}, eax")
    assert (bare.last.name, bare.last.error_code) == ("#GP", KERNEL_SS)
    bare = user(f"mov eax, 0x93; mov {segment}, eax")
    assert (bare.last.name, bare.last.error_code) == ("#GP", 0x90)


def test_fs_and_gs_can_be_pushed_and_popped() -> None:
    """As bytes: assemblers disagree on the size of PUSH FS."""
    push_fs, pop_fs, pop_gs = b"\x0f\xa0", b"\x0f\xa1", b"\x0f\xa9"
    bare = Bare()
    bare.user(b"\x6a\x2b" + pop_fs + push_fs + b"\x66" + push_fs + b"\x66" + pop_gs + b"\x58")  # push 0x2b ... pop rax
    assert (bare.run().name, bare["rax"], bare.last.rsp) == ("int 0x20", USER_SS, STACK_TOP)
    assert bare.machine.interrupts.selector("gs") == USER_SS
    assert bare.machine.retired(3) == (7, 3 + 2, 3)  # two of the loads are descriptors
    bare.user(b"\x6a\x10" + pop_fs)
    bare["rsp"] = STACK_TOP
    assert (bare.run().name, bare.last.error_code, bare.last.rsp) == ("#GP", 0x10, STACK_TOP - 8)


def test_the_task_priority_is_kept() -> None:
    assert kernel("mov eax, 9; mov cr8, rax; mov rcx, cr8")["rcx"] == 9
    assert kernel("mov eax, 16; mov cr8, rax").last.name == "#GP"


def test_loading_fs_sets_its_base_from_the_descriptor() -> None:
    bare = Bare()
    bare.machine.write_msr(Msr.FS_BASE, 0x1234)
    bare.user("xor eax, eax; mov fs, eax")
    bare.run()
    assert bare.machine.read_msr(Msr.FS_BASE) == 0


@pytest.mark.parametrize(
    ("code", "name"), [("xor eax, eax; mov ss, eax", "#GP"), ("mov eax, 0x2b; mov ss, eax", "int 0x20")]
)
def test_ss_of_the_user(code: str, name: str) -> None:
    assert user(code).last.name == name


def test_the_kernel_may_have_no_stack_segment() -> None:
    bare = kernel("xor eax, eax; mov ss, eax; mov ecx, ss")
    assert (bare.last.name, bare["rcx"], bare.last.ss) == ("int 0x20", 0, 0)


def test_fs_and_gs_bases_are_the_users_once_cr4_says_so() -> None:
    bare = Bare()
    bare.machine.write_cr4(bare.machine.control.cr4 | Cr4.FSGSBASE)
    bare.map(0x50_0000)
    bare.user("wrfsbase rbx; mov dword ptr fs:[4], 9; rdfsbase rcx; wrgsbase ebx; rdgsbase edx; wrfsbase rdi")
    bare["rbx"], bare["rdi"], bare["rdx"] = 0x50_0000, NOT_CANONICAL, 1 << 40
    frame = bare.run()
    assert (frame.name, bare["rcx"], bare["rdx"]) == ("#GP", 0x50_0000, 0x50_0000)
    assert bare.ram.read(bare.physical(0x50_0004), 1) == b"\x09"


# --- what the processor is ------------------------------------------------------------------------------------


def test_cpuid_answers_for_the_profile() -> None:
    bare = user("xor eax, eax; cpuid")
    name = b"".join(bare[register].to_bytes(4, "little") for register in ("rbx", "rdx", "rcx"))
    assert name == b"GenuineIntel"


def test_cpuid_claims_only_what_executes() -> None:
    """No AVX (leaf 1 ECX bit 28), XSAVE (26, 27), RDRAND (30), hypervisor (31), AVX2 (leaf 7 EBX bit 5)."""
    assert not user("mov eax, 1; cpuid")["rcx"] & (0xF << 26 | 1 << 30 | 1 << 31 | 1 << 12)
    assert not user("mov eax, 7; xor ecx, ecx; cpuid")["rbx"] & (1 << 5 | 1 << 18 | 1 << 16)


def test_time_stamps_never_go_back_and_are_the_clock() -> None:
    bare = user("rdtsc; mov esi, eax; mov ecx, 100; 1: dec ecx; jnz 1b; rdtsc")
    assert 0 < bare["rsi"] < bare["rax"] <= bare.machine.clock.now
    assert user("rdtsc; mov esi, eax; mov ecx, 100; 1: dec ecx; jnz 1b; rdtsc")["rsi"] == bare["rsi"]


def test_rdtscp_also_reads_tsc_aux() -> None:
    bare = Bare()
    bare.machine.write_msr(Msr.TSC_AUX, 0x1007)
    bare.user("rdtscp")
    bare.run()
    assert bare["rcx"] == 0x1007


@pytest.mark.parametrize("instruction", ["rdtsc", "rdtscp"])
def test_the_kernel_may_keep_the_time_to_itself(instruction: str) -> None:
    bare = Bare()
    bare.machine.write_cr4(bare.machine.control.cr4 | Cr4.TSD)
    bare.user(f"nop; {instruction}")
    assert (bare.run().name, bare.last.rip) == ("#GP", USER_CODE + 1)
    bare.kernel(f"{instruction}; mov ebx, eax")
    assert (bare.run().name, bare["rbx"] > 0) == ("int 0x20", True)


def test_ports_read_as_all_ones() -> None:
    bare = kernel("mov rax, -1; shl rax, 40; in al, 0x60; mov rcx, rax; in eax, dx; out dx, al", rdx=0x3F8)
    assert (bare["rcx"], bare["rax"]) == ((-1 << 40) % 2**64 | 0xFF, 0xFFFF_FFFF)


def test_halting_without_hope_is_reported() -> None:
    with pytest.raises(GuestHalted, match="hlt at 0xffff80000007f001"):
        kernel("cli; hlt")


def test_vmcall_asks_the_owner_of_the_machine() -> None:
    bare = Bare()
    bare.kernel("mov eax, 1; vmcall; add eax, eax")
    bare.calls[KERNEL_CODE + 5] = lambda: bare.cpu.gprs.__setitem__(0, 21)
    bare.run()
    assert bare["rax"] == 42
