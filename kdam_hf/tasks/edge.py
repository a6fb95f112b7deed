"""Boundaries: one logit per pixel, class-weighted binary cross-entropy, matched as the pair edge / not edge."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics.base import Metric
from kdam_hf.metrics.boundaries import BOUNDARY_PROTOCOLS, BoundaryScores
from kdam_hf.metrics.thresholds import EdgeF
from kdam_hf.tasks.base import Task, at_least_float32
from kdam_hf.tasks.labels import Label, LabelKind, Mask

BOUNDARIES = (*BOUNDARY_PROTOCOLS, "none")


@dataclass(frozen=True)
class Edge(Task):
    """Edge or not per pixel.

    Args:
        positive_weight: weight of edge pixels; the others get the rest to 1. 0.95 in most recent code of the field.
        boundaries: protocol of odsF, a key of `BOUNDARY_PROTOCOLS`; "none" leaves it out. The default suits what a network
            predicts: maps with broad responses, whose non-maxima must be suppressed; "bsds" takes them as they are.

    Raises:
        KdamValueError: unknown `boundaries`, or a weight outside 0 to 1.
    """

    name: str = "edge"
    loss_weight: float = 50.0
    positive_weight: float = 0.95
    boundaries: str = field(default="pascal", metadata={"read": str})

    kind: ClassVar[str] = "edge"
    channels: ClassVar[int] = 1
    readout: ClassVar[str] = "sigmoid"
    label_kind: ClassVar[type[LabelKind]] = Mask

    def __post_init__(self) -> None:
        if not 0 <= self.positive_weight <= 1:
            raise KdamValueError(f"{self.name}: positive_weight {self.positive_weight}; expected a share, 0 to 1.")
        if self.boundaries not in BOUNDARIES:
            raise KdamValueError(
                f"{self.name}: boundaries {self.boundaries!r} is not known: choose one of {', '.join(BOUNDARIES)}."
            )

    @property
    def primary_metric(self) -> str:
        """odsF, or what there is without it."""
        return "maxf" if self.boundaries == "none" else "odsf"

    def loss_share(self, prediction: Tensor, label: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
        valid = self.valid_pixels(label, mask)[:, None]
        logits = at_least_float32(prediction).masked_fill(~valid, 0)
        target = label.masked_fill(~valid, 0).to(logits)
        weight = torch.where(target > 0, self.positive_weight, 1 - self.positive_weight).masked_fill(~valid, 0)
        return F.binary_cross_entropy_with_logits(logits, target, weight * weights, reduction="sum")

    def distribution_logits(self, prediction: Tensor) -> Tensor:
        """(z, 0): softmax of it is (sigmoid(z), 1 - sigmoid(z)); (..., 2)."""
        z = at_least_float32(prediction)
        return torch.cat([z, torch.zeros_like(z)], dim=-1)

    def start(self, values: Label) -> list[float]:
        """The logit at which the weighted loss of a constant prediction is least."""
        share = np.clip((values > 0).mean(), 1e-4, 1 - 1e-4)
        odds = share / (1 - share) * self.positive_weight / max(1 - self.positive_weight, 1e-4)
        return [float(np.log(max(odds, 1e-4)))]

    def metric(self) -> Metric:
        """odsF, oisF and AP under the task's protocol, and the best pixel-exact F."""
        if self.boundaries == "none":
            return EdgeF()
        return BoundaryScores(**BOUNDARY_PROTOCOLS[self.boundaries])

    def scoring(self) -> dict[str, str]:
        return {"boundaries": self.boundaries}

    def figure(self, metric: Any, model: str) -> Any:
        """Precision-recall curve behind odsF."""
        if self.boundaries == "none":
            return None
        from kdam_hf.plots import precision_recall_figure  # needs matplotlib

        precision, recall, _ = metric.curve()
        return precision_recall_figure({model: (precision, recall)}, self.name, f_name="odsF")
