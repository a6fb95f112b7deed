"""SIGTERM and SIGINT as a request to stop at the end of the step, whoever started the process.

Unusual here: a process may ask the kernel (Linux) for a signal when its parent ends. `accelerate launch` with one process
dies of a SIGTERM without telling the training, and a data worker that hangs outlives a killed training; neither does here.
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
