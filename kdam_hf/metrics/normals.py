"""Pooled angular errors of surface normals over the valid pixels of a whole split.

Unusual here: the angle is exact where the arc cosine of a dot product loses all digits, and the median is additive.
"""

import math

import torch
from torch import Tensor

from kdam_hf.metrics.base import Metric, check_finite, check_maps, ratio

THRESHOLDS = (11.25, 22.5, 30.0)
BINS_PER_DEGREE = 100
BINS = 180 * BINS_PER_DEGREE
# as many pixels as fit into a core's cache in float64: halves the time
CHUNK = 1 << 15
# shorter vectors have no direction
LEAST_LENGTH = 1e-12


def angular_error(prediction: Tensor, label: Tensor) -> Tensor:
    """Angle in degrees between vectors (3, ...), float64 in [0, 180], (...).

    Both are normalised first; a predicted zero vector is 90 degrees from everything.

    Source:
        W. Kahan, "How Futile are Mindless Assessments of Roundoff", section 12.
    """
    p, g = (vectors / _length(vectors).clamp_min(LEAST_LENGTH) for vectors in (prediction.double(), label.double()))
    return torch.rad2deg(2 * torch.atan2(_length(p - g), _length(p + g)))


def _length(vectors: Tensor) -> Tensor:
    x, y, z = vectors
    return (x * x + y * y + z * z).sqrt()


def normal_sums(prediction: Tensor, label: Tensor) -> dict[str, Tensor]:
    """Sums over valid pixels, those whose label is a finite vector other than zero; both (..., 3, H, W), of any length.

    Returns:
        `count` int64, `angle` (degrees) and `squared` (degrees^2) float64 scalars, `within` (3,) int64: angles below
        11.25, 22.5, 30 degrees; `histogram` (18000,) int64 of angles.

    Raises:
        KdamValueError: shapes differ; NaN or Inf predicted on a valid pixel.
    """
    check_maps(prediction, label, "(..., 3, H, W)", channels=3)
    p_3N, g_3N = (vectors.movedim(-3, 0).flatten(1) for vectors in (prediction, label))
    longest_N = g_3N.abs().amax(0)
    valid_N = (longest_N > 0) & (longest_N < math.inf)
    check_finite(p_3N, valid_N)
    # an invalid pixel is given the same vector twice: its error is zero
    chunks = (torch.where(valid_N, vectors, 1).split(CHUNK, dim=1) for vectors in (p_3N, g_3N))
    angle_N = torch.cat([angular_error(p, g) for p, g in zip(*chunks, strict=True)])
    bin_N = (angle_N * BINS_PER_DEGREE).int().clamp_(max=BINS - 1)
    return {
        "count": valid_N.sum(),
        "angle": angle_N.sum(),
        "squared": angle_N.square().sum(),
        "within": torch.stack([(valid_N & (angle_N < t)).sum() for t in THRESHOLDS]),
        "histogram": torch.bincount(torch.where(valid_N, bin_N, BINS), minlength=BINS + 1)[:-1],
    }


class NormalErrors(Metric):
    """Angular errors of surface normals; all NaN without any valid pixel.

    `mean_angle`, `median_angle` (within 0.005) and `rmse_angle` in degrees; `within_11.25`, `within_22.5`, `within_30`
    in percent. The mErr of papers is `mean_angle`; one public meter prints it as rmse.
    """

    def __init__(self) -> None:
        self.state = normal_sums(*torch.zeros(2, 3, 0, 0))

    def update(self, prediction: Tensor, label: Tensor) -> None:
        """Add vectors (..., 3, H, W); see `normal_sums` for what is raised."""
        self.add_state(normal_sums(prediction, label))

    def error_histogram(self) -> tuple[Tensor, Tensor]:
        """Edges (18001,) float64 in degrees and counts (18000,) int64 of the angular error."""
        return torch.arange(BINS + 1).double() / BINS_PER_DEGREE, self.state["histogram"]

    def compute(self) -> dict[str, float]:
        """Errors in degrees, shares in percent."""
        count, shares = self.state["count"], zip(THRESHOLDS, self.state["within"], strict=True)
        middle = torch.stack([count - 1, count]) // 2  # of an even number numpy's median is the mean of two
        bins = torch.searchsorted(self.state["histogram"].cumsum(0), middle, right=True).double() + 0.5
        return {
            "mean_angle": ratio(self.state["angle"], count),
            "median_angle": float(bins.mean()) / BINS_PER_DEGREE if count else math.nan,
            "rmse_angle": ratio(self.state["squared"], count) ** 0.5,
            **{f"within_{threshold:g}": 100 * ratio(within, count) for threshold, within in shares},
        }
