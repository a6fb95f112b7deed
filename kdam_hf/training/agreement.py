"""Photos without labels are scored against the teacher's decisions: how far the student agrees, not how right it is."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from kdam_hf.readout_kdam import as_map
from kdam_hf.tasks import Task
from kdam_hf.training.evaluation import equal_sizes
from kdam_hf.training.teacher import FrozenTeacher

PREFIX = "agreement/"
"""Before the name of every score against a teacher."""


def taught_batches(
    batches: Iterable[dict[str, Any]], teacher: FrozenTeacher, tasks: Sequence[Task], device: torch.device | str
) -> Iterator[dict[str, Any]]:
    """Batches of equal sizes whose labels are what the teacher decides.

    Args:
        batches: of the collator.
        teacher: on `device`.
        tasks: those that it teaches.
        device: where it runs.
    """
    for batch in batches:
        for part in equal_sizes(batch):
            images, mask = (part[key].to(device) for key in ("pixel_values", "pixel_mask"))
            said = teacher(images, mask).predictions
            yield {**part, "labels": {task.name: _decided(task, said[task.name], mask.shape[-2:]) for task in tasks}}


def _decided(task: Task, prediction: Tensor, size: Sequence[int]) -> Tensor:
    """Tensor labels (B, ..., H, W) from predictions (B, C, h, w)."""
    values = task.decode(prediction, size).cpu()
    return torch.stack([task.label.to_tensor(task.label.from_values(as_map(one))) for one in values])
