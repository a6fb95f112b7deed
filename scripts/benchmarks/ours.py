"""Our objective and our trainer, as the sections call them: the only file here that knows how they are built."""

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kdam_hf.distillation import DistillationCriterion
from kdam_hf.distillation.kernels import dense_loss, match_loss
from kdam_hf.tasks import Task
from kdam_hf.training import DistillationTrainer
from kdam_hf.training.trainer import stride_mask

Maps = Mapping[str, Tensor]


def make_loss(tasks: Sequence[Task], method: str, temperature: float, beta: float) -> Callable[..., Tensor]:
    """Predictions at stride 4, a batch of the collator, the teacher's predictions -> the objective with one method."""
    criterion = DistillationCriterion(tuple(tasks), method, temperature, beta)

    def loss(predictions: Maps, batch: Mapping[str, Any], teacher: Maps) -> Tensor:
        labels, mask = batch["labels"], batch["pixel_mask"]
        total = dense_loss(tasks, predictions, labels, mask).total
        if method == "none":
            return total
        valid = stride_mask(mask)
        if method == "cs":
            return total + match_loss(tasks, predictions, criterion.match(predictions, teacher, valid), valid)[0]
        return total + sum(criterion(predictions, teacher, valid).values())

    return loss


def make_trainer(
    student: Any, training: Any, tasks: Sequence[Task], crops: Any, teacher: Any, args: Namespace, compiled: bool
) -> DistillationTrainer:
    """The trainer of a student; CS with the teacher if there is one; its objective under torch.compile if asked."""
    criterion = DistillationCriterion(tuple(tasks), "none" if teacher is None else "cs", args.temperature, args.beta)
    trainer = DistillationTrainer(student, training, tasks, crops, teacher=teacher, criterion=criterion)
    if compiled:
        trainer.objective = torch.compile(trainer.objective)
    return trainer
