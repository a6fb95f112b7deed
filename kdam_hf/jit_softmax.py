"""What the compiled loops over rows of logits share: an exponential that vectorises, and threads without the lock."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from kdam_hf.jit import compiled

_f = np.float32


@compiled(fastmath={"reassoc", "contract", "arcp", "nsz"}, inline="always")
def exp_below_zero(x: Any) -> Any:
    """e^x for x <= 0 in float32; 2^k times a polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes' coefficients).

    For compiled code, into which it is inlined; relative error below 2e-7, and e^-87 below -87.
    """
    x = max(x, _f(-87.0))
    k = np.floor(x * _f(1.44269504) + _f(0.5))
    r = x - k * _f(0.693359375) + k * _f(2.12194440e-4)
    y = _f(1.9875691500e-4)
    y = y * r + _f(1.3981999507e-3)
    y = y * r + _f(8.3334519073e-3)
    y = y * r + _f(4.1665795894e-2)
    y = y * r + _f(1.6666665459e-1)
    y = y * r + _f(5.0000001201e-1)
    y = y * r * r + r + _f(1)
    return y * np.int32((np.int32(k) + np.int32(127)) << np.int32(23)).view(np.float32)


def in_threads(count: int, work: Callable[[int, int], np.ndarray]) -> list[np.ndarray]:
    """`work(begin, end)` on shares of `count` rows, one per thread of torch."""
    threads = torch.get_num_threads()
    if threads == 1:
        return [work(0, count)]
    ends = np.linspace(0, count, threads + 1).astype(int)
    return list(_pool(threads).map(work, ends[:-1], ends[1:]))


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
