"""A process that parses MATLAB files of version 5 for the process that reads them.

A single wrong byte can end SciPy's parser with a segmentation fault, keep it busy forever or make it ask for all memory.
So it runs beside, with a limit on time and memory. Every reading process has its own, started when first needed; a pool of
`concurrent.futures` cannot be used, as workers of a DataLoader may have no children of `multiprocessing`. This file is also
what that process runs, so it imports nothing of the project.
"""

import contextlib
import io
import os
import resource
import signal
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

SECONDS = 30.0
SECONDS_TO_START = 120.0
MEMORY = 2 * 2**30


class Parser:
    """The process beside, and the connection to it."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},  # threads take address space
                start_new_session=True,  # Ctrl-C is for the process that reads
            )
        self.connection = Connection(ours.detach())
        self.receive(SECONDS_TO_START)

    def receive(self, seconds: float) -> Any:
        """Its next message; ValueError if it dies or takes longer."""
        try:
            if self.connection.poll(seconds):
                return self.connection.recv()
        except (EOFError, OSError) as error:
            code = self.process.wait()
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise ValueError(f"its parser died of {name}") from error
        raise ValueError(f"its parser was not ready after {seconds:g} s")


_parser: Parser | None = None


def parse(content: bytes, key: str) -> NDArray[Any] | list[str]:
    """The variable `key` of the content of a `.mat` of version 5, as SciPy shapes it, or the names that are there instead.

    Raises:
        ValueError: the parser raised something, died, or was not ready in time; says what.
    """
    global _parser
    if _parser is None or _parser.owner != os.getpid():  # a forked process must not share the connection
        _parser = Parser()
    try:
        with contextlib.suppress(OSError):  # it died of a part; the reply is missing
            _parser.connection.send((content, key))
        found = _parser.receive(SECONDS)
    except BaseException:
        with _parser.process as process, _parser.connection:
            process.kill()
        _parser = None
        raise
    if isinstance(found, str):
        raise ValueError(found)
    return found


def _serve(connection: Connection) -> None:
    """In the process beside: a reply to each message."""
    from scipy.io import loadmat

    connection.send("ready")
    while True:
        content, key = connection.recv()
        found: Any
        try:
            variables = loadmat(io.BytesIO(content))
            found = variables.get(key, [name for name in variables if not name.startswith("__")])
            if not isinstance(found, (np.ndarray, list)):
                found = f"holds a {type(found).__name__}, neither numbers, text, struct nor cell"
        except Exception as error:  # crafted bytes raise nearly anything
            found = f"{type(error).__name__}: {error}"
        connection.send(found)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(EOFError):  # whom it works for has ended
        _serve(Connection(int(sys.argv[1])))
