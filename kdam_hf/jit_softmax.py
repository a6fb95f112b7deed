"""What the compiled loops over class maps share: blocks of pixels, and their softmaxes.

Unusual here: maps are planar, so the innermost loop runs over the pixels of a block. It is as fast for two channels as for
forty, and neither a maximum nor a sum runs across a vector. A plane is sliced before its loop: an index that could be
negative is not vectorised.
"""

from typing import Any

import numpy as np

from kdam_hf.jit import compiled

BLOCK = 64  # pixels: 10 KiB for 40 channels, so that student and teacher fit the first cache

_f = np.float32
# A number that is not finite must stay so, hence neither `nnan` nor `ninf`.
_LIBERTIES = {"reassoc", "contract", "arcp", "nsz"}


@compiled
def block_count(images: int, pixels: int) -> int:
    """Blocks of `images` planes of `pixels`; none holds pixels of two."""
    return images * ((pixels + BLOCK - 1) // BLOCK)


@compiled(inline="always")
def block_at(block: int, pixels: int) -> Any:
    """Image of a block, its first pixel, and how many it has."""
    per_image = (pixels + BLOCK - 1) // BLOCK
    start = block % per_image * BLOCK
    return block // per_image, start, min(BLOCK, pixels - start)


@compiled(fastmath=_LIBERTIES, inline="always")
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


@compiled(fastmath=_LIBERTIES, inline="always")
def exp_block(logits: Any, begin: int, first: int, last: int, e: Any, peak: Any, total: Any, scale: Any) -> None:
    """exp((x - peak) * scale) of a block of pixels, and what its softmax takes.

    Args:
        logits: planes (C, n), contiguous.
        begin: the first pixel; the block has the length of `peak`.
        first: channel of the softmax.
        last: channel after it.
        e: (C, pixels), channels `first` to `last` are written.
        peak: (pixels,), the largest x.
        total: (pixels,), the sums of the exponentials.
        scale: one over the temperature.
    """
    end = begin + len(peak)
    for i in range(len(peak)):
        peak[i] = logits[first, begin + i]
        total[i] = _f(0)
    for c in range(first, last):
        plane = logits[c, begin:end]
        for i in range(len(peak)):
            peak[i] = max(peak[i], plane[i])
    for c in range(first, last):
        plane, e_of_class = logits[c, begin:end], e[c]
        for i in range(len(peak)):
            e_of_class[i] = exp_below_zero((plane[i] - peak[i]) * scale)
            total[i] += e_of_class[i]
