"""The data sets as `datasets` builders: Arrow, streaming, several processes, Parquet, and the Hub.

    from dataset_loaders.builders import NyudV2
    builder = NyudV2(data_dir="NYUDv2")
    builder.download_and_prepare(num_proc=4)
    builder.as_dataset().push_to_hub("org/nyud-v2-mt")      # others: load_dataset("org/nyud-v2-mt")

Builder classes used directly are what loading scripts were before `datasets` 4 stopped running scripts. One row is one
image; label maps are PNGs without loss, but for depth (16 bits, millimetres: 0.5 mm) and normals (8 bits,
n = 2 v / 255 - 1: 0.4 degrees). A task that is unlabelled for an image is None.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import datasets
from numpy.typing import NDArray
from PIL import Image

from dataset_loaders.registry import open_dataset
from dataset_loaders.sample import DenseDataset
from kdam_hf.errors import KdamValueError
from kdam_hf.io import lines_sha256
from kdam_hf.tasks import Task

SPLITS = ("train", "val")


@dataclass
class DenseBuilderConfig(datasets.BuilderConfig):
    """What a builder reads.

    Args:
        tasks: names of the tasks; all of the data set for None.
        options: of `open_dataset`, e.g. `{"layout": "atrc"}`.
    """

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
        # A cache made from other files is another cache.
        splits = [open_dataset(self.DATASET, split, where, names, **(options or {})) for split in SPLITS]
        kwargs.setdefault("hash", lines_sha256(text for dataset in splits for text in _identity(dataset))[:16])
        kwargs.setdefault("dataset_name", self.DATASET)
        super().__init__(data_dir=where, tasks=names, options=options or {}, **kwargs)

    def _open(self, split: str) -> DenseDataset:
        config: Any = self.config
        return open_dataset(self.DATASET, split, config.data_dir, config.tasks, **config.options)

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=features_of(self._open(SPLITS[0]).tasks))

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        return [
            datasets.SplitGenerator(
                name=split, gen_kwargs={"split": split, "indices": list(range(len(self._open(split))))}
            )
            for split in SPLITS
        ]

    def _generate_examples(self, split: str, indices: list[int]) -> Iterator[tuple[str, dict[str, Any]]]:
        dataset = self._open(split)
        for index in indices:
            yield str(index), row_of(dataset, index)


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
    """`id`, `image`, and per task a PNG; a task with classes also has `<task>_classes`, those in view, as class labels."""
    features: dict[str, Any] = {"id": datasets.Value("string"), "image": datasets.Image()}
    for task in tasks:
        features[task.name] = datasets.Image()
        if task.class_names:
            features[classes_column(task.name)] = datasets.List(datasets.ClassLabel(names=list(task.class_names)))
    return datasets.Features(features)


def classes_column(name: str) -> str:
    """The column that lists the classes in view for the task called `name`."""
    return f"{name}_classes"


def row_of(dataset: DenseDataset, index: int) -> dict[str, Any]:
    """One sample as a row; a photo that is a file keeps its bytes.

    Raises:
        DataIntegrityError: a file is not usable, or a depth is above 65.535 m.
    """
    sample = dataset[index]
    photo = dataset.photo(index)
    if photo is not None and photo.suffix.lower() in (".jpg", ".jpeg", ".png"):
        image = photo.read_bytes()
    else:
        image = _png(sample["image"])
    row: dict[str, Any] = {"id": sample["id"], "image": {"bytes": image, "path": None}}
    for task in dataset.tasks:
        label, where = sample["labels"].get(task.name), f"sample {sample['id']!r}: {task.name}"
        row[task.name] = None if label is None else {"bytes": _png(task.label.to_file(label, where)), "path": None}
        if task.class_names:
            counts = () if label is None else task.label.statistics(label).counts
            row[classes_column(task.name)] = [k for k, count in enumerate(counts) if count]
    return row


def _identity(dataset: DenseDataset) -> list[str]:
    """What changes with the dataset and with an edit of any of its files."""
    return [str(dataset.version), *(dataset.stamp(index) for index in range(len(dataset)))]


def _png(pixels: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
