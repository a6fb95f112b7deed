"""Datasets with dense labels: where samples come from, how they are checked, transformed, cached and put into batches.

Every loader is a `DenseDataset` of raw samples (see `sample`); `open_dataset` makes one by name.
"""

from collections.abc import Callable, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from dataset_loaders.collate import Collator
from dataset_loaders.packed import PackedDataset, pack
from dataset_loaders.sample import DenseDataset, Sample, check_id, check_sample, read_array, read_image
from dataset_loaders.transforms import EpochSampler, EvalTransform, TrainTransform, TransformedDataset
from kdam_hf.errors import KdamValueError

__all__ = [
    "DATASET_NAMES",
    "Collator",
    "DenseDataset",
    "EpochSampler",
    "EvalTransform",
    "PackedDataset",
    "Sample",
    "TrainTransform",
    "TransformedDataset",
    "check_id",
    "check_sample",
    "open_dataset",
    "pack",
    "read_array",
    "read_image",
]


def _open_rooms(
    split: str,
    data_dir: str | Path | None,
    tasks: Sequence[str] | None,
    num_images: int | None = None,
    height: int = 240,
    width: int = 320,
    seed: int = 0,
) -> DenseDataset:
    if data_dir is not None:
        raise KdamValueError(f"synthetic_rooms is rendered, not read; leave data_dir ({str(data_dir)!r}) out.")
    from dataset_loaders.synthetic_rooms import SyntheticRooms

    return SyntheticRooms(split, num_images, height, width, seed, tasks)


def _open_folder(split: str, data_dir: str | Path | None, tasks: Sequence[str] | None) -> DenseDataset:
    if data_dir is None:
        raise KdamValueError("dataset 'folder' needs data_dir: the folder that holds dataset.json.")
    from dataset_loaders.folder import FolderDataset

    return FolderDataset(data_dir, split, tasks)


_OPENERS: dict[str, Callable[..., DenseDataset]] = {"folder": _open_folder, "synthetic_rooms": _open_rooms}
DATASET_NAMES = tuple(_OPENERS)


def open_dataset(
    name: str, split: str, data_dir: str | Path | None = None, tasks: Sequence[str] | None = None, **options: Any
) -> DenseDataset:
    """One split of a dataset.

    Args:
        name: one of `DATASET_NAMES`.
        split: `train` or `val`; for `folder` any list of ids.
        data_dir: where the files are, for datasets on disk.
        tasks: names of the tasks to read; all of them for None.
        options: of the dataset, e.g. `num_images`, `height`, `width` and `seed` of `synthetic_rooms`.

    Raises:
        KdamValueError: unknown name, task or option, or `data_dir` missing.
        DataIntegrityError: the files on disk are not usable.
    """
    if name not in _OPENERS:
        raise KdamValueError(f"unknown dataset {name!r}; expected one of {', '.join(DATASET_NAMES)}.")
    known = list(signature(_OPENERS[name]).parameters)[3:]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise KdamValueError(f"{name}: unknown option {', '.join(unknown)}; expected {', '.join(known) or 'none'}.")
    return _OPENERS[name](split, data_dir, tasks, **options)
