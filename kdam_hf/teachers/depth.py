"""Depth. Metric: Depth Anything V2 metric, ZoeDepth, DepthPro, GLPN, DPT on DINOv2. Relative: DPT (MiDaS), Depth Anything.

Metric and relative models are told apart by their config, never by their name.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from transformers.modeling_outputs import DepthEstimatorOutput

from kdam_hf.tasks import Depth, RelativeDepth, Task, normalised_inverse_depth
from kdam_hf.teachers.base import ForeignTeacher


class DepthTeacher(ForeignTeacher):
    """Metres as `depth`, or inverse depth of unknown scale and shift as `relative_depth`."""

    heads: ClassVar[Sequence[str]] = (
        *("DepthAnythingForDepthEstimation", "GLPNForDepthEstimation"),
        *("DPTForDepthEstimation", "Tipsv2DptForDepthEstimation"),
    )

    @classmethod
    def tasks_of(cls, config: Any) -> tuple[Task, ...]:
        midas = config.model_type == "dpt" and not config.add_projection  # which DPT on DINOv2 has, trained on metres
        relative = midas or getattr(config, "depth_estimation_type", "") == "relative"
        return (RelativeDepth() if relative else Depth(),)

    def maps(self, output: Any) -> dict[str, Tensor]:
        (task,) = self.tasks
        values = output.predicted_depth.float()
        values = values if values.ndim == 4 else values[:, None]
        return {task.name: normalised_inverse_depth(values) if isinstance(task, RelativeDepth) else values}


class ZoeDepthTeacher(DepthTeacher):
    """Photo by photo where it has several ranges of depth: the library chooses one for a batch as a whole."""

    heads = ("ZoeDepthForDepthEstimation",)

    def _run(self, pixel_values: Tensor, **asked: Any) -> tuple[Any, torch.Size]:
        run, config = super()._run, cast(Any, self.model.config)
        if len(config.bin_configurations) == 1 or len(pixel_values) == 1:
            return run(pixel_values, **asked)
        outputs, sizes = zip(*(run(photo, **asked) for photo in pixel_values.split(1)), strict=True)
        last = None if outputs[0].hidden_states is None else torch.cat([one.hidden_states[-1] for one in outputs])
        depth = torch.cat([one.predicted_depth for one in outputs])
        return DepthEstimatorOutput(predicted_depth=depth, hidden_states=None if last is None else (last,)), sizes[0]


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
