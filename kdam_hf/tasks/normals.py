"""Surface normals: unit vectors, x right, y up, z towards the camera; supervised by L1, matched over fixed directions."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdam_hf.metrics.base import Metric
from kdam_hf.metrics.normals import THRESHOLDS, NormalErrors
from kdam_hf.rendering_kdam import normal_colors
from kdam_hf.tasks.base import Label, Task, at_least_float32
from kdam_hf.tasks.labels import LabelKind, Vectors, stored_vectors


@dataclass(frozen=True)
class Normals(Task):
    """Unit vectors; the zero vector in a label is invalid.

    Args:
        directions: number of fixed unit directions of the per-pixel distribution.
        kappa: its concentration, as in a von Mises-Fisher density.
    """

    name: str = "normals"
    loss_weight: float = 10.0
    directions: int = 64
    kappa: float = 32.0

    kind: ClassVar[str] = "normals"
    hub_task: ClassVar[str] = "image-to-image"
    activation: ClassVar[str] = "unit"
    primary_metric: ClassVar[str] = "mean_angle"
    higher_is_better: ClassVar[bool] = False
    stored_as: ClassVar[str] = ".npy"
    label_kind: ClassVar[type[LabelKind]] = Vectors

    @property
    def channels(self) -> int:
        """Three."""
        return 3

    @property
    def readout(self) -> str:
        """Normalised again after interpolation."""
        return "unit"

    @property
    def label(self) -> LabelKind:
        """Unit vectors or (0, 0, 0)."""
        return Vectors(self.name)

    def valid_pixels(self, label: Tensor, mask: Tensor) -> Tensor:
        """Those with a normal."""
        return mask & (label != 0).any(1)

    def loss_share(self, prediction: Tensor, label: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
        """L1 distance of unit vectors, summed over the three channels."""
        valid = self.valid_pixels(label, mask)[:, None]
        unit = unit_vectors(at_least_float32(prediction).masked_fill(~valid, 1), dim=1)
        return ((unit - label).masked_fill(~valid, 0).abs() * weights).sum()

    def distribution_logits(self, prediction: Tensor) -> Tensor:
        """kappa * <n, c_k> for `directions` unit vectors c_k; (..., directions)."""
        unit = unit_vectors(at_least_float32(prediction), dim=-1)
        return unit @ (self.kappa * fibonacci_sphere(self.directions)).to(unit).T

    def metric(self) -> Metric:
        """Mean, median and RMS angle, shares under the usual limits."""
        return NormalErrors()

    def figure(self, metric: Any, model: str) -> Any:
        """Histogram of the angular error."""
        from kdam_hf.plots import error_figure  # needs matplotlib

        edges, counts = metric.error_histogram()
        return error_figure(edges, {model: counts}, THRESHOLDS, "angle to the true normal", "°", self.name)

    def prediction_to_file(self, values: Label) -> Label:
        """float16 vectors, within 0.03 degrees."""
        return values.astype(np.float16)

    def prediction_from_file(self, array: Label, where: str) -> Tensor:
        """Float vectors of any length, or 8-bit n = 2 v / 255 - 1 -> float32 (3, H, W)."""
        return torch.from_numpy(np.ascontiguousarray(stored_vectors(array, self, where).transpose(2, 0, 1)))

    def render(self, values: Label) -> NDArray[np.uint8]:
        """(n + 1) / 2 as RGB; black where invalid."""
        return normal_colors(values)

    def legend(self) -> list[tuple[str, tuple[int, int, int]]]:
        """Colours of the axes."""
        return [("x, right", (255, 128, 128)), ("y, up", (128, 255, 128)), ("z, to camera", (128, 128, 255))]


def unit_vectors(vectors: Tensor, dim: int) -> Tensor:
    """Vectors of length one along `dim`; shorter ones than 0.01 are divided by that. Faster than the library's norm."""
    return vectors / vectors.square().sum(dim, keepdim=True).clamp_min(1e-4).sqrt()


def fibonacci_sphere(n: int) -> Tensor:
    """n unit vectors spread evenly over the sphere along a golden spiral; (n, 3) float32."""
    k = torch.arange(n, dtype=torch.float64)
    z = 1 - (2 * k + 1) / n
    azimuth = k * math.pi * (3 - 5**0.5)
    radius = (1 - z.square()).sqrt()
    return torch.stack([radius * azimuth.cos(), radius * azimuth.sin(), z], -1).float()
