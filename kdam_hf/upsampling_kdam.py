"""Predictions at stride 4 brought to the size of an image or a photo. This file travels with published models."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .configuration_kdam import STRIDE

CACHED = 1 << 19  # numbers that stay in the cache of one core


def upsample(prediction: Tensor, size: Sequence[int]) -> Tensor:
    """Stride-4 prediction (B, C, ceil(H/4), ceil(W/4)) -> (B, C, H, W), bilinear, pixel-exact for any H, W."""
    full = F.interpolate(prediction, scale_factor=STRIDE, mode="bilinear", align_corners=False)
    return full[..., : size[0], : size[1]]


def bands_of_rows(prediction: Tensor, seen: tuple[int, int], target: tuple[int, int]) -> Iterator[Tensor]:
    """A prediction at the size of its photo: `upsample` to what the model saw, bilinear from there; pixel centres kept.

    Args:
        prediction: (B, C, h, w) at stride 4 of what the model saw.
        seen: (height, width) the model saw.
        target: (height, width) of the photo.

    Yields:
        float32 (B, rows, W, C), top to bottom, as many rows as stay in the cache.
    """
    prediction = prediction.float().contiguous(memory_format=torch.channels_last)
    if seen == target:
        rows = max(1, CACHED // (STRIDE * prediction.shape[:2].numel() * target[1]))
        for top in range(0, -(-target[0] // STRIDE), rows):  # below there is padding
            first = max(top - 1, 0)  # pixels are interpolated between one row and the next
            start, stop = STRIDE * (top - first), target[0] - STRIDE * first
            band = upsample(prediction[:, :, first : top + rows + 1], (min(start + STRIDE * rows, stop), target[1]))
            yield band.movedim(1, -1)[:, start:]
        return
    wide = F.interpolate(upsample(prediction, seen), (seen[0], target[1]), mode="bilinear").movedim(1, -1)
    centres = (torch.arange(target[0], dtype=torch.float64) + 0.5) * (seen[0] / target[0]) - 0.5
    centres = centres.clamp(0, seen[0] - 1)
    above = centres.long().to(wide.device)
    weight = (centres - centres.floor()).to(wide)[:, None, None]
    below = (above + 1).clamp(max=seen[0] - 1)
    rows = max(1, CACHED // (prediction.shape[:2].numel() * target[1]))
    for part in (slice(top, top + rows) for top in range(0, target[0], rows)):
        yield torch.lerp(wide[:, above[part]], wide[:, below[part]], weight[part])
