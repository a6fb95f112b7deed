"""Depth: metres along the optical axis, supervised by L1, matched as a soft assignment to log-spaced bins."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from kdam_hf.metrics.base import Metric
from kdam_hf.metrics.depth import THRESHOLDS, DepthErrors
from kdam_hf.readout_kdam import FARTHEST, NEAREST
from kdam_hf.tasks.base import Task, at_least_float32
from kdam_hf.tasks.labels import Label, LabelKind, Metres


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
    channels: ClassVar[int] = 1
    readout: ClassVar[str] = "none"
    activation: ClassVar[str] = "positive"
    primary_metric: ClassVar[str] = "rmse"
    higher_is_better: ClassVar[bool] = False
    unit: ClassVar[str] = "m"
    hub_task: ClassVar[str] = "depth-estimation"
    label_kind: ClassVar[type[LabelKind]] = Metres

    @property
    def settings(self) -> dict[str, Any]:
        """The range of colours and bins in metres, and the number of bins."""
        return {"nearest": self.nearest, "farthest": self.farthest, "bins": self.bins}

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

    def start(self, values: Label) -> list[float]:
        """The median, metres: where an L1 loss is least."""
        return [float(np.median(values))]

    def metric(self) -> Metric:
        return DepthErrors()

    def figure(self, metric: Any, model: str) -> Any:
        """Histogram of the ratio between predicted and true depth."""
        from kdam_hf.plots import error_figure  # needs matplotlib

        edges, counts = metric.error_histogram()
        axis = "factor between predicted and true depth"
        return error_figure(edges, {model: counts}, THRESHOLDS, axis, title=self.name, log=True)
