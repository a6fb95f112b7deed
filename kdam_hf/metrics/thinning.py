"""Thin a mask to lines one pixel wide, pixel for pixel as `skimage.morphology.thin` and MATLAB's `bwmorph(.., 'thin', inf)`.

Unusual here: after two full passes only pixels beside one that was just deleted are looked at again, so the cost
follows the number of pixels that change and not image size times thickness.
"""

import numpy as np
from numpy.typing import NDArray

from kdam_hf.errors import KdamValueError
from kdam_hf.jit import HAS_NUMBA, compiled

# row and column steps to the neighbours x1..x8: east first, then counter-clockwise; x_k is bit k - 1 of a code
STEPS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


def deletable(second: bool) -> NDArray[np.bool_]:
    """Whether a foreground pixel goes, by the code of its 8 neighbours, in the first or second sub-iteration; (256,).

    G1: its foreground neighbours hang together in one piece. G2: it is neither an end nor inside. G3: it lies on the
    side that this sub-iteration peels; the second peels the side turned by 180 degrees.

    Source:
        Guo and Hall, "Parallel thinning with two-subiteration algorithms", CACM 32(3), 1989; conditions as in Lam,
        Lee and Suen, "Thinning methodologies", PAMI 14(9), 1992, section III.
    """
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1 == 1
    x1, x2, x3, x4, x5, x6, x7, x8 = bits.T
    sides, corners, next_sides = bits[:, 0::2], bits[:, 1::2], np.roll(bits[:, 0::2], -1, axis=1)
    crossings = (~sides & (corners | next_sides)).sum(axis=1)
    pairs = np.minimum((sides | corners).sum(axis=1), (corners | next_sides).sum(axis=1))
    peeled = (x6 | x7 | ~x4) & x5 if second else (x2 | x3 | ~x8) & x1
    return (crossings == 1) & (pairs >= 2) & (pairs <= 3) & ~peeled


TABLES = np.stack([deletable(second=False), deletable(second=True)])


def thin(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Thin until nothing changes.

    Args:
        mask: bool (H, W); it is not changed.

    Returns:
        bool (H, W), a subset of the mask with the same connected pieces.

    Raises:
        KdamValueError: the mask is not a 2-d bool array.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise KdamValueError(
            f"mask is {mask.dtype} {mask.shape}: thinning takes bool (H, W); threshold the map and drop other axes"
        )
    # a frame of background: every neighbour of a pixel exists
    framed = np.zeros((mask.shape[0] + 2, mask.shape[1] + 2), np.bool_)
    framed[1:-1, 1:-1] = mask
    steps = np.array([row * framed.shape[1] + column for row, column in STEPS])
    (_thin_loops if HAS_NUMBA else _thin_arrays)(framed.reshape(-1), steps, TABLES)
    return framed[1:-1, 1:-1].copy()


def _thin_arrays(pixels: NDArray[np.bool_], steps: NDArray[np.int64], tables: NDArray[np.bool_]) -> None:
    """Thin in place, with array operations; `pixels` is the framed mask in one row."""
    touched = np.zeros_like(pixels)
    candidates = deleted = np.flatnonzero(pixels)
    turn = 0
    while len(candidates):
        code = np.zeros(len(candidates), np.uint8)
        for bit, step in enumerate(steps):
            code |= pixels[candidates + step].view(np.uint8) << bit
        earlier, deleted = deleted, candidates[tables[turn % 2, code]]
        pixels[deleted] = False
        turn += 1
        if turn == 1:
            candidates = candidates[pixels[candidates]]
            continue
        for step in steps:
            touched[earlier + step] = True
            touched[deleted + step] = True
        candidates = np.flatnonzero(touched & pixels)
        touched[:] = False


@compiled
def _thin_loops(pixels: NDArray[np.bool_], steps: NDArray[np.int64], tables: NDArray[np.bool_]) -> None:
    """The same in loops."""
    candidates = np.flatnonzero(pixels)
    count = len(candidates)
    deleted = np.empty((2, count), np.int64)  # of the last sub-iteration of either kind
    deleted_count = np.zeros(2, np.int64)
    listed = np.full(len(pixels), -1, np.int32)  # the turn for which a pixel was last made a candidate
    turn = 0
    while count:
        now = turn % 2
        gone = 0
        for index in range(count):
            pixel = candidates[index]
            code = 0
            for bit in range(8):
                code |= pixels[pixel + steps[bit]] << bit
            if pixels[pixel] and tables[now, code]:
                deleted[now, gone] = pixel
                gone += 1
        deleted_count[now] = gone
        for index in range(gone):
            pixels[deleted[now, index]] = False
        turn += 1
        if turn == 1:
            continue
        count = 0
        for kind in range(2):
            for index in range(deleted_count[kind]):
                for step in steps:
                    pixel = deleted[kind, index] + step
                    if pixels[pixel] and listed[pixel] != turn:
                        listed[pixel] = turn
                        candidates[count] = pixel
                        count += 1
