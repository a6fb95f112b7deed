"""Surface normals: Sapiens2. Models differ in their axes: `axes` states them, `measured_axes` puts them to the test."""

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kdam_hf.errors import KdamValueError
from kdam_hf.tasks import Normals, Task
from kdam_hf.teachers.base import ForeignTeacher

AXES = {"right": (0, 1), "left": (0, -1), "up": (1, 1), "down": (1, -1), "camera": (2, 1), "front": (2, -1)}
"""Our channel and sign of each direction that a channel of a teacher may point to."""
CLEAR, MARGIN = 45.0, 15.0
"""Degrees: a mean angle below the first tells that axes fit, and by the second one choice is better than another."""


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


def parse_axes(text: str) -> tuple[str, ...]:
    """Three directions, such as `right,down,front`.

    Raises:
        KdamValueError: not one for each of our axes.
    """
    axes = tuple(text.replace(" ", "").split(","))
    if not set(axes) <= set(AXES) or sorted(AXES[axis][0] for axis in axes) != [0, 1, 2]:
        raise KdamValueError(f"normal_axes {text!r}; expected a direction for each channel, such as right,down,front.")
    return axes


def check_axes(predict: Callable[[Tensor], Tensor], images: int = 4) -> str:
    """Put the axes of a teacher to the test on synthetic rooms, whose walls, floor and ceiling have known normals.

    Args:
        predict: images (B, 3, H, W), RGB in [0, 1] -> normals (B, 3, h, w) in our axes, as the teacher states them.
        images: number of rooms.

    Returns:
        What was found, in words.

    Raises:
        KdamValueError: other signs fit clearly better.
    """
    from dataset_loaders.synthetic_rooms import SyntheticRooms  # a renderer, for this test only

    rooms = [SyntheticRooms("val", images, 192, 256)[k] for k in range(images)]
    photos = torch.stack([torch.from_numpy(room["image"]).permute(2, 0, 1) / 255 for room in rooms])
    truth = torch.stack([torch.from_numpy(room["labels"]["normals"]).permute(2, 0, 1) for room in rooms])
    angles = measured_axes(predict, photos, truth)
    best = min(angles, key=lambda signs: angles[signs])
    if best != (1, 1, 1) and angles[best] < min(CLEAR, angles[1, 1, 1] - MARGIN):
        raise KdamValueError(
            f"the teacher's normals are {angles[1, 1, 1]:.0f} degrees off on synthetic rooms, and {angles[best]:.0f} with the "
            f"signs {best} of (right, up, camera): its axes are not those stated. Give --normal_axes, such as right,down,front."
        )
    sure = "as stated" if angles[best] < CLEAR else "not known: no choice of signs fits"
    return f"axes of the normals on {images} synthetic rooms: {sure}; {angles[1, 1, 1]:.0f} degrees off"


def measured_axes(predict: Callable[[Tensor], Tensor], images: Tensor, truth: Tensor) -> dict[tuple[int, ...], float]:
    """Signs of (x, y, z) -> mean angle in degrees between the truth and a teacher whose axes are turned by them.

    Args:
        predict: images -> normals (B, 3, h, w) in our axes, as a teacher states them.
        images: (B, 3, H, W) RGB in [0, 1].
        truth: (B, 3, H, W) unit vectors in our axes, zero where unknown.
    """
    products = F.normalize(F.interpolate(predict(images), truth.shape[-2:], mode="bilinear"), dim=1) * truth
    valid = truth.square().sum(1) > 0.5
    angles = {}
    for signs in product((1, -1), repeat=3):
        cosines = torch.einsum("bchw,c->bhw", products, truth.new_tensor(signs))[valid]
        angles[signs] = float(cosines.clamp(-1, 1).acos().rad2deg().mean())
    return angles
