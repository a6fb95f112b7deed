"""Cross-entropy of rows of class logits; on the CPU one compiled pass gives the value and the gradient together.

Unusual here: the gradient is made in the forward pass, while a row is still in the cache. Without numba, on another device
or in another precision it is torch's own.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from kdam_hf.jit import HAS_NUMBA, compiled
from kdam_hf.jit_softmax import exp_below_zero, in_threads


# A number that is not finite must stay so, hence neither `nnan` nor `ninf`.
@compiled(fastmath={"reassoc", "contract", "arcp", "nsz"}, nogil=True)
def _weighted_rows(
    logits: Any, target: Any, weights: Any, ignore: int, begin: int, end: int, gradient: Any, found: Any
) -> None:
    """found[0]: the weighted sum; found[1]: targets that are no class."""
    channels = logits.shape[1]
    value, wrong = 0.0, 0
    for i in range(begin, end):
        label = target[i]
        if label == ignore or label < 0 or label >= channels:
            wrong += label != ignore
            for c in range(channels):
                gradient[i, c] = np.float32(0)
            continue
        peak, finite = logits[i, 0], np.float32(0)
        for c in range(channels):
            peak = max(peak, logits[i, c])
            finite += logits[i, c] * np.float32(0)
        total = np.float32(0)
        for c in range(channels):
            gradient[i, c] = exp_below_zero(logits[i, c] - peak)
            total += gradient[i, c]
        weight = weights[label]
        value += weight * (np.log(np.float64(total)) - (logits[i, label] - peak)) + finite
        scale = weight / total
        for c in range(channels):
            gradient[i, c] *= scale
        gradient[i, label] -= weight
    found[0] += value
    found[1] += wrong


def cross_entropy_sum(logits_NK: Tensor, target_N: Tensor, weights_K: Tensor, ignore_index: int) -> Tensor:
    """Sum of `weights[target] * -log softmax(logits)[target]` over the rows whose target is not `ignore_index`.

    Args:
        logits_NK: (N, K) float.
        target_N: (N,) int64.
        weights_K: (K,) float.
        ignore_index: a target without a say.

    Returns:
        A scalar; not finite if a row that counts is not.

    Raises:
        IndexError: a target is neither a class nor `ignore_index`.
    """
    if HAS_NUMBA and not logits_NK.is_cuda and logits_NK.dtype == torch.float32:
        return _CrossEntropy.apply(logits_NK, target_N, weights_K, ignore_index)
    weights = weights_K.to(logits_NK)
    return F.cross_entropy(logits_NK, target_N, weights, ignore_index=ignore_index, reduction="sum")


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_NK: Tensor, target_N: Tensor, weights_K: Tensor, ignore_index: int) -> Tensor:
        logits, target = logits_NK.detach().contiguous().numpy(), target_N.contiguous().numpy()
        weights = weights_K.detach().to(torch.float32).numpy()
        gradient = torch.empty(logits.shape)

        def share(begin: int, end: int) -> np.ndarray:
            found = np.zeros(2)
            _weighted_rows(logits, target, weights, ignore_index, begin, end, gradient.numpy(), found)
            return found

        value, wrong = np.sum(in_threads(len(logits), share), 0)
        if wrong:
            raise IndexError(f"{int(wrong)} targets are outside 0..{logits.shape[1] - 1} and not {ignore_index}.")
        ctx.save_for_backward(gradient)
        return logits_NK.new_tensor(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient if upstream == 1 else gradient * upstream, None, None, None
