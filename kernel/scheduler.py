"""The scheduler: who runs next, and the switch (kernel/sched/core.c, arch/x86/kernel/process_64.c).

Round robin: every process that can run gets the processor for one tick of the timer, in turn. A process is left inside
the kernel, on its own kernel stack, and goes on from there later. Everything that must happen before a process sees
user mode again (the answer of a system call that waited, a signal) happens at one gate, `return_to_user`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from emu.control import Msr

from .boot import PERCPU_TOP_OF_STACK, TIMER_VECTOR
from .events import ContextSwitch
from .exceptions import Errno
from .load import LOAD_PERIOD, LoadAverage
from .process import Process, State, Thread
from .signal_delivery import do_signal
from .signals import ERESTART_RESTARTBLOCK
from .timers import Timers
from .wait import Wait
from .work import kernel_work

if TYPE_CHECKING:
    from .kernel import Kernel

__all__ = ["Scheduler"]

HZ: Final = 250
"""Timer interrupts a second (CONFIG_HZ of most distributions)."""
END_OF_TIME: Final = 1 << 62
"""Cycles that the clock never shows: some forty years. Who sleeps longer, sleeps for ever (Linux: KTIME_MAX)."""
RAX: Final = 0
RSP: Final = 4
VMCALL_SIZE: Final = 3
SCHEDULE: Final = kernel_work("__schedule", __name__, cycles=650)
"""Measured: sched_yield with nobody else there took so much more than getppid (see syscalls/__init__.py)."""


class Scheduler:
    """Gives the processor to processes. `current` is None before the first one and after the last.

    `finish_syscall(kernel, process, result)` answers a system call that waited.
    """

    def __init__(self, kernel: Kernel, finish_syscall: Callable[[Kernel, Process, int], None]) -> None:
        self._finish_syscall = finish_syscall
        self._kernel, self._machine = kernel, kernel.machine
        self.ready: deque[Process] = deque()
        self._asleep: list[Process] = []
        self.timers, self.load = Timers(), LoadAverage()
        self.current: Process | None = None
        self.switches = 0
        self.jiffies = self._next_tick = 0
        self.is_stuck = False
        self._last: Process | None = None
        self.has_run = False  # since it was switched to; if not, what was saved of it still holds
        self._fresh = self._machine.cpu.uc.context_save()
        self._fresh_fpu = self._machine.cpu.fpu.fxsave()
        self._instructions_before = self._cycles_before = 0

    def new_thread(self, address: int) -> Thread:
        """A thread that begins at a kernel address, with the registers of a processor that was just switched on."""
        return Thread(address, self._fresh)

    def reset_processor(self) -> None:
        """Give the current process the floating-point registers and the FS base of a new one (flush_thread)."""
        cpu = self._machine.cpu
        general, rip = list(cpu.gprs), cpu.rip
        cpu.uc.context_restore(self._fresh)
        cpu.gprs[:], cpu.rip = general, rip

    def reset_fpu(self) -> None:
        """Give the current process the floating-point registers of a new one (fpu__clear_user_states)."""
        self._machine.cpu.fpu.fxrstor(self._fresh_fpu)

    # --- waking and sleeping ----------------------------------------------------------------------------------------

    def start(self, process: Process) -> None:
        """Let a new process have its turn."""
        self.ready.append(process)

    def block(self, process: Process, wait: Wait) -> None:
        """Put the current process to sleep; `return_to_user` will run another one."""
        process.wait, process.state, process.work = wait, State.SLEEPING, True
        process.waker = partial(self.wake, process)
        self._asleep.append(process)
        for queue in wait.queues:
            queue.add(process.waker)
        if wait.deadline is not None and self.ready:
            self.start_timer()

    def wake(self, process: Process) -> None:
        """Let a sleeping process look again (try_to_wake_up)."""
        if process.state is State.SLEEPING:
            process.state = State.READY
            self._asleep.remove(process)
            self.ready.append(process)

    def forget(self, process: Process) -> None:
        """A process that ended never runs again."""
        if process in self.ready:
            self.ready.remove(process)
        if process in self._asleep:
            self._asleep.remove(process)
        self._end_wait(process)

    @staticmethod
    def _end_wait(process: Process) -> None:
        if process.wait is not None:
            for queue in process.wait.queues:
                queue.remove(process.waker)
            process.wait = None
            process.signals.awaited = 0

    # --- the timer --------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """The timer fired: count it, wake whose time has come, and let the next one run."""
        if self._machine.clock.now >= self._next_tick:
            self._count_tick()
        self._wake_due()
        if self.current is not None and self.ready:
            self.current.need_resched = self.current.work = True
        self.start_timer()

    def _count_tick(self) -> None:
        self._next_tick = 0
        self.jiffies += 1
        if self.jiffies % LOAD_PERIOD == 0:
            self.load.update(len(self.ready) + (self.current is not None))
        self._kernel.reclaim.tick()
        self._kernel.khugepaged.tick()

    def start_timer(self) -> None:
        """Ask for the next interrupt: at the next tick, or when the first sleeper wants to be woken."""
        now, due = self._machine.clock.now, self._next_deadline()
        if not self._next_tick:
            self._next_tick = now + self._machine.clock.cycles(1_000_000_000 // HZ)
        due = self._next_tick if due is None else min(self._next_tick, due)
        self._machine.set_timer(max(due - now, 1), TIMER_VECTOR)

    def _next_deadline(self) -> int | None:
        """When the first sleeper or timer is due; None: never, which is also what the clock cannot show."""
        deadlines = [p.wait.deadline for p in self._asleep if p.wait is not None and p.wait.deadline is not None]
        alarm = self.timers.next_deadline
        due = min(deadlines if alarm is None else [*deadlines, alarm], default=END_OF_TIME)
        return due if due < END_OF_TIME else None

    def _wake_due(self) -> None:
        now = self._machine.clock.now
        self.timers.expire(now)
        for process in list(self._asleep):
            wait = process.wait
            if wait is not None and wait.deadline is not None and wait.deadline <= now:
                self.wake(process)

    # --- switching --------------------------------------------------------------------------------------------------

    def return_to_user(self) -> None:
        """The gate: whoever is current goes back to user mode, or another one does (exit_to_user_mode_loop)."""
        process = self.current
        if process is None:  # it has ended
            self.schedule()
            return
        if process.state is State.READY and process.need_resched and process.alive:
            process.need_resched = False
            self.ready.append(process)
        elif (process.state is not State.SLEEPING or process.signals.has_work) and self._resume(process):
            return
        self.schedule()

    def schedule(self) -> None:
        """Run the next process that can; stop the machine when there is none left."""
        while True:
            process = self._pick()
            if process is None:
                self._machine.stop()
                return
            self._switch_to(process)
            if self._resume(process):
                return

    def _pick(self) -> Process | None:
        """The first in turn. With everybody asleep, time passes until the first one wants to be woken."""
        while not self.ready:
            due = self._next_deadline()
            if due is None:
                self.is_stuck = bool(self._asleep)
                return None
            self._idle_until(due)
        return self.ready.popleft()

    def _idle_until(self, due: int) -> None:
        """Nobody can run before that time: the processor idles, or waits for the swap device."""
        self._kernel.manager.tlb.enter_lazy()
        cause = "swap_io" if any(process.waits_for_io for process in self._asleep) else "idle"
        self._machine.charge(cause, max(due - self._machine.clock.now, 0))
        self._wake_due()
        self.start_timer()

    def _resume(self, process: Process) -> bool:
        """Do what is to do before user mode. False if the process does not go there now."""
        if not process.alive or process.state not in (State.READY, State.SLEEPING):
            return False
        if process.wait is not None and not self._finish_wait(process):
            return False
        if process.set_child_tid:
            self._kernel.user.write(process.set_child_tid, process.pid.to_bytes(4, "little"))
            process.set_child_tid = 0
        process.work = False
        return do_signal(self._kernel, process) and process.state is State.READY

    def _finish_wait(self, process: Process) -> bool:
        """Try again what a system call waited for. False if it sleeps on."""
        wait = process.wait
        assert wait is not None
        try:
            result = wait.attempt()
        except Errno as error:
            result = -error.number
        if result is None and wait.deadline is not None and wait.deadline <= self._machine.clock.now:
            result = wait.on_timeout
        if result is None and wait.ends_by(process.signals):
            result = wait.on_signal
            process.restart_block = wait if result == -ERESTART_RESTARTBLOCK else None
        if result is None:
            if process.state is State.READY:
                process.state = State.SLEEPING
                self._asleep.append(process)
                self.start_timer()
            return False
        if process.state is State.SLEEPING:
            self._asleep.remove(process)
            process.state = State.READY
        self._end_wait(process)
        if not wait.is_io:
            self._finish_syscall(self._kernel, process, result)
        return True

    def _switch_to(self, process: Process) -> None:
        """Leave the current process where it is and go on where the other one was left (__switch_to)."""
        machine, cpu = self._machine, self._machine.cpu
        previous = self._last
        if previous is process:
            self._activate(process)
            return
        self.account()
        if previous is not None and previous.alive and self.has_run:
            gs_base = machine.control.read_msr(Msr.KERNEL_GS_BASE)
            previous.thread = Thread(cpu.rip + VMCALL_SIZE, cpu.uc.context_save(), gs_base)
        self.has_run = False
        self.switches += 1
        process.switches += 1
        self._kernel.memory.enter(SCHEDULE)
        if self._kernel.events.wants("context_switch"):
            before = previous.pid if previous else 0
            self._kernel.events.emit(ContextSwitch(machine.clock.now, process.pid, before, process.pid))
        self._last = process
        self._activate(process)
        cpu.uc.context_restore(process.thread.context)
        if process.thread.rip == self._kernel.text.symbols["ret_from_fork"]:
            cpu.gprs[RSP] = process.registers_va
        cpu.gprs[RAX] = 0  # do_syscall_64 returns with it: go back with IRET, not SYSRET
        machine.write_msr(Msr.KERNEL_GS_BASE, process.thread.user_gs_base)
        cpu.rip = process.thread.rip

    def _activate(self, process: Process) -> None:
        """Load its address space and its kernel stack."""
        self.current, self._machine.pid = process, process.pid
        self._kernel.manager.tlb.switch(process.mm)
        self._kernel.memory.store_va(self._kernel.percpu + PERCPU_TOP_OF_STACK, process.stack.top)

    def leave(self) -> None:
        """The current process has ended. Its page tables stay loaded until they go, or another's are loaded."""
        self.account()
        self.current, self._machine.pid = None, 0
        self._kernel.manager.tlb.enter_lazy()

    def account(self) -> None:
        """Give user instructions and time since the last call to the current process."""
        instructions, cycles = self._machine.retired(3)[0], self._machine.clock.now
        if self.current is not None:
            self.current.instructions += instructions - self._instructions_before
            self.current.cycles += cycles - self._cycles_before
        self._instructions_before, self._cycles_before = instructions, cycles

    def yield_now(self) -> None:
        """Let the others have their turn first (sched_yield)."""
        if self.current is not None and self.ready:
            self.current.need_resched = self.current.work = True
        else:
            self._kernel.memory.enter(SCHEDULE)  # it looks, and finds nobody
