"""Surface normals: Sapiens2. Models differ in their axes: `axes` states them, `measured_axes` puts them to the test."""

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kdam_hf.tasks import Normals, Task
from kdam_hf.teachers.base import ForeignTeacher

AXES = {"right": (0, 1), "left": (0, -1), "up": (1, 1), "down": (1, -1), "camera": (2, 1), "front": (2, -1)}
"""Our channel and sign of each direction that a channel of a teacher may point to."""


class NormalsTeacher(ForeignTeacher):
    """Unit vectors, turned to our axes."""

    heads = ("Sapiens2ForNormalEstimation", "Tipsv2DptForNormalEstimation")

    @classmethod
    def tasks_of(cls, config: Any) -> tuple[Task, ...]:
        return (Normals(),)

    def maps(self, output: Any) -> dict[str, Tensor]:
        return {"normals": to_our_axes(output.normals.float(), self.axes)}


def to_our_axes(vectors: Tensor, axes: tuple[str, ...]) -> Tensor:
    """Vectors (B, 3, h, w) whose channels point to `axes`, as unit vectors x right, y up, z towards the camera."""
    ours = torch.zeros_like(vectors)
    for channel, direction in enumerate(axes):
        target, sign = AXES[direction]
        ours[:, target] = sign * vectors[:, channel]
    return F.normalize(ours, dim=1)


def measured_axes(predict: Callable[[Tensor], Tensor], images: Tensor, truth: Tensor) -> dict[tuple[int, ...], float]:
    """Signs of (x, y, z) -> mean angle in degrees between the truth and a teacher whose axes are turned by them.

    Args:
        predict: images -> normals (B, 3, h, w) in our axes, as a teacher states them.
        images: (B, 3, H, W) RGB in [0, 1].
        truth: (B, 3, H, W) unit vectors in our axes, zero where unknown.
    """
    found = F.interpolate(predict(images), truth.shape[-2:], mode="bilinear")
    valid = truth.square().sum(1) > 0.5
    return {
        signs: float(
            (F.normalize(found, dim=1) * truth * truth.new_tensor(signs)[:, None, None])
            .sum(1)[valid]
            .clamp(-1, 1)
            .acos()
            .rad2deg()
            .mean()
        )
        for signs in product((1, -1), repeat=3)
    }
