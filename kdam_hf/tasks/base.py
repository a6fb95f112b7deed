"""What every dense task must say about itself; the rest of the code never asks which task it holds.

Two forms of a label: *raw* (numpy, as a loader yields it) and *tensor* (torch, as the loss takes it). Shape suffixes:
B batch, C channels, H W full resolution, h w stride-4 grid, N valid pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdam_hf.distributed import LOCAL, Processes
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.metrics.base import Metric
from kdam_hf.readout_kdam import RGB, Readout, readout_of
from kdam_hf.tasks.statistics import LabelStatistics

Label = NDArray[Any]


@dataclass(frozen=True)
class Task(ABC):
    """One dense prediction task.

    Args:
        name: key in labels, predictions and results, e.g. `semseg`.
        loss_weight: factor of the supervised loss.
    """

    name: str
    loss_weight: float = 1.0

    kind: ClassVar[str]
    """The room this task belongs to."""
    activation: ClassVar[str] = "none"
    """How the model turns raw head output into a prediction (`modeling_kdam.ACTIVATIONS`)."""
    higher_is_better: ClassVar[bool] = True
    predicts_logits: ClassVar[bool] = False
    """Whether a prediction is one logit per class, whose softmax is the distribution."""
    limits_class_share: ClassVar[bool] = False
    """Whether a training crop must not be filled by one class of this task."""
    unit: ClassVar[str] = ""
    """Of the values of a regression task, e.g. m."""
    hub_task: ClassVar[str] = "image-segmentation"
    """The task of the Hub that comes closest, for the metadata of a published model."""
    file_options: ClassVar[dict[str, type]] = {}
    """What `dataset.json` may say of this task's label files, with types."""

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
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; empty for regression tasks."""
        return ()

    @property
    def settings(self) -> dict[str, Any]:
        """Fields that say what a prediction or its distribution means, as plain data; a published model keeps them."""
        return {}

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

    def loss(self, prediction: Tensor, label: Tensor, mask: Tensor, processes: Processes = LOCAL) -> Tensor:
        """Supervised loss, unweighted, averaged over the valid pixels of the global batch.

        Args:
            prediction: (B, C, H, W) float at label resolution.
            label: (B, ...) as made by `to_tensor`.
            mask: (B, H, W) bool, False on padding.
            processes: the processes that share the batch.

        Returns:
            A float32 scalar; 0 with a gradient path when no pixel is valid.
        """
        expect_same_grid(prediction, label, mask, self)
        return self.loss_share(prediction, label, mask, self.loss_weights(label, mask, processes))

    @abstractmethod
    def loss_weights(self, label: Tensor, mask: Tensor, processes: Processes = LOCAL) -> Tensor:
        """What the loss of any part of the batch needs to know of the labels of the whole: weights per pixel.

        Args:
            label: (B, ...) as made by `to_tensor`.
            mask: (B, H, W) bool, False on padding.
            processes: the processes that share the batch.

        Returns:
            float32, a scalar or one weight per class: 1 over the processes' mean number of valid pixels, at most 1.
        """

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
        """Per-pixel distribution for matching, as unnormalised log-probabilities (method: one distribution per pixel).

        Args:
            prediction: (B, C, h, w) float.

        Returns:
            (B, K, h, w) float32.
        """

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

    def decode(self, prediction: Tensor, size: Sequence[int]) -> Tensor:
        """Physical units: class ids, probabilities, metres or unit vectors.

        Args:
            prediction: (B, C, h, w) at stride 4.
            size: height H and width W of the image.

        Returns:
            (B, H, W) or (B, c, H, W).
        """
        return self.reader.decode(prediction, size)

    # ---- raw labels -------------------------------------------------------------------------------------------------

    @abstractmethod
    def unlabelled(self, height: int, width: int) -> Label:
        """A raw label in which every pixel is invalid: what an image without this label gets."""

    @abstractmethod
    def from_file(self, array: Label, options: Mapping[str, Any], where: str) -> Label:
        """Turn the array stored in a label file into a raw label.

        Args:
            array: as decoded from PNG or NPY.
            options: this task's entry in `dataset.json`.
            where: the file, for the error message.

        Raises:
            DataIntegrityError: wrong shape, dtype or values.
        """

    @abstractmethod
    def check(self, label: Label, where: str) -> None:
        """Raise DataIntegrityError when a raw label is out of range; `where` names its file or sample."""

    @abstractmethod
    def valid(self, label: Label) -> NDArray[np.bool_]:
        """Which pixels of a raw label count; (H, W)."""

    def statistics(self, label: Label) -> LabelStatistics:
        """Facts of one raw label: its share of valid pixels, and the pixels of each class or the range of values."""
        valid = self.valid(label)
        facts = LabelStatistics(images=1, pixels=valid.size, valid=int(valid.sum()))
        return replace(facts, **self._value_statistics(label[valid])) if facts.valid else facts

    def _value_statistics(self, values: Label) -> dict[str, Any]:
        """`counts`, or `lowest` and `highest`, of at least one valid value."""
        return {"lowest": float(values.min()), "highest": float(values.max())}

    def hflip(self, label: Label) -> Label:
        """Mirror a raw label left to right."""
        return label[:, ::-1]

    def rescale(self, label: Label, scale: float) -> Label:
        """Correct the values (not the grid) of a raw label for an image enlarged by `scale`."""
        return label

    @abstractmethod
    def to_tensor(self, label: Label) -> Tensor:
        """Raw label -> tensor label."""

    def render(self, values: Label) -> NDArray[np.uint8]:
        """Colours of a raw label or of a decoded prediction in raw layout; (H, W, 3) uint8."""
        return self.reader.colours(values)

    def legend(self) -> list[tuple[str, RGB]]:
        """What the colours mean: (text, RGB)."""
        return self.reader.legend()


def expect_2d(array: Label, task: Task, where: str) -> Label:
    """The array as (H, W), or an error that names the file."""
    if array.ndim != 2:
        raise DataIntegrityError(
            f"{where}: {task.name} map has shape {array.shape}; expected one channel (H, W). "
            "Save it as a single-channel PNG (mode L, P or I;16) or a 2-D .npy."
        )
    return array


def float_tensor(array: Label) -> Tensor:
    """float32, contiguous; without a copy of what is so already and may be written to."""
    array = np.ascontiguousarray(array, np.float32)
    # a mirrored row of one pixel counts as contiguous, and keeps its negative stride
    kept = array.flags.writeable and min(array.strides) >= 0
    return torch.from_numpy(array if kept else array.copy())


def at_least_float32(x: Tensor) -> Tensor:
    """In float32, or in float64 if it is float64: sums over pixels in half precision are far off."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def per_valid_pixel(valid: Tensor, processes: Processes) -> Tensor:
    """1 over the processes' mean number of true pixels (at least one); averaged over processes, sums become means."""
    return 1 / processes.mean(valid.sum().float()).clamp_min(1)


def expect_same_grid(prediction: Tensor, label: Tensor, mask: Tensor, task: Task) -> None:
    """Refuse tensors that would only meet by broadcasting."""
    sizes = prediction.shape[-2:], label.shape[-2:], mask.shape[-2:]
    if len(set(sizes)) != 1 or prediction.shape[1] != task.channels or mask.ndim != 3:
        raise KdamValueError(
            f"{task.name}: prediction {tuple(prediction.shape)}, label {tuple(label.shape)} and mask {tuple(mask.shape)} "
            f"do not agree; expected (B, {task.channels}, H, W), (B, ..., H, W) and (B, H, W) with one H x W."
        )
