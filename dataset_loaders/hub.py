"""Rows of `builders`, from the Hub or from Parquet on disk, as a dense dataset: what others published trains as it is.

Images are decoded here, from the bytes in the row: `datasets` would open any format of any size, and follow a path or URL.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dataset_loaders.reading import check_id, composed, picture, read_array, read_image, read_photo_header, reading
from dataset_loaders.registry import register
from dataset_loaders.sample import DenseDataset, Sample, stored_task
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.photos_kdam import PhotoHeader
from kdam_hf.tasks import TASK_NAMES, Task, select_tasks


@register("hub")
class HubDataset(DenseDataset):
    """One split of a data set with the columns that `builders.features_of` describes; `val` also takes `validation`.

    Args:
        data_dir: id on the Hub, or a folder that `load_dataset` reads, such as one of Parquet files.
        split: its name.
        tasks: names of the tasks to read; all for None.

    Raises:
        KdamValueError: not found, no such split, or an unknown task.
        DataIntegrityError: the columns are not those of a dense dataset.
    """

    def __init__(self, data_dir: str | Path, split: str, tasks: Sequence[str] | None = None) -> None:
        from datasets import Image, Value, load_dataset  # takes over a second to import

        source = str(data_dir)
        try:
            splits = load_dataset(source)
        except Exception as error:  # of the network, the Hub or Arrow
            raise KdamValueError(
                f"{source}: `load_dataset` cannot read it ({type(error).__name__}: {error}). Give the id of a data set on the "
                "Hub, or a folder of Parquet files."
            ) from error
        names = {{"validation": "val"}.get(name, name): name for name in splits}
        if check_id(split) not in names:
            raise KdamValueError(f"{source}: no split {split!r}; expected one of {', '.join(splits)}.")
        self._rows = splits[names[split]]
        self.name, self.split = Path(source).name, split
        self.origin = f"{source}: {len(self._rows)} rows of split {names[split]}"
        self.tasks = select_tasks(_tasks_of(self._rows.features, source), tasks)
        for name in ("image", *(task.name for task in self.tasks)):
            column = self._rows.features[name]
            if isinstance(column, Image):
                self._rows = self._rows.cast_column(name, Image(decode=False))
            elif column != Value("binary") or name == "image":
                raise DataIntegrityError(f"{source}: column {name} is {column}; expected images, or bytes of labels.")

    @property
    def version(self) -> str:
        """Of the rows."""
        return str(self._rows._fingerprint)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Of the rows, in order."""
        return tuple(composed(str(sample_id)) for sample_id in self._rows["id"])

    def photo_header(self, index: int) -> PhotoHeader:
        """Of the photo in the row."""
        where = f"{self.name} {self.split} row {index}"
        return read_photo_header(picture(self._rows[index]["image"], where), where)

    def __getitem__(self, index: int) -> Sample:
        row = self._rows[index]
        where = f"{self.name} {self.split} row {index} ({row['id']})"
        image = read_image(picture(row["image"], where), where)
        labels = {}
        for task in self.tasks:
            cell, kind = row[task.name], task.label
            if isinstance(cell, bytes):
                with reading(where, f"{task.name} label of {image.shape[:2]} pixels"):
                    shape = (*image.shape[:2], *kind.shape_suffix)
                    labels[task.name] = kind.decode(np.frombuffer(cell, kind.stored_dtype).reshape(shape))
            elif cell is not None:
                labels[task.name] = kind.from_file(read_array(picture(cell, where), where), kind.own_options, where)
        return {"id": self.ids[index], "image": image, "labels": labels}


def _tasks_of(features: Mapping[str, Any], source: str) -> list[Task]:
    from dataset_loaders.builders import classes_column

    if "id" not in features or "image" not in features or not set(TASK_NAMES) & set(features):
        raise DataIntegrityError(
            f"{source}: columns {', '.join(features)}; expected id, image and some of {', '.join(TASK_NAMES)}, as the builders "
            "of dataset_loaders write them."
        )
    tasks = []
    for name in (name for name in TASK_NAMES if name in features):
        column = features.get(classes_column(name))
        try:
            tasks.append(stored_task(name, () if column is None else column.feature.names))
        except (AttributeError, KdamValueError) as error:
            raise DataIntegrityError(
                f"{source}: column {classes_column(name)} is {column or 'not there'}; expected List(ClassLabel(names=[...])), "
                f"which names the classes of {name} ({error})."
            ) from error
    return tasks
