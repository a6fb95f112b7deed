"""Your own data: `images/`, one folder per task, `train.txt`, `val.txt` and `dataset.json`.

Everything that can be known without opening an image is checked when the dataset is made, from one listing per folder.
A label file that is missing for an image is a partial label; a task without any label in the split is an error.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dataset_loaders.sample import Sample, check_id, check_sizes, read_array, read_image
from kdam_hf.errors import DataIntegrityError, KdamError, KdamValueError
from kdam_hf.tasks import TASK_NAMES, Task, make_task, select_tasks, task_class

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
LABEL_SUFFIXES = (".png", ".npy")
_FIELDS = {"name": str, "tasks": dict}


class FolderDataset:
    """One split of a dataset in the layout of the README.

    Args:
        data_dir: folder that holds `dataset.json`.
        split: name of the list of ids, e.g. `train` for `train.txt`.
        tasks: names of the tasks to read; all of `dataset.json` for None.

    Raises:
        KdamValueError: `data_dir` is no folder, or an unknown task is asked for.
        DataIntegrityError: a file is missing or does not hold what it should; names the file or field.
    """

    def __init__(self, data_dir: str | Path, split: str, tasks: Sequence[str] | None = None) -> None:
        root = Path(data_dir)
        if not root.is_dir():
            raise KdamValueError(f"data_dir {str(data_dir)!r}: no such folder; expected one that holds dataset.json.")
        self.split = split
        self.name, all_tasks, self._options = _read_description(root / "dataset.json")
        self.tasks = select_tasks(all_tasks, tasks)
        self.ids = _read_split(root / f"{check_id(split)}.txt")
        content = (root / "dataset.json").read_bytes() + "\n".join(self.ids).encode()
        self.version = hashlib.sha256(content).hexdigest()[:16]
        self._images = _index_images(root / "images", self.ids)
        self._labels = {task.name: _index_labels(root / task.name, self.ids, split) for task in self.tasks}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Read one sample.

        Raises:
            DataIntegrityError: a file is unreadable, out of range or of another size than its image; names the file.
        """
        sample_id = self.ids[index]
        image = read_image(self._images[sample_id])
        labels = {}
        for task in self.tasks:
            path = self._labels[task.name].get(sample_id)
            if path is not None:
                label = task.from_file(read_array(path), self._options[task.name], str(path))
                check_sizes(image, label, f"{path}: label")
                labels[task.name] = label
        return {"id": sample_id, "image": image, "labels": labels}


def _read_description(path: Path) -> tuple[str, tuple[Task, ...], dict[str, Mapping[str, Any]]]:
    """Name, tasks in canonical order, and the options of each task."""
    try:
        description = json.loads(_read_text(path, "it names the dataset and its tasks"))
    except json.JSONDecodeError as error:
        raise DataIntegrityError(f"{path}: not valid JSON ({error}).") from error
    _check_fields(description, _FIELDS, str(path))
    missing = [field for field in _FIELDS if not description.get(field)]
    if missing:
        raise DataIntegrityError(f"{path}: {' and '.join(missing)} missing or empty; expected a name and some tasks.")
    entries = description["tasks"]
    unknown = [name for name in entries if name not in TASK_NAMES]
    if unknown:
        raise DataIntegrityError(f"{path}: unknown task {', '.join(unknown)}; expected {', '.join(TASK_NAMES)}.")
    names = [name for name in TASK_NAMES if name in entries]
    return description["name"], tuple(_make_task(name, entries[name], path) for name in names), entries


def _make_task(name: str, entry: Mapping[str, Any], path: Path) -> Task:
    where = f"{path}: tasks.{name}"
    _check_fields(entry, task_class(name).file_options, where)
    count, names = entry.get("num_classes"), entry.get("class_names")
    if names is not None and not all(isinstance(text, str) for text in names):
        raise DataIntegrityError(f"{where}.class_names: {names}; expected a list of strings.")
    if names is not None and count is not None and len(names) != count:
        raise DataIntegrityError(f"{where}: num_classes is {count}, class_names has {len(names)}. Correct one.")
    try:
        task = make_task(name, names if names is not None else [f"class_{k}" for k in range(count or 0)])
    except KdamError as error:
        raise DataIntegrityError(f"{where}: {error} State num_classes or class_names.") from error
    return task


def _check_fields(entry: Any, fields: Mapping[str, type], where: str) -> None:
    """Only known fields, each of its type."""
    if not isinstance(entry, dict):
        raise DataIntegrityError(f"{where}: {json.dumps(entry)[:80]}; expected an object {{...}}.")
    for field, value in entry.items():
        if field not in fields:
            raise DataIntegrityError(f"{where}: unknown field {field!r}; expected some of {', '.join(fields)}.")
        if type(value) is not fields[field]:
            raise DataIntegrityError(f"{where}.{field}: {json.dumps(value)[:80]}; expected {fields[field].__name__}.")


def _read_split(path: Path) -> tuple[str, ...]:
    lines = (line.strip() for line in _read_text(path, "it lists the ids of the split, one a line").splitlines())
    ids = tuple(line for line in lines if line)
    if not ids:
        raise DataIntegrityError(f"{path}: no ids; expected one a line, e.g. 0001 for images/0001.jpg.")
    try:
        seen = set()
        for sample_id in ids:
            if check_id(sample_id) in seen:
                raise DataIntegrityError(f"id {sample_id!r} occurs twice; remove one.")
            seen.add(sample_id)
    except DataIntegrityError as error:
        raise DataIntegrityError(f"{path}: {error}") from error
    return ids


def _index_images(folder: Path, ids: Sequence[str]) -> dict[str, Path]:
    paths = _index(folder, ids, IMAGE_SUFFIXES, "the photos of the dataset")
    missing = [sample_id for sample_id in ids if sample_id not in paths]
    if missing:
        raise DataIntegrityError(
            f"{folder}: no image for {len(missing)} of {len(ids)} ids, first {missing[0]!r}; "
            f"expected {missing[0]}{{{','.join(IMAGE_SUFFIXES)}}}. Add it, or remove the id from the split."
        )
    return paths


def _index_labels(folder: Path, ids: Sequence[str], split: str) -> dict[str, Path]:
    paths = _index(folder, ids, LABEL_SUFFIXES, "the labels of a task named in dataset.json")
    if not paths:
        raise DataIntegrityError(
            f"{folder}: no label for any of the {len(ids)} ids of {split}.txt; expected e.g. {ids[0]}.png. "
            "Add them, or leave the task out."
        )
    return paths


def _index(folder: Path, ids: Iterable[str], suffixes: tuple[str, ...], holds: str) -> dict[str, Path]:
    """Path by id for the wanted ids, from one listing of the folder."""
    wanted = set(ids)
    paths: dict[str, Path] = {}
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise DataIntegrityError(f"{folder}: cannot be listed ({error.strerror}); expected {holds}.") from error
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() not in suffixes or stem not in wanted:
            continue
        if stem in paths:
            raise DataIntegrityError(f"{folder}: both {paths[stem].name} and {name}; expected one file per id.")
        paths[stem] = folder / name
    return paths


def _read_text(path: Path, holds: str) -> str:
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError as error:
        present = ", ".join(sorted(p.name for p in path.parent.glob(f"*{path.suffix}"))) or "none"
        raise DataIntegrityError(f"{path}: no such file; {holds}. {path.suffix} files there: {present}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataIntegrityError(f"{path}: not readable as UTF-8 text ({error}).") from error
