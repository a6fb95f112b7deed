"""Loops that numba compiles where it is installed, and that run as plain Python where not; threads to run them in.

Unusual here: the fallback is the same source, so both give the same numbers; plain Python takes some fifty times
longer.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch

try:
    import numba
except ImportError:
    numba = None

HAS_NUMBA = numba is not None


def compiled(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a function of arrays and numbers, or return it as it is without numba; a decorator, with or without options.

    The original stays reachable as `.py_func` in both cases. Machine code is kept on disk where numba finds a folder
    it may write to (`NUMBA_CACHE_DIR`), so that only the first process compiles.

    Args:
        function: to compile.
        options: of `numba.njit`.
    """
    if function is None:
        return partial(compiled, **options)
    if numba is None:
        function.py_func = function  # type: ignore[attr-defined]
        return function
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no folder for its cache
        return numba.njit(**options)(function)


def in_threads(count: int, work: Callable[[int, int], Any]) -> list[Any]:
    """`work(begin, end)` on shares of `count` things, one per thread of torch; compiled with `nogil`, they run side by side."""
    threads = torch.get_num_threads()
    if threads == 1:
        return [work(0, count)]
    ends = np.linspace(0, count, threads + 1).astype(int)
    return list(_pool(threads).map(work, ends[:-1], ends[1:]))


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
