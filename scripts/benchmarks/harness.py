"""Timing of variants side by side on a shared machine: interleaved rounds, ratios of one round, no claim in doubt.

Unusual here: the clock is the processor time of this process, with one thread. Other work on the machine moves it less
than wall time, and moves all variants of a round alike; so ratios are taken within rounds, and only they are compared.
"""

import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch

Work = Callable[[int], int]
"""Does the work of one round, which is given by its number; returns how many items it did."""
Timings = dict[str, dict[str, list[float]]]
"""Variant -> `cpu_ms` and `wall_ms` -> milliseconds per item, one a round."""
Spread = dict[str, float]
"""`median`, `min` and `max` over rounds."""


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch, and OpenCV if it is there, compute with one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        import cv2

        cv2.setNumThreads(1)
    except ImportError:
        pass
    try:
        yield
    finally:
        torch.set_num_threads(before)


def interleave(variants: Mapping[str, Work], rounds: int) -> Timings:
    """Time each variant once a round, in an order that moves on by one each round; a first round is dropped.

    Args:
        variants: name -> work.
        rounds: that count.
    """
    timings: Timings = {name: {"cpu_ms": [], "wall_ms": []} for name in variants}
    names = list(variants)
    for number in range(rounds + 1):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            wall, cpu = time.perf_counter(), time.process_time()
            items = variants[name](number)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if number:
                timings[name]["cpu_ms"].append(1e3 * cpu / items)
                timings[name]["wall_ms"].append(1e3 * wall / items)
    return timings


def spread(values: Sequence[float]) -> Spread:
    """Median and extremes."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def ratio(timings: Timings, over: str, under: str, clock: str = "cpu_ms") -> Spread:
    """Time of `over` divided by the time of `under`, round by round."""
    return spread([a / b for a, b in zip(timings[over][clock], timings[under][clock], strict=True)])


def settings_of(args: Namespace, *more: str) -> dict[str, Any]:
    """All options but those that say where results go, and `more`."""
    return {name: value for name, value in vars(args).items() if name not in ("output", "section", *more)}


def claim(what: str, of: Spread) -> str:
    """A sentence with the ratio, or, when some rounds say more and some less than 1, that nothing can be said."""
    if of["min"] <= 1 <= of["max"]:
        return f"{what}: no claim, rounds disagree ({of['min']:.3g} to {of['max']:.3g})"
    return f"{what}: {of['median']:.3g} ({of['min']:.3g} to {of['max']:.3g})"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns wide enough for their cells; numbers to three digits."""
    cells = [list(header), *([c if isinstance(c, str) else f"{c:.3g}" for c in row] for row in rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
