"""Time and peak memory of every loss under the allocator settings of this process; started by the section `loss`.

    python -m benchmarks.loss_child '{"batch_size": 1, ...}'

Prints one line of JSON. Unusual here: on the CPU each peak is that of a fork, which begins with the heap of a process that
has only imported; a first small problem brings in code, so that it is not counted.
"""

import ctypes
import json
import multiprocessing
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

from benchmarks.device import Device
from benchmarks.loss_variants import Settings, differentiate, make_problem, variants

SMALL = {"batch_size": 1, "height": 64, "width": 64}
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def main(settings: Settings) -> None:
    device = Device(settings["device"], settings["threads"])
    with device.used():
        names = list(variants(make_problem({**settings, **SMALL}), settings))
        measure = peak_on_cuda if device.name == "cuda" else peak_in_fork
        peaks = {name: measure(name, settings) for name in names}
        problem = make_problem(settings)
        calls = {
            name: lambda loss=loss: differentiate(loss, problem.student)
            for name, loss in variants(problem, settings).items()
        }
        timings = device.interleave(calls, settings["rounds"])
    print(json.dumps({"timings": timings, "peak_mib": peaks}))


def peak_on_cuda(name: str, settings: Settings) -> float:
    """MiB at the peak of forward and backward, beyond what the inputs take."""
    problem = prepared(name, settings)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    differentiate(variants(problem, settings)[name], problem.student)
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def peak_in_fork(name: str, settings: Settings) -> float:
    """The same on the CPU, from a process of its own."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=lambda: send.send(peak_of_process(name, settings)))
    process.start()
    send.close()  # so that receiving ends if the fork does
    peak = receive.recv()
    process.join()
    return peak


def peak_of_process(name: str, settings: Settings) -> float:
    """MiB that this process grows by at the peak of forward and backward."""
    problem = prepared(name, settings)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # freed memory that the allocator kept would be used again unseen
    with suppress(OSError):
        CLEAR_REFS.write_text("5")  # the peak starts from what is held now
    before = min(resident_mib(), peak_mib())
    differentiate(variants(problem, settings)[name], problem.student)
    return peak_mib() - before


def prepared(name: str, settings: Settings):
    """The problem, after a small one was solved the same way."""
    small = {**settings, **SMALL}
    differentiate(variants(make_problem(small), small)[name], make_problem(small).student)
    return make_problem(settings)


def resident_mib() -> float:
    """What this process holds now; without procfs its peak so far."""
    return _status("VmRSS") if STATUS.exists() else peak_mib()


def peak_mib() -> float:
    """The most this process has held."""
    if STATUS.exists():
        return _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _status(name: str) -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
