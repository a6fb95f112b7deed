"""TIPSv2 with three DPT heads: metres, normals and ADE20K classes in one pass."""

from typing import Any

from torch import Tensor

from kdam_hf.tasks import Depth, Normals, Task
from kdam_hf.teachers.base import ForeignTeacher
from kdam_hf.teachers.normals import to_our_axes


class Tipsv2Teacher(ForeignTeacher):
    """Three tasks at once."""

    heads = ("Tipsv2DptForDensePrediction",)

    @classmethod
    def tasks_of(cls, config: Any) -> tuple[Task, ...]:
        return (*super().tasks_of(config), Depth(), Normals())

    def maps(self, output: Any) -> dict[str, Tensor]:
        depth = output.predicted_depth
        return {
            "semseg": output.segmentation_logits,
            "depth": depth if depth.ndim == 4 else depth[:, None],
            "normals": to_our_axes(output.normals.float(), self.axes),
        }
