"""Depth: metres along the optical axis, supervised by L1, matched as a soft assignment to log-spaced bins."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdam_hf.errors import DataIntegrityError
from kdam_hf.metrics.base import Metric
from kdam_hf.metrics.depth import THRESHOLDS, DepthErrors
from kdam_hf.rendering_kdam import FARTHEST, NEAR_TO_FAR, NEAREST, depth_colors
from kdam_hf.tasks.base import Label, Task, at_least_float32, expect_2d
from kdam_hf.tasks.labels import LabelKind, Metres


@dataclass(frozen=True)
class Depth(Task):
    """Metres; a label of 0 is invalid.

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
    stored_as: ClassVar[str] = ".npy"
    label_kind: ClassVar[type[LabelKind]] = Metres

    @property
    def channels(self) -> int:
        """One."""
        return 1

    @property
    def readout(self) -> str:
        """Already metres."""
        return "none"

    @property
    def label(self) -> LabelKind:
        """Metres, 0 = invalid."""
        return Metres(self.name)

    def valid_pixels(self, label: Tensor, mask: Tensor) -> Tensor:
        """Those with a measured depth."""
        return mask & (label[:, 0] > 0)

    def loss_share(self, prediction: Tensor, label: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
        """Absolute error in metres over pixels with a measured depth."""
        valid = self.valid_pixels(label, mask)[:, None]
        return ((at_least_float32(prediction) - label).masked_fill(~valid, 0).abs() * weights).sum()

    def distribution_logits(self, prediction: Tensor) -> Tensor:
        """-(log d - c_k)^2 / (2 s^2) for bin centres c_k and bin width s, both in log metres; (..., bins)."""
        centres = torch.linspace(math.log(self.nearest), math.log(self.farthest), self.bins, device=prediction.device)
        width = math.log(self.farthest / self.nearest) / (self.bins - 1)
        log_depth = at_least_float32(prediction).clamp_min(1e-3).log()
        return -0.5 * ((log_depth - centres) / width).square()

    def metric(self) -> Metric:
        """RMSE, absRel and delta accuracies."""
        return DepthErrors()

    def figure(self, metric: Any, model: str) -> Any:
        """Histogram of the ratio between predicted and true depth."""
        from kdam_hf.plots import error_figure  # needs matplotlib

        edges, counts = metric.error_histogram()
        axis = "factor between predicted and true depth"
        return error_figure(edges, {model: counts}, THRESHOLDS, axis, title=self.name, log=True)

    def prediction_to_file(self, values: Label) -> Label:
        """float32 metres."""
        return values.astype(np.float32)

    def prediction_from_file(self, array: Label, where: str) -> Tensor:
        """Float metres, or 16-bit millimetres -> float32 (1, H, W)."""
        array = expect_2d(array, self, where)
        if array.dtype.kind != "f" and array.dtype != np.uint16:
            raise DataIntegrityError(
                f"{where}: depth is {array.dtype}; expected float metres (.npy) or 16-bit millimetres (PNG)."
            )
        return torch.from_numpy(array.astype(np.float32) * np.float32(1 if array.dtype.kind == "f" else 1e-3))[None]

    def render(self, values: Label) -> NDArray[np.uint8]:
        """Yellow near, violet far, on a log scale between `nearest` and `farthest`; black where invalid."""
        return depth_colors(values, self.nearest, self.farthest)

    def legend(self) -> list[tuple[str, tuple[int, int, int]]]:
        """Metres at the colour stops."""
        metres = np.geomspace(self.nearest, self.farthest, len(NEAR_TO_FAR))
        return [(f"{m:.1f} m", rgb) for m, rgb in zip(metres, NEAR_TO_FAR, strict=True)]
