"""Depth. Metric: Depth Anything V2 metric, ZoeDepth, DepthPro, GLPN. Relative: DPT (MiDaS) and Depth Anything.

Metric and relative models are told apart by their config, never by their name.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from kdam_hf.tasks import Depth, RelativeDepth, Task, normalised_inverse_depth
from kdam_hf.teachers.base import ForeignTeacher


class DepthTeacher(ForeignTeacher):
    """Metres as `depth`, or inverse depth of unknown scale and shift as `relative_depth`."""

    heads: ClassVar[Sequence[str]] = (
        *("DepthAnythingForDepthEstimation", "ZoeDepthForDepthEstimation", "GLPNForDepthEstimation"),
        *("DPTForDepthEstimation", "Tipsv2DptForDepthEstimation"),
    )

    @classmethod
    def tasks_of(cls, config: Any) -> tuple[Task, ...]:
        relative = config.model_type == "dpt" or getattr(config, "depth_estimation_type", "") == "relative"
        return (RelativeDepth() if relative else Depth(),)

    def maps(self, output: Any) -> dict[str, Tensor]:
        (task,) = self.tasks
        values = output.predicted_depth.float()
        values = values if values.ndim == 4 else values[:, None]
        return {task.name: normalised_inverse_depth(values) if isinstance(task, RelativeDepth) else values}


class DepthProTeacher(ForeignTeacher):
    """Inverse depth for a field of view of which it estimates the angle (arXiv:2410.02073, section 3)."""

    heads = ("DepthProForDepthEstimation",)

    @classmethod
    def tasks_of(cls, config: Any) -> tuple[Task, ...]:
        return (Depth(),)

    def maps(self, output: Any) -> dict[str, Tensor]:
        inverse = output.predicted_depth.float()[:, None]
        if output.field_of_view is not None:
            angle = torch.deg2rad(output.field_of_view.float())
            inverse = inverse * 2 * torch.tan(angle / 2).reshape(-1, 1, 1, 1)
        return {"depth": 1 / inverse.clamp(1e-4, 1e4)}
