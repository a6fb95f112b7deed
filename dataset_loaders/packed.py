"""A training cache: every raw sample, decoded once, in one memory-mapped file. `packing` writes it.

`samples.bin` holds the arrays, `index.json` where they lie and what the labels hold. How a label is stored is said by
its kind, `kdam_hf.tasks.labels`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset_loaders.inspection import Seen
from dataset_loaders.sample import Sample, check_id
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.tasks import LabelStatistics, Task, make_task, select_tasks, task_class

FORMAT = 3
ALIGNMENT = 64
DATA_FILE, INDEX_FILE = "samples.bin", "index.json"


class PackedDataset:
    """A dense dataset read from a folder made by `pack`; its samples are checked and its images are read-only views.

    Args:
        path: the folder.
        tasks: the tasks to read, with the class names they were packed with, or their names; all for None.

    Raises:
        DataIntegrityError: the folder is missing, incomplete or of another version.
        KdamValueError: a task that was not packed, or was packed with other classes.
    """

    checked = True

    def __init__(self, path: str | Path, tasks: Sequence[Task] | Sequence[str] | None = None) -> None:
        self._path = Path(path)
        index = read_index(self._path)
        fingerprint = index["fingerprint"]
        self.name, self.split = fingerprint["name"], fingerprint["split"]
        if tasks is None or all(isinstance(task, str) for task in tasks):
            names: Any = tasks
            self.tasks = select_tasks([_packed_task(facts, self.name) for facts in fingerprint["tasks"]], names)
        else:
            self.tasks = tuple(task for task in tasks if isinstance(task, Task))
        for task in self.tasks:
            if task_facts(task) not in fingerprint["tasks"]:
                raise KdamValueError(
                    f"{path}: asked for {task_facts(task)}, packed were {fingerprint['tasks']}. "
                    "Pack again into another folder."
                )
        self.origin = f"{self.name}: prepared in {path}"
        if index.get("notes") is not None:  # earlier versions did not keep them
            self.notes = tuple(index["notes"])
        self._samples = index["samples"]
        self._map: NDArray[np.uint8] | None = None

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Of the samples, in order."""
        return tuple(entry["id"] for entry in self._samples)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        """One sample, without decoding an image."""
        entry = self._samples[index]
        size, start = entry["size"], entry["offset"]
        labels = {
            task.name: task.label.decode(
                self._view(
                    start + entry["labels"][task.name], (*size, *task.label.shape_suffix), task.label.stored_dtype
                )
            )
            for task in self.tasks
            if task.name in entry["labels"]
        }
        return {"id": entry["id"], "image": self._view(start, (*size, 3), np.dtype("u1")), "labels": labels}

    def seen(self) -> Iterator[Seen]:
        """What was found in each sample when it was packed."""
        for k, entry in enumerate(self._samples):
            statistics = {name: LabelStatistics.from_json(facts) for name, facts in entry["statistics"].items()}
            yield Seen(k, entry["id"], "{}x{}".format(*entry["size"]), statistics)

    def _view(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        if self._map is None:  # opened by the process that reads
            self._map = np.asarray(np.memmap(self._path / DATA_FILE, np.uint8, "r"))
        return self._map[offset : offset + prod(shape) * dtype.itemsize].view(dtype).reshape(shape)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_map": None}


def find_packed(folder: Path, name: str | None, split: str) -> Path | None:
    """The packed split below a folder that `scripts/prepare_data.py` wrote; None if there is none.

    Args:
        folder: to look in.
        name: of the dataset; any for None.
        split: its name.

    Raises:
        KdamValueError: several datasets are prepared there and no name was given.
    """
    pattern = f"{name or '*'}-{check_id(split)}/{INDEX_FILE}"
    found = sorted(folder.glob(pattern)) if folder.is_dir() else []
    if len(found) > 1:
        names = ", ".join(path.parent.name for path in found)
        raise KdamValueError(f"{folder} holds several prepared datasets ({names}); give a folder with one of them.")
    return found[0].parent if found else None


def task_facts(task: Task) -> dict[str, Any]:
    """What must agree between a task and the one that was packed."""
    return {"name": task.name, "class_names": list(task.class_names)}


def _packed_task(facts: Mapping[str, Any], dataset: str) -> Task:
    named = "class_names" in task_class(facts["name"]).label_kind.file_options
    return make_task(facts["name"], facts["class_names"] if named else (), dataset)


def read_index(path: Path) -> dict[str, Any]:
    """The index of a packed dataset.

    Raises:
        DataIntegrityError: missing, or not complete.
    """
    try:
        index = json.loads((path / INDEX_FILE).read_text("utf-8"))
        size = (path / DATA_FILE).stat().st_size
    except (OSError, ValueError) as error:
        raise DataIntegrityError(
            f"{path}: no complete packed dataset ({error}). Make it with scripts/prepare_data.py."
        ) from error
    if index.get("format") != FORMAT or index["bytes"] != size:
        raise DataIntegrityError(
            f"{path}: format {index.get('format')} with {size} bytes of samples; expected format {FORMAT} with "
            f"{index.get('bytes')} bytes. Remove the folder and pack again."
        )
    return index
