"""Surface normals: unit vectors, x right, y up, z towards the camera; supervised by L1, matched over fixed directions."""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics.base import Metric
from kdam_hf.metrics.normals import THRESHOLDS, NormalErrors
from kdam_hf.tasks.base import Regression, at_least_float32
from kdam_hf.tasks.labels import LabelKind, Vectors


@dataclass(frozen=True)
class Normals(Regression):
    """Unit vectors; the zero vector in a label is invalid.

    Args:
        directions: number of fixed unit directions of the per-pixel distribution.
        kappa: its concentration, as in a von Mises-Fisher density.

    Raises:
        KdamValueError: fewer than 2 directions, or a kappa that is not positive and finite.
    """

    name: str = "normals"
    loss_weight: float = 10.0
    directions: int = 64
    kappa: float = 16.0

    kind: ClassVar[str] = "normals"
    temperature_power: ClassVar[float] = 1.0
    channels: ClassVar[int] = 3
    readout: ClassVar[str] = "unit"
    hub_task: ClassVar[str] = "image-to-image"
    activation: ClassVar[str] = "unit"
    primary_metric: ClassVar[str] = "mean_angle"
    label_kind: ClassVar[type[LabelKind]] = Vectors

    def __post_init__(self) -> None:
        if self.directions < 2 or not 0 < self.kappa < math.inf:
            given = f"directions {self.directions}, kappa {self.kappa}"
            raise KdamValueError(f"{self.name}: {given}; expected 2 or more directions, and a kappa > 0.")

    @property
    def settings(self) -> dict[str, Any]:
        return {"directions": self.directions, "kappa": self.kappa}

    def normalised(self, values: Tensor) -> Tensor:
        return unit_vectors(values, dim=1)

    def distribution_logits(self, prediction: Tensor) -> Tensor:
        """kappa * <n, c_k> for `directions` unit vectors c_k; (..., directions)."""
        unit = unit_vectors(at_least_float32(prediction), dim=-1)
        return unit @ (self.kappa * fibonacci_sphere(self.directions)).to(unit).T

    def metric(self) -> Metric:
        return NormalErrors()

    def figure(self, metric: Any, model: str) -> Any:
        """Histogram of the angular error."""
        from kdam_hf.plots import error_figure  # needs matplotlib

        edges, counts = metric.error_histogram()
        return error_figure(edges, {model: counts}, THRESHOLDS, "angle to the true normal", "°", self.name)


def unit_vectors(vectors: Tensor, dim: int) -> Tensor:
    """Vectors of length one along `dim`; shorter ones than 0.01 are divided by that. Faster than the library's norm."""
    return vectors / vectors.square().sum(dim, keepdim=True).clamp_min(1e-4).sqrt()


@cache
def fibonacci_sphere(n: int) -> Tensor:
    """n unit vectors spread evenly over the sphere along a golden spiral; (n, 3) float32 on the CPU."""
    k = np.arange(n)
    z, azimuth = 1 - (2 * k + 1) / n, k * np.pi * (3 - 5**0.5)
    radius = np.sqrt(1 - z**2)
    return torch.from_numpy(np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), z], -1).astype(np.float32))
