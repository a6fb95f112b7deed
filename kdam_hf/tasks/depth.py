"""Depth: metres along the optical axis, supervised by L1, matched as a soft assignment to bins of log(1 + metres)."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics.base import Metric
from kdam_hf.metrics.depth import THRESHOLDS, DepthErrors
from kdam_hf.tasks.base import Regression, at_least_float32, check_softness, laplace_logits
from kdam_hf.tasks.labels import Label, LabelKind, Metres


@dataclass(frozen=True)
class Depth(Regression):
    """Metres; a label of 0 is invalid.

    Args:
        nearest: lower end of the colours, metres.
        farthest: their upper end, metres.
        min: lower end of what is distilled, metres: the first bin centre.
        max: its upper end, metres; predictions beyond it are matched as if they were there.
        softness: distance of bin centres, and width of a soft assignment at T = 1, in log(1 + metres).
        scale: units per metre of label files of integers, e.g. 5000; 0 stands for millimetres, or what the data set says.

    Raises:
        KdamValueError: min and max, or nearest and farthest, out of order; a softness that is not positive and finite.
    """

    name: str = "depth"
    nearest: float = 0.7
    farthest: float = 10.0
    min: float = 0.1
    max: float = 200.0
    softness: float = 0.25
    scale: float = 0.0

    kind: ClassVar[str] = "depth"
    channels: ClassVar[int] = 1
    readout: ClassVar[str] = "none"
    activation: ClassVar[str] = "positive"
    primary_metric: ClassVar[str] = "rmse"
    unit: ClassVar[str] = "m"
    hub_task: ClassVar[str] = "depth-estimation"
    label_kind: ClassVar[type[LabelKind]] = Metres

    def __post_init__(self) -> None:
        if not 0 <= self.min < self.max < math.inf:
            raise KdamValueError(f"{self.name}: min {self.min}, max {self.max}; expected 0 <= min < max, in metres.")
        if not 0 < self.nearest < self.farthest < math.inf:
            limits = f"nearest {self.nearest}, farthest {self.farthest}"
            raise KdamValueError(f"{self.name}: {limits}; expected 0 < nearest < farthest, in metres.")
        check_softness(self.name, self.softness)

    @property
    def label(self) -> Metres:
        """Read with the scale."""
        return Metres(self.name, scale=self.scale)

    @property
    def settings(self) -> dict[str, Any]:
        """The range of colours, metres, and bins."""
        return {name: getattr(self, name) for name in ("nearest", "farthest", "min", "max", "softness")}

    def distribution_logits(self, prediction: Tensor) -> Tensor:
        """`laplace_logits` of log(1 + metres) from min to max: it resolves near depths in metres and far ones in per cent."""
        u = at_least_float32(prediction).clamp_min(0).log1p()
        return laplace_logits(u, math.log1p(self.min), math.log1p(self.max), self.softness)

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
