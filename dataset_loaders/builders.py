"""Data sets as tables of `datasets`: Arrow, streaming, several processes, Parquet, and the Hub.

    from dataset_loaders import open_dataset
    from dataset_loaders.builders import as_table
    as_table(open_dataset("nyud_v2", "train", "NYUDv2"), num_proc=4).push_to_hub("org/nyud-v2-mt", split="train")

One row is one image; a label is what its kind's `to_file` gives, as a PNG, or as numbers where it is no picture. A task that
is unlabelled for an image is None.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataset_loaders.columns import classes_column
from dataset_loaders.sample import DenseDataset
from kdam_hf.io import lines_sha256
from kdam_hf.tasks import Task


def as_table(
    dataset: DenseDataset, num_proc: int | None = None, streaming: bool = False
) -> datasets.Dataset | datasets.IterableDataset:
    """One split as typed rows; another split, other settings or an edit of its files make another cache.

    Args:
        dataset: the split.
        num_proc: processes that read.
        streaming: make rows as they are asked for, and write nothing.

    Raises:
        DataIntegrityError: a file is not usable, or holds a value that a row cannot.
    """
    features, indices = features_of(dataset.tasks), [*range(len(dataset))]
    how = {"features": features, "gen_kwargs": {"dataset": dataset, "indices": indices}}
    if streaming:
        return datasets.IterableDataset.from_generator(_rows, **how)
    stamps = [*map(dataset.stamp, indices)]
    settings = [(task.name, task.file_settings) for task in dataset.tasks]
    facts = [dataset.registered, dataset.name, dataset.split, dataset.digest, dict(dataset.options), settings, features]
    # without stamps, `datasets` looks at the pickled data set
    fingerprint = lines_sha256([*map(repr, facts), *stamps])[:16] if all(stamps) else None
    return datasets.Dataset.from_generator(_rows, num_proc=num_proc, fingerprint=fingerprint, **how)


def _rows(dataset: DenseDataset, indices: list[int]) -> Iterator[dict[str, Any]]:
    return (row_of(dataset, index) for index in indices)


def features_of(tasks: Sequence[Task]) -> datasets.Features:
    """`id`, `image`, and a column per task; a task with classes also has `<task>_classes`, those in view, as class labels."""
    features: dict[str, Any] = {"id": datasets.Value("string"), "image": datasets.Image()}
    for task in tasks:
        file = task.label.to_file(task.label.unlabelled(1, 1), task.name)
        column: Any = datasets.Image() if file.dtype.kind == "u" else datasets.Value(str(file.dtype))
        for _ in range(0 if file.dtype.kind == "u" else file.ndim):
            column = datasets.List(column)
        features[task.name] = column
        if task.class_names:
            features[classes_column(task.name)] = datasets.List(datasets.ClassLabel(names=list(task.class_names)))
    return datasets.Features(features)


def row_of(dataset: DenseDataset, index: int) -> dict[str, Any]:
    """One sample as a row; a photo that is a file keeps its bytes.

    Raises:
        DataIntegrityError: a file is not usable, or holds a value that the row cannot.
    """
    sample, photo = dataset[index], dataset.photo(index)
    row: dict[str, Any] = {"id": sample["id"]}
    content = photo.read_bytes() if isinstance(photo, Path) else photo
    row["image"] = {"bytes": content, "path": None} if content else _png(sample["image"])
    for task in dataset.tasks:
        kind, label = task.label, sample["labels"].get(task.name)
        file = None if label is None else kind.to_file(label, f"sample {sample['id']!r}: {task.name}")
        row[task.name] = None if file is None else _png(file) if file.dtype.kind == "u" else file.tolist()
        if task.class_names:
            counts = () if label is None else kind.statistics(label).counts
            row[classes_column(task.name)] = [k for k, count in enumerate(counts) if count]
    return row


def _png(pixels: NDArray[np.generic]) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}
