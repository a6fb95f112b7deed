"""odsF, oisF and AP over a whole split, streamed, and scored over several processes.

Unusual here: every sum is a whole number, so a score does not depend on the order of the images nor on who counted them.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

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
from kdam_hf.metrics.thresholds import binary_pixels

VALUES = ("odsf", "oisf", "ap", "ods_threshold", "ods_precision", "ods_recall")


class BoundaryScores(Metric):
    """Boundaries matched within a tolerance; all in percent but `ods_threshold`, NaN without a valid pixel.

    `odsf`: best F with one threshold for the whole split, reached at `ods_threshold` with `ods_precision` and
    `ods_recall`. `oisf`: F of the sums over images, each at its own best threshold. `ap`: see `average_precision`.

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
        }

    def update(self, prediction: Tensor, label: Tensor) -> None:
        """Add images with one annotation each.

        Args:
            prediction: probability in [0, 1], (..., H, W) floating; anything on ignored pixels.
            label: 0, 1 or 255 (ignored), the same shape, any number type.

        Raises:
            KdamValueError: shapes differ; on a valid pixel, a prediction outside of [0, 1] or a label other than 0 and 1.
        """
        maps = [part.detach().cpu().numpy() for part in binary_pixels(prediction, label)]
        maps = [part.reshape(-1, *part.shape[-2:]) for part in maps]
        for strength, annotation, valid in zip(*maps, strict=True):
            if valid.any():
                self.add(boundary_counts(strength, [annotation], ~valid, **self._settings()))  # type: ignore[arg-type]

    def add(self, counts: BoundaryCounts) -> None:
        """Add the counts of one image, made with the settings of this metric; the way for several annotators."""
        best = int(precision_recall_f(counts)[2].argmax())
        table = torch.from_numpy(np.stack(counts))
        self._add(counts=table, best=table[:, best], images=torch.ones(()))

    def curve(self) -> tuple[Floats, Floats, Floats]:
        """Precision, recall and F of the split per threshold, float64 (T,) in [0, 1]."""
        return precision_recall_f(BoundaryCounts(*self.state["counts"].numpy()))

    def compute(self) -> dict[str, float]:
        """The values named in `VALUES`."""
        if not self.state["images"]:
            return dict.fromkeys(VALUES, math.nan)
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
        }


def score_boundaries(
    images: Iterable[tuple[Any, ...]], num_proc: int = 1, progress: bool = True, **settings: Any
) -> BoundaryScores:
    """Score images, several at a time.

    Args:
        images: (prediction, annotations) or (prediction, annotations, ignore) per image, as `boundary_counts` takes
            them. Few are held at a time, so a generator that reads files needs little memory.
        num_proc: processes that count, started in the way that is the default of Python on the system; where that is
            not fork, a script must guard its entry with `if __name__ == "__main__"`.
        progress: show a bar.
        settings: of `BoundaryScores`.

    Raises:
        KdamValueError: num_proc < 1, or an image is refused; the message gives its number.
    """
    if num_proc < 1:
        raise KdamValueError(f"num_proc is {num_proc}: expected the number of processes that count, at least 1")
    scores = BoundaryScores(**settings)
    tasks = ((number, image, scores._settings()) for number, image in enumerate(images))
    total = len(images) if isinstance(images, Sized) else None
    counted = map(_count, tasks) if num_proc == 1 else _count_in_processes(tasks, num_proc)
    for counts in tqdm(counted, desc="boundaries", unit="image", total=total, disable=not progress):
        scores.add(counts)
    return scores


Numbered = tuple[int, tuple[Any, ...], dict[str, Any]]


def _count(task: Numbered) -> BoundaryCounts:
    number, image, settings = task
    try:
        return boundary_counts(*image, **settings)
    except KdamValueError as error:
        raise KdamValueError(f"image {number} (the first is 0): {error}") from error


def _count_in_processes(tasks: Iterable[Numbered], num_proc: int) -> Iterator[BoundaryCounts]:
    """Counts in the order of the tasks; at most two images per process are under way."""
    with ProcessPoolExecutor(num_proc) as pool:
        under_way: deque[Future[BoundaryCounts]] = deque()
        for task in tasks:
            under_way.append(pool.submit(_count, task))
            if len(under_way) == 2 * num_proc:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
