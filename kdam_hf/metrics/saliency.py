"""Saliency: best F-measure and best IoU over thresholds of a probability, and its mean absolute error.

Unusual here: the settings cover the definitions of the field, because its "maxF" is at least three different numbers
(`kdam_hf.metrics.protocols` names them).
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics.base import Metric, ratio
from kdam_hf.metrics.thresholds import binary_pixels, counts_above, f_measure, images_of, precision_recall_iou

SALIENCY_THRESHOLDS = tuple(k / 100 for k in range(5, 100, 5))
POOLINGS = ("split", "image")


class Saliency(Metric):
    """`maxf` and `max_miou`, the IoU of the salient class, in percent, `mae` a fraction; all NaN without a valid pixel.

    Args:
        thresholds: ascending, in [0, 1]; a pixel is found when its probability reaches the threshold.
        beta_squared: weight of recall in F = (1 + b) P R / (b P + R).
        strict: a pixel is found only when its probability exceeds the threshold.
        pooling: "split" counts pixels over the whole split before any ratio is taken. "image" averages precision, recall
            and IoU over the images with a valid pixel; there an image without salient pixels on either side has
            precision and recall 0 and IoU 1.

    Raises:
        KdamValueError: thresholds not ascending or outside of [0, 1]; `beta_squared` not above zero; another `pooling`.

    Source:
        Achanta et al., CVPR 2009 (beta^2 = 0.3); thresholds of ATRC (arXiv:2104.13874) and its successors.
    """

    def __init__(
        self,
        thresholds: tuple[float, ...] = SALIENCY_THRESHOLDS,
        beta_squared: float = 0.3,
        strict: bool = False,
        pooling: str = "split",
    ) -> None:
        ascending = all(low < high for low, high in pairwise(thresholds))
        if not thresholds or not ascending or not (thresholds[0] >= 0 and thresholds[-1] <= 1):
            raise KdamValueError(f"thresholds are {thresholds}: expected one or more ascending numbers in [0, 1]")
        if not 0 < beta_squared < math.inf:
            raise KdamValueError(f"beta_squared is {beta_squared}: expected a number above zero, such as 0.3 or 1")
        if pooling not in POOLINGS:
            raise KdamValueError(f"pooling is {pooling!r}: choose one of {POOLINGS}")
        self.thresholds, self.beta_squared, self.strict, self.pooling = thresholds, beta_squared, strict, pooling
        self.state = {
            "counts": torch.zeros(2, len(thresholds) + 1, dtype=torch.int64),
            "absolute": torch.zeros((), dtype=torch.float64),
        }
        if pooling == "image":
            self.state["curves"] = torch.zeros(3, len(thresholds), dtype=torch.float64)
            self.state["images"] = torch.zeros((), dtype=torch.int64)

    def update(self, prediction: Tensor, label: Tensor) -> None:
        """Add one image (H, W) or several (..., H, W) of probabilities; see `binary_pixels` for what is raised."""
        pixels = binary_pixels(prediction, label)
        self.add_state({"absolute": (pixels.p.double() - (pixels.positive & pixels.valid).double()).abs().sum()})
        if self.pooling == "split":
            self.add_state({"counts": counts_above(pixels, self.thresholds, self.strict)})
            return
        for image in images_of(pixels):
            counts = counts_above(image, self.thresholds, self.strict)
            labelled = counts.any().long()
            curves = labelled * precision_recall_iou(counts, both_empty=1)
            self.add_state({"counts": counts, "curves": curves, "images": labelled})

    def compute(self) -> dict[str, float]:
        """`maxf` and `max_miou` in percent, `mae` in [0, 1]."""
        counts = self.state["counts"]
        pixels = counts[:, 0].sum()
        if pixels == 0:
            return dict.fromkeys(("maxf", "max_miou", "mae"), math.nan)
        of_images = self.pooling == "image"
        curves = self.state["curves"] / self.state["images"] if of_images else precision_recall_iou(counts)
        precision_K, recall_K, iou_K = curves
        return {
            "maxf": 100 * float(f_measure(precision_K, recall_K, self.beta_squared).max()),
            "max_miou": 100 * float(iou_K.max()),
            "mae": ratio(self.state["absolute"], pixels),
        }
