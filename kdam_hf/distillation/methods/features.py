"""The coarsest map of the backbones: a normalised squared distance behind a 1x1 projection, alone or beside another method."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdam_hf.distillation.methods.base import Batch, Method
from kdam_hf.errors import KdamValueError
from kdam_hf.tasks import Task


class Features(Method):
    """Squared distance of unit vectors, 2 - 2 cos per pixel: of the student's projected features and the teacher's.

    The projection is trained and kept in checkpoints; it is no part of the student.

    Args:
        tasks, beta: as of `Method`; the term is beta times the mean over pixels.
        student_channels: of the student's coarsest map.
        teacher_channels: of the teacher's.
        beside: another method, whose terms are added.
    """

    name = "features"
    needs_features = True

    def __init__(
        self,
        tasks: Sequence[Task],
        beta: float = 1.0,
        student_channels: int = 0,
        teacher_channels: int = 0,
        beside: Method | None = None,
    ) -> None:
        super().__init__(tasks, beta)
        if min(student_channels, teacher_channels) < 1:
            raise KdamValueError(
                f"features of {student_channels} and {teacher_channels} channels: both models must hand out a map of "
                "their encoder, as KDAM models and most models of the Hub do."
            )
        if beside is not None and beta == 0:
            raise KdamValueError(f"features of weight 0 beside {beside.name}: use that method alone.")
        self.student_channels, self.teacher_channels, self.beside = student_channels, teacher_channels, beside
        self.projector = nn.Conv2d(student_channels, teacher_channels, 1)

    def settings(self) -> dict[str, Any]:
        """With those of the method beside it, whose beta keeps its name."""
        channels = {"student_channels": self.student_channels, "teacher_channels": self.teacher_channels}
        if self.beside is None:
            return {"beta": self.beta, **channels}
        return {**self.beside.settings(), "method": self.beside.name, "features": self.beta, **channels}

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        if batch.features is None:
            raise KdamValueError("the features of both models are missing.")
        mine, theirs = self.projector(batch.features[0][-1]).float(), batch.features[1][-1].detach().float()
        if mine.shape[-2:] != theirs.shape[-2:]:
            theirs = F.interpolate(theirs, mine.shape[-2:], mode="bilinear")
        distance = (F.normalize(mine, dim=1) - F.normalize(theirs, dim=1)).square().sum(1)
        inside = F.interpolate(batch.valid[:, None].float(), distance.shape[-2:], mode="area")[:, 0]
        # the mean number of pixels of all processes, on the grid of this map
        pixels = torch.as_tensor(batch.pixels).to(distance) * (distance[0].numel() / batch.valid[0].numel())
        term = {"kd_features": self.beta * (distance * inside).sum() / pixels}
        return term if self.beside is None else self.beside.terms(batch) | term
