"""What all streaming metrics share: a dict of additive tensors.

Unusual here: the state of two metrics, of two processes or of two halves of a split merges by addition, so a value
never depends on how the images were cut into batches, and memory is constant.
"""

from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from torch import Tensor

from kdam_hf.errors import KdamValueError

IGNORE_INDEX = 255
"""The label of pixels that have no class; whoever reads labels in other conventions translates to it."""


class Metric(ABC):
    """One metric accumulated over a whole split; never a mean of per-image means.

    `state` maps names to CPU tensors, float64 or int64, zero at the start; a sum over processes merges them.
    """

    state: dict[str, Tensor]

    @abstractmethod
    def update(self, prediction: Tensor, label: Tensor) -> None:
        """Add one image or a batch, in physical units at full label resolution; both of the same shape."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Values by name over everything added so far; NaN for a value that no valid pixel defines."""

    def merge(self, other: "Metric") -> None:
        """Add the state of another metric of the same kind and settings.

        Raises:
            KdamValueError: the other metric is of another kind or its settings differ.
        """
        mine, theirs = self._settings(), other._settings()
        if type(self) is not type(other) or mine != theirs:
            raise KdamValueError(
                f"cannot merge {type(other).__name__} {theirs} into {type(self).__name__} {mine}: "
                "sums are only meaningful between metrics of one kind with one setting"
            )
        for name, value in other.state.items():
            self.state[name] += value

    def reset(self) -> None:
        """Forget everything added so far."""
        for value in self.state.values():
            value.zero_()

    def with_settings(self, **changes: Any) -> Self:
        """An empty metric of the same kind, with the same settings except for `changes` (constructor arguments)."""
        return type(self)(**{**self._settings(), **changes})

    def _add(self, **sums: Tensor) -> None:
        for name, value in sums.items():
            self.state[name] += value.to(self.state[name])

    def _settings(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "state"}


def check_same_shape(prediction: Tensor, label: Tensor, layout: str, channels: int | None = None) -> None:
    """Raise KdamValueError unless both have one shape `layout`, with `channels` third from the end if given."""
    least_dims = 2 if channels is None else 3
    if (
        prediction.shape != label.shape
        or prediction.dim() < least_dims
        or (channels is not None and prediction.shape[-3] != channels)
    ):
        raise KdamValueError(
            f"prediction is {tuple(prediction.shape)}, label {tuple(label.shape)}: both must be {layout} at the size "
            "of the label; resize the prediction, never the label, and do not rely on broadcasting"
        )


def on_valid(values: Tensor, valid: Tensor, filler: float) -> Tensor:
    """`values` with `filler` where `valid` (same or broadcast shape) is False: cheaper than gathering valid pixels."""
    return torch.where(valid, values, torch.tensor(filler, dtype=values.dtype, device=values.device))


def check_finite(prediction: Tensor, valid: Tensor) -> None:
    """Raise KdamValueError if a prediction (any shape) holds NaN or Inf where `valid` (same or broadcast shape) is True."""
    prediction = on_valid(prediction, valid, 0)
    # extremes pass NaN on, and cost a tenth of testing every value
    if prediction.numel() and not all(torch.isfinite(extreme) for extreme in prediction.aminmax()):
        bad = int((~torch.isfinite(prediction)).sum())
        raise KdamValueError(
            f"{bad} predicted values on {int(valid.sum())} valid pixels are NaN or Inf: leaving them out would "
            "flatter the metric; check the model's weights and the numeric type it runs in"
        )


def ratio(numerator: Tensor, denominator: Tensor) -> float:
    """Quotient of two scalar sums in float64; NaN for 0 / 0."""
    return float(numerator.double() / denominator.double())
