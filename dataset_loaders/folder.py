"""Your own data: `images/`, one folder per task, `train.txt`, `val.txt` and `dataset.json`.

A label file that is missing for an image is a partial label; a task without any label in the split is an error.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dataset_loaders.files import FileDataset, Folder, LabelFiles, list_folder
from dataset_loaders.reading import LABEL_SUFFIXES, PHOTO_SUFFIXES, check_id, read_ids, read_text
from dataset_loaders.registry import register
from kdam_hf.errors import DataIntegrityError, KdamError, KdamValueError
from kdam_hf.tasks import TASK_NAMES, Task, make_task, select_tasks, task_class, with_options

DESCRIPTION = "dataset.json"


@register("folder")
class FolderDataset(FileDataset):
    """One split of a dataset in the layout of the README.

    Args:
        data_dir: folder that holds `dataset.json`.
        split: name of the list of ids, e.g. `train` for `train.txt`.
        tasks: names of the tasks to read; all of `dataset.json` for None.
        strict: refuse a split that names an image that is not there.

    Raises:
        KdamValueError: `data_dir` is no folder, or an unknown task is asked for.
        DataIntegrityError: a file is missing or does not hold what it should; names the file or field.
    """

    def __init__(
        self, data_dir: str | Path, split: str, tasks: Sequence[str] | None = None, strict: bool = True
    ) -> None:
        root = Path(data_dir)
        if not root.is_dir():
            raise KdamValueError(
                f"data_dir {str(data_dir)!r}: no such folder; expected one that holds {DESCRIPTION}, or --dataset hub."
            )
        text = read_text(root / DESCRIPTION, "it names the dataset and its tasks")
        name, all_tasks, options = _parse(text, root / DESCRIPTION)
        ids = read_ids(root / f"{check_id(split)}.txt")
        images = list_folder(root / "images", PHOTO_SUFFIXES, "the photos of the dataset")
        labels = {
            task: LabelFiles(_labels(root / task.name, ids, split), options=options[task.name])
            for task in select_tasks(all_tasks, tasks)
        }
        labelled = ((task, len(files.folder.files.keys() & set(ids))) for task, files in labels.items())
        coverage = [f"{task.name}: {count} of {len(ids)} images labelled" for task, count in labelled]
        facts: dict[str, Any] = {"name": name, "split": split, "ids": ids, "strict": strict, "partial": True}
        facts["origin"] = "\n  ".join([f"own data in {root.resolve()}", *coverage])
        super().__init__(images=images, labels=labels, settings=text, **facts)


def _labels(folder: Path, ids: Sequence[str], split: str) -> Folder:
    found = list_folder(folder, LABEL_SUFFIXES, f"the labels of a task named in {DESCRIPTION}")
    # labels stored with loss are listed too, so that reading them is refused, unless there is another file beside
    lossy = list_folder(folder, tuple(set(PHOTO_SUFFIXES) - set(LABEL_SUFFIXES)), "labels")
    found = Folder(folder, found.suffixes, {**lossy.files, **found.files})
    if found.files.keys().isdisjoint(ids):
        raise DataIntegrityError(
            f"{folder}: no label for any of the {len(ids)} ids of {split}.txt; expected e.g. {ids[0]}.png. "
            "Add them, or leave the task out."
        )
    return found


def _parse(text: str, path: Path) -> tuple[str, list[Task], dict[str, Mapping[str, Any]]]:
    """Name, tasks in canonical order, and the options of each task."""
    try:
        description = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataIntegrityError(f"{path}: not valid JSON ({error}); correct it there.") from error
    fields = {"name": str, "tasks": dict}
    _check_fields(description, fields, str(path))
    missing = [field for field in fields if not description.get(field)]
    if missing:
        raise DataIntegrityError(f"{path}: {' and '.join(missing)} missing or empty; expected a name and some tasks.")
    entries = description["tasks"]
    unknown = [name for name in entries if name not in TASK_NAMES]
    if unknown:
        raise DataIntegrityError(f"{path}: unknown task {', '.join(unknown)}; expected {', '.join(TASK_NAMES)}.")
    tasks = [_make_task(name, entries[name], f"{path}: tasks.{name}") for name in TASK_NAMES if name in entries]
    return description["name"], tasks, entries


def _make_task(name: str, entry: Mapping[str, Any], where: str) -> Task:
    _check_fields(entry, task_class(name).label_kind.file_options, where)
    count, names = entry.get("num_classes"), entry.get("class_names")
    if names is not None and not all(isinstance(text, str) for text in names):
        raise DataIntegrityError(f"{where}.class_names: {names}; expected a list of strings.")
    if names is not None and count is not None and len(names) != count:
        raise DataIntegrityError(f"{where}: num_classes is {count}, class_names has {len(names)}. Correct one.")
    hint = " State num_classes or class_names." if names is None and count is None else ""
    try:
        task = make_task(name, names if names is not None else [f"class_{k}" for k in range(count or 0)])
        settings = {field.name for field in dataclasses.fields(task)} & entry.keys()
        return with_options([task], [f"{name}.{key}={entry[key]}" for key in settings])[0]
    except KdamError as error:
        raise DataIntegrityError(f"{where}: {error}{hint}") from error


def _check_fields(entry: Any, fields: Mapping[str, type], where: str) -> None:
    """Only known fields, each of its type."""
    if not isinstance(entry, dict):
        raise DataIntegrityError(f"{where}: {json.dumps(entry)[:80]}; expected an object {{...}}.")
    for field, value in entry.items():
        if field not in fields:
            raise DataIntegrityError(f"{where}: unknown field {field!r}; expected some of {', '.join(fields)}.")
        if type(value) is not fields[field] and not (fields[field] is float and type(value) is int):
            raise DataIntegrityError(f"{where}.{field}: {json.dumps(value)[:80]}; expected {fields[field].__name__}.")
