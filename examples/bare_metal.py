"""A machine without any kernel: page tables built by hand, and code that runs over them.

The lecture's example address 0x180001008 is mapped by four entries; a loop then adds up numbers that lie there.
Run it: python examples/bare_metal.py
"""

from emu import Machine, Pte, page_walk
from emu.assembler import assemble_source

PML4, PDPT, PD, PT, CODE_PT, CODE_PD, CODE_PDPT, DATA, CODE = (0x1000 * n for n in range(1, 10))
VA = 0x1_8000_1008
CODE_VA = 0x40_1000
USER = Pte.P | Pte.W | Pte.U

program = assemble_source(
    """
    _start: mov rsi, 0x180001008
            mov ecx, 10
            xor eax, eax
    again:  add rax, [rsi]
            dec ecx
            jnz again
            vmcall
    """
)

machine = Machine(cpu="skylake", ram="1M")
store = machine.ram.store64
# va 0x180001008 has indices 0, 6, 0, 1 and offset 8: one entry in each of four tables
store(PML4 + 8 * 0, PDPT | USER)
store(PDPT + 8 * 6, PD | USER)
store(PD + 8 * 0, PT | USER)
store(PT + 8 * 1, DATA | USER)
# and va 0x401000 for the code: the same PML4 entry, then tables of its own
store(PDPT + 8 * 0, CODE_PD | USER)
store(CODE_PD + 8 * 2, CODE_PT | USER)
store(CODE_PT + 8 * 1, CODE | USER)

machine.ram.write(CODE, program.segments[0].data)
machine.ram.store64(DATA + 8, 7)
machine.write_cr3(PML4)
machine.cpu.rip = program.entry
machine.monitor = lambda _rip: machine.stop()
machine.run()

walk = page_walk(machine.ram, machine.control.cr3, VA)
for step in walk.steps:
    print(f"{step.name:5} index {step.index:3}  entry {step.entry:#018x}  {step.decoded}")
print(f"va {VA:#x} -> pa {walk.pa:#x}")
print(f"rax = {machine.cpu.registers()['rax']} after {machine.state.instructions} instructions")
print(f"{sum(machine.state.walks_by)} page walks read {sum(machine.state.entry_reads)} entries")
