"""Relative depth: inverse depth without scale and shift, as models predict it that never saw a metre."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from kdam_hf.metrics.base import Metric, check_finite, check_maps, ratio
from kdam_hf.tasks.base import Regression, at_least_float32, check_softness, laplace_logits

LOWEST, HIGHEST = -4.0, 8.0
SMALLEST = 1e-6


@dataclass(frozen=True)
class RelativeDepth(Regression):
    """Inverse depth, larger is nearer; per image the median is 0 and the mean absolute deviation from it is 1.

    A student learns the normalised map itself: no scale or shift of the teacher's enters, and none is left to drift.

    Args:
        softness: distance of bin centres, and width of a soft assignment at T = 1.

    Raises:
        KdamValueError: a softness that is not positive and finite.
    """

    name: str = "relative_depth"
    softness: float = 0.5

    kind: ClassVar[str] = "relative_depth"
    channels: ClassVar[int] = 1
    readout: ClassVar[str] = "none"
    primary_metric: ClassVar[str] = "mae"
    unit: ClassVar[str] = "inverse depth without scale and shift, larger is nearer"
    hub_task: ClassVar[str] = "depth-estimation"

    def __post_init__(self) -> None:
        check_softness(self.name, self.softness)

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "softness": self.softness}

    def distribution_logits(self, prediction: Tensor) -> Tensor:
        """As of `Depth`, over fixed centres of the normalised map."""
        return laplace_logits(at_least_float32(prediction), LOWEST, HIGHEST, self.softness)

    def metric(self) -> Metric:
        return RelativeDepthErrors()


class RelativeDepthErrors(Metric):
    """`mae`: mean absolute difference of normalised maps; both are normalised again, image by image."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {
            "sum": torch.zeros((), dtype=torch.float64),
            "count": torch.zeros((), dtype=torch.int64),
        }

    def update(self, prediction: Tensor, label: Tensor) -> None:
        """Add one image, (..., 1, H, W); NaN in the label is invalid."""
        check_maps(prediction, label, "(..., 1, H, W)", channels=1)
        for p, g in zip(prediction.reshape(-1, *label.shape[-2:]), label.reshape(-1, *label.shape[-2:]), strict=True):
            valid = g.isfinite()
            check_finite(p, valid)
            if valid.any():
                values = (normalised_inverse_depth(x[valid].double().reshape(1, 1, 1, -1)) for x in (p, g))
                self.add_state({"sum": torch.sub(*values).abs().sum(), "count": valid.sum()})

    def compute(self) -> dict[str, float]:
        """`mae`."""
        return {"mae": ratio(self.state["sum"], self.state["count"])}


def normalised_inverse_depth(values: Tensor) -> Tensor:
    """Per image: minus the median, over the mean absolute deviation from it; (B, 1, h, w) floating.

    Source:
        Ranftl et al., arXiv:1907.01341, section 5.
    """
    flat = values.flatten(1)
    centred = flat - flat.median(1, keepdim=True).values
    return (centred / centred.abs().mean(1, keepdim=True).clamp_min(SMALLEST)).reshape(values.shape)
