"""Tasks with one class per pixel: semantic segmentation, human parts, saliency."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kdam_hf.configuration_kdam import IGNORE_INDEX
from kdam_hf.errors import KdamValueError
from kdam_hf.metrics.base import Metric
from kdam_hf.metrics.confusion import MeanIoU
from kdam_hf.metrics.saliency import Saliency as SaliencyMetric
from kdam_hf.tasks.base import Task, at_least_float32
from kdam_hf.tasks.labels import ClassMap, Label, LabelKind, Mask

BALANCED = "balanced"
PASCAL_PARTS = ("background", "head", "torso", "upper_arm", "lower_arm", "upper_leg", "lower_leg")


def read_class_weights(text: str) -> tuple[float, ...] | str:
    """`balanced`, or one number per class: `1,0.5,2`."""
    return text if text == BALANCED else tuple(map(float, text.strip("[]").split(",")))


@dataclass(frozen=True)
class Categorical(Task):
    """Softmax cross-entropy over `classes`.

    Args:
        classes: their names.
        taught: indices of the classes that the teacher knows, among which it is matched; all of them for none.
        class_weights: weights of the classes in the loss, which is divided by the sum of those of the counted pixels; all 1 for
            none. "balanced" stands for `balanced_weights` of the training labels.

    Raises:
        KdamValueError: too few or too many classes, or weights that are not one number >= 0 per class.
    """

    name: str = "semseg"
    classes: tuple[str, ...] = ()
    taught: tuple[int, ...] = ()
    class_weights: tuple[float, ...] | str = field(default=(), metadata={"read": read_class_weights})

    kind: ClassVar[str] = "categorical"
    readout: ClassVar[str] = "argmax"
    primary_metric: ClassVar[str] = "miou"
    limits_class_share: ClassVar[bool] = True
    label_kind: ClassVar[type[LabelKind]] = ClassMap

    def __post_init__(self) -> None:
        if not 2 <= len(self.classes) < IGNORE_INDEX:
            raise KdamValueError(
                f"{self.name}: {len(self.classes)} classes given; expected 2 to {IGNORE_INDEX - 1} names."
            )
        known = self.class_weights if isinstance(self.class_weights, tuple) else ()
        fits = len(known) == len(self.classes) and any(known) and all(0 <= weight < inf for weight in known)
        if self.class_weights not in ((), BALANCED) and not fits:
            raise KdamValueError(
                f"{self.name}: class_weights {self.class_weights!r}; expected {BALANCED}, or {len(self.classes)} finite "
                "numbers >= 0, one per class and not all 0."
            )

    @property
    def channels(self) -> int:
        return len(self.classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.classes

    def balanced_weights(self, counts: Tensor) -> tuple[float, ...]:
        """Weights in inverse proportion to the labelled pixels of each class (K,): their mean over these pixels is 1.

        A class without any pixel has weight 0.
        """
        weights = torch.where(counts > 0, counts.sum() / (counts.count_nonzero() * counts), 0)
        return tuple(float(f"{weight:.6g}") for weight in weights.tolist())

    def loss_counts(self, label: Tensor, mask: Tensor) -> Tensor:
        """With class weights, the sum of those of the counted pixels."""
        if not self.class_weights:
            return super().loss_counts(label, mask)
        if self.class_weights == BALANCED:
            raise KdamValueError(
                f"{self.name}: class_weights {BALANCED}; count the training labels: `balanced_weights`."
            )
        known = label.new_tensor(self.class_weights, dtype=torch.float32)
        of_id = F.pad(known, (0, IGNORE_INDEX + 1 - self.channels))  # 0 for what is ignored
        return of_id[label.masked_fill(~mask, IGNORE_INDEX)].sum().reshape(1)

    def loss_weights(self, counts: Tensor) -> Tensor:
        """Of each class (K,), with class weights."""
        if not self.class_weights:
            return super().loss_weights(counts)
        return torch.where(counts > 0, counts.new_tensor(self.class_weights) / counts, 0)

    def loss_share(self, prediction: Tensor, label: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
        rows = at_least_float32(prediction).permute(0, 2, 3, 1).reshape(-1, self.channels)
        target = label.masked_fill(~mask, IGNORE_INDEX).flatten()
        # the gradient of an ignored row that is not finite would not be; on the CPU the sum is cheaper than a copy
        if rows.device.type != "cpu" or not rows.detach().sum().isfinite():
            rows = rows.masked_fill((target == IGNORE_INDEX)[:, None], 0)
        weight = weights.to(rows).expand(self.channels)
        return F.cross_entropy(rows, target, weight, ignore_index=IGNORE_INDEX, reduction="sum")

    def distribution_logits(self, prediction: Tensor) -> Tensor:
        return at_least_float32(prediction[..., list(self.taught)] if self.taught else prediction)

    def metric(self) -> Metric:
        return MeanIoU(self.channels, ignore_index=IGNORE_INDEX)

    def figure(self, metric: Any, model: str) -> Any:
        """Confusion matrix with the IoU of each class."""
        from kdam_hf.plots import confusion_figure  # needs matplotlib

        return confusion_figure(metric.state["confusion"], self.classes, f"{self.name}, {model}")


@dataclass(frozen=True)
class PartMap(ClassMap):
    """Part ids; an image without any person has no valid pixel (the field's convention, also after a crop)."""

    def to_tensor(self, label: Label) -> Tensor:
        """int64 (H, W); all 255 when no part is in view."""
        target = super().to_tensor(label)
        nobody = not ((target > 0) & (target != IGNORE_INDEX)).any()
        return torch.full_like(target, IGNORE_INDEX) if nobody else target


@dataclass(frozen=True)
class HumanParts(Categorical):
    """Parts of people."""

    name: str = "human_parts"
    loss_weight: float = 2.0
    classes: tuple[str, ...] = PASCAL_PARTS

    kind: ClassVar[str] = "human_parts"
    label_kind: ClassVar[type[LabelKind]] = PartMap
    limits_class_share: ClassVar[bool] = False


@dataclass(frozen=True)
class SaliencyMask(Mask):
    """A mask whose tensor is class ids int64 (H, W); an `ignore_index` in the options says that 1 is the foreground."""

    file_options: ClassVar[dict[str, type]] = {"ignore_index": int}
    own_options: ClassVar[dict[str, Any]] = {"ignore_index": IGNORE_INDEX}

    def foreground(self, values: set[float], options: Mapping[str, Any]) -> int:
        """255 in a mask without a 1."""
        return 1 if 1 in values or "ignore_index" in options else IGNORE_INDEX

    def to_tensor(self, label: Label) -> Tensor:
        return torch.from_numpy(label.astype(np.int64))


@dataclass(frozen=True)
class Saliency(Categorical):
    """Foreground or background, class-balanced cross-entropy; read out as the probability of foreground."""

    name: str = "saliency"
    loss_weight: float = 5.0
    classes: tuple[str, ...] = ("background", "salient")

    kind: ClassVar[str] = "saliency"
    readout: ClassVar[str] = "foreground"
    primary_metric: ClassVar[str] = "maxf"
    label_kind: ClassVar[type[LabelKind]] = SaliencyMask
    limits_class_share: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.class_weights:
            raise KdamValueError(f"{self.name}: its loss weighs its two classes already; leave class_weights out.")

    def loss_counts(self, label: Tensor, mask: Tensor) -> Tensor:
        """Pixels of each class."""
        target = label.masked_fill(~mask, IGNORE_INDEX)
        return torch.stack([(target == c).sum(dtype=torch.float32) for c in range(2)])

    def loss_weights(self, counts: Tensor) -> Tensor:
        """One over the labelled pixels, times the share of the other class in the batch (balanced CE of the field)."""
        total = counts.sum().clamp_min(1)
        return (1 - counts / total) / total

    def metric(self) -> Metric:
        return SaliencyMetric()

    def figure(self, metric: Any, model: str) -> Any:
        """None: no class is decided on."""
        return None
