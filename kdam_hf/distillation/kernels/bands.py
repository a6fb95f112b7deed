"""Bilinear upsampling by four, a band of rows at a time, and its transpose.

Rows 4k + 2 to 4m + 1 of the full map depend on rows k to m of the small one, so bands that begin and end there share
the least. Unusual here: on the CPU compiled loops do both; they stretch a row of the small map once for the rows of the full
one that lie between it and the next, and need no copy of a band to transpose it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kdam_hf.distillation.kernels.objective import STRIDE
from kdam_hf.jit import HAS_NUMBA, compiled, in_threads

_LIBERTIES = {"reassoc", "contract", "arcp", "nsz"}
_HALF = STRIDE // 2


@dataclass(frozen=True)
class Band:
    """Rows of some images.

    Args:
        images: of the batch.
        rows: of the full map.
        source: of the small map; what `rows` depend on.
        skip: rows of the upsampled `source` before the first of `rows`.
    """

    images: slice
    rows: slice
    source: slice
    skip: int

    def of_full(self, x: Tensor) -> Tensor:
        """The band of a map (B, ..., H, W), or of a mask (B, H, W)."""
        return x[self.images, ..., self.rows, :]


def bands(batch: int, height: int, width: int, source_height: int, pixels: int) -> Iterator[Band]:
    """Bands of about `pixels` pixels that cover a batch of full maps."""
    cells = max(1, min(source_height, pixels // (STRIDE * width)))
    images = max(1, pixels // (width * height)) if cells == source_height else 1
    for first in range(0, batch, images):
        for cell in range(0, source_height, cells):
            last = cell + cells >= source_height
            begin = STRIDE * cell - _HALF if cell else 0
            end = height if last else min(height, STRIDE * (cell + cells) - _HALF)
            if begin >= end:
                continue
            source = slice(max(0, cell - 1), min(source_height, cell + cells))
            yield Band(slice(first, first + images), slice(begin, end), source, begin - STRIDE * source.start)


def upsampled(x_BChw: Tensor, band: Band, width: int) -> Tensor:
    """A band of the upsampled map: (B, C, h, w) -> (b, C, rows, width), contiguous."""
    source = x_BChw[band.images, :, band.source]
    rows = band.rows.stop - band.rows.start
    if _compiles(source):
        full = source.new_empty(*source.shape[:2], rows, width)
        small, planes = _planes(source.contiguous()), _planes(full)
        in_threads(len(planes), lambda begin, end: _stretch(small, planes, band.skip, begin, end))
        return full
    source = source.contiguous(memory_format=torch.channels_last)  # several times faster with torch
    full = F.interpolate(source, scale_factor=STRIDE, mode="bilinear", align_corners=False)
    return full[:, :, band.skip : band.skip + rows, :width].contiguous()


def add_transposed(gradient_BChw: Tensor, band: Band, gradient_of_band: Tensor) -> None:
    """Add what the gradient of a band, (b, C, rows, width), is for the small map."""
    target = gradient_BChw[band.images, :, band.source]
    images, channels, height, width = target.shape
    if _compiles(target):
        added = target.new_zeros(target.shape)
        small, planes = _planes(added), _planes(gradient_of_band.contiguous())
        in_threads(len(planes), lambda begin, end: _gather(small, planes, band.skip, begin, end))
        target += added
        return
    full = gradient_of_band.new_zeros(images, channels, STRIDE * height, STRIDE * width)
    rows = gradient_of_band.shape[2]
    full[:, :, band.skip : band.skip + rows, : gradient_of_band.shape[3]] = gradient_of_band
    target += torch.ops.aten.upsample_bilinear2d_backward(
        full.contiguous(memory_format=torch.channels_last),
        full.shape[2:],
        target.shape,
        False,
        float(STRIDE),
        float(STRIDE),
    )


def _compiles(x: Tensor) -> bool:
    return HAS_NUMBA and x.device.type == "cpu" and x.dtype == torch.float32


def _planes(x_bChw: Tensor) -> np.ndarray:
    """(b * C, h, w), the same memory."""
    return x_bChw.flatten(0, 1).numpy()


@compiled(fastmath=_LIBERTIES, inline="always")
def _share(position: int) -> Any:
    """How much of the later of the two cells between which a row or column of the full map lies."""
    return np.float32(((position + _HALF) % STRIDE + 0.5) / STRIDE)


@compiled(fastmath=_LIBERTIES, nogil=True)
def _stretch(small: Any, full: Any, skip: int, begin: int, end: int) -> None:
    """Planes `begin` to `end`: small (P, h, w) -> full (P, rows, W), from row `skip` of the upsampled plane on."""
    height, width = small.shape[1:]
    wide = np.empty((height, STRIDE * (width + 1)), np.float32)  # two columns more on either side
    for plane in range(begin, end):
        for y in range(height):
            cells, stretched = small[plane, y], wide[y]
            for phase in range(STRIDE):
                stretched[phase] = cells[0]
                stretched[STRIDE * width + phase] = cells[width - 1]
            for x in range(width - 1):
                for phase in range(STRIDE):
                    later = np.float32((phase + 0.5) / STRIDE)
                    stretched[STRIDE + STRIDE * x + phase] = cells[x] + later * (cells[x + 1] - cells[x])
        for row in range(full.shape[1]):
            cell, later = (skip + row + _HALF) // STRIDE, _share(skip + row)
            above, below = wide[max(cell - 1, 0), _HALF:], wide[min(cell, height - 1), _HALF:]
            out = full[plane, row]
            for x in range(len(out)):
                out[x] = above[x] + later * (below[x] - above[x])


@compiled(fastmath=_LIBERTIES, nogil=True)
def _gather(small: Any, full: Any, skip: int, begin: int, end: int) -> None:
    """The transpose of `_stretch`, added to small."""
    height, width = small.shape[1:]
    wide = np.zeros((height, STRIDE * (width + 1)), np.float32)
    for plane in range(begin, end):
        wide[:] = 0
        for row in range(full.shape[1]):
            cell, later = (skip + row + _HALF) // STRIDE, _share(skip + row)
            above, below = wide[max(cell - 1, 0), _HALF:], wide[min(cell, height - 1), _HALF:]
            given = full[plane, row]
            for x in range(len(given)):
                above[x] += (np.float32(1) - later) * given[x]
            for x in range(len(given)):
                below[x] += later * given[x]
        for y in range(height):
            cells, stretched = small[plane, y], wide[y]
            for phase in range(STRIDE):
                cells[0] += stretched[phase]
                cells[width - 1] += stretched[STRIDE * width + phase]
            for x in range(width - 1):
                for phase in range(STRIDE):
                    later = np.float32((phase + 0.5) / STRIDE)
                    cells[x] += (np.float32(1) - later) * stretched[STRIDE + STRIDE * x + phase]
                    cells[x + 1] += later * stretched[STRIDE + STRIDE * x + phase]
