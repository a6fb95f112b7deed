"""Cross-entropy of maps of class logits; on the CPU one compiled pass gives the value and the gradient together.

Unusual here: the gradient is made in the forward pass, while a block of pixels is still in the cache. Without numba, on
another device or in another precision it is torch's own.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from kdam_hf.jit import HAS_NUMBA, compiled, in_threads
from kdam_hf.jit_softmax import BLOCK, block_at, block_count, exp_block

_f = np.float32


# A number that is not finite must stay so, hence neither `nnan` nor `ninf`.
@compiled(fastmath={"reassoc", "contract", "arcp", "nsz"}, nogil=True)
def _weighted_sum(
    logits: Any, target: Any, weights: Any, ignore: int, begin: int, end: int, gradient: Any, found: Any
) -> None:
    """Blocks `begin` to `end` of logits (b, K, n); found[0]: the weighted sum; found[1]: targets that are no class."""
    channels, pixels = logits.shape[1:]
    e, scratch = np.empty((channels, BLOCK), np.float32), np.empty((4, BLOCK), np.float32)
    value, wrong = 0.0, 0
    for block in range(begin, end):
        image, start, count = block_at(block, pixels)
        peak, total, finite, weight = scratch[0, :count], scratch[1, :count], scratch[2, :count], scratch[3, :count]
        finite[:] = 0
        for c in range(channels):
            plane = logits[image, c, start : start + count]
            for i in range(count):
                finite[i] += plane[i] * _f(0)
        exp_block(logits[image], start, 0, channels, e, peak, total, _f(1))
        for i in range(count):
            label = target[image, start + i]
            weight[i] = _f(0)
            if label == ignore or label < 0 or label >= channels:
                wrong += label != ignore
            else:
                weight[i] = weights[label]
                own = logits[image, label, start + i] - peak[i]
                value += weight[i] * (np.log(np.float64(total[i])) - own) + finite[i]
            total[i] = weight[i] / total[i]
        for c in range(channels):
            pull, e_of_class = gradient[image, c, start : start + count], e[c]
            for i in range(count):
                pull[i] = e_of_class[i] * total[i] if weight[i] != 0 else _f(0)
        for i in range(count):
            if weight[i] != 0:
                gradient[image, target[image, start + i], start + i] -= weight[i]
    found[0] += value
    found[1] += wrong


def cross_entropy_sum(logits_BKHW: Tensor, target_BHW: Tensor, weights_K: Tensor, ignore_index: int) -> Tensor:
    """Sum of `weights[target] * -log softmax(logits)[target]` over the pixels whose target is not `ignore_index`.

    Args:
        logits_BKHW: (B, K, H, W) float.
        target_BHW: (B, H, W) int64.
        weights_K: (K,) float.
        ignore_index: a target without a say.

    Returns:
        A scalar; not finite if a pixel that counts is not.

    Raises:
        IndexError: a target is neither a class nor `ignore_index`.
    """
    if HAS_NUMBA and logits_BKHW.device.type == "cpu" and logits_BKHW.dtype == torch.float32:
        return _CrossEntropy.apply(logits_BKHW, target_BHW, weights_K, ignore_index)
    weights = weights_K.to(logits_BKHW)
    return F.cross_entropy(logits_BKHW, target_BHW, weights, ignore_index=ignore_index, reduction="sum")


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_BKHW: Tensor, target_BHW: Tensor, weights_K: Tensor, ignore_index: int) -> Tensor:
        logits, target = (
            logits_BKHW.detach().flatten(2).contiguous().numpy(),
            target_BHW.flatten(1).contiguous().numpy(),
        )
        weights = weights_K.detach().to(torch.float32).numpy()
        gradient = torch.empty(logits.shape)

        def share(begin: int, end: int) -> np.ndarray:
            found = np.zeros(2)
            _weighted_sum(logits, target, weights, ignore_index, begin, end, gradient.numpy(), found)
            return found

        value, wrong = np.sum(in_threads(block_count(len(logits), logits.shape[2]), share), 0)
        if wrong:
            raise IndexError(f"{int(wrong)} targets are outside 0..{logits.shape[1] - 1} and not {ignore_index}.")
        ctx.save_for_backward(gradient.view(logits_BKHW.shape))
        return logits_BKHW.new_tensor(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient if upstream == 1 else gradient * upstream, None, None, None
