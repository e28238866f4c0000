"""The same function on many things at once, in processes of their own, with a progress bar for those who wait.

A guest runs in one thread of one process, so three guests on three cores take no longer than one. Processes are
spawned, not forked: a worker has its own Unicorn and its own native code on every system.

>>> in_parallel(abs, [3, -4], jobs=1)
[3, 4]
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from emu import InputError

from .terminal import console

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["in_parallel"]

PATIENCE: Final = 2.0
"""Seconds that people wait without wondering."""
INTERVAL: Final = 0.2

Job = TypeVar("Job")
Answer = TypeVar("Answer")


def in_parallel(
    function: Callable[[Job], Answer], jobs_to_do: Sequence[Job], *, jobs: int | None = None, what: str = "runs"
) -> list[Answer]:
    """`function` of each job, in order; `jobs` processes at a time, by default one for each core.

    The first exception of a job is raised, and the others are given up. With one process at a time the work is done
    here. Raises InputError where the system ends a process.
    """
    processes = min(jobs or os.cpu_count() or 1, len(jobs_to_do))
    if processes <= 1:
        return list(_counted(function, jobs_to_do, what))
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_leave_interrupts_to_parent)
    try:
        futures = [pool.submit(function, job) for job in jobs_to_do]
        _wait(futures, what)
        return [future.result() for future in futures]
    except BrokenProcessPool:
        raise InputError("the system ended one of the processes; --jobs 1 needs the least memory") from None
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_parent() -> None:
    """Ctrl-C reaches every process of a terminal; only the first one answers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _counted(function: Callable[[Job], Answer], jobs: Iterable[Job], what: str) -> Iterator[Answer]:
    done = 0
    todo = list(jobs)
    with _progress(what, len(todo)) as show:
        for job in todo:
            yield function(job)
            done += 1
            show(done)


def _wait(futures: list[Future[Answer]], what: str) -> None:
    """Wait for all of them, or for the first that fails."""
    with _progress(what, len(futures)) as show:
        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=INTERVAL, return_when=FIRST_EXCEPTION)
            show(sum(future.done() for future in futures))
            if any(future.exception() for future in done):
                return


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, if that is a terminal and it takes longer than people wait without wondering."""
    if not sys.stderr.isatty():
        yield lambda _done: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(what), TimeElapsedColumn())
    bar: Progress = Progress(*columns, console=console(sys.stderr), transient=True)
    task, begin = bar.add_task(what, total=total), time.monotonic()

    def show(done: int) -> None:
        bar.update(task, completed=done)
        if time.monotonic() - begin > PATIENCE:
            bar.start()

    try:
        yield show
    finally:
        bar.stop()
