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
    temperature: float = 4.0,
    beta: float = 0.5,
    match_full: bool = True,
) -> Tensor:
    """Supervised losses, and beta times CS of full-resolution or stride-4 maps (B, C, h, w) with the teacher's."""

    def distribution(task: Task, maps: Maps) -> Tensor:
        logits = task.distribution_logits(maps[task.name].movedim(1, -1)).movedim(-1, 1)
        return (logits / temperature).softmax(1)

    full, labels, mask = upsample(predictions), batch["labels"], batch["pixel_mask"]
    losses = [task.loss_weight * task.loss(full[task.name], labels[task.name], mask) for task in tasks]
    for task in tasks:
        with torch.no_grad():
            q = distribution(task, upsample(teacher) if match_full else teacher)
        p = distribution(task, full if match_full else predictions)
        losses.append(beta * task.kd_weight * temperature**task.temperature_power * cauchy_schwarz(task, p, q))
    return torch.stack(losses).sum()


def upsample(maps: Maps) -> dict[str, Tensor]:
    """(B, C, h, w) at stride 4 -> (B, C, 4 h, 4 w)."""
    options = {"scale_factor": 4, "mode": "bilinear", "align_corners": False}
    return {name: F.interpolate(x, **options) for name, x in maps.items()}


def cauchy_schwarz(task: Task, p: Tensor, q: Tensor) -> Tensor:
    """Inter-task (a row per pixel) + intra-task (a weighted column per class) of one task's probabilities (B, C, h, w).

    Source: Xu, Yang, Zhang, ICCV 2023 (doi 10.1109/ICCV51070.2023.01970); D = -log( <p,q>^2 / (<p,p> <q,q>) ).
    """

    def divergence(dim: int | tuple[int, ...]) -> Tensor:
        return -torch.log((p * q).sum(dim) ** 2 / ((p * p).sum(dim) * (q * q).sum(dim)))

    weights = task.column_weights(q.sum((0, 2, 3)))
    return divergence(1).mean() + divergence((0, 2, 3)) @ (weights / weights.sum())
