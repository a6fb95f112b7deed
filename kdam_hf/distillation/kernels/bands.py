"""Bilinear upsampling by four, a band of rows at a time, and its transpose.

Rows 4k + 2 to 4m + 1 of the full map depend on rows k to m of the small one, so bands that begin and end there share
the least. Maps are channels-last: interpolation is then several times faster, and a pixel's channels lie side by side.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kdam_hf.distillation.kernels.objective import STRIDE


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
    half = STRIDE // 2
    for first in range(0, batch, images):
        for cell in range(0, source_height, cells):
            last = cell + cells >= source_height
            begin = STRIDE * cell - half if cell else 0
            end = height if last else min(height, STRIDE * (cell + cells) - half)
            if begin >= end:
                continue
            source = slice(max(0, cell - 1), min(source_height, cell + cells))
            yield Band(slice(first, first + images), slice(begin, end), source, begin - STRIDE * source.start)


def upsampled(x_BChw: Tensor, band: Band, width: int) -> Tensor:
    """A band of the upsampled map: channels-last (B, C, h, w) -> (b, C, rows, width)."""
    source = x_BChw[band.images, :, band.source]
    full = F.interpolate(source, scale_factor=STRIDE, mode="bilinear", align_corners=False)
    rows = band.rows.stop - band.rows.start
    return full[:, :, band.skip : band.skip + rows, :width]


def add_transposed(gradient_BChw: Tensor, band: Band, gradient_of_band: Tensor) -> None:
    """Add what the gradient of a band, (b, C, rows, width), is for the small map."""
    target = gradient_BChw[band.images, :, band.source]
    images, channels, height, width = target.shape
    full = gradient_of_band.new_zeros(images, STRIDE * height, STRIDE * width, channels).permute(0, 3, 1, 2)
    rows = gradient_of_band.shape[2]
    full[:, :, band.skip : band.skip + rows, : gradient_of_band.shape[3]] = gradient_of_band
    target += torch.ops.aten.upsample_bilinear2d_backward(
        full, full.shape[2:], target.shape, False, float(STRIDE), float(STRIDE)
    )
