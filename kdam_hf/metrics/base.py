"""What all streaming metrics share: a dict of additive tensors.

Unusual here: states merge by addition, so a value never depends on how the images were batched or spread over processes,
and memory is constant. States are CPU tensors: some accelerators lack float64.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from kdam_hf.errors import KdamValueError


class Metric(ABC):
    """One metric over a whole split; all attributes but `state`, CPU tensors in float64 or int64, are constructor arguments."""

    state: dict[str, Tensor]

    @abstractmethod
    def update(self, prediction: Tensor, label: Tensor) -> None:
        """Add one image or a batch, in physical units at full label resolution; both of the same shape."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Values by name over everything added so far; NaN for a value that no valid pixel defines."""

    def add_state(self, state: Mapping[str, Tensor]) -> None:
        """Add sums of the names and shapes of `state`, such as the state of a metric in another process."""
        for name, value in state.items():
            self.state[name] += value.cpu()

    def settings(self) -> dict[str, Any]:
        """Constructor arguments that make an equal, empty metric."""
        return {name: value for name, value in vars(self).items() if name != "state"}

    def with_settings(self, **changes: Any) -> Self:
        """An empty metric of the same kind, with the same settings except for `changes` (constructor arguments)."""
        return type(self)(**{**self.settings(), **changes})


def check_maps(prediction: Tensor, label: Tensor, layout: str, channels: int | None = None) -> None:
    """Raise KdamValueError unless both have one shape `layout`; if given, floating, with `channels` third from the end."""
    least_dims = 2 if channels is None else 3
    fits = prediction.shape == label.shape and prediction.dim() >= least_dims
    if not fits or (channels is not None and prediction.shape[-3] != channels):
        raise KdamValueError(
            f"prediction is {tuple(prediction.shape)}, label {tuple(label.shape)}: both must be {layout} at the size of the "
            "label; resize the prediction, never the label"
        )
    if channels is not None and not (prediction.is_floating_point() and label.is_floating_point()):
        raise KdamValueError(
            f"prediction is {prediction.dtype}, label {label.dtype}: both must be floating, in metres or as vectors; convert "
            "the integers of a file first"
        )


def check_finite(prediction: Tensor, valid: Tensor) -> None:
    """Raise KdamValueError if a prediction (any shape) holds NaN or Inf where `valid` (same or broadcast shape) is True."""
    prediction = torch.where(valid, prediction, 0)
    # extremes pass NaN on, and cost a tenth of testing every value
    if prediction.numel() and not all(torch.isfinite(extreme) for extreme in prediction.aminmax()):
        bad = int((~torch.isfinite(prediction)).sum())
        raise KdamValueError(
            f"{bad} predicted values on {int(valid.sum())} valid pixels are NaN or Inf: check the model's weights "
            "and the numeric type it runs in"
        )


def ratio(numerator: Tensor, denominator: Tensor) -> float:
    """Quotient of two scalar sums in float64; NaN for 0 / 0."""
    return float(numerator.double() / denominator.double())
