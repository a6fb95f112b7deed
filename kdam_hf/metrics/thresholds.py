"""Counts of a probability map at many thresholds in one pass, and a pixel-exact edge F.

Unusual here: "prediction >= threshold" is taken in the prediction's own type (float32 for half precision), as torch and
numpy compare: a float32 0.7 reaches the threshold 0.7.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kdam_hf.configuration_kdam import IGNORE_INDEX
from kdam_hf.errors import KdamValueError
from kdam_hf.metrics.base import Metric, check_finite, check_maps

EDGE_THRESHOLDS = tuple(k / 100 for k in range(1, 100))
# a resized map of ones may exceed one by rounding
ROUNDING = 1e-5


class Pixels(NamedTuple):
    """Checked pixels of a binary task, any shape: `p` float32 or float64, `positive` and `valid` bool; p is 0 if invalid."""

    p: Tensor
    positive: Tensor
    valid: Tensor


def check_probabilities(low: Any, high: Any) -> None:
    """Raise KdamValueError unless both extremes of a prediction are in [0, 1]; NaN is not."""
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise KdamValueError(
            f"prediction lies between {low:g} and {high:g}: expected finite probabilities in [0, 1]; apply softmax or "
            "sigmoid exactly once, or divide an 8-bit map by 255"
        )


def binary_pixels(prediction: Tensor, label: Tensor) -> Pixels:
    """Check probabilities (..., H, W) floating, and labels 0, 1 or 255 (ignored) of the same shape and any type.

    Raises:
        KdamValueError: shapes differ; on a valid pixel, a prediction outside of [0, 1] or a label other than 0 and 1.
    """
    check_maps(prediction, label, "(..., H, W)")
    if not prediction.is_floating_point():
        raise KdamValueError(f"prediction is {prediction.dtype}: expected floating probabilities, not class ids")
    valid = label != IGNORE_INDEX
    check_finite(prediction, valid)
    p = torch.where(valid, prediction, 0)
    p = p.to(torch.promote_types(p.dtype, torch.float32))
    if p.numel():
        check_probabilities(*p.aminmax())
    positive = label == 1
    other = valid & ~positive & (label != 0)
    if other.any():
        raise KdamValueError(
            f"label holds {label[other].unique()[:8].tolist()}: expected 0, 1 or {IGNORE_INDEX} (ignored)"
        )
    return Pixels(p, positive, valid)


def images_of(pixels: Pixels) -> Iterator[Pixels]:
    """(H, W) at a time; nothing where there is no pixel."""
    if pixels.p.numel():
        parts = (part.reshape(-1, *part.shape[-2:]) for part in pixels)
        yield from map(Pixels._make, zip(*parts, strict=True))


def counts_above(pixels: Pixels, thresholds: tuple[float, ...], strict: bool = False) -> Tensor:
    """Valid pixels with p >= threshold (p > threshold if `strict`) at K ascending thresholds in [0, 1].

    Returns:
        (2, K + 1) int64: rows negative and positive label; column 0 counts every pixel.
    """
    p = pixels.p.flatten()
    columns = len(thresholds) + 1
    reached = torch.bucketize(p, torch.tensor(thresholds, dtype=p.dtype, device=p.device), right=not strict)
    # ignored pixels get a bin of their own, so that nothing has to be gathered
    column = torch.where(pixels.valid.flatten(), reached + columns * pixels.positive.flatten(), 2 * columns)
    histogram = torch.bincount(column, minlength=2 * columns + 1)[:-1].reshape(2, columns)
    return histogram.flip(1).cumsum(1).flip(1)


def precision_recall_iou(counts: Tensor, both_empty: float = 0) -> Tensor:
    """Precision, recall and IoU of the positive class, (3, K) float64 in [0, 1], from (2, K + 1) of `counts_above`.

    Where neither label nor prediction holds a positive pixel, IoU is `both_empty`; precision and recall of 0 / 0 are 0.
    """
    counts = counts.double()
    found_K, hits_K, positive = counts[:, 1:].sum(0), counts[1, 1:], counts[1, 0]
    union_K = found_K + positive - hits_K
    iou_K = torch.where(union_K > 0, hits_K / union_K, both_empty)
    return torch.stack([(hits_K / found_K).nan_to_num(0), (hits_K / positive).nan_to_num(0), iou_K])


def f_measure(precision: Tensor, recall: Tensor, beta_squared: float) -> Tensor:
    """F = (1 + b) P R / (b P + R), any shape, floating; 0 where both are 0."""
    return ((1 + beta_squared) * precision * recall / (beta_squared * precision + recall)).nan_to_num(0)


def best_f1(counts: Tensor) -> float:
    """Highest F1 over thresholds in percent, of (2, K + 1) counts as made by `counts_above`; NaN without a pixel."""
    if not counts.any():
        return math.nan
    precision_K, recall_K, _ = precision_recall_iou(counts)
    return 100 * float(f_measure(precision_K, recall_K, beta_squared=1).max())


class EdgeF(Metric):
    """`maxf`: F1 in percent, pixel by pixel, best of the thresholds 0.01, 0.02 ... 0.99; NaN without a valid pixel.

    This is not odsF and must not be compared with it: without thinning, non-maximum suppression and a tolerance in space
    values are far lower. It is cheap enough to watch during training.
    """

    def __init__(self) -> None:
        self.state = {"pixels": torch.zeros(2, len(EDGE_THRESHOLDS) + 1, dtype=torch.int64)}

    def update(self, prediction: Tensor, label: Tensor) -> None:
        """Add probabilities (..., H, W); see `binary_pixels` for what is raised."""
        self.add_state({"pixels": counts_above(binary_pixels(prediction, label), EDGE_THRESHOLDS)})

    def compute(self) -> dict[str, float]:
        """`maxf` in percent."""
        return {"maxf": best_f1(self.state["pixels"])}
