"""What every dense task must say about itself; the rest of the code never asks which task it holds.

What concerns its labels alone, `Task.label`, stands in `labels`. Shape suffixes: B batch, C channels, H W full
resolution, h w stride-4 grid, N valid pixels.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics.base import Metric
from kdam_hf.readout_kdam import Readout, readout_of
from kdam_hf.tasks.labels import FloatMap, Label, LabelKind

KINDS: dict[str, type["Task"]] = {}
"""Every kind of task, by the `kind` of its class."""
NAMED: dict[str, Any] = dict.fromkeys(("semseg", "human_parts", "saliency", "depth", "normals", "edge"))
"""The class of every task by its name, in canonical order, which every list of tasks follows; new ones come last."""


@dataclass(frozen=True)
class Task(ABC):
    """One dense prediction task.

    Args:
        name: key in labels, predictions and results, e.g. `semseg`.
        loss_weight: factor of the supervised loss.
        kd_weight: factor of what a method of distillation adds for this task; 0 leaves the task out.
    """

    name: str
    loss_weight: float = 1.0
    kd_weight: float = 1.0

    kind: ClassVar[str]
    """What a published config calls this class."""
    activation: ClassVar[str] = "none"
    """How the model turns raw head output into a prediction (`modeling_kdam.ACTIVATIONS`)."""
    higher_is_better: ClassVar[bool] = True
    limits_class_share: ClassVar[bool] = False
    """Whether a training crop must not be filled by one class of this task."""
    unit: ClassVar[str] = ""
    """Of the values of a regression task, e.g. m."""
    hub_task: ClassVar[str] = "image-segmentation"
    """The task of the Hub that comes closest, for the metadata of a published model."""
    temperature_power: ClassVar[float] = 2.0
    """How the gradient of a divergence of `distribution_logits` over T falls with T: 2 where logits are the prediction."""
    continuous: ClassVar[bool] = False
    """Whether the K values of its distribution are points of a continuum, and no classes."""
    label_kind: ClassVar[type[LabelKind]] = FloatMap
    """The class of `label`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """A class with a `kind` of its own is known by it, and by the name that it has by default."""
        super().__init_subclass__(**kwargs)
        if "kind" in vars(cls):
            KINDS[cls.kind] = cls
            if isinstance(name := vars(cls).get("name"), str):
                NAMED[name] = cls

    @property
    @abstractmethod
    def channels(self) -> int:
        """Channels of the prediction."""

    @property
    @abstractmethod
    def readout(self) -> str:
        """How a prediction is turned into physical units (`readout_kdam.READOUTS`)."""

    @property
    @abstractmethod
    def primary_metric(self) -> str:
        """Name of the metric that papers report first."""

    @property
    def label(self) -> LabelKind:
        """How its labels are read, checked, mirrored, stored and made tensors."""
        return self.label_kind(self.name, self.channels)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; empty for regression tasks."""
        return ()

    @property
    def settings(self) -> dict[str, Any]:
        """What else says what predictions mean, such as fields of this task, as plain data; a published model keeps it."""
        mirrored = self.label.mirrored if isinstance(self.label, FloatMap) else ()
        return {"mirrored": list(mirrored)} if mirrored else {}

    @property
    def file_settings(self) -> dict[str, Any]:
        """Those of its fields that say how label files are read, where they are not the default."""
        known = (field for field in fields(self) if field.name in self.label_kind.file_options)
        return {field.name: value for field in known if (value := getattr(self, field.name)) != field.default}

    def spec(self) -> dict[str, Any]:
        """The facts a published model keeps of this task, as plain data for its config."""
        return {
            "name": self.name,
            "kind": self.kind,
            "channels": self.channels,
            "activation": self.activation,
            "readout": self.readout,
            "class_names": list(self.class_names),
            "settings": self.settings,
        }

    @property
    def reader(self) -> Readout:
        """How predictions of this task are decoded, coloured, described and stored; the only one who knows its readout."""
        return readout_of(self.spec())

    def loss(self, prediction: Tensor, label: Tensor, mask: Tensor) -> Tensor:
        """Supervised loss of whole maps, unweighted, averaged over valid pixels; training computes it in bands.

        Args:
            prediction: (B, C, H, W) float at label resolution.
            label: (B, ..., H, W) as made by `label.to_tensor`.
            mask: (B, H, W) bool, False on padding.

        Returns:
            A scalar, float32 or float64; 0 with a gradient path when no pixel is valid.

        Raises:
            KdamValueError: shapes that would only meet by broadcasting.
        """
        if not prediction.shape[-2:] == label.shape[-2:] == mask.shape[1:] or prediction.shape[1] != self.channels:
            raise KdamValueError(
                f"{self.name}: prediction {tuple(prediction.shape)}, label {tuple(label.shape)}, mask {tuple(mask.shape)}; "
                f"expected (B, {self.channels}, H, W), (B, ..., H, W) and (B, H, W) with one H x W."
            )
        return self.loss_share(prediction, label, mask, self.loss_weights(self.loss_counts(label, mask)))

    def valid_pixels(self, label: Tensor, mask: Tensor) -> Tensor:
        """Which pixels of a tensor label are labelled and no padding; (B, H, W) bool."""
        return mask & self.label.has_value(label if label.ndim == 4 else label[:, None], 1)

    def loss_counts(self, label: Tensor, mask: Tensor) -> Tensor:
        """What the loss of any part of a batch needs to know of the labels of the whole; counts of batches add up.

        Returns:
            (k,) float32: by default the number of valid pixels, k = 1.
        """
        return self.valid_pixels(label, mask).sum(dtype=torch.float32).reshape(1)

    def loss_weights(self, counts: Tensor) -> Tensor:
        """Weights of pixels, of the mean counts of all processes: one over the number of valid pixels, at most 1."""
        return 1 / counts.clamp_min(1)

    @abstractmethod
    def loss_share(self, prediction: Tensor, label: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
        """What a part of the batch adds to the loss: parts that cover the batch sum up to it.

        Args:
            prediction: (b, C, h, w) float, any images and rows of the batch.
            label: of these pixels.
            mask: of these pixels.
            weights: of `loss_weights`, for the whole batch.

        Returns:
            A scalar, float32 or float64.
        """

    @abstractmethod
    def distribution_logits(self, prediction: Tensor) -> Tensor:
        """Per-pixel distribution for matching, as unnormalised log-probabilities: (..., C) -> (..., K) float32, K >= 2."""

    def column_weights(self, mass: Tensor) -> Tensor:
        """Weights of the columns of the intra-task match, (K,) >= 0, of the teacher's probabilities, summed over pixels, (K,).

        A class counts like any other if it is there; of a continuum, a bin counts as much as there is in it.
        """
        return mass if self.continuous else mass / (mass + 1)

    def start(self, values: Label) -> list[float] | None:
        """What an untrained head predicts everywhere, one number per channel; None for what its activation makes of zero.

        Args:
            values: raw labels of valid pixels, (N, ...), N >= 1.
        """
        return None

    @abstractmethod
    def metric(self) -> Metric:
        """A fresh streaming metric over decoded predictions and tensor labels."""

    def scoring(self) -> dict[str, str]:
        """Settings of `metric` by which scores of the same name differ, as plain data for results."""
        return {}

    def figure(self, metric: Any, model: str) -> Any:
        """What its metric has seen, as a figure of `kdam_hf.plots` (extra `plots`); None for a task without one.

        Args:
            metric: of `metric()`, at least one valid pixel in it.
            model: its name, for the legend.
        """
        return None


class Regression(Task):
    """Numbers under an L1 loss, summed over the channels."""

    higher_is_better: ClassVar[bool] = False
    continuous: ClassVar[bool] = True

    def loss_share(self, prediction: Tensor, label: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
        valid = self.valid_pixels(label, mask)[:, None]
        values = self.normalised(at_least_float32(prediction).masked_fill(~valid, 1))
        return ((values - label).masked_fill(~valid, 0).abs() * weights).sum()

    def normalised(self, values: Tensor) -> Tensor:
        """What is held against the label; (B, C, H, W)."""
        return values


def laplace_logits(values: Tensor, first: float, last: float, softness: float) -> Tensor:
    """-|x - x_k| / s over centres x_k about s apart from first to last: (..., 1) -> (..., K), K >= 2.

    Linear in large errors, so that a divergence is, too, and a gradient of at most 2 / (s T) per pixel.
    """
    bins = max(2, 1 + round((last - first) / softness))
    return (values - torch.linspace(first, last, bins, device=values.device)).abs() * (-1 / softness)


def check_softness(name: str, value: float) -> None:
    """Raise KdamValueError unless a width of bins is positive and finite."""
    if not 0 < value < math.inf:
        raise KdamValueError(f"{name}: softness {value}; expected a finite number > 0.")


def at_least_float32(x: Tensor) -> Tensor:
    """In float32, or in float64 if it is float64: sums over pixels in half precision are far off."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
