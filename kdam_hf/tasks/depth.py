"""Depth: metres along the optical axis, supervised by L1, matched as a soft assignment to log-spaced bins."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdam_hf.distributed import LOCAL, Processes
from kdam_hf.errors import DataIntegrityError
from kdam_hf.metrics.base import Metric
from kdam_hf.metrics.depth import THRESHOLDS, DepthErrors
from kdam_hf.readout_kdam import FARTHEST, NEAREST
from kdam_hf.tasks.base import Label, Task, at_least_float32, expect_2d, float_tensor, per_valid_pixel


@dataclass(frozen=True)
class Depth(Task):
    """Raw label float32 (H, W), tensor label float32 (1, H, W), metres; 0 = invalid.

    Args:
        nearest: first bin centre, metres.
        farthest: last bin centre, metres.
        bins: number of log-spaced bins.
    """

    name: str = "depth"
    nearest: float = NEAREST
    farthest: float = FARTHEST
    bins: int = 40

    kind: ClassVar[str] = "depth"
    activation: ClassVar[str] = "positive"
    primary_metric: ClassVar[str] = "rmse"
    higher_is_better: ClassVar[bool] = False
    unit: ClassVar[str] = "m"
    hub_task: ClassVar[str] = "depth-estimation"
    file_options: ClassVar[dict[str, type]] = {"unit": str, "max_depth": float}

    @property
    def channels(self) -> int:
        """One."""
        return 1

    @property
    def readout(self) -> str:
        """Already metres."""
        return "none"

    @property
    def settings(self) -> dict[str, Any]:
        """The range of colours and bins in metres, and the number of bins."""
        return {"nearest": self.nearest, "farthest": self.farthest, "bins": self.bins}

    def loss_weights(self, label: Tensor, mask: Tensor, processes: Processes = LOCAL) -> Tensor:
        """One over the pixels with a measured depth."""
        return per_valid_pixel(mask[:, None] & (label > 0), processes)

    def loss_share(self, prediction: Tensor, label: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
        """Absolute error in metres over pixels with a measured depth."""
        valid = mask[:, None] & (label > 0)
        return (at_least_float32(prediction[valid]) - label[valid]).abs().sum() * weights

    def distribution_logits(self, prediction: Tensor) -> Tensor:
        """-(log d - c_k)^2 / (2 s^2) for bin centres c_k and bin width s, both in log metres; (B, bins, h, w)."""
        centres = torch.linspace(math.log(self.nearest), math.log(self.farthest), self.bins, device=prediction.device)
        width = math.log(self.farthest / self.nearest) / (self.bins - 1)
        log_depth = at_least_float32(prediction).clamp_min(1e-3).log()
        return -0.5 * ((log_depth - centres[:, None, None]) / width).square()

    def metric(self) -> Metric:
        """RMSE, absRel and delta accuracies."""
        return DepthErrors()

    def figure(self, metric: Any, model: str) -> Any:
        """Histogram of the ratio between predicted and true depth."""
        from kdam_hf.plots import error_figure  # needs matplotlib

        edges, counts = metric.error_histogram()
        axis = "factor between predicted and true depth"
        return error_figure(edges, {model: counts}, THRESHOLDS, axis, title=self.name, log=True)

    def unlabelled(self, height: int, width: int) -> Label:
        """All 0."""
        return np.zeros((height, width), np.float32)

    def from_file(self, array: Label, options: Mapping[str, Any], where: str) -> Label:
        """Integers are millimetres, floats metres, unless the dataset states `unit: m | mm`.

        `max_depth` is the largest depth the sensor can report, in metres; without it, floats above 655.35 are taken for
        millimetres by mistake, since no 16-bit file could hold them in centimetres.
        """
        array = expect_2d(array, self, where)
        if array.dtype == np.uint8:
            raise DataIntegrityError(
                f"{where}: depth is 8-bit; expected 16-bit millimetres (PNG) or float metres (.npy)."
            )
        unit = options.get("unit", "mm" if array.dtype.kind in "iu" else "m")
        if unit not in ("m", "mm"):
            raise DataIntegrityError(f"{where}: depth unit {unit!r}; expected 'm' or 'mm' in dataset.json.")
        metres = array.astype(np.float32) * (1e-3 if unit == "mm" else 1.0)
        self.check(metres, where)
        limit = options.get("max_depth", 655.35 if unit == "m" else math.inf)
        if metres.size and metres.max() > limit:
            raise DataIntegrityError(
                f"{where}: depth holds {metres.max():.4g} m; expected at most {limit:g} m. "
                + ("If the file holds millimetres, save them as integers or state unit 'mm'." if unit == "m" else "")
            )
        return metres

    def check(self, label: Label, where: str) -> None:
        """Finite and not negative."""
        if not np.isfinite(label).all():
            raise DataIntegrityError(f"{where}: depth holds NaN or infinity; mark invalid pixels with 0.")
        if label.size and label.min() < 0:
            raise DataIntegrityError(f"{where}: depth holds {label.min():.3g} m; expected >= 0, with 0 for invalid.")

    def valid(self, label: Label) -> NDArray[np.bool_]:
        """Where a depth was measured."""
        return label > 0

    def rescale(self, label: Label, scale: float) -> Label:
        """An image enlarged by `scale` shows the scene `scale` times nearer."""
        return label / np.float32(scale)

    def to_tensor(self, label: Label) -> Tensor:
        """float32 (1, H, W)."""
        return float_tensor(label)[None]
