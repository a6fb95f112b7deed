"""odsF, oisF and AP over a whole split, streamed, and scored over several processes.

Unusual here: every sum is a whole number, so a score does not depend on the order of the images nor on who counted them.
"""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics.base import Metric
from kdam_hf.metrics.boundaries import (
    BoundaryCounts,
    Floats,
    average_precision,
    boundary_counts,
    precision_recall_f,
    threshold_values,
)
from kdam_hf.metrics.parallel import in_processes
from kdam_hf.metrics.thresholds import EDGE_THRESHOLDS, EdgeF, best_f1, binary_pixels, counts_above, images_of

VALUES = ("odsf", "oisf", "ap", "ods_threshold", "ods_precision", "ods_recall")


class BoundaryScores(Metric):
    """Boundaries matched within a tolerance; all in percent but `ods_threshold`, NaN without a valid pixel.

    `odsf`: best F with one threshold for the whole split, reached at `ods_threshold` with `ods_precision` and
    `ods_recall`. `oisf`: F of the sums over images, each at its own best threshold. `ap`: see `average_precision`. `maxf`: that
    of `EdgeF`, of images that came by `update`.

    Args:
        thresholds, max_dist, nms, thin, thin_annotations: see `boundary_counts`; `BOUNDARY_PROTOCOLS` holds those of papers.

    Source:
        Arbeláez et al., PAMI 33(5), 2011, section 2.
    """

    def __init__(
        self,
        thresholds: int | Sequence[float] = 101,
        max_dist: float = 0.0075,
        nms: bool = False,
        thin: bool = True,
        thin_annotations: bool = False,
    ) -> None:
        self.thresholds, self.max_dist = threshold_values(thresholds), max_dist
        self.nms, self.thin, self.thin_annotations = nms, thin, thin_annotations
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
        """The values named in `VALUES`, and `maxf`."""
        if not self.state["images"]:
            return dict.fromkeys((*VALUES, "maxf"), math.nan)
        precision, recall, f = self.curve()
        best = int(f.argmax())
        at_own_best = precision_recall_f(BoundaryCounts(*self.state["best"].numpy()[:, None]))[2]
        return {
            "odsf": 100 * float(f[best]),
            "oisf": 100 * float(at_own_best[0]),
            "ap": 100 * average_precision(precision, recall),
            "ods_threshold": self.thresholds[best],
            "ods_precision": 100 * float(precision[best]),
            "ods_recall": 100 * float(recall[best]),
            "maxf": best_f1(self.state["pixels"]),
        }


def score_boundaries(images: Iterable[tuple[Any, ...]], num_proc: int = 1, **settings: Any) -> BoundaryScores:
    """Score images, several at a time.

    Args:
        images: (prediction, annotations) or (prediction, annotations, ignore) per image, as `boundary_counts` takes them.
        num_proc: processes that count; see `in_processes` for what is raised. An image that is refused is named.
        settings: of `BoundaryScores`.
    """
    scores = BoundaryScores(**settings)
    for counts in in_processes(partial(_count, scores.settings()), enumerate(images), num_proc):
        scores.add(counts)
    return scores


def _count(settings: dict[str, Any], numbered: tuple[int, tuple[Any, ...]]) -> BoundaryCounts:
    number, image = numbered
    try:
        return boundary_counts(*image, **settings)
    except KdamValueError as error:
        raise KdamValueError(f"image {number} (the first is 0): {error}") from error
