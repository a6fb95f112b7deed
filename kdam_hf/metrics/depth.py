"""Pooled depth errors over the valid pixels of a whole split, and a histogram of the factor between prediction and truth."""

import math

import torch
from torch import Tensor

from kdam_hf.metrics.base import Metric, check_finite, check_maps, ratio

THRESHOLDS = (1.25, 1.25**2, 1.25**3)
# predictions at or below zero have no logarithm; the field's code counts them as this many metres there
LEAST_METRES = 1e-9
BINS_PER_THRESHOLD = 50
BINS = 8 * BINS_PER_THRESHOLD


def depth_sums(prediction: Tensor, label: Tensor) -> dict[str, Tensor]:
    """Sums over valid pixels, those with a finite label above zero; both in metres, (..., 1, H, W).

    Returns:
        `count` int64; `squared` (m^2), `relative` and `log_squared` (natural logarithm) float64 scalars; `within` (3,)
        int64: pixels with max(p / g, g / p) < 1.25^k, a prediction <= 0 within none; `histogram` (400,) int64 of
        max(p / g, g / p): bin k starts at 1.25^(k / 50), the last one has no end.

    Raises:
        KdamValueError: shapes differ; NaN or Inf predicted on a valid pixel.

    Source:
        Eigen, Puhrsch, Fergus, NeurIPS 2014 (arXiv:1406.2283), section 4.
    """
    check_maps(prediction, label, "(..., 1, H, W)", channels=1)
    valid = (label > 0) & (label < math.inf)
    check_finite(prediction, valid)
    # a perfect prediction costs a third of gathering invalid pixels away
    p, g = (torch.where(valid, metres, 1).double() for metres in (prediction, label))
    difference = p - g
    log_ratio = (p.clamp_min(LEAST_METRES) / g).log()
    bins = (log_ratio.abs() * (BINS_PER_THRESHOLD / math.log(THRESHOLDS[0]))).clamp_max(BINS - 1).int()
    return {
        "count": valid.sum(),
        "squared": difference.square().sum(),
        "relative": (difference.abs() / g).sum(),
        "log_squared": log_ratio.square().sum(),
        # products and not quotients: exact at the border, and false for a negative prediction, whose quotients are small
        "within": torch.stack([(valid & (p < t * g) & (g < t * p)).sum() for t in THRESHOLDS]),
        "histogram": torch.bincount(torch.where(valid, bins, BINS).flatten(), minlength=BINS + 1)[:-1],
    }


class DepthErrors(Metric):
    """Depth errors over all valid pixels of the split; all NaN without any.

    `rmse` in metres; `log_rmse` of natural logarithms; `abs_rel` a fraction; `delta1`, `delta2`, `delta3` in percent.
    """

    def __init__(self) -> None:
        self.state = depth_sums(*torch.zeros(2, 1, 0, 0))

    def update(self, prediction: Tensor, label: Tensor) -> None:
        """Add depth in metres, (..., 1, H, W); see `depth_sums` for what is raised."""
        self.add_state(depth_sums(prediction, label))

    def error_histogram(self) -> tuple[Tensor, Tensor]:
        """Edges (401,) float64 and counts (400,) int64 of the factor max(p / g, g / p); the last bin has no upper end."""
        return THRESHOLDS[0] ** (torch.arange(BINS + 1).double() / BINS_PER_THRESHOLD), self.state["histogram"]

    def compute(self) -> dict[str, float]:
        """`rmse`, `log_rmse`, `abs_rel` and the three deltas."""
        count = self.state["count"]
        return {
            "rmse": ratio(self.state["squared"], count) ** 0.5,
            "log_rmse": ratio(self.state["log_squared"], count) ** 0.5,
            "abs_rel": ratio(self.state["relative"], count),
            **{f"delta{k}": 100 * ratio(within, count) for k, within in enumerate(self.state["within"], start=1)},
        }
