"""Data sets by name: they register themselves, and their options are those of their constructor."""

from collections.abc import Callable, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

from dataset_loaders.archives import is_archive
from dataset_loaders.prepared import PreparedDataset, find_prepared
from dataset_loaders.sample import DenseDataset
from kdam_hf.errors import KdamValueError

DATASETS: dict[str, Callable[..., DenseDataset]] = {}
"""What opens a split of the data set of each name."""
UNPACKING: set[str] = set()
"""Names of those that take an archive as `data_dir`."""
_Opener = TypeVar("_Opener", bound=Callable[..., DenseDataset])


def register(name: str, unpacks: bool = False) -> Callable[[_Opener], _Opener]:
    """Make a data set known to `open_dataset`, recipes and scripts by `name`; one that `unpacks` takes an archive, too.

    What is decorated is a subclass of `DenseDataset`, or a function that returns one. It takes `split` and `tasks`; `data_dir`
    if it reads from disk; and its options, each with a default.
    """

    def add(opener: _Opener) -> _Opener:
        DATASETS[name] = opener
        UNPACKING.update({name} if unpacks else ())
        return opener

    return add


def open_dataset(
    name: str, split: str, data_dir: str | Path | None = None, tasks: Sequence[str] | None = None, **options: Any
) -> DenseDataset:
    """One split of a dataset.

    Args:
        name: as registered.
        split: `train` or `val`, or another list of ids where the data has one.
        data_dir: where the files are, for datasets on disk: their root, or what `kdam prepare` wrote.
        tasks: names of the tasks to read; all of them for None.
        options: of the dataset: the other arguments of what is registered.

    Raises:
        KdamValueError: unknown name, task or option, `data_dir` missing or an archive, or prepared with other options.
        DataIntegrityError: the files on disk are not usable.
    """
    if name not in DATASETS:
        raise KdamValueError(f"unknown dataset {name!r}; expected one of {', '.join(sorted(DATASETS))}.")
    parameters = signature(DATASETS[name]).parameters
    defaults = {key: p.default for key, p in parameters.items() if key not in ("split", "data_dir", "tasks")}
    if "strict" not in defaults:  # nothing but its samples can be at fault
        options.pop("strict", None)
    if unknown := ", ".join(option for option in options if option not in defaults):
        raise KdamValueError(f"{name}: unknown option {unknown}; expected {', '.join(defaults) or 'none'}.")
    if "data_dir" not in parameters:
        if data_dir is not None:
            raise KdamValueError(
                f"{name} is not read from disk, but data_dir is {str(data_dir)!r}; which dataset is there?"
            )
        dataset = DATASETS[name](split=split, tasks=tasks, **options)
    elif data_dir is None:
        raise KdamValueError(f"dataset {name!r} needs data_dir: the root of its files, or what kdam prepare wrote.")
    elif prepared := find_prepared(Path(data_dir), name, split):
        made = PreparedDataset(prepared, tasks)  # which cannot be read with another crop or layout
        for option, value in options.items():
            if str(before := made.options.get(option, value)) != str(value):
                raise KdamValueError(
                    f"{name}: {prepared} was prepared with {option}={before}, asked for is {value}. Leave it out."
                )
        return made
    elif is_archive(data_dir) and name not in UNPACKING:
        raise KdamValueError(
            f"{name}: {data_dir} is an archive; unpack it by kdam prepare --dataset {name} --data_dir {data_dir} --output_dir "
            "OUT, then give OUT as data_dir."
        )
    else:
        dataset = DATASETS[name](split=split, tasks=tasks, data_dir=data_dir, **options)
    dataset.registered = name
    dataset.options = {key: value for key, value in (defaults | options).items() if key != "strict"}
    return dataset
