"""The data sets as `datasets` builders: Arrow, streaming, several processes, Parquet, and the Hub.

    from dataset_loaders.builders import NyudV2
    builder = NyudV2(data_dir="NYUDv2")
    builder.download_and_prepare(num_proc=4)
    builder.as_dataset().push_to_hub("org/nyud-v2-mt")      # others: load_dataset("org/nyud-v2-mt")

One row is one image; a label is the PNG that its kind's `to_file` gives, or the bytes of its stored form where it is no
picture. A task that is unlabelled for an image is None.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataset_loaders.reading import PHOTO_SUFFIXES
from dataset_loaders.registry import open_dataset
from dataset_loaders.sample import DenseDataset
from kdam_hf.errors import KdamValueError
from kdam_hf.io import lines_sha256
from kdam_hf.tasks import Task

SPLITS = ("train", "val")


@dataclass
class DenseBuilderConfig(datasets.BuilderConfig):
    """What a builder reads: names of the tasks, all for None, and options of `open_dataset`, e.g. `{"layout": "atrc"}`."""

    tasks: list[str] | None = None
    options: dict[str, Any] = field(default_factory=dict)


class DenseBuilder(datasets.GeneratorBasedBuilder):
    """Base of the builders; a subclass says which dataset it opens.

    Args:
        data_dir: root of the data set on disk.
        tasks: names of the tasks; all for None.
        options: of `dataset_loaders.open_dataset`.
        kwargs: of `datasets.DatasetBuilder`, e.g. `cache_dir`.

    Raises:
        KdamValueError: no data_dir.
        DataIntegrityError: the files on disk are not usable.
    """

    BUILDER_CONFIG_CLASS = DenseBuilderConfig
    VERSION = datasets.Version("1.0.0")
    DATASET: ClassVar[str]

    def __init__(
        self,
        data_dir: str | Path | None = None,
        tasks: Sequence[str] | None = None,
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if data_dir is None:
            raise KdamValueError(f"{type(self).__name__} needs data_dir: the root of the data set on disk.")
        where, names = str(Path(data_dir).resolve()), None if tasks is None else list(tasks)
        opened = [open_dataset(self.DATASET, split, where, names, **(options or {})) for split in SPLITS]
        # a cache made from other files is another cache
        facts = (text for data in opened for text in (str(data.version), *map(data.stamp, range(len(data)))))
        kwargs = {"hash": lines_sha256(facts)[:16], "dataset_name": self.DATASET, **kwargs}
        super().__init__(data_dir=where, tasks=names, options=options or {}, **kwargs)

    def _open(self, split: str) -> DenseDataset:
        config: Any = self.config
        return open_dataset(self.DATASET, split, config.data_dir, config.tasks, **config.options)

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=features_of(self._open(SPLITS[0]).tasks))

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        shares = {split: {"split": split, "indices": list(range(len(self._open(split))))} for split in SPLITS}
        return [datasets.SplitGenerator(name=split, gen_kwargs=share) for split, share in shares.items()]

    def _generate_examples(self, split: str, indices: list[int]) -> Iterator[tuple[str, dict[str, Any]]]:
        dataset = self._open(split)
        yield from ((str(index), row_of(dataset, index)) for index in indices)


class NyudV2(DenseBuilder):
    """NYUD-v2 in any of its layouts."""

    DATASET = "nyud_v2"


class PascalContext(DenseBuilder):
    """PASCAL-Context."""

    DATASET = "pascal_context"


class OwnData(DenseBuilder):
    """A folder with dataset.json."""

    DATASET = "folder"


def features_of(tasks: Sequence[Task]) -> datasets.Features:
    """`id`, `image`, and a column per task; a task with classes also has `<task>_classes`, those in view, as class labels."""
    features: dict[str, Any] = {"id": datasets.Value("string"), "image": datasets.Image()}
    for task in tasks:
        features[task.name] = datasets.Image() if _is_picture(task) else datasets.Value("binary")
        if task.class_names:
            features[classes_column(task.name)] = datasets.List(datasets.ClassLabel(names=list(task.class_names)))
    return datasets.Features(features)


def classes_column(name: str) -> str:
    """The column that lists the classes in view for the task called `name`."""
    return f"{name}_classes"


def row_of(dataset: DenseDataset, index: int) -> dict[str, Any]:
    """One sample as a row; a photo that is a file keeps its bytes.

    Raises:
        DataIntegrityError: a file is not usable, or holds a value that the row cannot.
    """
    sample, photo = dataset[index], dataset.photo(index)
    is_picture = photo is not None and photo.suffix.lower() in PHOTO_SUFFIXES
    row: dict[str, Any] = {"id": sample["id"]}
    row["image"] = {"bytes": photo.read_bytes(), "path": None} if photo and is_picture else _png(sample["image"])
    for task in dataset.tasks:
        kind, label, where = task.label, sample["labels"].get(task.name), f"sample {sample['id']!r}: {task.name}"
        if label is None:
            row[task.name] = None
        elif _is_picture(task):
            row[task.name] = _png(kind.to_file(label, where))
        else:
            row[task.name] = kind.encode(label, where).tobytes()
        if task.class_names:
            counts = () if label is None else kind.statistics(label).counts
            row[classes_column(task.name)] = [k for k, count in enumerate(counts) if count]
    return row


def _is_picture(task: Task) -> bool:
    """Whether the label files of a task are PNGs."""
    return task.label.to_file(task.label.unlabelled(1, 1), task.name).dtype.kind == "u"


def _png(pixels: NDArray[np.generic]) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}
