"""Tasks with one class per pixel: semantic segmentation, human parts, saliency."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdam_hf.distributed import LOCAL, Processes
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.metrics.base import Metric
from kdam_hf.metrics.confusion import MeanIoU
from kdam_hf.metrics.saliency import Saliency as SaliencyMetric
from kdam_hf.tasks.base import (
    Label,
    Task,
    at_least_float32,
    expect_2d,
    per_valid_pixel,
)
from kdam_hf.tasks.cross_entropy import cross_entropy_sum

IGNORE_INDEX = 255


@dataclass(frozen=True)
class Categorical(Task):
    """Softmax cross-entropy over `classes`; raw label uint8 (H, W), tensor label int64 (H, W), 255 = ignore."""

    classes: tuple[str, ...] = ()

    kind: ClassVar[str] = "categorical"
    primary_metric: ClassVar[str] = "miou"
    predicts_logits: ClassVar[bool] = True
    limits_class_share: ClassVar[bool] = True
    file_options: ClassVar[dict[str, type]] = {
        "num_classes": int,
        "class_names": list,
        "ignore_index": int,
        "first_id": int,
    }

    def __post_init__(self) -> None:
        if not 2 <= len(self.classes) < IGNORE_INDEX:
            raise KdamValueError(
                f"{self.name}: {len(self.classes)} classes given; expected 2 to {IGNORE_INDEX - 1} names."
            )

    @property
    def channels(self) -> int:
        """One per class."""
        return len(self.classes)

    @property
    def readout(self) -> str:
        """The most probable class id."""
        return "argmax"

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of their ids."""
        return self.classes

    def loss_weights(self, label: Tensor, mask: Tensor, processes: Processes = LOCAL) -> Tensor:
        """One over the labelled pixels."""
        return per_valid_pixel(mask & (label != IGNORE_INDEX), processes)

    def loss_share(self, prediction: Tensor, label: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
        """Cross-entropy over labelled pixels."""
        target = label.masked_fill(~mask, IGNORE_INDEX)
        return cross_entropy_sum(at_least_float32(prediction), target, weights.expand(self.channels), IGNORE_INDEX)

    def distribution_logits(self, prediction: Tensor) -> Tensor:
        """The class logits themselves."""
        return at_least_float32(prediction)

    def metric(self) -> Metric:
        """mIoU over the classes that occur."""
        return MeanIoU(self.channels, ignore_index=IGNORE_INDEX)

    def figure(self, metric: Any, model: str) -> Any:
        """Confusion matrix with the IoU of each class."""
        from kdam_hf.plots import confusion_figure  # needs matplotlib

        return confusion_figure(metric.state["confusion"], self.classes, f"{self.name}, {model}")

    def unlabelled(self, height: int, width: int) -> Label:
        """All 255."""
        return np.full((height, width), IGNORE_INDEX, np.uint8)

    def from_file(self, array: Label, options: Mapping[str, Any], where: str) -> Label:
        """Integer ids; `ignore_index` of the dataset becomes 255, `first_id` (0 unless stated) the id of the first class."""
        array = expect_2d(array, self, where)
        if array.dtype.kind not in "iu":
            raise DataIntegrityError(f"{where}: {self.name} label is {array.dtype}; expected integer class ids.")
        ignore, first = options.get("ignore_index", IGNORE_INDEX), options.get("first_id", 0)
        ignored = array == ignore
        self._check_range(array[~ignored], first, ignore, where)
        return np.where(ignored, IGNORE_INDEX, array.astype(np.int64) - first).astype(np.uint8)

    def check(self, label: Label, where: str) -> None:
        """Every id is a class or 255."""
        self._check_range(label[label != IGNORE_INDEX], 0, IGNORE_INDEX, where)

    def _check_range(self, ids: Label, first: int, ignore: int, where: str) -> None:
        last = first + self.channels - 1
        if ids.size and (ids.min() < first or ids.max() > last):
            wrong = sorted({int(i) for i in np.unique(ids) if not first <= i <= last})
            raise DataIntegrityError(
                f"{where}: {self.name} label holds {wrong[:8]}; expected {first}..{last} or {ignore} (ignore). "
                "Fix the file, or num_classes / ignore_index in dataset.json."
            )

    def valid(self, label: Label) -> NDArray[np.bool_]:
        """Where it is not 255."""
        return label != IGNORE_INDEX

    def _value_statistics(self, values: Label) -> dict[str, Any]:
        return {"counts": tuple(np.bincount(values, minlength=self.channels).tolist())}

    def to_tensor(self, label: Label) -> Tensor:
        """int64 (H, W)."""
        return torch.from_numpy(label.astype(np.int64))


@dataclass(frozen=True)
class HumanParts(Categorical):
    """Parts of people; an image without any person has no valid pixel (the field's convention, also after a crop)."""

    kind: ClassVar[str] = "human_parts"
    limits_class_share: ClassVar[bool] = False

    def to_tensor(self, label: Label) -> Tensor:
        """int64 (H, W); all 255 when no part is in view."""
        target = super().to_tensor(label)
        nobody = not ((target > 0) & (target != IGNORE_INDEX)).any()
        return torch.full_like(target, IGNORE_INDEX) if nobody else target


@dataclass(frozen=True)
class Saliency(Categorical):
    """Foreground or background, class-balanced cross-entropy; read out as the probability of foreground."""

    classes: tuple[str, ...] = ("background", "salient")
    kind: ClassVar[str] = "saliency"
    limits_class_share: ClassVar[bool] = False
    file_options: ClassVar[dict[str, type]] = {"ignore_index": int}
    primary_metric: ClassVar[str] = "maxf"

    @property
    def readout(self) -> str:
        """Softmax probability of the last class."""
        return "foreground"

    def from_file(self, array: Label, options: Mapping[str, Any], where: str) -> Label:
        """Ids {0, 1} with `ignore_index`, or the usual 8-bit mask {0, 255} in which 255 is foreground.

        A file that holds a 1 follows the first; a task entry with an `ignore_index` settles it for the whole dataset.
        """
        if "ignore_index" not in options and array.dtype.kind in "iu" and not (array == 1).any():
            array = (array == 255).astype(np.uint8) if not ((array != 0) & (array != 255)).any() else array
        return super().from_file(array, options, where)

    def loss_weights(self, label: Tensor, mask: Tensor, processes: Processes = LOCAL) -> Tensor:
        """One over the labelled pixels, times the share of the other class in the batch (balanced CE of the field)."""
        target = label.masked_fill(~mask, IGNORE_INDEX)
        counts = processes.mean(torch.stack([(target == c).sum() for c in range(2)]).float())
        total = counts.sum().clamp_min(1)
        return (1 - counts / total) / total

    def metric(self) -> Metric:
        """maxF, max-mIoU and MAE."""
        return SaliencyMetric()

    def figure(self, metric: Any, model: str) -> Any:
        """None: no class is decided on."""
        return None
