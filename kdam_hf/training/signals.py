"""SIGTERM and SIGINT as a request to stop at the end of the step, and processes that load or count for a training.

A scheduler or a terminal signals the whole group. Workers leave that to their training, and end when it does: one that died
would end the step that is to be finished.

Unusual here: a process may ask the kernel (Linux) for a signal when its parent ends. `accelerate launch` with one process
dies of a SIGTERM without telling the training, and a data worker that hangs outlives a killed training; neither does here.
A worker is forked with SIGTERM blocked. OpenBLAS starts its threads again in the child, before any Python code runs there,
and any of them may be handed the signal that the rest of the child has blocked.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from multiprocessing import context
from types import FrameType
from typing import Any

STOPPING = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG = 1
_prctl = getattr(ctypes.CDLL(None), "prctl", None) if sys.platform == "linux" else None


class StopRequest:
    """While entered, the first SIGTERM or SIGINT is noted and the second ends the process at once.

    Outside of the main thread nothing is changed, as Python allows no handlers there.

    Args:
        echo_s: seconds during which further signals are taken for copies of the first. A launcher forwards the signal that
            the terminal or the scheduler has sent to the whole group already.
    """

    def __init__(self, echo_s: float | None = None) -> None:
        self.received = 0
        self._echo_s = (5.0 if is_launched() else 0.0) if echo_s is None else echo_s
        self._first = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in STOPPING}
            follow_launcher()
        return self

    def __exit__(self, *exception: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.received:
            self.received, self._first = number, time.monotonic()
            # print may be interrupted in the middle of a print
            os.write(2, f"\n{signal.Signals(number).name}: stopping after this step; again to stop now\n".encode())
        elif time.monotonic() - self._first >= self._echo_s:
            os._exit(128 + number)


def is_launched() -> bool:
    """Whether `accelerate launch` or `torchrun` started this process."""
    return "ACCELERATE_MIXED_PRECISION" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ


def follow_launcher() -> None:
    """Take the end of the launcher, if there is one, for a SIGTERM."""
    if is_launched():
        end_with_parent(signal.SIGTERM)


def end_with_parent(number: int) -> None:
    """Have the kernel send this process a signal when its parent ends; does nothing where there is no such call."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, int(number))


class _Worker:
    def start(self) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            super().start()  # type: ignore[misc]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def terminate(self) -> None:
        """As pools and loaders end their workers, which do not listen to SIGTERM."""
        self.kill()  # type: ignore[attr-defined]


class _Fork(_Worker, context.ForkProcess):
    pass


class _Spawn(_Worker, context.SpawnProcess):
    pass


def worker_context(method: str | None = None) -> Any:
    """A context of `multiprocessing` whose processes are workers, forked or spawned; by this Python's default for None.

    forkserver, the default of Python 3.14, is taken for spawn: behind a fork server, a worker and its training do not hear of
    each other's end.
    """
    method = multiprocessing.get_context(method).get_start_method()
    workers: Any = copy(multiprocessing.get_context("fork" if method == "fork" else "spawn"))
    workers.Process = _Fork if method == "fork" else _Spawn
    return workers


def shield_worker(parent: int, worker: int = 0) -> None:
    """To be called first in a worker of the process `parent`: it leaves signals to that, and ends when that does."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)  # for threads of libraries too
    end_with_parent(signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call above
        os._exit(1)


@contextmanager
def no_worker_left() -> Iterator[None]:
    """End the workers that were started inside, whether they listen or hang, and wait for them.

    Left to the garbage collector, idle workers end after a timeout of five seconds each.
    """
    before = {*multiprocessing.active_children()}
    try:
        yield
    finally:
        # torch's handler would raise for every worker that dies; Python keeps handlers to the main thread
        main = threading.current_thread() is threading.main_thread()
        handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if main else None
        for worker in {child for child in multiprocessing.active_children() if isinstance(child, _Worker)} - before:
            worker.kill()
            worker.join()
        if main:
            signal.signal(signal.SIGCHLD, handler)
