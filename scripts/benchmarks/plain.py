"""The objective that ours replaces, written plainly: everything upsampled to full resolution, then eager losses.

The supervised losses and distributions are those of the tasks, so both sides compute the same objective. Every pixel is valid.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kdam_hf.tasks import Task

Maps = Mapping[str, Tensor]


def objective(
    tasks: Sequence[Task],
    predictions: Maps,
    batch: Mapping[str, Any],
    teacher: Maps,
    temperature: float = 8.0,
    beta: float = 0.5,
    match_full: bool = True,
) -> Tensor:
    """Supervised losses, and beta T^2 times CS of full-resolution or stride-4 maps (B, C, h, w) with the teacher's."""

    def distributions(maps: Maps) -> list[Tensor]:
        logits = [task.distribution_logits(maps[task.name].movedim(1, -1)).movedim(-1, 1) for task in tasks]
        return [(x / temperature).softmax(1) for x in logits]

    full, labels, mask = upsample(predictions), batch["labels"], batch["pixel_mask"]
    losses = [task.loss_weight * task.loss(full[task.name], labels[task.name], mask) for task in tasks]
    with torch.no_grad():
        q = distributions(upsample(teacher) if match_full else teacher)
    p = distributions(full if match_full else predictions)
    return torch.stack(losses).sum() + beta * temperature**2 * cauchy_schwarz(p, q)


def upsample(maps: Maps) -> dict[str, Tensor]:
    """(B, C, h, w) at stride 4 -> (B, C, 4 h, 4 w)."""
    options = {"scale_factor": 4, "mode": "bilinear", "align_corners": False}
    return {name: F.interpolate(x, **options) for name, x in maps.items()}


def cauchy_schwarz(p: Sequence[Tensor], q: Sequence[Tensor]) -> Tensor:
    """Inter-task (a row per pixel, all tasks side by side) + intra-task (a column per class) of probabilities (B, C, h, w).

    Source: Xu, Yang, Zhang, ICCV 2023 (doi 10.1109/ICCV51070.2023.01970); D = -log( <p,q>^2 / (<p,p> <q,q>) ).
    """

    def divergence(p: Tensor, q: Tensor, dim: int | tuple[int, ...]) -> Tensor:
        return -torch.log((p * q).sum(dim) ** 2 / ((p * p).sum(dim) * (q * q).sum(dim))).mean()

    intra = [divergence(a, b, (0, 2, 3)) for a, b in zip(p, q, strict=True)]
    return divergence(torch.cat([*p], 1), torch.cat([*q], 1), 1) + torch.stack(intra).mean()
