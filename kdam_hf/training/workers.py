"""Processes that load or count for a training: stopping is the training's affair, and they end when it does.

A scheduler or a terminal signals the whole group; a worker that died of it would end the step that is to be finished.

Unusual here: a worker is forked with SIGTERM blocked. OpenBLAS starts its threads again in the child, before any Python
code runs there, and any of them may be handed the signal that the rest of the child has blocked.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from multiprocessing import context
from typing import Any

from kdam_hf.training.signals import end_with_parent


class _Worker:
    def start(self) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            super().start()  # type: ignore[misc]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        # For threads that libraries have started before the block. After it and not SIG_IGN, which would discard what is
        # pending: a SIGTERM of the parent must not be lost, or a pool that ends its workers would wait for ever.
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        threading.Thread(target=_end_when_told_by, args=(parent,), daemon=True).start()
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


def _end_when_told_by(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
