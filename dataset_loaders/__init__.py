"""Datasets with dense labels: where samples come from, how they are checked, transformed, cached and put into batches.

Every loader is a `DenseDataset` of raw samples (see `sample`); `open_dataset` makes one by name.
"""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

from dataset_loaders.archives import is_archive
from dataset_loaders.collate import Collator
from dataset_loaders.files import read_ids
from dataset_loaders.packed import PackedDataset, find_packed, read_index
from dataset_loaders.packing import pack
from dataset_loaders.sample import DenseDataset, Sample, check_id, check_sample, read_array, read_image
from dataset_loaders.subset import SubsetDataset
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
    "SubsetDataset",
    "TrainTransform",
    "TransformedDataset",
    "check_id",
    "check_sample",
    "open_dataset",
    "pack",
    "read_array",
    "read_ids",
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
        raise KdamValueError(
            f"synthetic_rooms is rendered, not read, but data_dir is {str(data_dir)!r}: say what lies there with dataset "
            "(folder for your own data, nyud_v2, pascal_context or hub), or leave data_dir out."
        )
    from dataset_loaders.synthetic_rooms import SyntheticRooms

    return SyntheticRooms(split, num_images, height, width, seed, tasks)


def _open_folder(
    split: str, data_dir: str | Path | None, tasks: Sequence[str] | None, strict: bool = True
) -> DenseDataset:
    if data_dir is None:
        raise KdamValueError("dataset 'folder' needs data_dir: the folder that holds dataset.json.")
    from dataset_loaders.folder import FolderDataset

    return FolderDataset(data_dir, split, tasks, strict)


def _open_nyud_v2(
    split: str,
    data_dir: str | Path | None,
    tasks: Sequence[str] | None,
    layout: str | None = None,
    strict: bool = True,
    crop: str = "auto",
    intrinsics: str = "kinect",
) -> DenseDataset:
    from dataset_loaders.nyud_v2 import open_nyud_v2

    return open_nyud_v2(split, data_dir, tasks, layout, strict, crop, intrinsics)


def _open_pascal_context(
    split: str,
    data_dir: str | Path | None,
    tasks: Sequence[str] | None,
    layout: str | None = None,
    strict: bool = True,
) -> DenseDataset:
    from dataset_loaders.pascal_context import open_pascal_context

    return open_pascal_context(split, data_dir, tasks, layout, strict)


def _open_hub(split: str, data_dir: str | Path | None, tasks: Sequence[str] | None) -> DenseDataset:
    if data_dir is None:
        raise KdamValueError(
            "dataset 'hub' needs data_dir: the id of a data set on the Hub, or a folder of Parquet files."
        )
    from dataset_loaders.hub import HubDataset

    return HubDataset(str(data_dir), split, tasks)


class _Source(NamedTuple):
    """What a name stands for.

    Args:
        open: split, data_dir, tasks and options of its own -> dataset.
        stored: it is read from data_dir, which may hold an archive or prepared splits instead.
        named: what it opens has the name it is opened by, and prepared splits are told by that.
    """

    open: Callable[..., DenseDataset]
    stored: bool = True
    named: bool = True

    @property
    def options(self) -> dict[str, Any]:
        """Name -> default."""
        return {name: facts.default for name, facts in list(signature(self.open).parameters.items())[3:]}


_SOURCES = {
    "folder": _Source(_open_folder, named=False),
    "hub": _Source(_open_hub, named=False),
    "nyud_v2": _Source(_open_nyud_v2),
    "pascal_context": _Source(_open_pascal_context),
    "synthetic_rooms": _Source(_open_rooms, stored=False),
}
DATASET_NAMES = tuple(_SOURCES)


def _refuse_other_options(name: str, prepared: Path, options: Mapping[str, Any]) -> None:
    """A prepared folder cannot be read with another crop or layout than it was made with."""
    made_with, defaults = read_index(prepared)["fingerprint"]["options"], _SOURCES[name].options
    for option, value in options.items():
        made = made_with.get(option, defaults[option])
        if option != "strict" and str(made) != str(value):
            raise KdamValueError(
                f"{name}: {prepared} was prepared with {option}={made}, asked for is {value}. Leave the option out, or prepare "
                "the data again into another folder."
            )


def open_dataset(
    name: str, split: str, data_dir: str | Path | None = None, tasks: Sequence[str] | None = None, **options: Any
) -> DenseDataset:
    """One split of a dataset.

    Args:
        name: one of `DATASET_NAMES`.
        split: `train` or `val`, or another list of ids where the data has one.
        data_dir: where the files are, for datasets on disk: their root, or what `scripts/prepare_data.py` wrote.
        tasks: names of the tasks to read; all of them for None.
        options: of the dataset: `num_images`, `height`, `width` and `seed` of `synthetic_rooms`; `layout` and `strict` of
            data on disk; `crop` and `intrinsics` of `nyud_v2`.

    Raises:
        KdamValueError: unknown name, task or option, `data_dir` missing or an archive, or prepared with other options.
        DataIntegrityError: the files on disk are not usable.
    """
    if name not in _SOURCES:
        raise KdamValueError(f"unknown dataset {name!r}; expected one of {', '.join(DATASET_NAMES)}.")
    source = _SOURCES[name]
    unknown = [option for option in options if option not in source.options]
    if unknown:
        known = ", ".join(source.options) or "none"
        raise KdamValueError(f"{name}: unknown option {', '.join(unknown)}; expected {known}.")
    if data_dir is not None and source.stored:
        prepared = find_packed(Path(data_dir), name if source.named else None, split)
        if prepared is not None:
            _refuse_other_options(name, prepared, options)
            return PackedDataset(prepared, tasks)
        if is_archive(Path(data_dir)):
            raise KdamValueError(
                f"{name}: {data_dir} is an archive; prepare it once with scripts/prepare_data.py --dataset {name} --data_dir "
                f"{data_dir} --output_dir OUT, then give OUT as data_dir."
            )
    return source.open(split, data_dir, tasks, **options)
