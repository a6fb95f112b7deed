"""Rows of `builders`, from the Hub or from Parquet on disk, as a dense dataset: what others published trains as it is.

Images are decoded here, from the bytes in the row: `datasets` would open any format of any size, and follow a path or URL.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dataset_loaders.sample import MAX_PIXELS, Sample, check_id, reading
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.tasks import TASK_NAMES, Task, make_task, select_tasks, task_class


class HubDataset:
    """One split of a data set with the columns that `builders.features_of` describes.

    Args:
        source: id on the Hub, or a folder that `load_dataset` reads, such as one of Parquet files.
        split: its name; `val` also takes `validation`.
        tasks: names of the tasks to read; all for None.

    Raises:
        KdamValueError: not found, no such split, or an unknown task.
        DataIntegrityError: the columns are not those of a dense dataset.
    """

    def __init__(self, source: str, split: str, tasks: Sequence[str] | None = None) -> None:
        from datasets import Image as ImageColumn  # takes over a second to import
        from datasets import load_dataset

        try:
            splits = load_dataset(str(source))
        except Exception as error:  # of the network, the Hub or Arrow
            raise KdamValueError(
                f"{source}: `load_dataset` cannot read it ({type(error).__name__}: {error}). Give the id of a data set on the "
                "Hub, or a folder of Parquet files."
            ) from error
        found = {"validation": "val"}
        names = {found.get(name, name): name for name in splits}
        if check_id(split) not in names:
            raise KdamValueError(f"{source}: no split {split!r}; expected one of {', '.join(splits)}.")
        self._rows = splits[names[split]]
        self.name, self.split = Path(str(source)).name, split
        self.origin = f"{source}: {len(self._rows)} rows of split {names[split]}"
        self.version = self._rows._fingerprint
        self.tasks = select_tasks(_tasks_of(self._rows.features, source), tasks)
        for name in ("image", *(task.name for task in self.tasks)):
            if not isinstance(self._rows.features[name], ImageColumn):
                raise DataIntegrityError(f"{source}: column {name} is {self._rows.features[name]}; expected images.")
            self._rows = self._rows.cast_column(name, ImageColumn(decode=False))

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Of the rows, in order."""
        return tuple(str(sample_id) for sample_id in self._rows["id"])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        """Row `index`.

        Raises:
            DataIntegrityError: no image, one of another format or too large, or a label out of range; names the row.
        """
        row = self._rows[index]
        where = f"{self.name} {self.split} row {index} ({row['id']})"
        labels = {
            task.name: task.label.from_file(_pixels(_decoded(row[task.name], where)), task.label.own_options, where)
            for task in self.tasks
            if row[task.name] is not None
        }
        return {"id": str(row["id"]), "image": _photo(row["image"], where), "labels": labels}


def _decoded(cell: Mapping[str, Any] | None, where: str) -> Image.Image:
    """The picture in a cell, by its bytes alone."""
    if not cell or not cell["bytes"]:
        raise DataIntegrityError(
            f"{where}: {cell}; expected the bytes of an image in the row. Write it with the builders."
        )
    with reading(Path(where), "PNG or JPEG"), Image.open(BytesIO(cell["bytes"]), formats=("PNG", "JPEG")) as image:
        if image.width * image.height > MAX_PIXELS:
            raise DataIntegrityError(f"{where}: {image.width}x{image.height} pixels; expected at most {MAX_PIXELS}.")
        image.load()
        return image


def _photo(cell: Mapping[str, Any] | None, where: str) -> NDArray[np.uint8]:
    """The photo in a cell, upright: its bytes are those of the camera, its labels lie on the upright grid."""
    image = _decoded(cell, where)
    with reading(Path(where), "PNG or JPEG"):
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def _pixels(image: Image.Image) -> NDArray[Any]:
    array = np.array(image)
    # Pillow shows 16-bit grey as 32-bit integers once it was converted.
    return array.astype(np.uint16) if array.dtype == np.int32 else array


def _tasks_of(features: Mapping[str, Any], source: str) -> list[Task]:
    from dataset_loaders.builders import classes_column

    if "id" not in features or "image" not in features or not set(TASK_NAMES) & set(features):
        raise DataIntegrityError(
            f"{source}: columns {', '.join(features)}; expected id, image and some of {', '.join(TASK_NAMES)}, as the builders "
            "of dataset_loaders write them."
        )
    tasks = []
    for name in TASK_NAMES:
        if name in features:
            column = features.get(classes_column(name))
            named = "class_names" in task_class(name).label_kind.file_options
            tasks.append(make_task(name, column.feature.names if named and column is not None else ()))
    return tasks
