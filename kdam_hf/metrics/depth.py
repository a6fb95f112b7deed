"""Pooled depth errors over the valid pixels of a whole split.

Unusual here: nothing, on purpose. One known code base averages the RMSE of each image, which gives other numbers.
"""

import torch
from torch import Tensor

from kdam_hf.metrics.base import Metric, check_finite, check_same_shape, ratio

THRESHOLDS = (1.25, 1.25**2, 1.25**3)


def depth_sums(prediction: Tensor, label: Tensor) -> dict[str, Tensor]:
    """Sums over valid pixels, those with a finite label above zero.

    Args:
        prediction: depth in metres, (..., 1, H, W) floating.
        label: depth in metres, the same shape; <= 0 or not finite is invalid.

    Returns:
        `count` int64, `squared` (m^2) and `relative` float64 scalars, `within` (3,) int64: pixels with
        max(p / g, g / p) < 1.25^k. A prediction <= 0 is within none.

    Raises:
        KdamValueError: shapes differ; NaN or Inf predicted on a valid pixel.

    Source:
        Eigen, Puhrsch, Fergus, NeurIPS 2014 (arXiv:1406.2283), section 4.
    """
    check_same_shape(prediction, label, "(..., 1, H, W)", channels=1)
    valid = torch.isfinite(label) & (label > 0)
    p_N, g_N = prediction[valid].double(), label[valid].double()
    check_finite(p_N)
    difference_N = p_N - g_N
    # products and not quotients: exact at the border, and false for a negative prediction, whose quotients are small
    within = [((p_N < t * g_N) & (g_N < t * p_N)).sum() for t in THRESHOLDS]
    return {
        "count": valid.sum(),
        "squared": difference_N.square().sum(),
        "relative": (difference_N.abs() / g_N).sum(),
        "within": torch.stack(within),
    }


class DepthErrors(Metric):
    """`rmse` in metres, `abs_rel` a fraction, `delta1`, `delta2`, `delta3` in percent; NaN without a valid pixel."""

    def __init__(self) -> None:
        self.state = {
            "count": torch.zeros((), dtype=torch.int64),
            "squared": torch.zeros((), dtype=torch.float64),
            "relative": torch.zeros((), dtype=torch.float64),
            "within": torch.zeros(len(THRESHOLDS), dtype=torch.int64),
        }

    def update(self, prediction: Tensor, label: Tensor) -> None:
        """Add depth in metres, (..., 1, H, W); see `depth_sums` for what is raised."""
        self._add(**depth_sums(prediction, label))

    def compute(self) -> dict[str, float]:
        """`rmse`, `abs_rel` and the three deltas."""
        count = self.state["count"]
        deltas = {f"delta{k}": 100 * ratio(within, count) for k, within in enumerate(self.state["within"], start=1)}
        return {
            "rmse": ratio(self.state["squared"], count) ** 0.5,
            "abs_rel": ratio(self.state["relative"], count),
            **deltas,
        }
