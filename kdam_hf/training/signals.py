"""SIGTERM and SIGINT as a request to stop at the end of the step, whoever started the process.

Unusual here: a process may ask the kernel (Linux) for a signal when its parent ends. `accelerate launch` with one process
dies of a SIGTERM without telling the training, and a data worker that hangs outlives a killed training; neither does here.
And a fork holds SIGTERM back while it is made: OpenBLAS starts its threads again in the child, any of which may be handed the
signal that the rest of the child has blocked.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

STOPPING = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG = 1
_masks = threading.local()
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


def shield_worker(parent: int) -> None:
    """For a process that loads data: stopping is its parent's affair, and it ends when the parent does, however it ends.

    A scheduler or a terminal signals the whole group; a worker that died of it would end the step that is to be finished.

    Args:
        parent: process id of the training.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        # For threads that libraries have started before the block. After it and not SIG_IGN, which would discard what is
        # pending: a SIGTERM of the parent must not be lost, or a pool that ends its workers would wait for ever.
        signal.signal(signal.SIGTERM, _leave_it)
        threading.Thread(target=_end_when_told_by, args=(parent,), daemon=True).start()
    end_with_parent(signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call above
        os._exit(1)


def _leave_it(number: int, frame: FrameType | None) -> None:
    pass


def _end_when_told_by(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _hold() -> None:
    """Threads that libraries start in a child before it runs Python, as OpenBLAS does, begin with SIGTERM blocked."""
    _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _release() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_release)
