"""The objective of a training: supervised losses and the terms of a method, named, weighted, with gradient.

It is the only thing a trainer calls. It never asks which method or task it holds.

Shapes: B batch, C channels of a prediction, h w stride-4 map, H W full resolution (H <= 4 h, W <= 4 w).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdam_hf.configuration_kdam import STRIDE
from kdam_hf.distillation.dense import dense_loss
from kdam_hf.distillation.methods import Batch, Method
from kdam_hf.distillation.weighting import Weighting
from kdam_hf.distributed import LOCAL, Processes
from kdam_hf.errors import KdamValueError
from kdam_hf.tasks import Task, task_from_spec

Maps = Mapping[str, Tensor]
Counts = dict[str, Tensor]
_PIXELS, _OWN_PIXELS = "", "own"  # keys beside those of tasks: of all accumulated batches, of this one


class Objective(nn.Module):
    """Supervised losses of all tasks at full resolution, and what a method adds at stride 4.

    Args:
        tasks: in canonical order.
        method: how the student learns from a teacher; None for the supervised losses alone.
        weighting: terms by name -> the loss; their sum by default. It may use the gradient of every term, and may be a
            module with parameters of its own, such as a `Weighting`.

    Raises:
        KdamValueError: the method has a task that is not among `tasks` with the same settings.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        method: Method | None = None,
        weighting: Callable[[dict[str, Tensor]], Tensor] | None = None,
    ) -> None:
        super().__init__()
        foreign = [task.name for task in (method.tasks if method is not None else ()) if task not in tasks]
        if foreign:
            raise KdamValueError(
                f"the method matches {', '.join(foreign)}, but the tasks are {', '.join(task.name for task in tasks)}, or have "
                "other settings; make the method from these tasks."
            )
        self.tasks, self.method, self.weighting = tuple(tasks), method, weighting
        self.needs_features = method is not None and method.needs_features
        """Whether both models must give the maps of their backbones."""

    def counts(self, labels: Maps, mask: Tensor) -> Counts:
        """What the losses of a batch are divided by; the counts of accumulated batches add up.

        Args:
            labels: task name -> label (B, ..., H, W) as the task's label makes it.
            mask: (B, H, W) bool, False on padding.
        """
        found = {task.name: task.loss_counts(labels[task.name], mask) for task in self.tasks}
        return found | {_PIXELS: stride_mask(mask).sum(dtype=torch.float32).reshape(1)}

    def forward(
        self,
        predictions: Maps,
        labels: Maps,
        mask: Tensor,
        teacher_predictions: Maps | None = None,
        processes: Processes = LOCAL,
        counts: Counts | None = None,
        features: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None,
    ) -> dict[str, Tensor]:
        """Weighted terms by name: `loss_<task>`, then those of the method.

        Args:
            predictions: task name -> (B, C, ceil(H/4), ceil(W/4)), floating.
            labels: as of `counts`.
            mask: as of `counts`.
            teacher_predictions: task name -> (B, C, h, w), for a method.
            processes: those that share the batch; averaged over them, terms are those of the global batch.
            counts: the sum of those of all accumulated batches; of this batch alone by default.
            features: the backbones' maps of student and teacher, where `needs_features`.

        Returns:
            Scalars, float32 (float64 for float64 predictions), zero with a gradient path where nothing is valid.

        Raises:
            KdamValueError: a missing task, a missing teacher, or shapes that do not fit.
        """
        small = tuple(-(-side // STRIDE) for side in mask.shape[1:])
        for task in self.tasks:
            x, label = (tuple(maps[task.name].shape) if task.name in maps else None for maps in (predictions, labels))
            if x != (len(mask), task.channels, *small) or not label or (label[0], *label[-2:]) != tuple(mask.shape):
                raise KdamValueError(
                    f"{task.name}: the prediction is {x}, the label {label}; expected {(len(mask), task.channels, *small)} and "
                    f"(B, ..., H, W) for a mask {tuple(mask.shape)}."
                )
        own = self.counts(labels, mask)
        sums = (counts or own) | {_OWN_PIXELS: own[_PIXELS]}
        means = processes.mean(torch.cat([*sums.values()])).split([len(x) for x in sums.values()])
        mean = dict(zip(sums, means, strict=True))
        terms = {}
        for task in self.tasks:
            weights = task.loss_weights(mean[task.name])
            loss = dense_loss(task, predictions[task.name], labels[task.name], mask, weights)
            terms[f"loss_{task.name}"] = task.loss_weight * loss
        if self.method is None or self.method.beta == 0:
            return terms
        if teacher_predictions is None:
            raise KdamValueError(
                f"method {self.method.name!r} needs the teacher's predictions; give them, or use no method."
            )
        pixels, all_pixels = (mean[key][0].clamp_min(1) for key in (_OWN_PIXELS, _PIXELS))
        batch = Batch(predictions, teacher_predictions, stride_mask(mask), pixels, processes, features)
        share = pixels / all_pixels  # of a mean over this batch in one over all accumulated batches
        return terms | {name: share * term for name, term in self.method.terms(batch).items()}

    def total(self, terms: dict[str, Tensor], share: float = 1.0) -> Tensor:
        """The loss: what the weighting makes of the terms, or their sum.

        Args:
            terms: of `forward`.
            share: of this batch in what a weighting adds once per step: one over the number of accumulated batches.
        """
        if self.weighting is None:
            return torch.stack([*terms.values()]).sum()
        loss = self.weighting(terms)
        return loss + share * self.weighting.penalty() if isinstance(self.weighting, Weighting) else loss


def supervised_loss(predictions: Maps, labels: Maps, mask: Tensor | None, specs: Sequence[Mapping[str, Any]]) -> Tensor:
    """The loss that a model returns for labels: that of `Objective` without a method, with the tasks' own settings.

    Args:
        predictions: task name -> (B, C, ceil(H/4), ceil(W/4)).
        labels: as of `Objective.counts`.
        mask: (B, H, W) bool, False on padding; None for none.
        specs: `config.tasks` of the model.

    Raises:
        KdamValueError: a missing label, or shapes that do not fit.
    """
    objective = Objective([task_from_spec(spec) for spec in specs])
    if mask is None:
        first = next(iter(labels.values()))
        mask = torch.ones(len(first), *first.shape[-2:], dtype=torch.bool, device=first.device)
    return objective.total(objective(predictions, labels, mask))


def stride_mask(pixel_mask: Tensor) -> Tensor:
    """(B, H, W) bool -> (B, ceil(H/4), ceil(W/4)) bool: cells of the prediction grid that hold no padding."""
    padding = (~pixel_mask)[:, None].float()
    return F.max_pool2d(padding, STRIDE, ceil_mode=True)[:, 0] == 0
