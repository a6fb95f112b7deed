"""Surface normals: unit vectors, x right, y up, z towards the camera; supervised by L1, matched over fixed directions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdam_hf.errors import DataIntegrityError
from kdam_hf.metrics.base import Metric
from kdam_hf.metrics.normals import THRESHOLDS, NormalErrors
from kdam_hf.rendering_kdam import normal_colors
from kdam_hf.tasks.base import Label, Task, at_least_float32, float_tensor


@dataclass(frozen=True)
class Normals(Task):
    """Raw label float32 (H, W, 3), tensor label float32 (3, H, W); the zero vector is invalid.

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

    @property
    def channels(self) -> int:
        """Three."""
        return 3

    @property
    def readout(self) -> str:
        """Normalised again after interpolation."""
        return "unit"

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
        return torch.from_numpy(np.ascontiguousarray(_vectors(array, where).transpose(2, 0, 1)))

    def unlabelled(self, height: int, width: int) -> Label:
        """All zero vectors."""
        return np.zeros((height, width, 3), np.float32)

    def from_file(self, array: Label, options: Mapping[str, Any], where: str) -> Label:
        """8-bit files hold n = 2 v / 255 - 1; vectors shorter than 0.5, and black, are invalid."""
        vectors = _vectors(array, where)
        if not np.isfinite(vectors).all():
            raise DataIntegrityError(f"{where}: normals hold NaN or infinity; mark invalid pixels with (0, 0, 0).")
        if array.dtype == np.uint8:
            vectors[(array == 0).all(-1)] = 0
        length = np.linalg.norm(vectors, axis=-1, keepdims=True)
        _check_lengths(length[length >= 0.5], array.dtype == np.uint8, where)
        return np.where(length < 0.5, 0, vectors / np.maximum(length, 0.5)).astype(np.float32)

    def check(self, label: Label, where: str) -> None:
        """Unit or zero vectors."""
        length = np.linalg.norm(label, axis=-1)
        off = (np.abs(length - 1) > 0.02) & (length != 0)
        if not np.isfinite(label).all() or off.any():
            raise DataIntegrityError(f"{where}: {int(off.sum())} normals are neither unit vectors nor (0, 0, 0).")

    def valid(self, label: Label) -> NDArray[np.bool_]:
        """Where the vector is not zero."""
        return (label != 0).any(-1)

    def _value_statistics(self, values: Label) -> dict[str, Any]:
        return {}

    def hflip(self, label: Label) -> Label:
        """Mirror the grid and the x component."""
        return label[:, ::-1] * np.array([-1, 1, 1], label.dtype)

    def rescale(self, label: Label, scale: float) -> Label:
        """Depth is divided by the scale together with x and y, so directions stay."""
        return label

    def to_tensor(self, label: Label) -> Tensor:
        """float32 (3, H, W)."""
        return float_tensor(label.transpose(2, 0, 1))

    def render(self, values: Label) -> NDArray[np.uint8]:
        """(n + 1) / 2 as RGB; black where invalid."""
        return normal_colors(values)

    def legend(self) -> list[tuple[str, tuple[int, int, int]]]:
        """Colours of the axes."""
        return [("x, right", (255, 128, 128)), ("y, up", (128, 255, 128)), ("z, to camera", (128, 128, 255))]


def _vectors(array: Label, where: str) -> NDArray[np.float32]:
    """Stored normals as float32 (H, W, 3), of whatever length."""
    if array.ndim != 3 or array.shape[-1] != 3:
        raise DataIntegrityError(f"{where}: normals have shape {array.shape}; expected (H, W, 3).")
    if array.dtype.kind != "f" and array.dtype != np.uint8:
        raise DataIntegrityError(f"{where}: normals are {array.dtype}; expected uint8 or float in [-1, 1].")
    vectors = array.astype(np.float32)
    return vectors * np.float32(2 / 255) - 1 if array.dtype == np.uint8 else vectors


def _check_lengths(lengths: NDArray[np.float32], is_8_bit: bool, where: str) -> None:
    """Refuse vectors that were stored in another scale.

    A unit vector stored as (n + 1) / 2 and read as it is has the length sqrt(1 + (x + y + z) / 2): 1.2 along an axis, but
    1 on a wall at 45 degrees. Resizing moves the lengths of some floats, JPEG of medium quality those of many pixels.
    """
    tolerance, share = (0.1, 0.5) if is_8_bit else (0.05, 0.25)
    off = np.abs(lengths - 1) > tolerance
    if lengths.size and (lengths.max() > 1.8 or off.mean() > share):
        raise DataIntegrityError(
            f"{where}: {off.mean():.0%} of the normals are not of length 1, the longest is {lengths.max():.3g}; expected unit "
            "vectors in [-1, 1]. Files scaled to [0, 1] or [0, 255] must be 8-bit PNGs with n = 2 v / 255 - 1."
        )


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
