"""A process that parses MATLAB files of version 5 for the process that reads them.

A single wrong byte can end SciPy's parser with a segmentation fault, keep it busy forever or make it ask for all memory.
So it runs beside, with a limit on time and memory, and hands back JSON and plain numbers; nothing is unpickled. Every
reading process has its own, started when first needed; it ends with it. This file is also what that process runs.
"""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

SECONDS = 30.0
SECONDS_TO_START = 120.0
MEMORY = 2 * 2**30
ALIGNMENT = 16
Reply = tuple[dict[str, Any], bytearray]


def parse(content: bytes, key: str, seconds: float | None = None) -> NDArray[Any] | list[str]:
    """The variable `key` of a `.mat` of version 5, as SciPy shapes it, or the names that are there instead.

    Args:
        content: of the file.
        key: name of the variable; of numbers, text, structs or cells.
        seconds: limit on the time to parse; `SECONDS` for None.

    Raises:
        ValueError: the parser raised something, died, or was not ready in time; says what.
    """
    global _parser
    if _parser is None or _parser.owner != os.getpid():  # a forked process must not share the pipes
        _parser = _Parser()
    try:
        reply, payload = _parser.ask({"key": key, "bytes": len(content)}, content, seconds or SECONDS)
    except BaseException:
        _parser.kill()
        _parser = None
        raise
    if "error" in reply:
        raise ValueError(reply["error"])
    return reply["names"] if "names" in reply else _decode(reply["found"], payload)


class _Parser:
    """The process beside, and the pipes to it."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pipesize=2**20,  # maps take turns less often
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},  # threads take address space
            start_new_session=True,  # Ctrl-C is for the process that reads
        )
        self._ready = False

    def ask(self, request: dict[str, Any], content: bytes, seconds: float) -> Reply:
        """Send a file, get a reply."""
        if not self._ready:
            self._within(SECONDS_TO_START, self._receive)
            self._ready = True
        return self._within(seconds, lambda: self._exchange(request, content))

    def kill(self) -> None:
        """End the process."""
        self._process.kill()
        with contextlib.suppress(OSError):  # what was not sent
            self._process.communicate()

    def _exchange(self, request: dict[str, Any], content: bytes) -> Reply:
        with contextlib.suppress(BrokenPipeError):  # it died of a part; the reply is missing
            _send(self._pipe("stdin"), request, content)
        return self._receive()

    def _receive(self) -> Reply:
        pipe = self._pipe("stdout")
        line = pipe.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        reply = json.loads(line)
        payload = bytearray(reply["bytes"])
        if pipe.readinto(payload) != len(payload):  # type: ignore[attr-defined]
            raise EOFError
        return reply, payload

    def _within(self, seconds: float, do: Any) -> Any:
        timer = threading.Timer(seconds, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            return do()
        except EOFError as error:
            expired, code = timer.finished.is_set(), self._process.wait()
            if expired:
                raise ValueError(f"its parser was not ready after {seconds:g} s") from error
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise ValueError(f"its parser died of {name}") from error
        finally:
            timer.cancel()

    def _pipe(self, name: str) -> IO[bytes]:
        return getattr(self._process, name)


_parser: _Parser | None = None


def _decode(node: dict[str, Any], payload: bytearray) -> NDArray[Any]:
    shape = tuple(node["shape"])
    if "dtype" in node:
        return np.ndarray(shape, np.dtype(node["dtype"]), payload, node["offset"], order=node["order"])
    if "fields" in node:
        fields = {name: _decode(field, payload) for name, field in node["fields"].items()}
        record = np.empty(shape, [(name, object) for name in fields])
        for name, values in fields.items():
            record[name] = values
        return record
    cells = np.empty(len(node["cells"]), object)
    for k, cell in enumerate(node["cells"]):
        cells[k] = _decode(cell, payload)
    return cells.reshape(shape)


# ---- in the process beside --------------------------------------------------------------------------------------------


def _serve(source: IO[bytes], sink: IO[bytes]) -> None:
    from scipy.io import loadmat

    _send(sink, {}, b"")
    for line in source:
        request = json.loads(line)
        content, payload = source.read(request["bytes"]), bytearray()
        reply: dict[str, Any]
        try:
            found = loadmat(io.BytesIO(content))
            if request["key"] in found:
                reply = {"found": _encode(found[request["key"]], payload)}
            else:
                reply = {"names": [name for name in found if not name.startswith("__")]}
        except Exception as error:  # crafted bytes raise nearly anything
            reply, payload = {"error": f"{type(error).__name__}: {error}"}, bytearray()
        _send(sink, reply | {"bytes": len(payload)}, payload)


def _send(pipe: IO[bytes], facts: dict[str, Any], content: bytes | bytearray) -> None:
    pipe.write(json.dumps({"bytes": 0} | facts).encode() + b"\n")
    pipe.write(content)
    pipe.flush()


def _encode(value: Any, payload: bytearray) -> dict[str, Any]:
    """A variable as a tree of plain data, and its numbers appended to the payload."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"holds a {type(value).__name__}, neither numbers, text, struct nor cell")
    shape = list(value.shape)
    if value.dtype.names:
        return {"shape": shape, "fields": {name: _encode(value[name], payload) for name in value.dtype.names}}
    if value.dtype.hasobject:
        return {"shape": shape, "cells": [_encode(cell, payload) for cell in value.flat]}
    payload.extend(bytes(-len(payload) % ALIGNMENT))
    order: Literal["F", "C"] = "F" if value.flags.f_contiguous else "C"  # turning MATLAB's own costs more than parsing
    node = {"shape": shape, "dtype": value.dtype.str, "offset": len(payload), "order": order}
    payload.extend(value.tobytes(order))
    return node


def _limit_memory() -> None:
    with contextlib.suppress(ImportError):  # only on Unix
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    _limit_memory()
    with os.fdopen(os.dup(1), "wb") as replies:
        os.dup2(2, 1)  # what a library prints is no reply
        _serve(sys.stdin.buffer, replies)
