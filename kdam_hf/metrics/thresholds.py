"""Best F-measure over thresholds of a probability: saliency maxF (with MAE), and a pixel-exact edge F.

Unusual here: one pass sorts each pixel between the thresholds, so all of them cost as much as one. "prediction >=
threshold" is exact in the prediction's own type (float32 for half precision), as torch and numpy compare: a float32 0.7
reaches the threshold 0.7.
"""

import torch
from torch import Tensor

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics.base import Metric, check_finite, check_same_shape, ratio

IGNORE = 255
SALIENCY_THRESHOLDS = tuple(k / 100 for k in range(5, 100, 5))
SALIENCY_BETA_SQUARED = 0.3
# a resized map of ones may exceed one by rounding
ROUNDING = 1e-5
EDGE_THRESHOLDS = tuple(k / 100 for k in range(1, 100))


def valid_pixels(prediction: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities (N,) in at least float32, and labels (N,) bool, of the pixels that are not ignored.

    Args:
        prediction: probability in [0, 1], (..., H, W) floating.
        label: 0, 1 or 255 (ignored), the same shape, any number type.

    Raises:
        KdamValueError: shapes differ; on a valid pixel, a prediction outside of [0, 1] or a label other than 0 and 1.
    """
    check_same_shape(prediction, label, "(..., H, W)")
    valid = label != IGNORE
    p_N, label_N = prediction[valid], label[valid]
    check_finite(p_N)
    if not p_N.is_floating_point():
        raise KdamValueError(f"prediction is {p_N.dtype}: expected floating probabilities, not a mask or class ids")
    if ((p_N < -ROUNDING) | (p_N > 1 + ROUNDING)).any():
        raise KdamValueError(
            f"prediction lies between {p_N.min():g} and {p_N.max():g}: expected probabilities in [0, 1]; apply softmax "
            "or sigmoid exactly once"
        )
    positive_N = label_N == 1
    other_N = label_N[~positive_N & (label_N != 0)]
    if len(other_N):
        raise KdamValueError(
            f"label holds {other_N.unique()[:8].tolist()}: expected 0, 1 or {IGNORE} (ignored); a mask of 0 and 255 "
            "must be binarised when it is loaded"
        )
    return p_N.to(torch.promote_types(p_N.dtype, torch.float32)), positive_N


def counts_above(p_N: Tensor, positive_N: Tensor, thresholds: tuple[float, ...]) -> Tensor:
    """Pixels with p >= threshold, (2, K + 1) int64: rows negative and positive label; column 0 counts every pixel.

    Args:
        p_N: (N,) float32 or float64.
        positive_N: (N,) bool.
        thresholds: K ascending values.
    """
    columns = len(thresholds) + 1
    edges = torch.tensor(thresholds, dtype=p_N.dtype, device=p_N.device)
    reached_N = torch.bucketize(p_N, edges, right=True)
    histogram = torch.bincount(positive_N.long() * columns + reached_N, minlength=2 * columns).reshape(2, columns)
    return histogram.flip(1).cumsum(1).flip(1)


def best_f(counts: Tensor, beta_squared: float) -> float:
    """Largest F-measure in percent over the thresholds of (2, K + 1) counts; NaN without any pixel.

    F = (1 + b) P R / (b P + R) = (1 + b) TP / (TP + FP + b (TP + FN)), 0 where nothing is positive on either side.
    """
    counts = counts.double()
    if not counts.any():
        return float("nan")
    false_positive_K, true_positive_K, positive = counts[0, 1:], counts[1, 1:], counts[1, 0]
    denominator_K = true_positive_K + false_positive_K + beta_squared * positive
    return 100 * float(((1 + beta_squared) * true_positive_K / denominator_K).nan_to_num(0).max())


class Saliency(Metric):
    """`maxf` in percent (beta^2 = 0.3, thresholds 0.05, 0.10 ... 0.95) and `mae`, a fraction.

    Both are NaN without a valid pixel. Precision and recall are pooled over the split before the maximum is taken.

    Source:
        Achanta et al., CVPR 2009 (beta^2 = 0.3); thresholds of the multi-task literature (ASTMT, ATRC, InvPT).
    """

    def __init__(self) -> None:
        self.state = {
            "counts": torch.zeros(2, len(SALIENCY_THRESHOLDS) + 1, dtype=torch.int64),
            "absolute": torch.zeros((), dtype=torch.float64),
        }

    def update(self, prediction: Tensor, label: Tensor) -> None:
        """Add probabilities (..., H, W); see `valid_pixels` for what is raised."""
        p_N, positive_N = valid_pixels(prediction, label)
        self._add(
            counts=counts_above(p_N, positive_N, SALIENCY_THRESHOLDS),
            absolute=(p_N.double() - positive_N.double()).abs().sum(),
        )

    def compute(self) -> dict[str, float]:
        """`maxf` in percent and `mae` in [0, 1]."""
        counts = self.state["counts"]
        return {"maxf": best_f(counts, SALIENCY_BETA_SQUARED), "mae": ratio(self.state["absolute"], counts[:, 0].sum())}


class EdgeF(Metric):
    """`maxf`: F1 in percent, pixel by pixel, best of the thresholds 0.01, 0.02 ... 0.99; NaN without a valid pixel.

    This is not odsF and must not be compared with it: there is no thinning, no non-maximum suppression, no tolerance in
    space (an edge one pixel off is wrong twice), so values are far lower. It is cheap enough to watch during training.
    """

    def __init__(self) -> None:
        self.state = {"counts": torch.zeros(2, len(EDGE_THRESHOLDS) + 1, dtype=torch.int64)}

    def update(self, prediction: Tensor, label: Tensor) -> None:
        """Add probabilities (..., H, W); see `valid_pixels` for what is raised."""
        self._add(counts=counts_above(*valid_pixels(prediction, label), EDGE_THRESHOLDS))

    def compute(self) -> dict[str, float]:
        """`maxf` in percent."""
        return {"maxf": best_f(self.state["counts"], beta_squared=1)}
