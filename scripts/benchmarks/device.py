"""Where a section computes, and which clock counts there.

Unusual here: processor time counts on one thread of the CPU, wall time anywhere else; on CUDA every reading of the clock
waits for the device first.
"""

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from benchmarks.harness import Spread, Timings, interleave, one_thread, ratio, spread
from kdam_hf.errors import KdamValueError


def add_device_arguments(parser: ArgumentParser, rounds: int) -> None:
    """Options that every section about computing has."""
    parser.add_argument("--rounds", type=int, default=rounds, help="measurements of each variant; medians count")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU; with more than one, wall time counts")
    parser.add_argument("--seed", type=int, default=0)


@dataclass(frozen=True)
class Device:
    """A device and its clock.

    Args:
        name: "cpu" or "cuda".
        threads: of the CPU.
    """

    name: str
    threads: int = 1

    @classmethod
    def of(cls, args: Namespace) -> "Device":
        """The one that was asked for; refused when it is not there."""
        if args.device == "cuda" and not torch.cuda.is_available():
            raise KdamValueError("--device cuda: this build of torch finds no CUDA device; leave it out for the CPU")
        return cls(args.device, args.threads)

    @property
    def clock(self) -> str:
        """Which of the two clocks of `Timings` counts."""
        return "cpu_ms" if self.name == "cpu" and self.threads == 1 else "wall_ms"

    def now(self) -> float:
        """Milliseconds on that clock, when all work so far is done."""
        if self.name == "cuda":
            torch.cuda.synchronize()
        return 1e3 * (time.process_time() if self.clock == "cpu_ms" else time.perf_counter())

    @contextmanager
    def used(self) -> Iterator[None]:
        """With its number of threads."""
        with one_thread():
            torch.set_num_threads(self.threads)
            yield

    def interleave(self, variants: Mapping[str, Callable[[], object]], rounds: int, repeat: int = 1) -> Timings:
        """Time each variant once a round, `repeat` calls at a time; see `harness.interleave`."""

        def repeated(variant: Callable[[], object]) -> Callable[[int], int]:
            def work(_: int) -> int:
                for _ in range(repeat):
                    variant()
                self.now()
                return repeat

            return work

        return interleave({name: repeated(variant) for name, variant in variants.items()}, rounds)

    def median(self, timings: Timings, name: str) -> float:
        """Milliseconds of a variant."""
        return spread(timings[name][self.clock])["median"]

    def ratio(self, timings: Timings, over: str, under: str) -> Spread:
        """Time of `over` divided by the time of `under`, round by round."""
        return ratio(timings, over, under, self.clock)
