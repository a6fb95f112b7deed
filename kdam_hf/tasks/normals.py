"""Surface normals: unit vectors, x right, y up, z towards the camera; supervised by L1, matched over fixed directions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from kdam_hf.distributed import LOCAL, Processes
from kdam_hf.errors import DataIntegrityError
from kdam_hf.metrics.base import Metric
from kdam_hf.metrics.normals import THRESHOLDS, NormalErrors
from kdam_hf.tasks.base import Label, Task, at_least_float32, float_tensor, per_valid_pixel


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

    @property
    def channels(self) -> int:
        """Three."""
        return 3

    @property
    def readout(self) -> str:
        """Normalised again after interpolation."""
        return "unit"

    @property
    def settings(self) -> dict[str, Any]:
        """What the distribution over directions is made of."""
        return {"directions": self.directions, "kappa": self.kappa}

    def loss_weights(self, label: Tensor, mask: Tensor, processes: Processes = LOCAL) -> Tensor:
        """One over the pixels with a normal."""
        return per_valid_pixel(mask & (label != 0).any(1), processes)

    def loss_share(self, prediction: Tensor, label: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
        """L1 distance of unit vectors, summed over the three channels."""
        valid = mask & (label != 0).any(1)
        unit = F.normalize(at_least_float32(prediction.movedim(1, -1)[valid]), dim=-1, eps=1e-2)
        return (unit - label.movedim(1, -1)[valid]).abs().sum() * weights

    def distribution_logits(self, prediction: Tensor) -> Tensor:
        """kappa * <n, c_k> for `directions` unit vectors c_k; (B, directions, h, w)."""
        vectors = at_least_float32(prediction)
        # as F.normalize(eps=1e-2), whose norm over three channels takes longer than all the rest
        unit = vectors / vectors.square().sum(1, keepdim=True).clamp_min(1e-4).sqrt()
        centres = self.kappa * fibonacci_sphere(self.directions).to(unit)
        return torch.einsum("kc,bchw->bkhw", centres, unit)

    def metric(self) -> Metric:
        """Mean, median and RMS angle, shares under the usual limits."""
        return NormalErrors()

    def figure(self, metric: Any, model: str) -> Any:
        """Histogram of the angular error."""
        from kdam_hf.plots import error_figure  # needs matplotlib

        edges, counts = metric.error_histogram()
        return error_figure(edges, {model: counts}, THRESHOLDS, "angle to the true normal", "°", self.name)

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


def fibonacci_sphere(n: int) -> Tensor:
    """n unit vectors spread evenly over the sphere along a golden spiral; (n, 3) float32."""
    k = torch.arange(n, dtype=torch.float64)
    z = 1 - (2 * k + 1) / n
    azimuth = k * math.pi * (3 - 5**0.5)
    radius = (1 - z.square()).sqrt()
    return torch.stack([radius * azimuth.cos(), radius * azimuth.sin(), z], -1).float()
