"""Supervised losses at full resolution without full-resolution maps: a band of rows at a time, in plain PyTorch.

Unusual here: the gradient of a band is computed in the forward pass, while its upsampled prediction is in the cache, so
that nothing of full resolution is kept and nothing is computed twice; the backward pass only scales it. Pixels lie side by
side with their channels (channels-last), as a cross-entropy over dozens of classes reads them.

Shapes: B batch, C channels, h w stride-4 map, H W full resolution (H <= 4 h, W <= 4 w).
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from kdam_hf.configuration_kdam import STRIDE
from kdam_hf.tasks import Task
from kdam_hf.tasks.base import at_least_float32

PIXELS_ON_CPU, PIXELS_ELSEWHERE = 1 << 16, 1 << 20


def bands(
    batch: int, height: int, width: int, source_height: int, pixels: int
) -> Iterator[tuple[slice, slice, slice, int]]:
    """Bands of about `pixels` pixels that cover a batch of full maps.

    Yields images of the batch, rows of the full map, rows of the small map that these depend on, and how many rows of the
    latter's upsampling come before the former. Rows 4k + 2 to 4m + 1 of the full map depend on rows k to m of the small one,
    so bands that begin and end there share the least.
    """
    cells = max(1, min(source_height, pixels // (STRIDE * width)))
    images = max(1, pixels // (width * height)) if cells == source_height else 1
    for first in range(0, batch, images):
        for cell in range(0, source_height, cells):
            last = cell + cells >= source_height
            begin = STRIDE * cell - STRIDE // 2 if cell else 0
            end = height if last else min(height, STRIDE * (cell + cells) - STRIDE // 2)
            if begin < end:
                source = slice(max(0, cell - 1), min(source_height, cell + cells))
                yield slice(first, first + images), slice(begin, end), source, begin - STRIDE * source.start


def upsample(x_BChw: Tensor, rows: int, width: int, skip: int = 0) -> Tensor:
    """Bilinear upsampling by four, cut to `rows` rows after the first `skip` ones and to `width` columns; channels-last."""
    x_BChw = x_BChw.contiguous(memory_format=torch.channels_last)
    full = F.interpolate(x_BChw, scale_factor=STRIDE, mode="bilinear", align_corners=False)
    return full[:, :, skip : skip + rows, :width]


def dense_loss(task: Task, prediction: Tensor, label: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """A task's supervised loss at full resolution, with gradient; a scalar, float32 (float64 for float64 predictions).

    The prediction (B, C, ceil(H/4), ceil(W/4)) is upsampled bilinearly. It cannot be differentiated twice.

    Args:
        label: (B, ..., H, W) as the task's label makes it.
        mask: (B, H, W) bool, False on padding.
        weights: of the task's `loss_weights`, for the whole batch.
    """
    return _DenseLoss.apply(prediction, task, label, mask, weights)


class _DenseLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, prediction: Tensor, task: Task, label: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
        small = at_least_float32(prediction.detach()).contiguous(memory_format=torch.channels_last)
        differentiate = ctx.needs_input_grad[0]
        gradient, total = torch.zeros_like(small) if differentiate else None, small.new_zeros(())
        pixels = PIXELS_ON_CPU if small.device.type == "cpu" else PIXELS_ELSEWHERE
        for images, rows, source, skip in bands(len(mask), mask.shape[1], mask.shape[2], small.shape[2], pixels):
            part = small[images, :, source].detach().requires_grad_(differentiate)
            with torch.set_grad_enabled(differentiate):
                full = upsample(part, rows.stop - rows.start, mask.shape[2], skip)
                value = task.loss_share(full, label[images, ..., rows, :], mask[images, rows], weights)
            if gradient is not None:
                gradient[images, :, source] += torch.autograd.grad(value, part)[0]
            total += value.detach()
        ctx.save_for_backward(*([] if gradient is None else [gradient.to(prediction.dtype)]))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream.to(gradient.dtype), None, None, None, None
