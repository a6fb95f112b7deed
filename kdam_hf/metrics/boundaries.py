"""Boundary pixels matched within a tolerance, per threshold: the counts behind odsF, and odsF, oisF and AP over a split.

Unusual here: matching is exact, and far faster than the matcher behind published numbers, so that all thresholds and
annotators of an image are scored while it is in memory. Every sum is a whole number, so a score does not depend on the
order of the images nor on who counted them.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics.base import Metric
from kdam_hf.metrics.boundary_matching import match_pixels
from kdam_hf.metrics.boundary_nms import suppress_non_maxima
from kdam_hf.metrics.thinning import thin
from kdam_hf.metrics.thresholds import (
    EDGE_THRESHOLDS,
    EdgeF,
    best_f1,
    binary_pixels,
    check_probabilities,
    counts_above,
    images_of,
)

Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

HED_THRESHOLDS = (0.001, *(k / 100 for k in range(1, 100)), 0.999)

# arguments of `boundary_counts` under which the numbers in papers were made
BOUNDARY_PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    "bsds": {"thresholds": 99, "max_dist": 0.0075, "nms": False, "thin_annotations": False},
    "nyud": {"thresholds": 101, "max_dist": 0.011, "nms": True, "thin_annotations": True},
    "pascal": {"thresholds": 101, "max_dist": 0.0075, "nms": True, "thin_annotations": True},
}


class BoundaryCounts(NamedTuple):
    """Pixels per threshold, each int64 (T,); the counts of several images are added.

    `recall` counts annotated pixels, summed over annotators; `precision` counts predicted pixels, matched if any
    annotator matches them.
    """

    recall_matched: Counts
    recall_total: Counts
    precision_matched: Counts
    precision_total: Counts


def boundary_counts(
    prediction: NDArray[np.floating],
    annotations: Sequence[Mask],
    ignore: Mask | None = None,
    *,
    thresholds: int | Sequence[float] | Floats = 101,
    max_dist: float = 0.0075,
    nms: bool = False,
    thin_annotations: bool = False,
) -> BoundaryCounts:
    """Match the boundaries of one image, one to one, at every threshold.

    Most pairs first, then the least sum of distances; with one annotator only the number of pairs counts.

    Args:
        prediction: strength of boundaries in [0, 1], (H, W) floating.
        annotations: one mask per annotator, bool (H, W).
        ignore: bool (H, W), True where nothing counts: predictions are taken as 0 there, and may be NaN, and
            annotations as empty.
        thresholds: values in (0, 1] that a pixel must reach; 101 stands for .001, .01, .02 ... .99, .999 and any other
            number n for k / (n + 1), as 99 in BSDS.
        max_dist: how far two matched pixels may be apart, as a share of the image diagonal: 0.0075 for PASCAL and BSDS,
            0.011 for NYUD.
        nms: suppress non-maxima first; for soft maps with thick responses.
        thin_annotations: thin annotations to lines of one pixel, as predictions are at each threshold; NYUD and PASCAL
            evaluations do, BSDS does not.

    Raises:
        KdamValueError: shapes, types or ranges other than these; NaN or Inf where it counts.

    Source:
        Martin, Fowlkes, Malik, PAMI 26(5), 2004; Arbeláez et al., PAMI 33(5), 2011, section 2.
    """
    values = threshold_values(thresholds)
    if prediction.ndim != 2 or prediction.dtype.kind != "f":
        raise KdamValueError(
            f"prediction is {prediction.dtype} {prediction.shape}: expected floating probabilities (H, W) of one image"
        )
    strength = prediction
    if ignore is not None:
        _check_mask("ignore", ignore, prediction.shape)
        strength = np.where(ignore, prediction.dtype.type(0), prediction)
    check_probabilities(strength.min(initial=0), strength.max(initial=0))
    if not len(annotations):
        raise KdamValueError("annotations are empty: give one mask per annotator, if only an empty one")
    for number, mask in enumerate(annotations):
        _check_mask(f"annotation {number}", mask, strength.shape)
    if not 0 < max_dist <= 1:
        raise KdamValueError(f"max_dist is {max_dist}: expected a share of the image diagonal in (0, 1], not pixels")
    if nms:
        strength = suppress_non_maxima(strength)
    annotated = (mask if ignore is None else mask & ~ignore for mask in annotations)
    pixels = [np.flatnonzero(thin(mask) if thin_annotations else mask) for mask in annotated]
    radius = max_dist * math.hypot(*strength.shape)
    counts = np.zeros((4, len(values)), np.int64)
    counts[1] = sum(len(each) for each in pixels)
    size = -1
    for k, threshold in enumerate(values):
        # a number of the map's own type, so that a float32 0.7 reaches 0.7
        found = strength >= strength.dtype.type(threshold)
        size_before, size = size, int(np.count_nonzero(found))
        if size == size_before:  # masks of rising thresholds are nested: the same size is the same mask
            counts[:, k] = counts[:, k - 1]
            continue
        predicted = np.flatnonzero(thin(found))
        hit = np.zeros(len(predicted), np.bool_)
        for annotated_pixels in pixels:
            pairs = match_pixels(predicted, annotated_pixels, strength.shape[1], radius, shortest=len(pixels) > 1)
            hit[pairs[:, 0]] = True
            counts[0, k] += len(pairs)
        counts[2, k] = hit.sum()
        counts[3, k] = len(predicted)
    return BoundaryCounts(*counts)


def threshold_values(thresholds: int | Sequence[float] | Floats) -> tuple[float, ...]:
    """Thresholds as numbers; see `boundary_counts`."""
    if isinstance(thresholds, int | np.integer):
        values = HED_THRESHOLDS if thresholds == 101 else tuple(np.arange(1, thresholds + 1) / (thresholds + 1))
    else:
        values = tuple(thresholds)
    if not values or not all(0 < value <= 1 for value in values):
        raise KdamValueError(f"thresholds are {thresholds}: expected their number, or one or more values in (0, 1]")
    return tuple(float(value) for value in values)


def precision_recall_f(counts: BoundaryCounts) -> tuple[Floats, Floats, Floats]:
    """Precision, recall and F1 per threshold, float64 (T,) in [0, 1]; 0 where there is nothing to divide."""
    precision = counts.precision_matched / np.maximum(counts.precision_total, 1)
    recall = counts.recall_matched / np.maximum(counts.recall_total, 1)
    sums = precision + recall
    return precision, recall, 2 * precision * recall / np.where(sums > 0, sums, 1)


def average_precision(precision: Floats, recall: Floats) -> float:
    """Area under the precision-recall curve in [0, 1]: precision interpolated at recalls 0, 0.01 ... 1, summed / 100.

    Args:
        precision: (T,) in [0, 1], in the order of ascending thresholds.
        recall: likewise. Outside of the recalls that thresholds reach precision counts as 0, so that a map of ones and
            zeros, with one point on its curve, has a low value however good it is.

    Source:
        The evaluation code of BSDS 500 and of structured edge detection (github.com/pdollar/edges).
    """
    # of equal recalls the lowest threshold counts
    recall, first = np.unique(recall, return_index=True)
    return float(np.interp(np.arange(101) / 100, recall, precision[first], left=0, right=0).sum() / 100)


def _check_mask(what: str, mask: Mask, shape: tuple[int, ...]) -> None:
    if mask.dtype != np.bool_ or mask.shape != shape:
        raise KdamValueError(
            f"{what} is {mask.dtype} {mask.shape}: expected bool {shape}, the size of the prediction, and a list of "
            "annotations, even of one"
        )


class BoundaryScores(Metric):
    """Boundaries matched within a tolerance; all in percent but `ods_threshold`, NaN without a valid pixel.

    `odsf`: best F with one threshold for the whole split, reached at `ods_threshold` with `ods_precision` and
    `ods_recall`. `oisf`: F of the sums over images, each at its own best threshold. `ap`: see `average_precision`. `maxf`: that
    of `EdgeF`, of images that came by `update`.

    Args:
        thresholds, max_dist, nms, thin_annotations: see `boundary_counts`; `BOUNDARY_PROTOCOLS` holds those of papers.

    Source:
        Arbeláez et al., PAMI 33(5), 2011, section 2.
    """

    def __init__(
        self,
        thresholds: int | Sequence[float] = 101,
        max_dist: float = 0.0075,
        nms: bool = False,
        thin_annotations: bool = False,
    ) -> None:
        self.thresholds, self.max_dist = threshold_values(thresholds), max_dist
        self.nms, self.thin_annotations = nms, thin_annotations
        self.state = {
            "counts": torch.zeros(4, len(self.thresholds), dtype=torch.int64),
            "best": torch.zeros(4, dtype=torch.int64),
            "images": torch.zeros((), dtype=torch.int64),
            **EdgeF().state,
        }

    def update(self, prediction: Tensor, label: Tensor) -> None:
        """Add images (..., H, W) with one annotation each; see `binary_pixels` for what is raised."""
        pixels = binary_pixels(prediction, label)
        self.add_state({"pixels": counts_above(pixels, EDGE_THRESHOLDS)})
        for image in images_of(pixels):
            strength, annotation, valid = (part.detach().cpu().numpy() for part in image)
            if valid.any():
                self.add(boundary_counts(strength, [annotation], ~valid, **self.settings()))

    def add(self, counts: BoundaryCounts) -> None:
        """Add the counts of one image, made with the settings of this metric; the way for several annotators."""
        best = int(precision_recall_f(counts)[2].argmax())
        table = torch.from_numpy(np.stack(counts))
        self.add_state({"counts": table, "best": table[:, best], "images": torch.tensor(1)})

    def curve(self) -> tuple[Floats, Floats, Floats]:
        """Precision, recall and F of the split per threshold, float64 (T,) in [0, 1]."""
        return precision_recall_f(BoundaryCounts(*self.state["counts"].numpy()))

    def compute(self) -> dict[str, float]:
        """The values that the class names."""
        precision, recall, f = self.curve()
        best = int(f.argmax())
        at_own_best = precision_recall_f(BoundaryCounts(*self.state["best"].numpy()[:, None]))[2]
        values = {
            "odsf": 100 * float(f[best]),
            "oisf": 100 * float(at_own_best[0]),
            "ap": 100 * average_precision(precision, recall),
            "ods_threshold": self.thresholds[best],
            "ods_precision": 100 * float(precision[best]),
            "ods_recall": 100 * float(recall[best]),
            "maxf": best_f1(self.state["pixels"]),
        }
        return values if self.state["images"] else dict.fromkeys(values, math.nan)
