"""Opens the splits that arguments name, and looks at the size of their images."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset_loaders import DenseDataset, PreparedDataset, check_id, open_dataset
from dataset_loaders import prepare as prepare_dataset
from dataset_loaders.inspection import SplitReport
from dataset_loaders.sample import Sample
from kdam_hf.errors import KdamValueError
from kdam_hf.tasks import Task
from kdam_hf.training.arguments import SourceArguments


def open_split(data: SourceArguments, split: str, strict: bool = True) -> DenseDataset:
    """One split of the dataset, read through the training cache if `cache_dir` is set.

    Args:
        data: which dataset, where, and which of its tasks.
        split: its name.
        strict: refuse a split whose files do not fit together; otherwise they are left to be reported.

    Raises:
        KdamValueError: an unknown dataset, option or task, or no such folder.
        DataIntegrityError: a file is missing or does not hold what it should; names it.
    """
    options = source_options(data)
    if data.dataset == "synthetic_rooms":
        count = data.rooms_train if split == "train" else data.rooms_val
        options |= {
            "num_images": count,
            "height": data.rooms_height,
            "width": data.rooms_width,
            "seed": data.rooms_seed,
        }
    if not strict:
        options["strict"] = False
    dataset = open_dataset(data.dataset, split, data_dir=data.data_dir, tasks=data.tasks, **options)
    if data.cache_dir is None or isinstance(dataset, PreparedDataset):
        return dataset
    return prepare_split(dataset, data, num_proc=min(os.cpu_count() or 1, 1 + len(dataset) // 50))


def prepare_split(
    dataset: DenseDataset, data: SourceArguments, num_proc: int, report: SplitReport | None = None
) -> PreparedDataset:
    """Write a split to `cache_dir`, or take what an earlier call wrote there from the same files.

    Raises:
        DataIntegrityError: a sample is broken.
        KdamValueError: the folder was prepared from other files or with other settings, or is something else.
    """
    target = Path(data.cache_dir or "") / f"{check_id(dataset.name)}-{dataset.split}"
    return prepare_dataset(dataset, target, num_proc=num_proc, report=report)


def source_options(data: SourceArguments) -> dict[str, Any]:
    """What `data` says of the dataset beyond its folder and tasks, as options of `open_dataset`.

    Raises:
        KdamValueError: a data option that is not NAME=VALUE, or one that has a key of its own.
    """
    options: dict[str, Any] = {} if data.layout is None else {"layout": data.layout}
    for text in data.data_options or ():
        name, found, value = text.partition("=")
        if not found or not name or name in ("layout", "strict"):
            raise KdamValueError(f"data_options {text!r}; expected NAME=VALUE, such as crop=none.")
        options[name] = value
    return options


def typical_size(dataset: DenseDataset) -> tuple[int, int]:
    """Median height and width, pixels, of some images.

    It becomes `image_size` of the model: the size to which a user's photo is brought.
    """
    sizes = np.array([sample["image"].shape[:2] for sample in _some(dataset)])
    height, width = np.median(sizes, axis=0).astype(int).tolist()
    return height, width


def typical_predictions(dataset: DenseDataset, tasks: Sequence[Task]) -> dict[str, list[float]]:
    """Task name -> what its untrained head should predict everywhere, from some labels; see `Task.start`."""
    samples = list(_some(dataset))
    found = {}
    for task in tasks:
        labels = [sample["labels"][task.name] for sample in samples if task.name in sample["labels"]]
        values = [label[task.label.valid(label)] for label in labels]
        if sum(map(len, values)) and (start := task.start(np.concatenate(values))) is not None:
            found[task.name] = start
    return found


def _some(dataset: DenseDataset, most: int = 25) -> Iterator[Sample]:
    """Up to `most` samples drawn at random, always the same ones."""
    return (dataset[int(index)] for index in np.random.default_rng(0).permutation(len(dataset))[:most])
