"""Photos without labels are scored against the teacher's decisions: how far the student agrees, not how right it is."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataset_loaders import DenseDataset, TransformedDataset, shuffled
from kdam_hf.readout_kdam import as_map
from kdam_hf.tasks import Task
from kdam_hf.training.evaluation import equal_sizes
from kdam_hf.training.loading import layers
from kdam_hf.training.teacher import FrozenTeacher

PREFIX = "agreement/"
"""Before the name of every score against a teacher."""


def is_unlabelled(dataset: Any) -> bool:
    """Whether a dataset, behind its layers, holds photos without any label."""
    *_, source = layers(dataset)
    return isinstance(source, DenseDataset) and not source.labelled


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


def taught_start(
    dataset: TransformedDataset,
    teacher: FrozenTeacher,
    tasks: Sequence[Task],
    device: torch.device | str,
    most: int = 16,
) -> dict[str, list[float]]:
    """What untrained heads of tasks without labels should predict, from what the teacher says of some images; see `Task.start`.

    Args:
        dataset: the training crops.
        teacher: on `device`.
        tasks: those that it teaches and nobody labels.
        device: where it runs.
        most: number of crops.
    """
    some = shuffled(np.random.default_rng(0), len(dataset), dataset.dataset.runs)[:most].tolist()
    crops = (dataset[index] for index in some)
    inputs = ([crop[key][None].to(device) for key in ("pixel_values", "pixel_mask")] for crop in crops)
    said = [teacher(*pair).predictions for pair in inputs]
    found = {}
    for task in tasks:
        labels = [_raw(task, maps[task.name], [4 * side for side in maps[task.name].shape[-2:]])[0] for maps in said]
        values = np.concatenate([label[task.label.valid(label)] for label in labels])
        if len(values) and (start := task.start(values)) is not None:
            found[task.name] = start
    return found


def _decided(task: Task, prediction: Tensor, size: Sequence[int]) -> Tensor:
    """Tensor labels (B, ..., H, W) from predictions (B, C, h, w)."""
    return torch.stack([task.label.to_tensor(raw) for raw in _raw(task, prediction, size)])


def _raw(task: Task, prediction: Tensor, size: Sequence[int]) -> list[NDArray[Any]]:
    """Raw labels of what is decided."""
    return [task.label.from_values(as_map(one)) for one in task.decode(prediction, size).cpu()]
