"""Opens the splits that arguments name, and looks at the size of their images."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from dataset_loaders import DenseDataset, MixedDataset, PreparedDataset, check_id, open_dataset, shuffled
from dataset_loaders import prepare as prepare_dataset
from dataset_loaders.inspection import SplitReport
from dataset_loaders.sample import Runs
from kdam_hf.errors import KdamValueError
from kdam_hf.tasks import IGNORE_INDEX, Categorical, Task, with_options
from kdam_hf.training.arguments import SourceArguments, available_cores

SIZED, READ = 100, 25
"""Images whose size is looked at, and samples whose labels are read, before a model is built."""


def open_split(data: SourceArguments, split: str, strict: bool = True) -> DenseDataset:
    """One split of the dataset, read through the training cache if `cache_dir` is set.

    Files that do not fit together are refused if `strict`; otherwise they are left to be reported.

    Raises:
        KdamValueError: an unknown dataset, option or task, no such folder, or prepared with other settings of label files.
        DataIntegrityError: a file is missing or does not hold what it should; names it.
    """
    own_keys = {"layout": data.layout, "columns": data.columns, "streaming": data.streaming or None}
    options: dict[str, Any] = {key: value for key, value in own_keys.items() if value is not None}
    for text in data.data_options or ():
        name, found, value = text.partition("=")
        if not found or not name or name in (*own_keys, "strict"):
            raise KdamValueError(f"data_options {text!r}; expected NAME=VALUE, such as crop=none.")
        options[name] = value
    if data.dataset == "synthetic_rooms":
        count = data.rooms_train if split == "train" else data.rooms_val
        size = {"height": data.rooms_height, "width": data.rooms_width}
        options |= {"num_images": count, **size, "seed": data.rooms_seed}
    if not strict:
        options["strict"] = False
    dataset = open_dataset(data.dataset, split, data_dir=data.data_dir, tasks=data.tasks, **options)
    given, names = dataset.tasks, {task.name for task in dataset.tasks}
    # so that labels are read by them; options of a task that only a teacher knows are for others to look at
    dataset.tasks = with_options(given, [text for text in data.task_options or () if text.partition(".")[0] in names])
    if isinstance(dataset, PreparedDataset):
        for made, asked in zip(given, dataset.tasks, strict=True):
            if made.file_settings != asked.file_settings:
                raise KdamValueError(
                    f"{dataset.path}: {made.name} was prepared with {made.file_settings or 'no settings'}, asked for is "
                    f"{asked.file_settings}. Leave it out, or prepare again."
                )
    if data.cache_dir is None or isinstance(dataset, PreparedDataset):
        return dataset
    return prepare_split(dataset, data, num_proc=min(available_cores(), 1 + len(dataset) // 50))


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


def typical_size(dataset: DenseDataset) -> tuple[int, int]:
    """Height and width, pixels, of the median shorter and longer side of up to `SIZED` images, upright if most are.

    It becomes `image_size` of the model: a user's photo is reduced to its shorter side. Headers are read, and no pixels
    of files that are whole.
    """
    headers = {index: dataset.photo_header(index) for index in _some(dataset, SIZED)}
    sizes = np.array([(h.height, h.width) if h else dataset[k]["image"].shape[:2] for k, h in headers.items()])
    shorter, longer = np.median(np.sort(sizes, axis=1), axis=0).astype(int).tolist()
    upright = 2 * (sizes[:, 0] > sizes[:, 1]).sum() > len(sizes)
    return (longer, shorter) if upright else (shorter, longer)


def typical_predictions(dataset: DenseDataset, tasks: Sequence[Task]) -> dict[str, list[float]]:
    """Task name -> what its untrained head should predict everywhere, from some labels; see `Task.start`."""
    samples = [dataset[index]["labels"] for index in _some(dataset, READ, labelled=True)]
    return starts((task, [labels[task.name] for labels in samples if task.name in labels]) for task in tasks)


def starts(labels: Iterable[tuple[Task, Sequence[NDArray[Any]]]]) -> dict[str, list[float]]:
    """Task name -> what its untrained head should predict everywhere, from these raw labels, where they say it."""
    found = {}
    for task, given in labels:
        values = [label[task.label.valid(label)] for label in given]
        if sum(map(len, values)) and (start := task.start(np.concatenate(values))) is not None:
            found[task.name] = start
    return found


def count_classes(dataset: DenseDataset, task: Categorical, start: int = 0, step: int = 1) -> torch.Tensor:
    """Labelled pixels of each class, (K,) float64, in every `step`-th image from `start` on."""
    counts = torch.zeros(task.channels, dtype=torch.float64)
    for index in tqdm(range(start, _labelled(dataset)[0], step), f"counting the classes of {task.name}", leave=False):
        if (label := dataset[index]["labels"].get(task.name)) is not None:
            ids = task.label.to_tensor(label).flatten()
            counts += torch.bincount(ids, minlength=IGNORE_INDEX + 1)[: task.channels]
    return counts


def _some(dataset: DenseDataset, most: int, labelled: bool = False) -> list[int]:
    """Up to `most` indices drawn at random, always the same ones; perhaps of those that may have labels."""
    count, runs = _labelled(dataset) if labelled else (len(dataset), dataset.runs)
    found: list[int] = shuffled(np.random.default_rng(0), count, runs)[:most].tolist()
    return found


def _labelled(dataset: DenseDataset) -> tuple[int, Runs | None]:
    """How many samples may have labels, which come first, and their runs."""
    if isinstance(dataset, MixedDataset):
        return dataset.counts[0], dataset.both_runs[0]
    return len(dataset), dataset.runs
