"""Thin a mask to lines one pixel wide, pixel for pixel as `skimage.morphology.thin` and MATLAB's `bwmorph(.., 'thin', inf)`."""

import numpy as np
from numpy.typing import NDArray

from kdam_hf.errors import KdamValueError

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
    """Thin a mask, bool (H, W), until nothing changes: a subset of it with the same connected pieces.

    Raises:
        KdamValueError: the mask is not a 2-d bool array.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise KdamValueError(f"mask is {mask.dtype} {mask.shape}: thinning takes bool (H, W); threshold the map first")
    framed = np.pad(np.ascontiguousarray(mask), 1)  # every neighbour of a pixel exists; one row after the other
    pixels = framed.ravel()
    steps = [row * framed.shape[1] + column for row, column in STEPS]
    touched = np.zeros_like(pixels)
    candidates = deleted = np.flatnonzero(pixels)
    turn = 0
    while len(candidates):
        code = np.zeros(len(candidates), np.uint8)
        for bit, step in enumerate(steps):
            code |= pixels[candidates + step].view(np.uint8) << bit
        earlier, deleted = deleted, candidates[TABLES[turn % 2, code]]
        pixels[deleted] = False
        # from now on only pixels beside one that went in the last two turns; in the first two, all of them
        for step in steps:
            touched[earlier + step] = True
            touched[deleted + step] = True
        candidates = np.flatnonzero(touched & pixels)
        touched[:] = False
        turn += 1
    return framed[1:-1, 1:-1]
