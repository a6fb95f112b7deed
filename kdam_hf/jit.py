"""Loops that numba compiles where it is installed, and that run as plain Python where not.

Unusual here: the fallback is the same source, so both give the same numbers; plain Python takes some fifty times longer.
"""

from collections.abc import Callable
from typing import Any

try:
    import numba
except ImportError:
    numba = None

HAS_NUMBA = numba is not None


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function of arrays and numbers, or return it as it is without numba; a decorator.

    The original stays reachable as `.py_func` in both cases. Machine code is kept on disk where numba finds a folder
    it may write to (`NUMBA_CACHE_DIR`), so that only the first process compiles.
    """
    if numba is None:
        function.py_func = function  # type: ignore[attr-defined]
        return function
    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:  # numba found no folder for its cache
        return numba.njit(function)
