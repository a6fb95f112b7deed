"""Data sets of `datasets` as dense data sets: of the Hub, of Parquet on disk, or in memory, whatever their columns are called.

Images are decoded here, from the bytes in the row: `datasets` would open any format of any size, and follow a path or URL.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dataset_loaders.columns import (
    ID,
    ID2LABEL,
    IMAGE,
    class_names,
    classes_column,
    find_columns,
    innermost,
    read_id2label,
)
from dataset_loaders.reading import composed, picture, read_array, read_image, reading
from dataset_loaders.registry import register
from dataset_loaders.rows import ParquetRows, Rows, find_split, is_in_memory, load_splits, name_of, runs_of, undecoded
from dataset_loaders.sample import DenseDataset, Sample, stored_task
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.io import source_parts
from kdam_hf.tasks import IGNORE_INDEX, TASK_NAMES, LabelKind, Task, make_task, select_tasks, task_class

_COUNTED: dict[tuple[str, ...], int] = {}
"""Classes of a column, by it and the fingerprints of the splits."""


class RowsDataset(DenseDataset):
    """Some rows of a table, each with a photo and labels as files in a cell or as arrays; the caller says what it is.

    Args:
        rows: of the table.
        columns: `image`, the tasks, and `id` if there is one, each with its column.
        tasks: those to read.
        numbers: of the rows that belong to the split; all for None.
        options: what is known of the labels of a task, as in its entry of dataset.json.
    """

    own: frozenset[str] = frozenset()
    """Tasks whose labels `builders` wrote."""
    folder: Path | None = None
    """Where cells may name files: everywhere for data in memory, the folder of a local data set, nowhere for the Hub's."""

    def __init__(
        self,
        rows: Rows,
        columns: Mapping[str, str],
        tasks: Sequence[Task],
        numbers: range | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.tasks, self._columns, self._all, self._options = tuple(tasks), columns, rows, options or {}
        self._features = {name: rows.features[column] for name, column in columns.items()}
        self._rows = undecoded(rows, [*dict.fromkeys(columns[key] for key in (IMAGE, *(task.name for task in tasks)))])
        self._numbers = range(len(rows)) if numbers is None else numbers
        self.runs = runs_of(rows, self._numbers)

    def stamp(self, index: int) -> str:  # of all rows
        return str(self._rows._fingerprint)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The column of ids, or the numbers of the rows."""
        if ID not in self._columns:
            return tuple(map(str, self._numbers))
        listed = list(self._all[self._columns[ID]])
        found = [composed(str(listed[number])) for number in self._numbers]
        sample_id, times = Counter(found).most_common(1)[0]
        if times > 1:
            raise DataIntegrityError(
                f"{self.name} {self.split}: column {self._columns[ID]} holds {sample_id!r} {times} times; expected an id of "
                f"its own for each row. Name another column: --columns {ID}=NAME."
            )
        return tuple(found)

    def photo(self, index: int) -> bytes | None:
        cell = self._rows[self._numbers[index]][self._columns[IMAGE]]
        return picture(cell, self._where(index), self.folder) if isinstance(cell, (dict, bytes)) else None

    def __getitem__(self, index: int) -> Sample:
        row, where = self._rows[self._numbers[index]], self._where(index)
        cells = {name: row[self._columns[name]] for name in (IMAGE, *(task.name for task in self.tasks))}
        if (photo := cells.pop(IMAGE)) is None or isinstance(photo, (dict, bytes)):
            image = read_image(picture(photo, where, self.folder), where)
        else:
            image = as_photo(_array(photo, self._features[IMAGE], where), where)
        kinds, labels = {task.name: task.label for task in self.tasks}, {}
        for name, cell in cells.items():
            if cell is not None:
                array = _label(cell, self._features[name], kinds[name], where, self.folder)
                options = kinds[name].own_options if name in self.own else self._options.get(name, {})
                labels[name] = kinds[name].from_file(array, options, where)
        return {"id": self.ids[index], "image": image, "labels": labels}

    def _where(self, index: int) -> str:
        named = f" ({self.ids[index]})" if ID in self._columns else ""
        return f"{self.name} {self.split} row {self._numbers[index]}{named}"


def _array(cell: Any, feature: Any, where: str, folder: Path | None = None) -> NDArray[Any]:
    """The numbers of a cell, (H, W) or (H, W, C)."""
    if isinstance(cell, (dict, bytes)):
        return read_array(picture(cell, where, folder), where)
    with reading(where, f"array of {feature}"):
        array = np.asarray(cell, innermost(feature).dtype)
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
        array = array.transpose(1, 2, 0)
    return array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array


def _label(cell: Any, feature: Any, kind: LabelKind, where: str, folder: Path | None = None) -> NDArray[Any]:
    """As `_array`; -1 in an array of class ids is an ignored pixel."""
    array = _array(cell, feature, where, folder)
    signed = array.dtype.kind == "i" and kind.invalid == IGNORE_INDEX
    return np.where(array == -1, np.int64(IGNORE_INDEX), array) if signed else array


def as_photo(array: NDArray[Any], where: str) -> NDArray[np.uint8]:
    """An array (H, W, 3), uint8 or floats in [0, 1], as uint8; what was an 8-bit photo before comes back unchanged.

    Raises:
        DataIntegrityError: another shape or type, or values outside [0, 1].
    """
    floats = array.dtype.kind == "f"
    if array.ndim != 3 or array.shape[2] != 3 or not (floats or array.dtype == np.uint8):
        raise DataIntegrityError(f"{where}: photo is {array.dtype} {array.shape}; expected uint8 or floats (H, W, 3).")
    if floats and not (array.min() >= 0 and array.max() <= 1):  # nan is not
        raise DataIntegrityError(f"{where}: photo holds {array.min():.4g} to {array.max():.4g}; expected 0 to 1.")
    return np.rint(array * (255 if floats else 1)).astype(np.uint8, order="C")


@register("hub")
class HubDataset(RowsDataset):
    """One split of a data set of the Hub, or of a folder that `load_dataset` reads.

    Args:
        data_dir: its id or folder, with a configuration after a colon where there are several: `org/scenes:indoor`.
        split: its name, or a share of it such as `train[:90%]`; `val` also takes `validation`.
        tasks: names of the tasks to read; all for None.
        columns: `NAME=COLUMN` for `image`, a task, or `id`; others are recognised by their names (`columns.SYNONYMS`).
        streaming: read Parquet where it lies, and store nothing.

    Raises:
        KdamValueError: not found, no such split or column, or an unknown task.
        DataIntegrityError: a broken `id2label.json`, or a label that cannot be read while its classes are counted.
    """

    def __init__(
        self,
        data_dir: str | Path,
        split: str,
        tasks: Sequence[str] | None = None,
        columns: Sequence[str] = (),
        streaming: bool = False,
    ) -> None:
        source, known = str(data_dir), list[Task]()
        splits = load_splits(source, streaming)
        place, _ = source_parts(source)
        folder = Path("/") if is_in_memory(source) else Path(place).resolve() if Path(place).is_dir() else None
        rows, numbers = find_split(splits, split, source)
        found = find_columns(rows.features, columns, source, tasks)
        written = {ID, IMAGE, *TASK_NAMES, *map(classes_column, TASK_NAMES)}
        if ID in rows.features and set(rows.features) <= written:  # as `builders` write it
            stated = {text.partition("=")[0] for text in columns}
            self.own = frozenset(name for name in TASK_NAMES if found.get(name) == name and name not in stated)
            found = ({ID: ID} if self.own else {}) | found
        notes: list[str] = []
        present = [name for name in TASK_NAMES if name in found]
        named = [name for name in present if "class_names" in task_class(name).label_kind.file_options]
        for name in present:
            kind = task_class(name).label_kind
            names: Sequence[str] = ("", "")  # of a task that is not asked for
            if name in named and (tasks is None or name in tasks):
                names = class_names(rows.features, name, found[name])
                if named == [name]:  # else the file is that of the task without classes of its own
                    names = names or read_id2label(place)
                with suppress(KdamValueError):  # of a task that has no classes unless they are given
                    names = names or make_task(name).class_names
                if not (names := names or read_id2label(place)):
                    names = [
                        f"class_{k}" for k in range(_count_classes(splits, found[name], kind(name), source, folder))
                    ]
                    notes.append(f"{name}: {len(names)} classes, counted in the labels; no ClassLabel, no {ID2LABEL}")
            known.append(stored_task(name, names))
        super().__init__(rows, found, select_tasks(known, tasks), numbers)
        self.folder = folder
        self.name, self.split, self.notes = name_of(Path(source)), split, notes
        read = "".join(f"; {name} from {column}" for name, column in found.items() if name != column)
        self.origin = f"{source}: {len(numbers)} rows of split {split}{', streamed' if streaming else ''}{read}"


def _count_classes(splits: Mapping[str, Rows], column: str, kind: LabelKind, source: str, folder: Path | None) -> int:
    """One more than the highest id in the labels of all splits, each of which is read once."""
    if any(isinstance(rows, ParquetRows) for rows in splits.values()):
        raise KdamValueError(
            f"{source}: the classes of {kind.name} have no names, and a stream is not read to its end to count them. Put "
            f"{ID2LABEL} beside the data, or leave streaming out."
        )
    key = (column, *(rows._fingerprint for rows in splits.values()))
    if key not in _COUNTED:
        highest = 0
        for split, rows in splits.items():
            cells = undecoded(rows, [column])
            for number in tqdm(range(len(rows)), f"counting the classes of {split}", unit="label", disable=None):
                if (cell := cells[number][column]) is not None:
                    where = f"{source} {split} row {number}"
                    ids = _label(cell, rows.features[column], kind, where, folder)
                    highest = max(highest, int(ids[ids != IGNORE_INDEX].max(initial=0)))
        _COUNTED[key] = highest + 1
    return _COUNTED[key]
